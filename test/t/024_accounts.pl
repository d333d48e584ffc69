# One sync of an account at a time, and different accounts side by side.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my $sessions = 50;
my $conf = 'max_connections = ' . ($sessions + 20) . "\nshared_buffers = 16MB\n";
my ($node, $api) = YelpTest::start(conf => $conf);
my $first = YelpSession->new($node);
my $second = YelpSession->new($node);

sub busy_is
{
	my ($result, $name) = @_;
	is($result->{sqlstate}, '55P03', "$name: SQLSTATE");
	is($result->{error}, 'account "acme" is already being synced', "$name: message");
	like($result->{detail}, qr/^Process @{[ $first->pid ]} of role "\w+" is syncing it, since 20\d\d-[^.]+\.\d+\+\d\d\.$/, "$name: who, since when");
	like($result->{hint}, qr/SELECT \* FROM pg_stat_activity WHERE pid = @{[ $first->pid ]};$/, "$name: hint");
	return;
}

sub works
{
	my ($session, $name) = @_;
	my $result = $session->sync('acme');
	is($result->{error}, undef, $name);
	return $result;
}

# ---- one at a time ----

$api->faults({ action => { hold => \1 } });
$first->begin_sync('acme');
$api->poll_counter('held', 1);
my $requests = $api->counters->{requests};
busy_is($second->sync('acme'), 'while another session fetches');
is($api->counters->{requests}, $requests, 'and nothing was asked for');
$api->faults;
$api->release;
is(@{ $first->sync_result->{rows} }, 1913, 'the first one is not disturbed');
works($second, 'then it is free');

$first->value('BEGIN');
works($first, 'a sync in a transaction');
busy_is($second->sync('acme'), 'until that is over');
$first->value('COMMIT');
works($second, 'after COMMIT it is free');

$first->value('BEGIN');
works($first, 'a sync in a transaction that is rolled back');
$first->value('ROLLBACK');
works($second, 'after ROLLBACK it is free');

$first->value('BEGIN; SAVEPOINT s');
works($first, 'a sync in a subtransaction');
$first->value('ROLLBACK TO s');
works($second, 'after ROLLBACK TO it is free');
$first->value('COMMIT');

$first->value('BEGIN');
works($first, 'a sync in a transaction whose session ends');
$first->end;
works($second, 'after that it is free');

$api->faults({ action => { respond => { status => 401 } } });
is($second->sync('acme')->{sqlstate}, '28000', 'a sync that fails');
$api->faults;
$first = YelpSession->new($node);
works($first, 'after that it is free');

# A role that may not see since when
$first->value('BEGIN');
works($first, 'a sync in a transaction');
$second->value(q{CREATE ROLE other; GRANT USAGE ON FOREIGN SERVER yelp TO other;
	CREATE USER MAPPING FOR other SERVER yelp OPTIONS (username 'acme', password 's3cret'); SET ROLE other});
like($second->sync('acme')->{detail}, qr/^Process \d+ of role "\w+" is syncing it\.$/, 'another role is told who');
$second->value('RESET ROLE');
$first->value('COMMIT');

# No advisory lock, so nobody releases it
$second->value(q{CREATE FUNCTION unlock() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_unlock_all(); RETURN NULL; END';
	CREATE TRIGGER unlock AFTER INSERT ON yelp_sync_runs EXECUTE FUNCTION unlock();
	CREATE TRIGGER unlock AFTER UPDATE ON yelp_programs EXECUTE FUNCTION unlock()});
$api->mutate(alter => 3);
$first->value('BEGIN');
works($first, 'pg_advisory_unlock_all() in a trigger');
busy_is($second->sync('acme'), 'still');
$first->value('COMMIT');
$api->mutate(alter => 3);
is($first->run('CALL yelp_sync_all()')->{error}, undef, 'the same in the procedure');
is($first->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, 'no lock is left');
$second->value('DROP FUNCTION unlock CASCADE');

# Locks of users' own are others
$second->value('BEGIN; SELECT pg_advisory_xact_lock(n) FROM generate_series(-50, 50) AS n');
works($first, 'advisory locks do not matter');
$second->value('COMMIT');

# The same account in another database is another one
$node->safe_psql('postgres', 'CREATE DATABASE other');
YelpTest::install($node, $api, database => 'other');
$first->value('BEGIN');
works($first, 'a sync in one database');
is(YelpTest::sync($node, 'acme', database => 'other')->{error}, undef, 'and one in another');
$first->value('COMMIT');

# ---- side by side ----

# Each has other programs, and as many as no other has: 15, 29, 43, ...
my %count = map { sprintf('account %02d', $_) => 1 + 14 * $_ } 1 .. $sessions;
$api->config(
	latency_ms => 50,
	accounts => { map { $_ => { password => "secret of $_", count => $count{$_} } } keys %count });
my $number = 0;
$first->value(join '', map {
	YelpTest::create_server('server' . ++$number, endpoint => $api->url, username => $_, password => "secret of $_")
} sort keys %count);

sub test_all_at_once
{
	my ($name) = @_;
	my %session = map { $_ => YelpSession->new($node) } sort keys %count;

	# All are under way at once: none gets its first page before each has asked for it
	$api->faults({ match => { offset => 0, nth => 1 }, action => { hold => \1 } });
	$session{$_}->begin("SELECT count(*) FROM yelp_sync('$_')") foreach keys %session;
	$api->poll_counter('held', $sessions);
	$api->release;
	my %result = map { $_ => $session{$_}->result } keys %session;
	$api->faults;
	$_->end foreach values %session;

	is(join('', map { $_->{error} // '' } values %result), '', "$name: none fails");
	YelpTest::table_is_listing($node, $api, $_, "$name: $_") foreach sort keys %count;
	return %result;
}

my %result = test_all_at_once('first syncs side by side');
is($result{$_}{stdout}, "$count{$_}\n", "$_: all programs are added") foreach sort keys %count;
$api->mutate(account => $_, seed => 24, alter => 4, remove => 3, add => 2) foreach keys %count;
%result = test_all_at_once('repeat syncs side by side');
is($result{$_}{stdout}, "9\n", "$_: what changed") foreach sort keys %count;
is( $node->safe_psql('postgres', 'SELECT count(DISTINCT username) FROM yelp_programs'),
	$sessions + 1, 'no account more than that');

$_->end foreach $first, $second;
$node->stop;
done_testing();
