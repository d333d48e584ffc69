# Concurrent changes to the tables while a sync waits for the API, and unusual tables: nothing crashes,
# and no sync is "synced" without having stored every program.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my $programs = 100;
my ($node, $api) = YelpTest::start();
my $wrong = qr/(is|are) not as listed in table public\.yelp_programs$/;

sub value
{
	return YelpTest::value($node, @_);
}

# Runs a statement; as soon as a request of it is held, does something else and lets it go on.
sub meanwhile
{
	my ($session, $sql, $action) = @_;

	$api->faults({ match => { offset => 20 }, action => { hold => \1 } });
	$session->begin($sql);
	$api->poll_counter('held', 1);
	$action->();
	$api->faults();
	$api->release;
	return $session->result;
}

sub warnings_like
{
	my ($result, $pattern, $name) = @_;
	my @found = grep { $_ =~ $pattern } @{ $result->{warnings} };

	is($result->{error}, undef, "$name: no error");
	is(scalar(@found), 1, "$name: a warning");
	is(value('SELECT status FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), 'partial', "$name: the run");
	return;
}

sub is_healed
{
	my ($name) = @_;

	is(YelpTest::sync($node, 'acme')->{error}, undef, "$name: the next sync");
	YelpTest::table_is_listing($node, $api, 'acme', "$name: all are stored again");
	is(value('SELECT status FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), 'synced', "$name: synced");
	return;
}

$api->config(accounts => { acme => { count => $programs } });
YelpTest::sync($node, 'acme');
my $session = YelpSession->new($node);
my $delete = q{DELETE FROM yelp_programs WHERE program_id IN
	(SELECT program_id FROM yelp_programs ORDER BY program_id LIMIT 60)};

note 'rows that others delete';

my $result = meanwhile($session, q{SELECT yelp_sync('acme')}, sub { value($delete) });
warnings_like($result, qr/^60 programs of account "acme" $wrong/, 'nothing else changed');
is_healed('nothing else changed');

$api->mutate(alter => 3);
$result = meanwhile($session, q{SELECT yelp_sync('acme')}, sub { value($delete) });
warnings_like($result, qr/^\d+ programs of account "acme" $wrong/, 'others changed');
is_healed('others changed');

$result = meanwhile($session, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT yelp_sync('acme'); COMMIT},
	sub { value($delete) });
warnings_like($result, qr/^60 programs of account "acme" $wrong/, 'repeatable read');
is_healed('repeatable read');

# Another transaction that is under way when the merge begins
my $other = YelpSession->new($node);
$api->mutate(alter => 2);
$other->run('BEGIN; DELETE FROM yelp_programs');
$session->begin('CALL yelp_sync_all()');
$node->poll_query_until('postgres',
	'SELECT wait_event_type = \'Lock\' FROM pg_stat_activity WHERE pid = ' . $session->pid);
$other->run('COMMIT');
$result = $session->result;
warnings_like($result, qr/^$programs programs of account "acme" $wrong/, 'a transaction under way');
is_healed('a transaction under way');

# What does not concern the account is no reason
$result = meanwhile($session, q{SELECT yelp_sync('acme')}, sub { value('CREATE TABLE other AS SELECT 1') });
is_deeply($result->{warnings}, [], 'other writes: no warning');
is(value('SELECT status FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), 'synced', 'other writes: synced');

$result = meanwhile($session, q{CALL yelp_sync_all()}, sub { value($delete) });
warnings_like($result, qr/^60 programs of account "acme" $wrong/, 'the procedure');
is_healed('the procedure');

note 'rows that others edit or add';

my $first = q{program_id = (SELECT min(program_id) FROM yelp_programs)};
foreach my $edit (q{program_id = 'renamed'}, q{budget = 0.55}, q{username = 'other'})
{
	$result = meanwhile($session, q{SELECT yelp_sync('acme')}, sub { value("UPDATE yelp_programs SET $edit WHERE $first") });
	warnings_like($result, qr/^1 program of account "acme" $wrong/, $edit);
	is_healed($edit);
	value(q{DELETE FROM yelp_programs WHERE username = 'other'});
}

# While the merge waits for another transaction, which then changes a key
$api->mutate(edit => [ [ 0, { program_type => 'X' } ] ]);
my $altered = ($api->programs('acme'))[0]{program_id};
$other->run(qq{BEGIN; UPDATE yelp_programs SET program_id = 'renamed' WHERE program_id = '$altered'});
$session->begin(q{SELECT yelp_sync('acme')});
$node->poll_query_until('postgres',
	'SELECT wait_event_type = \'Lock\' FROM pg_stat_activity WHERE pid = ' . $session->pid);
$other->run('COMMIT');
warnings_like($session->result, qr/^1 program of account "acme" $wrong/, 'a key that changes during the merge');
is_healed('a key that changes during the merge');

foreach my $sql (q{SELECT yelp_sync('acme')}, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT yelp_sync('acme')},
	q{CALL yelp_sync_all()})
{
	my $new = $api->mutate(add => 1)->{added}[0];
	$result = meanwhile($session, $sql, sub { value(qq{INSERT INTO yelp_programs (username, program_id, data)
		VALUES ('acme', '$new', '{}')}) });
	is($sql =~ /CALL/ ? value('SELECT sqlstate FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1') : $result->{sqlstate},
		'40001', "a program that others add: $sql");
	$session->run('ROLLBACK') if $sql =~ /BEGIN/;
	is_healed("a program that others add: $sql");
}

note 'programs that change from reading to reading';

sub program
{
	my ($id, $type) = @_;
	return qq({"program_id":"$id","program_type":"$type","program_status":"ACTIVE"});
}

# What is listed in each reading
sub read_changing
{
	my ($first, @more) = @_;
	my $reading = 1;

	$api->set_programs('acme', @$first);
	$api->faults(map { { match => { offset => 0, nth => ++$reading }, action => { respond => { status => 200,
		body => sprintf('{"total":%d,"payment_programs":[%s]}', scalar(@$_), join(',', @$_)) } } } } @more);
	my $sync = YelpTest::sync($node, 'acme');
	$api->faults();
	return $sync;
}

my $stored = q{SELECT string_agg(program_id || ' ' || program_type, ', ' ORDER BY program_id) FROM yelp_programs};
value('TRUNCATE yelp_programs');
$api->set_programs('acme', program('old', 'A'), program('x', 'A'));
YelpTest::sync($node, 'acme');
$result = read_changing([ program('x', 'B'), program('p', 'A') ], [ program('x', 'B'), program('p', 'B') ]);
is($result->{error}, undef, 'two readings of the same programs: no error');
is(value($stored), 'p B, x B', 'each is as it was listed last, and what is in neither is gone');
value(q{DELETE FROM yelp_programs WHERE program_id = 'p'});
$result = read_changing(
	[ program('q', 'A'), program('p', 'A') ],
	[ program('r', 'A'), program('p', 'B') ],
	[ program('s', 'A'), program('p', 'A') ]);
is($result->{error}, undef, 'readings of other programs: no error');
is(value($stored), 'p A, q A, r A, s A, x B', 'all are stored, each once, as it was listed last');
value('TRUNCATE yelp_programs');
$api->set_programs('acme', program('p', 'A'), program('x', 'A'));
YelpTest::sync($node, 'acme');
$result = read_changing([ program('q', 'A'), program('p', 'B') ], [ program('q', 'A'), program('p', 'A') ]);
is($result->{error}, undef, 'a program that is again as it was: no error');
is(value($stored), 'p A, q A', 'it is stored as listed last');
is(value('SELECT updated, unchanged, deleted, status FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), '0|1|1|synced',
	'and not updated');
value('TRUNCATE yelp_programs');
$api->set_programs('acme', map { program($_, 'A') } qw(a b c));
YelpTest::sync($node, 'acme');
$api->set_programs('acme', map { program($_, 'A') } qw(new a b));
$api->drift({ account => 'acme', at_offset => 0, nth => 2, remove => [0] });
is(YelpTest::sync($node, 'acme')->{error}, undef, 'a program that is listed in the first reading only: no error');
is(value($stored), 'a A, b A', 'it is not stored, and one that is in none is gone');
$api->drift();
$api->config(accounts => { acme => { count => $programs } });
value('TRUNCATE yelp_programs');
is_healed('programs that change from reading to reading');

note 'a cancel while the history is written';

value(q{CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
	CREATE TRIGGER wait BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION wait()});
$session->begin(q{SELECT yelp_sync('acme')});
$node->poll_query_until('postgres',
	'SELECT wait_event = \'PgSleep\' FROM pg_stat_activity WHERE pid = ' . $session->pid);
$other->run('SELECT pg_cancel_backend(' . $session->pid . ')');
is($session->result->{sqlstate}, '57014', 'ends the sync');
value('DROP FUNCTION wait CASCADE');

note 'tables that inherit';

value(q{CREATE TABLE mine () INHERITS (yelp_programs);
	INSERT INTO mine (username, program_id, data) VALUES ('acme', 'mine', '{}')});
$result = YelpTest::sync($node, 'acme');
is_deeply([ $result->{rows}, $result->{warnings} ], [ [], [] ], 'their rows are not seen');
is(value('SELECT count(*) FROM mine'), 1, 'and stay');
value('DROP TABLE mine');

note 'triggers that write nothing, or too much';

value(q{CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'});
foreach my $case ([ 'INSERT', add => 2 ], [ 'UPDATE', alter => 2 ], [ 'DELETE', remove => 2 ])
{
	my ($event, @change) = @$case;

	value("CREATE TRIGGER a_skip BEFORE $event ON yelp_programs FOR EACH ROW EXECUTE FUNCTION skip()");
	$api->mutate(@change);
	$result = YelpTest::sync($node, 'acme');
	warnings_like($result, qr/^2 programs of account "acme" $wrong/, "a trigger that skips $event");
	is(scalar(@{ $result->{rows} }), 0, "a trigger that skips $event: nothing is reported");
	is(value('SELECT unchanged FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'),
		value('SELECT count(*) FROM yelp_programs') - ($event eq 'DELETE' ? 2 : 0), "a trigger that skips $event: the run");
	value('DROP TRIGGER a_skip ON yelp_programs');
	is_healed("a trigger that skips $event");
}
value(q{CREATE FUNCTION purge() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN DELETE FROM yelp_programs WHERE program_id = (SELECT min(program_id) FROM yelp_programs); RETURN NULL; END';
	CREATE TRIGGER purge AFTER UPDATE ON yelp_programs EXECUTE FUNCTION purge()});
$api->mutate(alter => 2);
warnings_like(YelpTest::sync($node, 'acme'), qr/^\d programs? of account "acme" $wrong/, 'a trigger that deletes');
value('DROP TRIGGER purge ON yelp_programs');
is_healed('a trigger that deletes');

note 'triggers of a partition';

value(q{DROP TABLE yelp_programs; SELECT yelp_sync_create_tables(partitions => 2)});
is_healed('partitions');
my $partition = value('SELECT tableoid::regclass FROM yelp_programs LIMIT 1');
value(qq{CREATE TRIGGER a_skip BEFORE UPDATE ON $partition FOR EACH ROW EXECUTE FUNCTION skip()});
$api->mutate(alter => 20);
warnings_like(YelpTest::sync($node, 'acme'), qr/^\d+ programs? of account "acme" $wrong/, 'one that skips');
value("DROP TRIGGER a_skip ON $partition");
is_healed('one that skips');
value(q{CREATE ROLE other; GRANT CREATE ON SCHEMA public TO other; SET ROLE other;
	CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; RESET ROLE;
	CREATE TRIGGER spy AFTER INSERT ON yelp_programs_1 FOR EACH ROW EXECUTE FUNCTION spy()});
my $requests = $api->counters->{requests};
$result = YelpTest::sync($node, 'acme');    # should fail
is($result->{sqlstate}, '42501', 'one whose function belongs to another role');
like($result->{error}, qr/^function public\.spy\(\) belongs to role "other"$/, 'which one');
is($api->counters->{requests}, $requests, 'before anything is fetched');
value('DROP FUNCTION spy CASCADE');
is_healed('without it');

note 'what the owner of a table can do';

value(q{CREATE ROLE ads LOGIN; GRANT CREATE ON SCHEMA public TO ads;
	GRANT USAGE ON FOREIGN SERVER yelp TO ads; CREATE USER MAPPING FOR ads SERVER yelp
		OPTIONS (username 'acme', password 's3cret');
	DROP TABLE yelp_programs, yelp_sync_runs, yelp_program_changes; DROP FUNCTION yelp_programs_edited});
is(YelpTest::sync($node, 'acme', role => 'ads')->{error}, undef, 'a role makes the tables');
value('ALTER TABLE yelp_programs DROP CONSTRAINT yelp_programs_pkey; ALTER TABLE yelp_programs ALTER program_id DROP NOT NULL;
	INSERT INTO yelp_programs (username, program_id, data) VALUES (\'acme\', NULL, \'{}\')', role => 'ads');
$result = YelpTest::sync($node, 'acme', role => 'ads');    # should fail
is($result->{sqlstate}, '23502', 'rows without an ID');
like($result->{hint}, qr/primary key/, 'and what to do about them');
value('DELETE FROM yelp_programs WHERE program_id IS NULL; ALTER TABLE yelp_programs ADD PRIMARY KEY (username, program_id)');

my $refused = qr/^not all tables of yelp_sync belong to role "postgres", the owner of yelp_programs$/;
my @tables = qw(yelp_programs yelp_sync_runs yelp_program_changes);
value(join ';', map { "ALTER TABLE $_ OWNER TO CURRENT_USER" } @tables);
$result = YelpTest::sync($node, 'acme');    # should fail
is($result->{sqlstate}, '42501', 'a function whose owner could change it');
like($result->{error}, $refused, 'which one');
like($result->{hint}, qr/ALTER FUNCTION public\.yelp_programs_edited\(\) OWNER TO/, 'and the way out');
value('ALTER FUNCTION yelp_programs_edited() OWNER TO CURRENT_USER');
is_healed('with another owner');

$node->psql('postgres', q{CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)});
foreach my $column (qw(username program_id))
{
	my $trigger = value(q{SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'yelp_programs_edited'});

	value(qq{DROP TRIGGER yelp_programs_edited ON yelp_programs;
		ALTER TABLE yelp_programs ALTER $column TYPE text COLLATE anycase});
	$result = YelpTest::sync($node, 'acme');    # should fail
	is($result->{error}, qq{column "$column" of table public.yelp_programs has a nondeterministic collation},
		"$column: keys that are equal and not the same");
	value(($result->{hint} =~ s/^Run: //r) . $trigger);
	is_healed("$column with another collation");
}

note 'a schema that is dropped';

value('CREATE SCHEMA elsewhere; DROP EXTENSION yelp_sync CASCADE');
YelpTest::install($node, $api, schema => 'elsewhere');
$result = meanwhile($session, 'CALL elsewhere.yelp_sync_all()', sub { value('DROP SCHEMA elsewhere CASCADE') });
is($result->{lost}, '', 'the session lives');
is($result->{sqlstate}, 'HV000', 'the schema is dropped: an error');
like($result->{detail}, qr/extension yelp_sync has been dropped/, 'which says so');
YelpTest::install($node, $api);
$result = meanwhile($session, 'CALL yelp_sync_all()', sub { value('DROP EXTENSION yelp_sync CASCADE') });
is($result->{sqlstate}, 'HV000', 'the extension is dropped: an error');
is($session->value('SELECT 1'), 1, 'the session goes on');

$session->end;
$other->end;
$node->stop;
done_testing();
