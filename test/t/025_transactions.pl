# A sync is part of the caller's transaction: it is rolled back with it, for any
# reason, and invisible to others before the commit.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(
	server => { max_deleted => '100%' },
	conf => "shared_buffers = 16MB\nmax_prepared_transactions = 5\nwal_level = replica\n"
	  . "max_wal_senders = 4\nhot_standby = on\n");
my $session = YelpSession->new($node);
my $other = YelpSession->new($node);
my $seed = 0;

$api->config(accounts => { acme => { count => 95 }, second => { count => 45 } });
$session->value(YelpTest::create_server('second', endpoint => $api->url));

# ---- what is stored, as a new transaction sees it ----

sub stored
{
	return $other->value(YelpTest::content_query());
}

sub change
{
	my (%how) = @_;
	return $api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2, %how);
}

sub whole
{
	my ($name) = @_;
	YelpTest::table_is_listing($node, $api, 'acme', "$name: the table is the listing");
	return;
}

# The number of rows that a sync returns
sub rows
{
	my ($account) = @_;
	return $session->value("SELECT count(*) FROM yelp_sync('" . ($account // 'acme') . "')");
}

sub fails
{
	my ($sql, $sqlstate, $name) = @_;
	my $result = $session->run($sql);
	is($result->{sqlstate}, $sqlstate, $name) or diag($result->{stderr});
	return $result;
}

# ---- the end of a transaction ----

my $before = stored();
$session->value('BEGIN');
is(rows(), 95, 'a first sync in a transaction');
is(stored(), $before, 'nobody else sees it');
is($session->value('SELECT count(*) FROM yelp_programs'), 95, 'but the transaction does');
$session->value('ROLLBACK');
is(stored(), $before, 'ROLLBACK: as before');
is(rows(), 95, 'then it is the first one again');
whole('after a sync of its own');

change();
$session->value('BEGIN');
is(rows(), 9, 'two syncs in one transaction: the first');
$api->mutate(seed => ++$seed, add => 5);
is(rows(), 5, 'the second brings what is new since');
is(rows(), 0, 'the third nothing');
$session->value('COMMIT');
whole('two syncs in one transaction');

$session->value('BEGIN');
change();
is(rows() + rows('second'), 54, 'two accounts in one transaction');
$session->value('COMMIT');
whole('two accounts in one transaction');
YelpTest::table_is_listing($node, $api, 'second', 'the second account, too');
change();
is( $session->value(q{SELECT string_agg(n, ' ' ORDER BY n) FROM (
		SELECT a.username || count(s.action) AS n
		FROM yelp_accounts a LEFT JOIN LATERAL yelp_sync(a.username) s ON true
		GROUP BY a.username) AS n}),
	'acme9 second0', 'every account in one statement');
whole('every account in one statement');

# ---- subtransactions ----

change();
$before = stored();
$session->value('BEGIN; SAVEPOINT one');
is(rows(), 9, 'a sync after a savepoint');
$session->value('ROLLBACK TO one');
is(rows(), 9, 'after ROLLBACK TO the same again');
$session->value('RELEASE one; SAVEPOINT two');
is(rows(), 0, 'which is there after RELEASE');
$session->value('ROLLBACK TO two; COMMIT');
isnt(stored(), $before, 'and stays');
whole('savepoints');

$session->value(q{
	CREATE FUNCTION try_sync(account text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RETURN (SELECT count(*)::text FROM yelp_sync(account));
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END $$});
change();
$session->value('BEGIN');
$api->faults({ match => { offset => 40 }, times => 1, action => { respond => { status => 405 } } });
is($session->value(q{SELECT try_sync('acme')}), 'HV000', 'a sync that fails in a subtransaction');
is($session->value(q{SELECT try_sync('acme')}), 9, 'the transaction goes on, and so does the next');
is($session->value(q{SELECT try_sync('nobody')}), '42704', 'one that has no account');
$session->value('COMMIT');
$api->faults;
whole('a sync that fails in a subtransaction');

# A merge that fails undoes itself only
$session->value(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE 'not this one' USING ERRCODE = 'P0099'; END$$;
	CREATE TRIGGER refuse BEFORE DELETE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION refuse()});
change();
$before = stored();
is($session->value(q{SELECT try_sync('acme')}), 'P0099', 'a merge that a trigger refuses');
is(stored(), $before, 'as before');
$session->value('DROP TRIGGER refuse ON yelp_programs');
is(rows(), 9, 'without it the merge is done');
whole('after a merge that failed');

# ---- where nothing may be written ----

$before = stored();
$session->value('BEGIN READ ONLY');
my $requests = $api->counters->{requests};
my $result = fails(q{SELECT yelp_sync('acme')}, '25006', 'in a read-only transaction');
is($result->{error}, 'cannot execute yelp_sync() in a read-only transaction', 'its message');
is($api->counters->{requests}, $requests, 'and nothing is asked for');
$session->value('ROLLBACK');
$session->value('SET default_transaction_read_only = on');
fails(q{SELECT yelp_sync('acme')}, '25006', 'in a read-only session');
$session->value('RESET default_transaction_read_only');
is(stored(), $before, 'as before');

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$result = YelpTest::sync($standby, 'acme');
is($result->{sqlstate}, '25006', 'on a standby');
like($result->{error}, qr/^cannot execute yelp_sync\(\) /, 'its message');
change();
is(rows(), 9, 'a sync on the primary');
$node->wait_for_catchup($standby);
YelpTest::table_is_listing($node, $api, 'acme', 'the primary');
is( $standby->safe_psql('postgres', 'SELECT md5(string_agg(p::text, $$,$$ ORDER BY p)) FROM yelp_programs p'),
	$node->safe_psql('postgres', 'SELECT md5(string_agg(p::text, $$,$$ ORDER BY p)) FROM yelp_programs p'),
	'the standby has it');
$standby->stop;

# ---- ways to call it ----

$session->value('PREPARE sync(text) AS SELECT count(*) FROM yelp_sync($1)');
foreach my $time (1 .. 7)
{
	change();
	is($session->value(q{EXECUTE sync('acme')}), 9, "a prepared statement, time $time");
}
whole('a prepared statement');
$session->value('DEALLOCATE sync');

change();
$session->value(q{BEGIN; DECLARE c SCROLL CURSOR FOR SELECT action FROM yelp_sync('acme') ORDER BY action});
is($session->value('FETCH 2 FROM c'), "added\nadded", 'a cursor');
is($session->value('FETCH LAST FROM c'), 'updated', 'at its end');
is($session->value('FETCH FIRST FROM c'), 'added', 'and back');
$session->value('CLOSE c; COMMIT');
whole('a cursor that was not read to its end');

change();
$session->value(q{BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT action FROM yelp_sync('acme'); COMMIT});
is(() = $session->value('FETCH ALL FROM c') =~ /^\w+$/mg, 9, 'a cursor WITH HOLD');
$session->value('CLOSE c');
whole('a cursor WITH HOLD that outlived its transaction');

change();
is($session->value(q{SELECT count(*) FROM (SELECT * FROM yelp_sync('acme') LIMIT 1) AS s}), 1,
	'LIMIT 1 on the function');
whole('LIMIT 1');
change();
is($session->value(q{SELECT count(*) FROM (SELECT yelp_sync('acme') LIMIT 1) AS s}), 1,
	'LIMIT 1 on its rows as values');
whole('LIMIT 1 on its rows as values');

change();
is( $session->value(q{WITH s AS (SELECT * FROM yelp_sync('acme'))
	SELECT count(*) FROM s a JOIN s b USING (program_id)}), 9, 'in a WITH query, read twice');
whole('in a WITH query');

change();
$session->value(q{CREATE TABLE changes AS SELECT * FROM yelp_sync('acme')});
is($session->value('SELECT count(*) FROM changes'), 9, 'CREATE TABLE AS');
is( $session->value(q{SELECT count(*) FROM changes c JOIN yelp_programs p
	ON p.username = 'acme' AND p.program_id = c.program_id WHERE c.action <> 'deleted'}),
	6, 'its rows join with the table');
whole('CREATE TABLE AS');

# ---- two phases ----

change();
$before = stored();
$session->value('BEGIN');
is(rows(), 9, 'a sync that is prepared to be committed');
$session->value(q{PREPARE TRANSACTION 'sync'});
is(stored(), $before, 'nobody sees it');
my $busy = fails(q{SELECT yelp_sync('acme')}, '55P03', 'no other sync of the account');
is($busy->{detail}, 'A prepared transaction synced it, and is neither committed nor rolled back.', 'why');
like($busy->{hint}, qr/pg_prepared_xacts/, 'what to do');
$node->restart;
$_ = YelpSession->new($node) foreach $session, $other;
$busy = fails(q{SELECT yelp_sync('acme')}, '55P03', 'nor after a restart');
like($busy->{detail}, qr/^A prepared transaction /, 'why');
$session->value(q{COMMIT PREPARED 'sync'});
whole('COMMIT PREPARED');
is(rows(), 0, 'and then nothing is new');
change();
$before = stored();
$session->value('BEGIN');
rows();
$session->value(q{PREPARE TRANSACTION 'sync'; ROLLBACK PREPARED 'sync'});
is(stored(), $before, 'ROLLBACK PREPARED: as before');
is(rows(), 9, 'and the next sync does it');
whole('ROLLBACK PREPARED');

# ---- a sync within a sync ----

$session->value(q{
	CREATE FUNCTION sync_second() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.username = 'acme' THEN
			PERFORM yelp_sync('second');
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER sync_second AFTER INSERT ON yelp_programs FOR EACH ROW
		EXECUTE FUNCTION sync_second()});
$api->mutate(seed => ++$seed, add => 3);
$api->mutate(account => 'second', seed => ++$seed, add => 5);
is(rows(), 3, 'a trigger that syncs another account');
whole('a trigger that syncs another account');
YelpTest::table_is_listing($node, $api, 'second', 'and that account');
$session->value(q{DROP TRIGGER sync_second ON yelp_programs;
	CREATE TRIGGER sync_second BEFORE INSERT ON yelp_programs FOR EACH ROW
		EXECUTE FUNCTION sync_second()});
$api->mutate(seed => ++$seed, add => 3);
$api->mutate(account => 'second', seed => ++$seed, alter => 5);
is(rows(), 3, 'one before the rows are there');
whole('one before the rows are there');
YelpTest::table_is_listing($node, $api, 'second', 'and that account, too');
$session->value('DROP TRIGGER sync_second ON yelp_programs');

# ---- isolation ----

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	change();
	$session->value("BEGIN ISOLATION LEVEL $level");
	is(rows(), 9, "$level: a sync");
	is(rows(), 0, "$level: sees its own");
	$session->value('COMMIT');
	whole($level);

	# A row that was changed since the snapshot was taken
	$session->value("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM yelp_programs");
	$other->value('UPDATE yelp_programs SET budget = 1');
	change();
	$before = stored();
	fails(q{SELECT yelp_sync('acme')}, '40001', "$level: a row that was edited meanwhile");
	$session->value('ROLLBACK');
	is(stored(), $before, "$level: as before");
	rows();
	rows('second');
	whole("$level: once more");
}

# ---- edits while it runs ----

# A row that another transaction has changed or deleted when the merge comes to it
foreach my $edit ('UPDATE yelp_programs SET budget = budget + 1, currency = NULL',
	'UPDATE yelp_programs SET data = data - $$businesses$$',
	'DELETE FROM yelp_programs',
	'UPDATE yelp_programs SET program_id = program_id || $$x$$')
{
	my $name = $edit =~ s/ yelp_programs//r;
	change(alter => 30, remove => 10);
	$other->value("BEGIN; $edit WHERE username = 'acme'");
	$session->begin(q{SELECT count(*) FROM yelp_sync('acme')});
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = }
		. $session->pid) or die 'no wait';
	$other->value('COMMIT');
	$result = $session->result;
	note("$name: ", $result->{error} // 'done');
	ok(!defined $result->{error} || $result->{sqlstate} eq '40001',
		"$name while a merge runs: it ends") or diag($result->{stderr});
	rows();
	whole("$name while a merge runs: after the next sync");
}

