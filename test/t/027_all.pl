# CALL yelp_sync_all(): each account in transactions of its own, without blocking
# others while it waits for the API.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my $accounts = 20;
my $programs = 45;
my ($node, $api) = YelpTest::start(install => 0, conf => "shared_buffers = 16MB\n");
my @names = map { sprintf 'account%02d', $_ } 1 .. $accounts;

$node->safe_psql('postgres', 'CREATE EXTENSION yelp_sync');
foreach my $name (@names)
{
	$api->config(accounts => { $name => { count => $programs, style => 'cheap' } });
	$node->safe_psql('postgres',
		YelpTest::create_server($name, endpoint => $api->url, retry_delay => '1ms', max_deleted => '100%'));
}

my $session = YelpSession->new($node);
my $other = YelpSession->new($node);

# The results of the accounts in the last call, each a hash of its row
sub runs
{
	my $rows = $other->value(q{SELECT coalesce(json_agg(r ORDER BY finished_at), '[]')
		FROM yelp_sync_runs r WHERE finished_at > } . (defined $_[0] ? "'$_[0]'" : q{'-infinity'}));
	return @{ JSON::PP->new->utf8->decode($rows) };
}

sub last_run
{
	return $other->value(q{SELECT coalesce(max(finished_at), '-infinity') FROM yelp_sync_runs});
}

sub stored
{
	my ($name) = @_;
	return $other->value("SELECT count(*) FROM yelp_programs WHERE username = '$name'");
}

sub locks
{
	return $other->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'});
}

sub password
{
	my ($name, $password) = @_;
	$other->value("ALTER USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (SET password '$password')");
	return;
}

# ---- all of them ----

password('account07', 'wrong');
my $result = $session->run('CALL yelp_sync_all()');
is($result->{sqlstate}, 'HV000', 'one account of twenty fails: an error at the end');
is($result->{error}, 'could not sync 1 of 20 accounts', 'that counts');
like($result->{detail}, qr/\AAccount "account07": could not fetch .* API rejected the credentials [^\n]*\z/,
	'and names it');
my @warnings = grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };
is(@warnings, 1, 'one WARNING');
like($warnings[0]{message}, qr/^could not sync account "account07": could not fetch the page/, 'about it');
is($other->value('SELECT count(DISTINCT username) FROM yelp_programs'), 19, 'all others are committed');
my @runs = runs();
is_deeply([ map { $_->{username} } @runs ], \@names, 'one row for each, by name');
is_deeply([ map { $_->{status} } @runs ], [ map { $_ eq 'account07' ? 'failed' : 'synced' } @names ],
	'with its status');
my ($failed) = grep { $_->{status} eq 'failed' } @runs;
is($failed->{sqlstate}, '28000', 'the failure has its SQLSTATE');
like($failed->{error}, qr/API rejected the credentials/, 'its message');
is($failed->{server}, 'account07', 'its server');
is($failed->{added}, undef, 'and no figures');
cmp_ok($api->counters->{connections}, '<=', 10, 'connections are used again from account to account');
is(locks(), 0, 'no lock is left');

