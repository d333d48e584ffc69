# CALL yelp_sync_all(): each account in transactions of its own, without blocking others while it
# waits for the API; yelp_sync_status.
use strict;
use warnings FATAL => 'all';

use JSON::PP ();
use Test::More;

use YelpTest ':all';

my @names = map { sprintf 'account%02d', $_ } 1 .. 20;
my ($node, $api) = start(install => 0, conf => "shared_buffers = 16MB\n",
	accounts => { map { $_ => { count => 45, style => 'cheap' } } @names });

value('CREATE EXTENSION yelp_sync');
value(server($_)) foreach @names;
my $session = YelpSession->new($node);
my $other = YelpSession->new($node);
my $three = q{CALL yelp_sync_all('account01', 'account02', 'account03')};

sub server
{
	my ($name) = @_;
	return create_server($name, endpoint => $api->url, retry_delay => '1ms', max_deleted => '100%');
}

# Runs a statement; returns its result, and these columns of the runs that it left, in order
sub call
{
	my ($sql, $columns) = @_;
	my $last = $other->value(q{SELECT coalesce(max(finished_at), '-infinity') FROM yelp_sync_runs});
	my $result = $session->run($sql);
	return ($result, runs_since($last, $columns // 'username, status'));
}

sub runs_since
{
	my ($last, $columns) = @_;
	return $other->value("SELECT $columns FROM yelp_sync_runs WHERE finished_at > '$last' ORDER BY finished_at");
}

sub no_lock_is_left
{
	my ($name) = @_;
	return is($other->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'userlock'}), 0, "$name: no lock is left");
}

sub password
{
	my ($name, $password) = @_;
	$other->value("ALTER USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (SET password '$password')");
	return;
}

note 'all of them';

password('account07', 'wrong');
$other->value('SELECT yelp_sync_create_tables()');
my ($result, $runs) = call('CALL yelp_sync_all()', 'username, server, status, added, sqlstate');
like(failure($result), qr/^HV000: could not sync 1 of 20 accounts\nDETAIL:  Account "account07": could not fetch .* API rejected the credentials .*\nHINT:/,
	'one account of twenty fails: an error at the end');
like(join("\n", @{ $result->{warnings} }), qr/\Acould not sync account "account07": could not fetch the page.*\z/,
	'one WARNING');
is($runs, join("\n", map { $_ eq 'account07' ? "$_|$_|failed||28000" : "$_|$_|synced|45|" } @names), 'a row for each, by name');
is($other->value('SELECT count(DISTINCT username) FROM yelp_programs'), 19, 'all others are committed');
cmp_ok($api->counters->{connections}, '<=', 10, 'connections are used again from account to account');
no_lock_is_left('all of them');

