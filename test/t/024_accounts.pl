# One sync of an account at a time, and different accounts side by side.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my $sessions = 30;
my ($node, $api) = start(conf => 'max_connections = ' . ($sessions + 20) . "\nshared_buffers = 16MB\n");
my $first = YelpSession->new($node);
my $second = YelpSession->new($node);

note 'one at a time';

# Another session may not sync meanwhile
sub is_busy
{
	my ($name) = @_;
	my $pid = $first->pid;
	like(failure($second->sync('acme')),    # should fail
		qr/^55P03: account "acme" is already being synced\nDETAIL:  Process $pid of role "\w+" is syncing it, since 20\d\d-[^.]+\.\d+\+\d\d\.\nHINT:  .*SELECT \* FROM pg_stat_activity WHERE pid = $pid;$/,
		"$name: another session is refused");
	return;
}

sub works
{
	my ($session, $name) = @_;
	my $result = $session->sync('acme');
	is($result->{error}, undef, $name);
	return $result;
}

while_held($first, q{SELECT yelp_sync('acme')}, sub {
	my $requests = $api->counters->{requests};
	is_busy('while a session fetches');
	is($api->counters->{requests}, $requests, '... before any request');
});
works($second, 'after its end, another session syncs');

# The statements before and after a sync in a transaction: after these, the account is free
foreach my $case (
	[ 'BEGIN', 'COMMIT' ], [ 'BEGIN', 'ROLLBACK' ], [ 'BEGIN; SAVEPOINT s', 'ROLLBACK TO s' ], [ 'BEGIN', undef ])
{
	my ($begin, $end) = @$case;
	my $name = "$begin ... " . ($end // 'the end of the session');
	$first->value($begin);
	works($first, "$name: a sync in a transaction");
	is_busy($name);
	defined $end ? $first->value($end) : $first->end;
	works($second, "$name: then another session syncs");
	$first = YelpSession->new($node);
}
$api->faults({ action => { respond => { status => 401 } } });
is($second->sync('acme')->{sqlstate}, '28000', 'a sync that fails');
$api->faults;
works($first, '... then another session syncs');

$first->value('BEGIN');
works($first, 'a sync in a transaction');
$second->value(q{CREATE ROLE other; GRANT USAGE ON FOREIGN SERVER yelp TO other;
	CREATE USER MAPPING FOR other SERVER yelp OPTIONS (username 'acme', password 's3cret'); SET ROLE other});
like($second->sync('acme')->{detail}, qr/^Process \d+ of role "\w+" is syncing it\.$/,
	'a role that may not see since when');
$second->value('RESET ROLE');
$first->value('COMMIT');

# It is no advisory lock: neither are these released, nor do users' own conflict
$second->value(q{CREATE FUNCTION unlock() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_unlock_all(); RETURN NULL; END';
	CREATE TRIGGER unlock AFTER INSERT ON yelp_sync_runs EXECUTE FUNCTION unlock();
	CREATE TRIGGER unlock AFTER UPDATE ON yelp_programs EXECUTE FUNCTION unlock()});
$api->mutate(alter => 3);
$first->value('BEGIN');
works($first, 'pg_advisory_unlock_all() in a trigger');
is_busy('pg_advisory_unlock_all()');
$first->value('COMMIT');
$api->mutate(alter => 3);
is($first->run('CALL yelp_sync_all()')->{error}, undef, 'the same in the procedure');
is($first->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, '... no lock is left');
$second->value('DROP FUNCTION unlock CASCADE; BEGIN; SELECT pg_advisory_xact_lock(n) FROM generate_series(-50, 50) AS n');
works($first, 'advisory locks of users do not conflict');
$second->value('COMMIT');

value('CREATE DATABASE other');
install($node, $api, database => 'other');
$first->value('BEGIN');
works($first, 'a sync in one database');
is(sync('acme', database => 'other')->{error}, undef, '... and one in another');
$first->value('COMMIT');

note 'side by side';

# Each has other programs, and as many as no other has: 15, 29, 43, ...
my %count = map { sprintf('account %02d', $_) => 1 + 14 * $_ } 1 .. $sessions;
my $number = 0;
$api->config(latency_ms => 50, accounts => { map { $_ => { password => "secret of $_", count => $count{$_} } } keys %count });
$first->value(join '', map {
	create_server('server' . ++$number, endpoint => $api->url, username => $_, password => "secret of $_")
} sort keys %count);

foreach my $expected ({ map { $_ => "added $count{$_}" } keys %count }, { map { $_ => 'added 2, deleted 3, updated 4' } keys %count })
{
	my %session = map { $_ => YelpSession->new($node) } sort keys %count;

	# None gets its first page before all have asked for it
	$api->faults({ match => { offset => 0, nth => 1 }, action => { hold => \1 } });
	$session{$_}->begin_sync($_) foreach keys %session;
	$api->poll_counter('held', $sessions);
	$api->release;
	my %result = map { $_ => outcome($session{$_}->sync_result) } keys %session;
	$api->faults;
	$_->end foreach values %session;
	is_deeply(\%result, $expected, "$sessions syncs at once");
	table_is_listing($_) foreach sort keys %count;
	$api->mutate(account => $_, seed => 24, alter => 4, remove => 3, add => 2) foreach keys %count;
}
is(value('SELECT count(DISTINCT username) FROM yelp_programs'), $sessions + 1, 'no other account is stored');

$_->end foreach $first, $second;
done_testing();