# Rows that another transaction adds, with the keys that the merge adds
my $added = $api->mutate(seed => ++$seed, add => 1)->{added}[0];
$other->value("BEGIN; INSERT INTO yelp_programs (username, program_id, data, created_at, updated_at)
	VALUES ('acme', '$added', '{}', now(), now())");
$session->begin(q{SELECT count(*) FROM yelp_sync('acme')});
$node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = }
	. $session->pid) or die 'no wait';
$other->value('COMMIT');
is($session->result->{sqlstate}, '40001', 'a row that is added by hand while a merge runs');
is(rows(), 1, 'the next sync puts it right');
whole('a row that is added by hand while a merge runs');

# ---- crashes ----

# Where a sync stands when its backend, or the postmaster, is killed
my %phases = (
	fetch => sub {
		$api->faults({ match => { from_offset => 40 }, action => { hold => \1 } });
		return sub { $api->counters->{held} > 0 };
	},
	merge => sub {
		$other->value(q{BEGIN; LOCK yelp_sync_runs IN SHARE ROW EXCLUSIVE MODE});
		return sub {
			$other->value(q{SELECT count(*) FROM pg_stat_activity
				WHERE wait_event_type = 'Lock' AND pid = } . $session->pid);
		};
	},
	'open transaction' => sub {
		return sub { !$session->is_running };
	},
	committed => sub {
		return sub { !$session->is_running };
	});