$session->run("SET yelp_sync.progress = 'json'");
($result) = call('CALL yelp_sync_all()');
my @events = map { JSON::PP->new->decode($_->{message}) } grep { $_->{message} =~ /^\{/ } @{ $result->{messages} };
is((grep { !defined $_->{account} } @events), 0, 'json: each event names its account');
my ($error) = grep { $_->{type} eq 'error' } @events;
like(join(' ', @$error{qw(account sqlstate message detail hint)}), qr/^account07 28000 .*rejected the credentials.*ACCESS_DENIED.*password/s,
	'json: an error event');
is((grep { $_->{type} eq 'complete' } @events), 19, 'json: the others complete');
$session->run('RESET yelp_sync.progress');
password('account07', 's3cret');

note 'some of them, and ways to call it';

my $in_transaction = qr/^25001: (?:.*\n)*HINT:  In a transaction, use SELECT yelp_sync\(\)/;
my $missing = qr/^HV000: could not sync 1 of 2 accounts/;
foreach my $case (
	[ q{CALL yelp_sync_all(ARRAY['account03', 'account01', 'account03'])}, undef, "account01|synced\naccount03|synced" ],
	[ q{CALL yelp_sync_all('account04', 'account02')}, undef, "account02|synced\naccount04|synced" ],
	[ q{CALL yelp_sync_all('{}'::text[])}, undef, '' ],
	[ q{DO $$BEGIN CALL yelp_sync_all('account01'); END$$}, undef, 'account01|synced' ],
	[ q{CALL yelp_sync_all(ARRAY['account02', 'nobody'])}, $missing, "account02|synced\nnobody|failed" ],
	[ q{CALL yelp_sync_all(ARRAY['account01', NULL])}, qr/^22004/, '' ],
	[ q{BEGIN; CALL yelp_sync_all()}, $in_transaction, '' ],
	[ q{CREATE FUNCTION call_it() RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL yelp_sync_all(); END'; SELECT call_it()},
		$in_transaction, '' ],
	[ q{DO $$ BEGIN CALL yelp_sync_all(); EXCEPTION WHEN OTHERS THEN RAISE; END $$},
		qr/^25001: (?:.*\n)*HINT:  Call it outside of the EXCEPTION block/, '' ],
	[ q{CREATE PROCEDURE defined() LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN CALL yelp_sync_all(); END'; CALL defined()},
		qr/^25001: (?:.*\n)*HINT:  Call it as the role that has the accounts/, '' ],
	[ q{SET default_transaction_read_only = on; CALL yelp_sync_all()}, qr/^25006/, '' ])
{
	my ($sql, $error, $expected) = @$case;
	$api->reset('counters');
	my ($result, $runs) = call($sql);
	like(failure($result), $error // qr/^no error$/, $sql);
	is($runs, $expected, '... the runs');
	is($api->counters->{requests}, 0, '... before any request') if $expected eq '';
	$session->run('ROLLBACK; RESET default_transaction_read_only');
}

note 'while it waits';

# A subtest: calls the procedure, with an action while the request that matches is held
sub meanwhile
{
	my ($name, $match, $action, $check) = @_;
	subtest $name => sub {
		my $result = while_held($session, $three, $action, %$match);
		$check->($result);
		no_lock_is_left($name);
		is($session->run('CALL yelp_sync_all()')->{error}, undef, 'the next call in the same session works');
		table_is_listing($_) foreach @names[ 0 .. 2 ];
	};
	return;
}

foreach my $reading (1, 2)
{
	$api->mutate(account => 'account02', remove => 2, add => 1);
	meanwhile("reading $reading", { account => 'account02', nth => $reading }, sub {
			my $pid = $session->pid;
			is( $other->value("SELECT backend_xmin, backend_xid, (SELECT count(*) FROM pg_locks
					WHERE pid = $pid AND locktype = 'relation') FROM pg_stat_activity WHERE pid = $pid"),
				'||0', 'no snapshot, no transaction ID, no lock on a relation');
			is($other->run($_)->{error}, undef, "does not wait: $_") foreach 'SET statement_timeout = 60000',
				'CREATE INDEX CONCURRENTLY waiting ON yelp_programs (budget)', 'ALTER TABLE yelp_programs ADD COLUMN note text';
		}, sub {
			is($_[0]->{error}, undef, 'then it goes on');
			$other->value('DROP INDEX waiting; ALTER TABLE yelp_programs DROP COLUMN note');
		});
}
# 053_meanwhile.pl has changes of rows, and servers that are dropped
foreach my $case (
	[ 'DROP TABLE yelp_programs', 'partial' ],
	[ 'ALTER TABLE yelp_programs RENAME TO moved; CREATE VIEW yelp_programs AS TABLE moved', 'failed',
		'DROP VIEW yelp_programs; ALTER TABLE moved RENAME TO yelp_programs' ],
	[ 'DROP TABLE yelp_sync_runs', 'synced' ])
{
	my ($sql, $status, $undo) = @$case;
	meanwhile($sql, { account => 'account02' }, sub { is($other->run($sql)->{error}, undef, 'does not wait') }, sub {
		$other->value($undo) if $undo;
		is(history('status', 'account02'), $status, 'the status') if $status ne 'failed';
	});
}

note 'what fails';

$other->value(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM count(*) FROM pg_class;
		RAISE 'not this one' USING ERRCODE = TG_ARGV[0];
	END$$});
my $refuse = q{FOR EACH ROW WHEN (NEW.username = 'account02') EXECUTE FUNCTION refuse};
$other->value(q{ALTER SERVER account02 OPTIONS (ADD record_changes 'on')});
foreach my $case (
	[ 'a serialization failure', '40001', "CREATE TRIGGER refuse BEFORE INSERT ON yelp_programs $refuse('40001')" ],
	[ 'a check at the commit', 'P0099', "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON yelp_programs
		DEFERRABLE INITIALLY DEFERRED $refuse('P0099')" ],
	[ 'a unique index', '23505', q{DELETE FROM yelp_programs WHERE username = 'account02';
		CREATE UNIQUE INDEX refuse ON yelp_programs ((updated_at > '2000-01-01')) WHERE username = 'account02'} ])
{
	my ($name, $sqlstate, $sql) = @$case;
	$api->mutate(account => $_, add => 1) foreach @names[ 0 .. 2 ];
	$other->value($sql);
	my ($result, $runs) = call($three, 'username, status, sqlstate, added');
	is($result->{error}, 'could not sync 1 of 3 accounts', "$name: an error at the end");
	is($runs, "account01|synced||1\naccount02|failed|$sqlstate|\naccount03|synced||1", "$name: one account only, on record");
	is($other->value(q{SELECT count(*) FROM yelp_program_changes WHERE run_id IN (SELECT run_id FROM yelp_sync_runs WHERE status = 'failed')}),
		0, "$name: no changes, because they were rolled back");
	no_lock_is_left($name);
	$other->value($name =~ /index/ ? 'DROP INDEX refuse' : 'DROP TRIGGER refuse ON yelp_programs');
	is($session->run('CALL yelp_sync_all()')->{error}, undef, "$name: without it the next call works");
	table_is_listing('account02', "$name: the table");
}
is( while_held($session, q{SELECT count(*) FROM yelp_sync('account02')}, sub {
		like($other->run(q{CALL yelp_sync_all('account01', 'account02')})->{detail}, qr/account "account02" is already being synced/,
			'an account that is being synced does not affect others')
	}, account => 'account02')->{error}, undef, '... and continues');

note 'what ends all';

foreach my $how ('pg_cancel_backend', 'statement_timeout', 'pg_terminate_backend')
{
	$api->mutate(account => $_, add => 1) foreach @names[ 0 .. 2 ];
	my $last = $other->value('SELECT max(finished_at) FROM yelp_sync_runs');
	my $sql = ($how eq 'statement_timeout' ? "SET statement_timeout = '3s';" : '') . $three;
	my $result = while_held($session, $sql, sub {
			$other->value("SELECT $how(" . $session->pid . ')') if $how =~ /^pg_/;
			poll_until(sub { !$session->is_running }, 'the end');
		}, account => 'account02');
	is(runs_since($last, 'username, status'), 'account01|synced', "$how: what was done before is committed, and nothing else begins");
	is($result->{sqlstate}, $how eq 'pg_terminate_backend' ? '57P01' : '57014', "$how: the SQLSTATE");
	$result->{lost} ? $session = YelpSession->new($node)
	  : is($session->sockets, 1, "$how: no socket is left but the client's");
	no_lock_is_left($how);
	is($session->run('RESET statement_timeout; CALL yelp_sync_all()')->{error}, undef, "$how: the next call works");
}

note 'other roles';

$other->value(q{CREATE ROLE partner LOGIN; GRANT USAGE ON FOREIGN SERVER account05 TO partner;
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO partner;
	GRANT SELECT, INSERT ON yelp_sync_runs TO partner;
	CREATE USER MAPPING FOR partner SERVER account05 OPTIONS (username 'account05', password 's3cret');
	CREATE ROLE stranger; GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO stranger;
	CREATE ROLE nobody; CREATE SERVER closed FOREIGN DATA WRAPPER yelp_sync;
	CREATE USER MAPPING FOR PUBLIC SERVER closed OPTIONS (username 'closed', password 'x')});
foreach my $case (
	[ 'SET ROLE partner; CALL yelp_sync_all()', qr/^no error$/, 'account05|partner' ],
	[ 'SET ROLE nobody; CALL yelp_sync_all()', qr/^42704: no accounts for user "nobody"\n(?:.*\n)*HINT:.*(CREATE USER MAPPING|GRANT)/, '' ],
	[ 'DROP SERVER closed CASCADE; REVOKE USAGE ON FOREIGN SERVER account05 FROM partner; SET ROLE partner; CALL yelp_sync_all()',
		qr/^HV000: could not sync 1 of 1 account\n.*permission denied for foreign server account05/, 'account05|partner' ],
	[ 'GRANT USAGE ON FOREIGN SERVER account05 TO partner; ALTER SERVER account05 OWNER TO stranger;
		SET ROLE partner; CALL yelp_sync_all()', qr/server "account05", which belongs to role "stranger"/, 'account05|partner' ],
	[ 'ALTER SERVER account05 OWNER TO CURRENT_USER; DO $$ BEGIN SET LOCAL ROLE partner; CALL yelp_sync_all(); END $$',
		qr/^25000: (?:.*\n)*HINT:.*SET ROLE/, '' ])
{
	my ($sql, $error, $expected) = @$case;
	my ($result, $runs) = call($sql, 'username, synced_by');
	like(failure($result), $error, $sql);
	is($runs, $expected, '... the runs');
	is($session->value('RESET ROLE; SELECT current_user = session_user'), 't', '... the role is as before');
}
no_lock_is_left('other roles');

note 'failures that cannot be recorded';

password('account02', 'wrong');
$other->value(q{CREATE FUNCTION refuse_record() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE 'no record' USING ERRCODE = 'P0099'; END$$;
	CREATE TRIGGER refuse BEFORE INSERT ON yelp_sync_runs FOR EACH ROW
		WHEN (NEW.status = 'failed') EXECUTE FUNCTION refuse_record()});
($result) = call($three);
is($result->{error}, 'could not sync 1 of 3 accounts', 'is one failure');
is((grep { $_ eq 'could not record the sync of account "account02": no record' } @{ $result->{warnings} }), 1, '... with a WARNING');
$other->value(q{DROP TRIGGER refuse ON yelp_sync_runs;
	CREATE FUNCTION sync_another() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN PERFORM yelp_sync('account04'); RETURN NEW; END$$;
	CREATE TRIGGER another BEFORE INSERT ON yelp_sync_runs FOR EACH ROW
		WHEN (NEW.status = 'failed') EXECUTE FUNCTION sync_another()});
($result, $runs) = call(q{CALL yelp_sync_all('account02')});
is(join(' ', sort split /\n/, $runs), 'account02|failed account04|synced', 'a trigger on the record may sync another account');
$other->value('DROP TRIGGER another ON yelp_sync_runs');
password('account02', 's3cret');

note 'yelp_sync_status';

# A test: an account's row, with P for its number of programs
sub status_is
{
	my ($account, $expected, $name) = @_;
	my $programs = $other->value("RESET ROLE; SELECT count(*) FROM yelp_programs WHERE username = '$account'");
	my $row = $session->value("SELECT mapped, running, programs, last_status, last_sqlstate, last_complete = last_attempt
		FROM yelp_sync_status WHERE username = '$account'");
	return is($row, $expected =~ s/P/$programs/r, $name);
}

call(q{CALL yelp_sync_all('account03', 'account05', 'account08', 'nobody')});
is($other->value('SELECT count(*), count(DISTINCT username) FROM yelp_sync_status'), '21|21', 'one row per account');
status_is('account03', 't|f|P|synced||t', 'a sync that succeeded');
status_is('nobody', 'f|f||failed|42704|', 'an account that is only in the history');
$other->value("CREATE TRIGGER refuse BEFORE INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION refuse('55P03')");
$api->mutate(account => 'account05', add => 1);
call(q{CALL yelp_sync_all('account05')});
status_is('account05', 't|f|P|failed|55P03|f', 'a lock that was not available, but not the account\'s');
$other->value('DROP TRIGGER refuse ON yelp_programs');
password('account03', 'wrong');
call(q{CALL yelp_sync_all('account03')});
status_is('account03', 't|f|P|failed|28000|f', 'a sync that failed');
like($session->value(q{SELECT last_error FROM yelp_sync_status WHERE username = 'account03'}),
	qr/^could not fetch .* API rejected the credentials/, '... and why');
while_held(YelpSession->new($node), q{CALL yelp_sync_all('account08')}, sub {
		is($other->value(q{SELECT string_agg(username, ' ') FROM yelp_sync_status WHERE running}), 'account08', 'a sync that is running');
		call(q{CALL yelp_sync_all('account08')});
		status_is('account08', 't|t|P|synced||t', 'another one meanwhile is no attempt');
	}, account => 'account08');
status_is('account08', 't|f|P|synced||t', 'then it is over');
$other->value('REVOKE SELECT ON pg_locks, pg_stat_activity FROM PUBLIC');
while_held(YelpSession->new($node), q{CALL yelp_sync_all('account05')}, sub {
		like(failure(run(q{SELECT yelp_sync('account05')}, role => 'partner')),
			qr/^55P03: .*\nDETAIL:  Process \d+ of role "postgres" is syncing it/, 'where statistics views are closed: who syncs');
		is(value('SELECT running FROM yelp_sync_status WHERE mapped', role => 'partner'), 't', '... and that a sync is running');
	}, account => 'account05');
$other->value('GRANT SELECT ON pg_locks, pg_stat_activity TO PUBLIC');
my $attempts = 'SELECT username, last_attempt, last_status, last_error FROM yelp_sync_status ORDER BY username';
my $shown = $other->value($attempts);
$other->value('ALTER TABLE yelp_sync_runs ALTER finished_at TYPE text, ALTER status TYPE varchar, ALTER username TYPE name');
is($other->value($attempts), $shown, 'columns that were given other types');
$other->value('ALTER TABLE yelp_sync_runs ALTER finished_at TYPE timestamptz USING finished_at::timestamptz, ALTER username TYPE text COLLATE "C"');
$session->value('DROP SERVER account03 CASCADE');
status_is('account03', 'f|f|P|failed|28000|f', 'an account whose mapping was dropped');
call(q{CALL yelp_sync_all('account05')});
$session->value('SET ROLE partner');
status_is('account05', 't|f|P|synced||t', 'a role that may read the tables');
is($session->value('SELECT count(*) FILTER (WHERE mapped), count(*) > 1 FROM yelp_sync_status'), '1|t', '... maps one account');
$session->value('RESET ROLE; REVOKE SELECT ON yelp_programs, yelp_sync_runs FROM partner; SET ROLE partner');
status_is('account05', 't|f||||', 'a role that may not read the tables');
is($session->value('SELECT count(*) FROM yelp_sync_status'), 1, '... sees its own account only');
$session->value('RESET ROLE; DROP TABLE yelp_programs, yelp_sync_runs');
# Privileges that PUBLIC does not have
$session->value('REVOKE EXECUTE ON FUNCTION pg_lock_status() FROM PUBLIC');
is($session->value('SELECT count(*), count(programs), bool_and(mapped) FROM yelp_sync_status'), '19|0|t', 'without tables');

$_->end foreach $session, $other;
done_testing();