$session->run("SET yelp_sync.progress = 'json'");
$result = $session->run('CALL yelp_sync_all()');
my @events = map { JSON::PP->new->decode($_->{message}) }
  grep { $_->{message} =~ /^\{/ } @{ $result->{messages} };
is((grep { !defined $_->{account} } @events), 0, 'json: each event names its account');
my ($error) = grep { $_->{type} eq 'error' } @events;
is($error->{account}, 'account07', '... an error event');
is($error->{sqlstate}, '28000', '... with the SQLSTATE');
like($error->{message}, qr/rejected the credentials/, '... the message');
like($error->{detail}, qr/ACCESS_DENIED/, '... the detail');
like($error->{hint}, qr/password/, '... and the hint');
is((grep { $_->{type} eq 'complete' } @events), 19, '... the others complete');
$session->run('RESET yelp_sync.progress');
password('account07', 's3cret');
is($session->run('CALL yelp_sync_all()')->{error}, undef, 'none fails: no error');

# ---- some of them ----

my $before = last_run();
is($session->run("CALL yelp_sync_all(ARRAY['account03', 'account01', 'account03'])")->{error}, undef,
	'accounts by name');
is_deeply([ map { $_->{username} } runs($before) ], [ 'account01', 'account03' ],
	'in the order of their names, each once');
$before = last_run();
$result = $session->run("CALL yelp_sync_all(ARRAY['account02', 'nobody'])");
is($result->{error}, 'could not sync 1 of 2 accounts', 'an account that there is not');
@runs = runs($before);
is_deeply([ map { [ @$_{qw(username status sqlstate server)} ] } @runs ],
	[ [ 'account02', 'synced', undef, 'account02' ], [ 'nobody', 'failed', '42704', undef ] ],
	'is on record as well');
is($session->run("CALL yelp_sync_all(ARRAY['account01', NULL])")->{sqlstate}, '22004', 'NULL');
is($session->run("CALL yelp_sync_all('{}'::text[])")->{error}, undef, 'none');
$before = last_run();
is($session->run("CALL yelp_sync_all('account04', 'account02')")->{error}, undef, 'names without an array');
is($session->run("CALL yelp_sync_all('account05')")->{error}, undef, 'a single name');
is(join(' ', map { $_->{username} } runs($before)), 'account02 account04 account05', 'those accounts');
is($session->run("CALL yelp_sync_all('account01', NULL)")->{sqlstate}, '22004', 'NULL among them');

# ---- where it cannot be ----

foreach my $case (
	[ 'a transaction block', "BEGIN; CALL yelp_sync_all()", '25001', qr/^In a transaction, use SELECT yelp_sync\(\)/ ],
	[ 'a function', q{CREATE FUNCTION call_it() RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL yelp_sync_all(); END';
		SELECT call_it()}, '25001', qr/^In a transaction, use SELECT yelp_sync\(\)/ ],
	[ 'an EXCEPTION block', q{DO $$ BEGIN CALL yelp_sync_all(); EXCEPTION WHEN OTHERS THEN RAISE; END $$}, '25001',
		qr/^Call it outside of the EXCEPTION block/ ],
	[ 'a SECURITY DEFINER procedure', q{CREATE PROCEDURE defined() LANGUAGE plpgsql SECURITY DEFINER AS
		'BEGIN CALL yelp_sync_all(); END'; CALL defined()}, '25001', qr/^Call it as the role that has the accounts/ ],
	[ 'a read-only session', 'SET default_transaction_read_only = on; CALL yelp_sync_all()', '25006' ])
{
	my ($name, $sql, $sqlstate, $hint) = @$case;
	$api->reset('counters');
	my $refused = $session->run($sql);
	is($refused->{sqlstate}, $sqlstate, "in $name");
	like($refused->{hint}, $hint, "... what to do in $name") if $hint;
	is($api->counters->{requests}, 0, '... before any request');
	$session->run('ROLLBACK; RESET default_transaction_read_only');
}
is($session->run(q{DO $$BEGIN CALL yelp_sync_all(ARRAY['account01']); END$$})->{error}, undef,
	'in a DO block that may commit');

# ---- while it waits ----

sub hold
{
	my (@match) = @_;
	$api->faults({ match => {@match}, action => { hold => \1 } });
	return;
}

sub begin_held
{
	$api->reset('counters');
	$session->begin("CALL yelp_sync_all(ARRAY['account01', 'account02', 'account03'])");
	$api->poll_counter('held', 1);
	return;
}

sub release
{
	$api->faults;
	$api->release;
	return $session->result;
}

sub check_waiting
{
	my ($name) = @_;
	my $pid = $session->pid;

	is($other->value("SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $pid"),
		't', "$name: no snapshot, no transaction id");
	is($other->value("SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype = 'relation'"),
		0, "$name: no lock on a relation");
	return;
}

foreach my $case (
	[ 'the first reading', account => 'account02' ],
	[ 'the second reading', account => 'account02', nth => 2 ])
{
	my ($name, @match) = @$case;
	subtest "while $name waits" => sub {
		my $changed = $api->mutate(account => 'account02', remove => 2, add => 1);
		hold(@match);
		begin_held();
		check_waiting($name);
		is($other->run('SET statement_timeout = 60000;
			CREATE INDEX CONCURRENTLY waiting ON yelp_programs (budget)')->{error}, undef,
			'CREATE INDEX CONCURRENTLY does not wait');
		is($other->run('ALTER TABLE yelp_programs ADD COLUMN note text')->{error}, undef,
			'nor does ALTER TABLE');
		is(release()->{error}, undef, 'then it goes on');
		YelpTest::table_is_listing($node, $api, 'account02', 'and the table is right');
		$other->value('DROP INDEX waiting; ALTER TABLE yelp_programs DROP COLUMN note');
	};
}

foreach my $case (
	[ 'a row is deleted', q{DELETE FROM yelp_programs WHERE ctid IN
		(SELECT ctid FROM yelp_programs WHERE username = 'account02' LIMIT 1)}, 'partial' ],
	[ 'the table is emptied', 'TRUNCATE yelp_programs', 'partial' ],
	[ 'the table is dropped', 'DROP TABLE yelp_programs', 'partial' ],
	[ 'the table becomes a view', q{ALTER TABLE yelp_programs RENAME TO moved;
		CREATE VIEW yelp_programs AS TABLE moved}, 'failed' ],
	[ 'the history is dropped', 'DROP TABLE yelp_sync_runs', 'synced' ],
	[ 'the server is dropped', 'DROP SERVER account02 CASCADE', 'synced' ])
{
	my ($name, $sql, $status) = @$case;
	subtest "$name while it waits" => sub {
		$before = last_run();
		hold(account => 'account02');
		begin_held();
		is($other->run($sql)->{error}, undef, 'that does not wait');
		$result = release();
		is($other->value(q{SELECT status FROM yelp_sync_runs WHERE username = 'account02'
				ORDER BY finished_at DESC LIMIT 1}), $status, 'what the history says')
		  unless $name =~ /view/;
		is(locks(), 0, 'no lock is left');
		$other->run('DROP VIEW yelp_programs; ALTER TABLE moved RENAME TO yelp_programs')
		  if $name =~ /view/;
		$other->run(YelpTest::create_server('account02',
				endpoint => $api->url, retry_delay => '1ms', max_deleted => '100%'))
		  if $name =~ /server/;
		is($session->run('CALL yelp_sync_all()')->{error}, undef, 'the next call in the same session works');
		YelpTest::table_is_listing($node, $api, $_, "the table is right: $_") foreach @names[ 0 .. 2 ];
	};
}

# ---- what fails ----

$other->value(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM count(*) FROM pg_class;
		RAISE 'not this one' USING ERRCODE = TG_ARGV[0];
	END$$});
foreach my $case (
	[ 'a trigger of the user\'s', 'P0099', q{CREATE TRIGGER refuse BEFORE INSERT ON yelp_programs
		FOR EACH ROW WHEN (NEW.username = 'account02') EXECUTE FUNCTION refuse('P0099')} ],
	[ 'a serialization failure', '40001', q{CREATE TRIGGER refuse BEFORE INSERT ON yelp_programs
		FOR EACH ROW WHEN (NEW.username = 'account02') EXECUTE FUNCTION refuse('40001')} ],
	[ 'a check at the commit', 'P0099', q{CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON yelp_programs
		DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (NEW.username = 'account02') EXECUTE FUNCTION refuse('P0099')} ],
	[ 'an index of the user\'s', '23505', q{CREATE UNIQUE INDEX refuse ON yelp_programs ((updated_at > '2000-01-01'))
		WHERE username = 'account02'} ])
{
	my ($name, $sqlstate, $sql) = @$case;
	subtest $name => sub {
		$api->mutate(account => $_, add => 1) foreach @names[ 0 .. 2 ];
		$other->value("DELETE FROM yelp_programs WHERE username = 'account02'") if $name =~ /index/;
		$other->value($sql);
		$before = last_run();
		$result = $session->run("CALL yelp_sync_all(ARRAY['account01', 'account02', 'account03'])");
		is($result->{error}, 'could not sync 1 of 3 accounts', 'an error at the end');
		@runs = runs($before);
		is_deeply([ map { [ @$_{qw(username status sqlstate added)} ] } @runs ],
			[ [ 'account01', 'synced', undef, 1 ], [ 'account02', 'failed', $sqlstate, undef ],
				[ 'account03', 'synced', undef, 1 ] ], 'one account only, on record');
		is(locks(), 0, 'no lock is left');
		$other->value($name =~ /index/ ? 'DROP INDEX refuse' : 'DROP TRIGGER refuse ON yelp_programs');
		is($session->run('CALL yelp_sync_all()')->{error}, undef, 'without it the next call works');
		YelpTest::table_is_listing($node, $api, 'account02', 'the table is right');
	};
}

subtest 'an account that is being synced' => sub {
	hold(account => 'account02');
	$session->begin("SELECT count(*) FROM yelp_sync('account02')");
	$api->poll_counter('held', 1);
	$result = $other->run("CALL yelp_sync_all(ARRAY['account01', 'account02'])");
	like($result->{detail}, qr/account "account02" is already being synced/, 'keeps no other back');
	is(release()->{error}, undef, 'nor is it disturbed');
};

# ---- what ends all ----

foreach my $how ('pg_cancel_backend', 'statement_timeout', 'pg_terminate_backend')
{
	subtest $how => sub {
		$api->mutate(account => $_, add => 1) foreach @names[ 0 .. 2 ];
		$before = last_run();
		$session->run("SET statement_timeout = '3s'") if $how eq 'statement_timeout';
		my $sockets = $session->sockets;
		hold(account => 'account02');
		begin_held();
		$other->value("SELECT $how(" . $session->pid . ')') if $how =~ /^pg_/;
		$result = $session->result;
		$api->faults;
		$api->release;
		is_deeply([ map { [ @$_{qw(username status)} ] } runs($before) ], [ [ 'account01', 'synced' ] ],
			'what was done before is committed, and nothing else is begun');
		if ($how eq 'pg_terminate_backend')
		{
			$session->wait_until_gone;
			$session = YelpSession->new($node);
		}
		else
		{
			is($result->{sqlstate}, '57014', 'the SQLSTATE');
			is($session->sockets, 1, 'no socket is left but the client\'s') or diag($sockets);
			$session->run('RESET statement_timeout');
		}
		is(locks(), 0, 'no lock is left');
		is($session->run('CALL yelp_sync_all()')->{error}, undef, 'the next call works');
	};
}

# ---- other roles ----

subtest 'a role syncs what it may' => sub {
	$other->value(q{CREATE ROLE partner LOGIN; GRANT USAGE ON FOREIGN SERVER account05 TO partner;
		GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO partner;
		GRANT SELECT, INSERT ON yelp_sync_runs TO partner;
		CREATE USER MAPPING FOR partner SERVER account05 OPTIONS (username 'account05', password 's3cret')});
	$before = last_run();
	is($session->run('SET ROLE partner; CALL yelp_sync_all()')->{error}, undef, 'no error');
	is_deeply([ map { [ @$_{qw(username synced_by)} ] } runs($before) ], [ [ 'account05', 'partner' ] ],
		'its own account only');
	# Nothing to sync is no success
	$session->value('RESET ROLE; CREATE ROLE nobody; CREATE SERVER closed FOREIGN DATA WRAPPER yelp_sync;
		CREATE USER MAPPING FOR PUBLIC SERVER closed OPTIONS (username $$closed$$, password $$x$$)');
	my $none = $session->run('SET ROLE nobody; CALL yelp_sync_all()');
	is($none->{sqlstate}, '42704', 'a user without accounts');
	is($none->{error}, 'no accounts for user "nobody"', '... is told so');
	like($none->{hint}, qr/CREATE USER MAPPING|GRANT/, '... and what to do');
	$session->value('RESET ROLE; DROP SERVER closed CASCADE; REVOKE USAGE ON FOREIGN SERVER account05 FROM partner');
	$result = $session->run('SET ROLE partner; CALL yelp_sync_all()');
	is($result->{error}, 'could not sync 1 of 1 account', 'an account on a server that it may no longer use');
	like($result->{detail}, qr/permission denied for foreign server account05/, '... is one that failed');
	$session->value('RESET ROLE; GRANT USAGE ON FOREIGN SERVER account05 TO partner; CREATE ROLE stranger;
		GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO stranger; ALTER SERVER account05 OWNER TO stranger');
	$result = $session->run('SET ROLE partner; CALL yelp_sync_all()');
	like($result->{detail}, qr/server "account05", which belongs to role "stranger"/, 'nor where its owner is another');
	$session->value('RESET ROLE; ALTER SERVER account05 OWNER TO CURRENT_USER');
	$result = $session->run('DO $$ BEGIN SET LOCAL ROLE partner; CALL yelp_sync_all(); END $$');    # should fail
	is($result->{sqlstate}, '25000', 'not under SET LOCAL ROLE, which a commit ends');
	like($result->{hint}, qr/SET ROLE/, 'but under SET ROLE');
	is($session->value('SELECT current_user = session_user'), 't', 'the role is as before');
	is(locks(), 0, 'no lock is left');
};

# ---- what cannot be recorded ----

subtest 'a failure that cannot be recorded' => sub {
	password('account02', 'wrong');
	$other->value(q{CREATE FUNCTION refuse_record() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE 'no record' USING ERRCODE = 'P0099'; END$$;
		CREATE TRIGGER refuse BEFORE INSERT ON yelp_sync_runs FOR EACH ROW
			WHEN (NEW.status = 'failed') EXECUTE FUNCTION refuse_record()});
	$result = $session->run("CALL yelp_sync_all(ARRAY['account01', 'account02', 'account03'])");
	is($result->{error}, 'could not sync 1 of 3 accounts', 'is one failure');
	is((grep { $_ eq 'could not record the sync of account "account02": no record' } @{ $result->{warnings} }), 1,
		'and a WARNING says that it is not on record');
	$other->value(q{DROP TRIGGER refuse ON yelp_sync_runs;
		CREATE FUNCTION sync_another() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM yelp_sync('account04'); RETURN NEW; END$$;
		CREATE TRIGGER another BEFORE INSERT ON yelp_sync_runs FOR EACH ROW
			WHEN (NEW.status = 'failed') EXECUTE FUNCTION sync_another()});
	$before = last_run();
	$session->run("CALL yelp_sync_all(ARRAY['account02'])");
	is_deeply([ sort map { "$_->{username} $_->{status}" } runs($before) ], [ 'account02 failed', 'account04 synced' ],
		'a trigger on the record may sync another account');
	$other->value('DROP TRIGGER another ON yelp_sync_runs');
	password('account02', 's3cret');
};

# ---- yelp_sync_status ----

sub status
{
	my ($account, $columns) = @_;
	return $other->value("SELECT $columns FROM yelp_sync_status WHERE username = '$account'");
}

subtest 'yelp_sync_status' => sub {
	my %programs = map { $_ => stored($_) } @names;
	my $columns = 'mapped, running, programs, last_status, last_sqlstate, last_complete = last_attempt';

	$session->run("CALL yelp_sync_all(ARRAY['account03', 'account05', 'account08', 'nobody'])");
	is($other->value('SELECT count(*), count(DISTINCT username) FROM yelp_sync_status'), '21|21', 'one row per account');
	is(status('account03', $columns), "t|f|$programs{account03}|synced||t", 'a sync that succeeded') or diag(status('account03', '*'));
	is(status('nobody', $columns), 'f|f||failed|42704|', 'an account that is only in the history');
	password('account03', 'wrong');
	$session->run("CALL yelp_sync_all('account03')");
	is(status('account03', $columns), "t|f|$programs{account03}|failed|28000|f", 'a sync that failed');
	like(status('account03', 'last_error'), qr/^could not fetch .* API rejected the credentials/, '... and why');
	password('account03', 's3cret');

	hold(account => 'account08');
	$session->begin("CALL yelp_sync_all('account08')");
	$api->poll_counter('held', 1);
	is($other->value('SELECT string_agg(username, $$ $$) FROM yelp_sync_status WHERE running'), 'account08', 'a sync that is running');
	$other->run("CALL yelp_sync_all('account08')");
	is(status('account08', $columns), "t|t|$programs{account08}|synced||t", 'another one meanwhile is no attempt');
	release();
	is(status('account08', 'running'), 'f', 'then it is over');

	$other->value('DROP SERVER account03 CASCADE');
	is(status('account03', 'mapped, programs'), "f|$programs{account03}", 'an account whose mapping went away');
	$other->value('SET ROLE partner');
	is(status('account05', $columns), "t|f|$programs{account05}|synced||t", 'a role that may read the tables');
	is($other->value('SELECT count(*) FROM yelp_sync_status WHERE mapped'), 1, '... maps one of them');
	$other->value('RESET ROLE; REVOKE SELECT ON yelp_programs, yelp_sync_runs FROM partner; SET ROLE partner');
	is($other->value('SELECT count(*) FROM yelp_sync_status'), 1, 'a role that may not, sees its own');
	is(status('account05', $columns), 't|f||||', '... and nothing of the tables');
	$other->value('RESET ROLE; DROP TABLE yelp_programs, yelp_sync_runs');
	is($other->value('SELECT count(*), count(programs), bool_and(mapped) FROM yelp_sync_status'), '19|0|t', 'without tables');
};

$_->end foreach $session, $other;
done_testing();