sub backend_killed
{
	kill 'KILL', $session->pid;
	$session->wait_until_gone;
	YelpTest::poll_until(
		sub { $node->psql('postgres', 'SELECT 1', stdout => \my $one) == 0 },
		'recovery');
	return;
}

sub postmaster_killed
{
	YelpTest::kill_postmaster($node);
	$_->wait_until_gone foreach $session, $other;
	YelpTest::start_again($node);
	return;
}

$api->config(accounts => { acme => { count => 95, seed => 25 } });
rows();
$node->append_conf('postgresql.conf', "restart_after_crash = on\nsynchronous_commit = on\n");
$node->restart;
foreach my $killed ('backend', 'postmaster')
{
	foreach my $phase (sort keys %phases)
	{
		my $name = "kill -9 of the $killed, $phase";
		$_ = YelpSession->new($node) foreach $session, $other;
		change();
		$before = stored();
		my $reached = $phases{$phase}->();
		$session->begin(($phase eq 'open transaction' ? 'BEGIN; ' : '')
			. q{SELECT count(*) FROM yelp_sync('acme')});
		$api->poll_until($reached, $name);
		$killed eq 'backend' ? backend_killed() : postmaster_killed();
		$api->faults;
		$api->release;
		$_->result foreach $session->{lost} ? () : $session;
		$_ = YelpSession->new($node) foreach $session, $other;
		if ($phase eq 'committed')
		{
			whole($name);
			is(rows(), 0, "$name: nothing is new");
		}
		else
		{
			is(stored(), $before, "$name: as before");
			is(rows(), 9, "$name: the next sync does it");
			whole("$name, and the next sync");
		}
		is( $session->value(q{SELECT count(*) FROM pg_locks
				WHERE locktype = 'userlock'}), 0, "$name: no lock is left");
		$_->end foreach $session, $other;
	}
}

# ---- where no sync can be ----

$session = YelpSession->new($node);
my $force = $session->value(q{SELECT name FROM pg_settings
	WHERE name IN ('force_parallel_mode', 'debug_parallel_query') ORDER BY name LIMIT 1});
$session->value('ALTER FUNCTION yelp_sync(text) PARALLEL SAFE');
$api->reset('counters');
my $parallel = $session->run("SET $force = on; SELECT count(*) FROM yelp_sync('acme')");
is($parallel->{sqlstate}, '25000', 'declared to be parallel safe, which it is not: an error');
is($api->counters->{requests}, 0, '... before any request');
$session->value('ALTER FUNCTION yelp_sync(text) PARALLEL UNSAFE');
$session->end;

$node->stop;
my ($out, $err) = ('', '');
IPC::Run::run([ $node->config_data('--bindir') . '/postgres', '--single', '-D', $node->data_dir,
		'postgres' ], '<', \"SELECT yelp_sync('acme')\n", '>', \$out, '2>', \$err);
like($err, qr/ERROR: .*yelp_sync\(\) cannot be called in single-user mode/, 'single-user mode: an error');
is($api->counters->{requests}, 0, '... before any request');
done_testing();
