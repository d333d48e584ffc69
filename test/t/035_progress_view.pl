# The view yelp_sync_progress: the syncs that run now, for other sessions to see.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(conf => "shared_buffers = 16MB\nrestart_after_crash = on\n");
my $observer = YelpSession->new($node);

if ($observer->value('SHOW server_version_num') < 170000)
{
	my $session = YelpSession->new($node);
	$api->faults({ action => { hold => \1 } });
	$session->begin_sync('acme');
	$api->poll_counter('held', 1);
	is($observer->value('SELECT count(*) FROM yelp_sync_progress'), 0, 'before PostgreSQL 17: empty');
	$api->faults;
	$api->release;
	is($session->sync_result->{error}, undef, 'and the sync is not concerned');
	$_->end foreach $observer, $session;
	done_testing();
	exit;
}

my $columns = 'username, phase, reading, pages_done, pages_total, programs, retries, in_flight';

# What an observer sees of a session's sync, as text
sub row
{
	my ($session, $observer) = @_;
	return $observer->value("SELECT ROW($columns) FROM yelp_sync_progress WHERE pid = " . $session->pid);
}

sub wait_for_row
{
	my ($session, $row, $name) = @_;
	my $seen;
	eval {
		YelpTest::poll_until(sub { ($seen = row($session, $observer)) eq $row }, $name);
	};
	is($seen, $row, $name);
	return;
}

sub count
{
	return $observer->value('SELECT count(*) FROM yelp_sync_progress');
}

sub wait_until_empty
{
	my ($name) = @_;
	ok(eval { YelpTest::poll_until(sub { count() == 0 }, 'an empty view') }, $name);
	return;
}

note 'step by step';

is(count(), 0, 'before the first sync: nothing');
my $session = YelpSession->new($node);
$api->config(accounts => { acme => { count => 100 } });
is($session->sync('acme')->{error}, undef, 'a sync');
is(count(), 0, 'after a sync: nothing');

# Pages that are known from last time, let go one by one
$api->faults({ action => { hold => \1 } });
my $begun = $observer->value('SELECT now()');
$session->begin_sync('acme');
$api->poll_counter('held', 6);
wait_for_row($session, '(acme,fetching,1,0,,0,0,6)', 'all requests are in flight, no page has arrived');
$api->release(2);
wait_for_row($session, '(acme,fetching,1,2,5,40,0,4)', 'two pages have arrived');
is( $observer->value("SELECT started_at BETWEEN '$begun' AND now() FROM yelp_sync_progress"),
	't', 'when it began');
is( $observer->value('SELECT backend_type FROM pg_stat_activity JOIN yelp_sync_progress USING (pid)'),
	'client backend',
	'its pid is that of pg_stat_activity');
is( $observer->value('SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid),
	'Extension|YelpSyncApi', 'which shows what it waits for');
$api->faults;
$api->release;
is($session->sync_result->{error}, undef, 'it ends');
is(count(), 0, 'then it is no longer shown');

# With the progress messages off, and retries
my $quiet = YelpSession->new($node, 'yelp_sync.progress' => 'off');
$quiet->options(retry_delay => '1ms');
$api->faults(
	{ match => { offset => 40 }, times => 1, action => { respond => { status => 500 } } },
	{ match => { offset => 40 }, action => { hold => \1 } });
$quiet->begin_sync('acme');
$api->poll_counter('held', 1);
YelpTest::poll_until(sub { row($quiet, $observer) =~ /,1,1\)$/ }, 'a retry to be shown');
like(row($quiet, $observer), qr/^\(acme,fetching,1,\d,5,80,1,1\)$/, 'a retry, with messages off');
$api->faults;
$api->release;
is($quiet->sync_result->{error}, undef, 'it ends');

