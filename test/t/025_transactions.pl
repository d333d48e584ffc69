# A sync is part of the caller's transaction: it is rolled back with it, for any reason, and invisible
# to others before the commit.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest ':all';

my ($node, $api) = start(
	server => { max_deleted => '100%' },
	accounts => { acme => { count => 95 }, second => { count => 45 } },
	conf => "shared_buffers = 16MB\nmax_prepared_transactions = 5\nwal_level = replica\n"
	  . "max_wal_senders = 4\nhot_standby = on\n");
my $session = YelpSession->new($node);
my $other = YelpSession->new($node);
my $seed = 0;

$session->value(create_server('second', endpoint => $api->url));

# What is stored, as a new transaction sees it
sub stored
{
	return $other->value(YelpTest::content_query());
}

# Nine changes
sub change
{
	my (%how) = @_;
	return $api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2, %how);
}

sub whole
{
	my ($name) = @_;
	return table_is_listing('acme', "$name: the table is the listing");
}

# The number of rows that a sync returns
sub rows
{
	my ($account) = @_;
	return $session->value("SELECT count(*) FROM yelp_sync('" . ($account // 'acme') . "')");
}

sub fails
{
	my ($sql, $failure, $name) = @_;
	return like(failure($session->run($sql)), $failure, $name);
}

note 'the end of a transaction; 001_extension.pl has the ways to call yelp_sync()';

my $before = stored();
$session->value('BEGIN');
is(rows(), 95, 'a first sync in a transaction');
is(stored(), $before, 'nobody else sees it');
is($session->value('SELECT count(*) FROM yelp_programs'), 95, 'but the transaction does');
$session->value('ROLLBACK');
is(stored(), $before, 'ROLLBACK: as before');
is(rows(), 95, 'then it is the first one again');

change();
$session->value('BEGIN; SAVEPOINT one');
is(rows(), 9, 'a sync after a savepoint');
$session->value('ROLLBACK TO one');
is(rows(), 9, 'after ROLLBACK TO the same again');
$session->value('RELEASE one; SAVEPOINT two');
is(rows(), 0, 'which is there after RELEASE');
$api->mutate(seed => ++$seed, add => 5);
is(rows(), 5, 'another sync brings what is new since');
is(rows('second'), 45, '... another account');
$session->value('COMMIT');
whole('several syncs in one transaction');
table_is_listing('second');

$session->value(q{
	CREATE FUNCTION try_sync(account text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RETURN (SELECT count(*)::text FROM yelp_sync(account));
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END $$;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE 'not this one' USING ERRCODE = 'P0099'; END$$;
	CREATE TRIGGER refuse BEFORE DELETE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION refuse()});
change();
$before = stored();
$api->faults({ match => { offset => 40 }, times => 1, action => { respond => { status => 405 } } });
$session->value('BEGIN');
is($session->value(q{SELECT try_sync('acme')}), 'HV000', 'a sync that fails in a subtransaction');
is($session->value(q{SELECT try_sync('acme')}), 'P0099', '... a merge that fails');
is($session->value(q{SELECT try_sync('nobody')}), '42704', '... one without an account');
is($session->value(YelpTest::content_query()), $before, '... undo what they have done');
$session->value('DROP TRIGGER refuse ON yelp_programs');
is($session->value(q{SELECT try_sync('acme')}), 9, '... and the transaction continues');
$session->value('COMMIT');
$api->faults;
whole('syncs that fail in subtransactions');

note 'where nothing may be written';

$before = stored();
$api->reset('counters');
fails(q{SET default_transaction_read_only = on; SELECT yelp_sync('acme')}, qr/^25006: /, 'in a read-only session');
$session->value('RESET default_transaction_read_only');
is($api->counters->{requests}, 0, '... before any request');

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
like(failure(sync($standby, 'acme')), qr/^25006: cannot execute yelp_sync\(\) /, 'on a standby');
change();
is(rows(), 9, 'a sync on the primary');
$node->wait_for_catchup($standby);
my $content = 'SELECT md5(string_agg(p::text, $$,$$ ORDER BY p)) FROM yelp_programs p';
is(value($standby, $content), value($content), 'the standby has it');
$standby->stop;

note 'two phases';

my $prepared = qr/^55P03: .*\nDETAIL:  A prepared transaction synced it, and is neither committed nor rolled back\.\nHINT:.*pg_prepared_xacts/;
change();
$before = stored();
$session->value('BEGIN');
is(rows(), 9, 'a sync that is prepared to be committed');
$session->value(q{PREPARE TRANSACTION 'sync'});
is(stored(), $before, 'nobody sees it');
fails(q{SELECT yelp_sync('acme')}, $prepared, 'no other sync of the account');
$node->restart;
$_ = YelpSession->new($node) foreach $session, $other;
fails(q{SELECT yelp_sync('acme')}, $prepared, 'nor after a restart');
$session->value(q{COMMIT PREPARED 'sync'});
whole('COMMIT PREPARED');
is(rows(), 0, '... then nothing is new');
change();
$before = stored();
$session->value('BEGIN');
rows();
$session->value(q{PREPARE TRANSACTION 'sync'; ROLLBACK PREPARED 'sync'});
is(stored(), $before, 'ROLLBACK PREPARED: as before');
is(rows(), 9, '... the next sync works');
whole('ROLLBACK PREPARED');

note 'a sync within a sync';

$session->value(q{
	CREATE FUNCTION sync_second() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.username = 'acme' THEN
			PERFORM yelp_sync('second');
		END IF;
		RETURN NEW;
	END $$});
foreach my $when ('AFTER', 'BEFORE')
{
	$session->value("CREATE TRIGGER sync_second $when INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION sync_second()");
	$api->mutate(seed => ++$seed, add => 3);
	$api->mutate(account => 'second', seed => ++$seed, add => 5, alter => 5);
	is(rows(), 3, "a trigger $when INSERT that syncs another account");
	whole("a trigger $when INSERT");
	table_is_listing('second', "... the table of that account");
	$session->value('DROP TRIGGER sync_second ON yelp_programs');
}

note 'isolation';

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	change();
	$session->value("BEGIN ISOLATION LEVEL $level");
	is(rows(), 9, "$level: a sync");
	is(rows(), 0, "$level: ... sees its own changes");
	$session->value('COMMIT');
	whole($level);

	# A row that was changed since the snapshot was taken
	$session->value("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM yelp_programs");
	$other->value('UPDATE yelp_programs SET budget = 1');
	change();
	$before = stored();
	fails(q{SELECT yelp_sync('acme')}, qr/^40001: /, "$level: a row that was edited meanwhile");
	$session->value('ROLLBACK');
	is(stored(), $before, "$level: as before");
	rows();
	rows('second');
	whole("$level: once more");
}

# 053_meanwhile.pl has rows that others delete, rename or add
$other->value(q{BEGIN; UPDATE yelp_programs SET budget = budget + 1, currency = NULL WHERE username = 'acme'});
change(alter => 30, remove => 10);
$session->begin(q{SELECT count(*) FROM yelp_sync('acme')});
wait_for_lock($session);
$other->value('COMMIT');
like($session->result->{sqlstate} // 'none', qr/^(40001|none)$/, 'rows that are edited during a merge: it ends');
rows();
whole('rows that are edited during a merge, after the next sync');

note 'crashes; 020_cancel.pl and 031_soak.pl have those of running syncs';

my %kill = (
	backend => sub {
		kill 'KILL', $session->pid;
		$session->wait_until_gone;
		poll_until(sub { eval { value('SELECT true') } }, 'recovery');
	},
	postmaster => sub {
		kill_postmaster($node);
		$_->wait_until_gone foreach $session, $other;
		start_again($node);
	});

$api->config(accounts => { acme => { count => 95, seed => 25 } });
rows();
$node->append_conf('postgresql.conf', "restart_after_crash = on\nsynchronous_commit = on\n");
$node->restart;
foreach my $killed (sort keys %kill)
{
	foreach my $is_committed (0, 1)
	{
		my $name = "kill -9 of the $killed, " . ($is_committed ? 'committed' : 'open transaction');
		$_ = YelpSession->new($node) foreach $session, $other;
		change();
		$before = stored();
		$session->value('BEGIN') unless $is_committed;
		is(rows(), 9, "$name: a sync");
		$kill{$killed}->();
		$_ = YelpSession->new($node) foreach $session, $other;
		is(stored(), $before, "$name: as before") unless $is_committed;
		is(rows(), $is_committed ? 0 : 9, "$name: the next sync");
		whole($name);
		is($session->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, "$name: no lock is left");
		$_->end foreach $session, $other;
	}
}

note 'where no sync can run';

$session = YelpSession->new($node);
my $force = $session->value(q{SELECT name FROM pg_settings
	WHERE name IN ('force_parallel_mode', 'debug_parallel_query') ORDER BY name LIMIT 1});
$api->reset('counters');
fails("ALTER FUNCTION yelp_sync(text) PARALLEL SAFE; SET $force = on; SELECT count(*) FROM yelp_sync('acme')", qr/^25000: /,
	'in a parallel worker');
$session->value('ALTER FUNCTION yelp_sync(text) PARALLEL UNSAFE');
$session->end;

$node->stop;
my ($out, $err) = ('', '');
IPC::Run::run([ $node->config_data('--bindir') . '/postgres', '--single', '-D', $node->data_dir, 'postgres' ],
	'<', \"SELECT yelp_sync('acme')\n", '>', \$out, '2>', \$err);
like($err, qr/ERROR: .*yelp_sync\(\) cannot be called in single-user mode/, 'in single-user mode');
is($api->counters->{requests}, 0, '... before any request');
done_testing();
