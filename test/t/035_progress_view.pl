# The view yelp_sync_progress: running syncs, as other sessions see them.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my ($node, $api) = start(
	conf => "shared_buffers = 16MB\nrestart_after_crash = on\n",
	accounts => { acme => { count => 95 }, map { ("account$_" => { count => 20 * $_ }) } 1 .. 3 });
my $observer = YelpSession->new($node);
my $session = YelpSession->new($node);

if ($observer->value('SHOW server_version_num') < 170000)
{
	is( while_held($session, q{SELECT yelp_sync('acme')},
			sub { is($observer->value('SELECT count(*) FROM yelp_sync_progress'), 0, 'before PostgreSQL 17: empty') })->{error},
		undef, 'and the sync is not affected');
	done_testing();
	exit;
}

# The row of a session's sync
sub row
{
	my ($session) = @_;
	return $observer->value('SELECT ROW(username, phase, reading, pages_done, pages_total, programs, retries, in_flight)
		FROM yelp_sync_progress WHERE pid = ' . $session->pid);
}

# A test: eventually, the row matches
sub shows
{
	my ($session, $pattern, $name) = @_;
	my $seen = '';
	eval { poll_until(sub { ($seen = row($session)) =~ $pattern }, $name) };
	return like($seen, $pattern, $name);
}

sub usernames
{
	return $observer->value(q{SELECT coalesce(string_agg(username, ' ' ORDER BY username), '') FROM yelp_sync_progress});
}

sub release
{
	$api->faults;
	$api->release;
	return;
}

# Lets a sync end without an error, after which it is no longer shown
sub ends
{
	my ($session, $name) = @_;
	release();
	is($session->result->{error}, undef, "$name: it ends");
	is(usernames(), '', "$name: it is no longer shown");
	return;
}

note 'step by step';

is($session->sync('acme')->{error}, undef, 'a sync');
is(usernames(), '', 'none is running');
$api->faults({ action => { hold => \1 } });
my $begun = $observer->value('SELECT now()');
$session->begin_sync('acme');
$api->poll_counter('held', 6);
shows($session, qr/^\(acme,fetching,1,0,,0,0,6\)$/, 'all requests are in flight, no page has arrived');
$api->release(2);
shows($session, qr/^\(acme,fetching,1,2,5,40,0,4\)$/, 'two pages have arrived');
is( $observer->value("SELECT p.started_at BETWEEN '$begun' AND now(), backend_type, wait_event_type, wait_event
		FROM pg_stat_activity JOIN yelp_sync_progress p USING (pid)"),
	't|client backend|Extension|YelpSyncApi', 'when it began, and what it waits for');
ends($session, 'step by step');

my $quiet = YelpSession->new($node, 'yelp_sync.progress' => 'off');
$quiet->options(retry_delay => '1ms');
$api->faults(
	{ match => { offset => 40 }, times => 1, action => { respond => { status => 500 } } },
	{ match => { offset => 40 }, action => { hold => \1 } });
$quiet->begin_sync('acme');
shows($quiet, qr/^\(acme,fetching,1,\d,5,75,1,1\)$/, 'a retry, with messages off');
ends($quiet, 'a retry');

$api->mutate(remove => 1);
$api->faults({ match => { nth => 2, offset => 20 }, action => { hold => \1 } });
$session->begin_sync('acme');
shows($session, qr/^\(acme,fetching,2,/, 'a second reading');
ends($session, 'a second reading');

my $holder = YelpSession->new($node);
$holder->value('BEGIN; LOCK yelp_programs IN SHARE MODE');
$api->mutate(add => 1);
$session->begin_sync('acme');
shows($session, qr/^\(acme,merging,1,5,5,95,0,0\)$/, 'a merge that waits for a lock');
$holder->value('ROLLBACK');
ends($session, 'a merge');

note 'several at a time, each until its end';

my @sessions = map { YelpSession->new($node) } 1 .. 3;
value(join '', map { create_server("server$_", endpoint => $api->url, username => "account$_") } 1 .. 3);
$api->faults({ action => { hold => \1 } });
$sessions[ $_ - 1 ]->begin_sync("account$_") for 1 .. 3;
poll_until(sub { usernames() eq 'account1 account2 account3' }, 'three syncs');
$observer->value('SELECT pg_cancel_backend(' . $sessions[0]->pid . ')');
is($sessions[0]->result->{sqlstate}, '57014', 'one is cancelled');
$observer->value('SELECT pg_terminate_backend(' . $sessions[1]->pid . ')');
$sessions[1]->wait_until_gone;
is(usernames(), 'account3', 'a sync that is cancelled, and one whose session is terminated, are gone');
$api->faults({ action => { respond => { status => 401 } } });
$api->release;
isnt($sessions[2]->result->{error}, undef, 'the third one fails');
is($sessions[0]->run(q{BEGIN; SELECT yelp_sync('account1')})->{sqlstate}, '28000', 'one fails in a transaction');
is(usernames(), '', 'failed syncs are gone, before ROLLBACK as well');
$sessions[0]->run('ROLLBACK');

$api->faults({ match => { account => 'account2' }, action => { hold => \1 } });
$sessions[0]->begin('CALL yelp_sync_all()');
shows($sessions[0], qr/^\(account2,/, 'yelp_sync_all(): the account that is being synced');
ends($sessions[0], 'yelp_sync_all()');

note 'a sync within a sync';

value(q{
	CREATE FUNCTION sync_inner() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM yelp_sync('account2');
		PERFORM pg_advisory_xact_lock(1);
		RETURN NULL;
	END $$;
	CREATE TRIGGER inner_sync AFTER INSERT ON yelp_programs FOR EACH ROW
	WHEN (NEW.username = 'account1') EXECUTE FUNCTION sync_inner()});
$holder->value('SELECT pg_advisory_lock(1)');
$api->mutate(account => 'account1', add => 1);
$api->faults({ match => { account => 'account2', offset => 20 }, action => { hold => \1 } });
$sessions[0]->begin_sync('account1');
shows($sessions[0], qr/^\(account2,fetching,/, 'the inner sync');
release();
shows($sessions[0], qr/^\(account1,merging,/, 'then the outer one again');
$holder->value('SELECT pg_advisory_unlock(1)');
ends($sessions[0], 'a sync within a sync');
value('DROP FUNCTION sync_inner CASCADE');

note 'who sees what';

value(q{CREATE ROLE regress_plain LOGIN; CREATE ROLE regress_reader LOGIN;
	GRANT pg_read_all_stats TO regress_reader; CREATE ROLE regress_owner LOGIN;
	GRANT USAGE ON FOREIGN SERVER server1 TO regress_owner;
	CREATE USER MAPPING FOR regress_owner SERVER server1 OPTIONS (username 'account1', password 's3cret');
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO regress_owner;
	GRANT SELECT, INSERT ON yelp_sync_runs TO regress_owner});
value('CREATE DATABASE another');
value('CREATE EXTENSION yelp_sync', database => 'another');
my $owner = YelpSession->new($node, session_authorization => 'regress_owner');
$api->faults({ action => { hold => \1 } });
$owner->begin_sync('account1');
shows($owner, qr/fetching/, 'a sync of a role');
foreach my $case (
	[ 'regress_plain', 'f|||t', 'other roles see that there is one, and nothing of it' ],
	[ 'regress_owner', 'f|account1|fetching|f', 'the role itself sees it' ],
	[ 'regress_reader', 'f|account1|fetching|f', 'members of pg_read_all_stats see it' ])
{
	my ($role, $expected, $name) = @$case;
	is(value('SELECT pid IS NULL, username, phase, started_at IS NULL FROM yelp_sync_progress', role => $role),
		$expected, $name);
}
is(value('SELECT count(*) FROM yelp_sync_progress', database => 'another'), 0, 'other databases do not show it');
ends($owner, 'a sync of a role');

note 'a crash';

$_->end for $owner, $holder, $quiet, $session;
$api->faults({ action => { hold => \1 } });
$sessions[0]->begin_sync('account1');
poll_until(sub { usernames() eq 'account1' }, 'a sync');
kill 'KILL', $sessions[0]->pid;
$sessions[0]->result;
release();
$node->wait_for_log(qr/all server processes terminated; reinitializing/);
$node->poll_query_until('postgres', 'SELECT true') or die "no server after a crash\n";
is(value('SELECT count(*) FROM yelp_sync_progress'), 0, 'after a crash: nothing is shown');
is(sync('account1')->{error}, undef, 'and syncs work');

done_testing();