# Something is gone: the listing is read again
$api->mutate(remove => 1);
$api->faults({ match => { nth => 2, offset => 20 }, action => { hold => \1 } });
$session->begin_sync('acme');
$api->poll_counter('held', 1);
YelpTest::poll_until(sub { row($session, $observer) =~ /^\(acme,fetching,2,/ }, 'a second reading');
pass('the second reading is shown as such');
$api->faults;
$api->release;
is($session->sync_result->{error}, undef, 'it ends');

# A merge that waits for a lock
my $holder = YelpSession->new($node);
$holder->value('BEGIN; LOCK yelp_programs IN SHARE MODE');
$api->mutate(add => 1);
$session->begin_sync('acme');
wait_for_row($session, '(acme,merging,1,5,5,100,0,0)', 'the merge');
$holder->value('ROLLBACK');
is($session->sync_result->{error}, undef, 'it ends');

note 'several at a time, each until its end';

my @sessions = map { YelpSession->new($node) } 1 .. 3;
foreach my $n (1 .. 3)
{
	$api->config(accounts => { "account$n" => { count => 20 * $n } });
	$node->safe_psql('postgres',
		YelpTest::create_server("server$n", endpoint => $api->url, username => "account$n"));
}

sub hold_all
{
	$api->faults({ action => { hold => \1 } });
	$sessions[ $_ - 1 ]->begin_sync("account$_") for 1 .. 3;
	YelpTest::poll_until(sub { count() == 3 }, 'three syncs');
	return;
}

hold_all();
is( $observer->value('SELECT string_agg(username, $$ $$ ORDER BY username) FROM yelp_sync_progress'),
	'account1 account2 account3', 'three syncs side by side');
$observer->value('SELECT pg_cancel_backend(' . $sessions[0]->pid . ')');
is($sessions[0]->sync_result->{sqlstate}, '57014', 'one is cancelled');
$observer->value('SELECT pg_terminate_backend(' . $sessions[1]->pid . ')');
$sessions[1]->wait_until_gone;
is( $observer->value('SELECT string_agg(username, $$ $$) FROM yelp_sync_progress'),
	'account3', 'a sync that is cancelled, and one whose session is terminated, are gone');
$api->faults({ action => { respond => { status => 401 } } });
$api->release;
isnt($sessions[2]->sync_result->{error}, undef, 'the third one fails');
is(count(), 0, 'and is gone, too');

# In a transaction that failed and was not yet rolled back
$api->faults({ action => { respond => { status => 401 } } });
$sessions[0]->value('BEGIN');
is($sessions[0]->sync('account1')->{sqlstate}, '28000', 'an error in a transaction');
is(count(), 0, 'it is not shown until ROLLBACK');
$sessions[0]->run('ROLLBACK');
$api->faults;

# yelp_sync_all(), one after the other
$api->faults({ match => { account => 'account2' }, action => { hold => \1 } });
$sessions[0]->begin('CALL yelp_sync_all()');
YelpTest::poll_until(sub { row($sessions[0], $observer) =~ /^\(account2,/ }, 'the second account');
pass('yelp_sync_all(): the account that is synced now');
$api->faults;
$api->release;
is($sessions[0]->result->{error}, undef, 'it ends');
is(count(), 0, 'and is gone');

note 'a sync within a sync';

$node->safe_psql('postgres', q{
	CREATE FUNCTION sync_inner() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN PERFORM yelp_sync('account2'); RETURN NULL; END $$;
	CREATE TRIGGER inner_sync AFTER INSERT ON yelp_programs FOR EACH ROW
	WHEN (NEW.username = 'account1') EXECUTE FUNCTION sync_inner();
	CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
	CREATE TRIGGER waits AFTER INSERT ON yelp_programs FOR EACH ROW
	WHEN (NEW.username = 'account1') EXECUTE FUNCTION wait_for_lock()});
$holder->value('SELECT pg_advisory_lock(1)');
$api->mutate(account => 'account1', add => 1);
$api->faults({ match => { account => 'account2', offset => 20 }, action => { hold => \1 } });
$sessions[0]->begin_sync('account1');
YelpTest::poll_until(sub { row($sessions[0], $observer) =~ /^\(account2,fetching,/ }, 'the inner sync');
pass('the inner one is shown while it runs');
$api->faults;
$api->release;
YelpTest::poll_until(sub { row($sessions[0], $observer) =~ /^\(account1,merging,/ }, 'the outer sync');
pass('then the outer one again');
$holder->value('SELECT pg_advisory_unlock(1)');
is($sessions[0]->sync_result->{error}, undef, 'it ends');
is(count(), 0, 'and both are gone');
$node->safe_psql('postgres', 'DROP FUNCTION sync_inner, wait_for_lock CASCADE');

note 'who sees what';

$node->safe_psql('postgres', q{CREATE ROLE regress_plain LOGIN; CREATE ROLE regress_reader LOGIN;
	GRANT pg_read_all_stats TO regress_reader; CREATE ROLE regress_owner LOGIN;
	GRANT USAGE ON FOREIGN SERVER server1 TO regress_owner;
	CREATE USER MAPPING FOR regress_owner SERVER server1 OPTIONS (username 'account1', password 's3cret');
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO regress_owner;
	GRANT SELECT, INSERT ON yelp_sync_runs TO regress_owner});

sub seen_by
{
	my ($role) = @_;
	return YelpTest::must_run($node,
		'SELECT pid IS NULL, username, phase, started_at IS NULL FROM yelp_sync_progress',
		role => $role)->{stdout};
}

my $owner = YelpSession->new($node, 'session_authorization' => 'regress_owner');
$api->faults({ action => { hold => \1 } });
$owner->begin_sync('account1');
YelpTest::poll_until(sub { row($owner, $observer) =~ /fetching/ }, 'a sync of a role');
is(seen_by('regress_plain'), "f|||t\n", 'others see that there is one, and nothing of it');
is(seen_by('regress_owner'), "f|account1|fetching|f\n", 'its own role sees it');
is(seen_by('regress_reader'), "f|account1|fetching|f\n", 'as do members of pg_read_all_stats');
$node->safe_psql('postgres', 'CREATE DATABASE another');
YelpTest::must_run($node, 'CREATE EXTENSION yelp_sync', database => 'another');
is( YelpTest::must_run($node, 'SELECT count(*) FROM yelp_sync_progress', database => 'another')->{stdout},
	"0\n", 'another database has syncs of its own');
$api->faults;
$api->release;
is($owner->sync_result->{error}, undef, 'it ends');

note 'a crash';

# All backends are started anew, and nothing of before is left
$_->end for $owner, $holder, $quiet, $session, @sessions[0, 2];
$sessions[0] = YelpSession->new($node);
$api->faults({ action => { hold => \1 } });
$sessions[0]->begin_sync('account1');
YelpTest::poll_until(sub { count() == 1 }, 'a sync');
kill 'KILL', $sessions[0]->pid;
$sessions[0]->result;
$api->faults;
$api->release;
$node->wait_for_log(qr/all server processes terminated; reinitializing/);
$node->poll_query_until('postgres', 'SELECT true') or die "no server after a crash\n";
is($node->safe_psql('postgres', 'SELECT count(*) FROM yelp_sync_progress'), '0', 'after a crash: nothing');
is(YelpTest::sync($node, 'account1')->{error}, undef, 'and syncs go on');

done_testing();
