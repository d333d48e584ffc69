# Concurrent changes to the tables while a sync waits for the API, and unusual tables: nothing crashes,
# and no sync is "synced" without having stored every program.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my $programs = 100;
my ($node, $api) = start(accounts => { acme => { count => $programs } });
my $session = YelpSession->new($node);
my $other = YelpSession->new($node);
my $sync = q{SELECT yelp_sync('acme')};
my $repeatable = "BEGIN ISOLATION LEVEL REPEATABLE READ; $sync; COMMIT";
my $call = 'CALL yelp_sync_all()';

# Runs a statement, and the action while it waits for the API
sub meanwhile
{
	my ($sql, $action) = @_;
	return while_held($session, $sql, sub { value($action) }, offset => 20);
}

# Runs a statement until it waits for a lock that another transaction holds, then commits that
sub after_lock
{
	my ($sql, $action) = @_;
	$other->value("BEGIN; $action");
	$session->begin($sql);
	wait_for_lock($session);
	$other->value('COMMIT');
	return $session->result;
}

# A sync that noticed that so many programs (a pattern) were not stored as they are listed; the
# next one stores them
sub is_noticed
{
	my ($result, $number, $name) = @_;
	my $warning = qr/^$number programs? of account "acme" (is|are) not as listed in table public\.yelp_programs$/;

	is($result->{error}, undef, "$name: no error");
	is_deeply([ scalar(grep { $_ =~ $warning } @{ $result->{warnings} }), history('status') ], [ 1, 'partial' ],
		"$name: a warning, and the run is partial");
	is_healed($name);
	return;
}

sub is_healed
{
	my ($name) = @_;
	is(sync('acme')->{error}, undef, "$name: the next sync works");
	table_is_listing('acme', "$name: all programs are stored again");
	is(history('status'), 'synced', "$name: synced");
	return;
}

sync('acme');

note 'rows that others delete, edit or add';

my $delete = 'DELETE FROM yelp_programs WHERE ctid IN (SELECT ctid FROM yelp_programs LIMIT 60)';
my $edit = 'UPDATE yelp_programs SET %s WHERE program_id = (SELECT min(program_id) FROM yelp_programs)';
foreach my $case (
	[ 'deleted, and nothing else changed', $sync, 60, $delete ],
	[ 'deleted, in REPEATABLE READ', $repeatable, 60, $delete ],
	[ 'deleted, in the procedure', $call, 60, $delete ],
	[ 'deleted, and others changed', $sync, qr/\d+/, $delete, alter => 3 ],
	(map { [ $_, $sync, 1, sprintf($edit, $_) ] } q{program_id = 'renamed'}, 'budget = 0.55', q{username = 'other'}))
{
	my ($name, $sql, $number, $action, @change) = @$case;
	$api->mutate(@change) if @change;
	is_noticed(meanwhile($sql, $action), $number, $name);
	value(q{DELETE FROM yelp_programs WHERE username = 'other'});
}
$api->mutate(alter => 2);
is_noticed(after_lock($call, 'DELETE FROM yelp_programs'), $programs, 'deleted by a transaction that is not committed yet');
$api->mutate(edit => [ [ 0, { program_type => 'X' } ] ]);
my $altered = ($api->programs('acme'))[0]{program_id};
is_noticed(after_lock($sync, "UPDATE yelp_programs SET program_id = 'renamed' WHERE program_id = '$altered'"), 1,
	'a key that changes during the merge');
is_deeply(meanwhile($sync, 'CREATE TABLE other AS SELECT 1')->{warnings}, [], 'writes to another table: no warning');
foreach my $sql ($sync, $repeatable, $call)
{
	my $new = $api->mutate(add => 1)->{added}[0];
	my $result = meanwhile($sql, "INSERT INTO yelp_programs (username, program_id, data) VALUES ('acme', '$new', '{}')");
	is($sql eq $call ? history('sqlstate') : $result->{sqlstate}, '40001', "a program that others add: $sql");
	$session->run('ROLLBACK');
	is_healed("a program that others add: $sql");
}

note 'programs that change from reading to reading';

# After a first sync, the listings of the readings: IDs and types
foreach my $case (
	[ 'two readings of the same programs', [qw(oldA xA)], [ [qw(xB pA)], [qw(xB pB)] ], 'pB xB' ],
	[ 'readings of other programs', [qw(xB)], [ [qw(qA pA)], [qw(rA pB)], [qw(sA pA)] ], 'pA qA rA sA xB' ],
	[ 'a program that is again as it was', [qw(pA xA)], [ [qw(qA pB)], [qw(qA pA)] ], 'pA qA', '0|1|1|synced' ],
	[ 'a program in the first reading only', [qw(aA bA cA)], [ [qw(newA aA bA)] ], 'aA bA', undef,
		{ account => 'acme', at_offset => 0, nth => 2, remove => [0] } ])
{
	my ($name, $stored, $readings, $expected, $run, @drift) = @$case;
	my $text = sub { my ($id, $type) = $_[0] =~ /(.*)(.)/; qq({"program_id":"$id","program_type":"$type"}) };
	my $reading = 1;

	value('TRUNCATE yelp_programs');
	$api->set_programs('acme', map { $text->($_) } @$stored);
	sync('acme');
	$api->set_programs('acme', map { $text->($_) } @{ $readings->[0] });
	$api->faults(map { { match => { offset => 0, nth => ++$reading }, action => { respond => { status => 200,
		body => sprintf('{"total":%d,"payment_programs":[%s]}', scalar(@$_), join ',', map { $text->($_) } @$_) } } } }
		@$readings[ 1 .. $#$readings ]);
	$api->drift(@drift);
	my $result = sync('acme');
	is($result->{error}, undef, "$name: no error");
	is(value(q{SELECT string_agg(program_id || program_type, ' ' ORDER BY program_id) FROM yelp_programs}),
		$expected, "$name: each program is stored once, as it was listed last");
	is(history('updated, unchanged, deleted, status'), $run, "$name: the run") if $run;
	$api->faults;
}
$api->config(accounts => { acme => { count => $programs } });
value('TRUNCATE yelp_programs');
is_healed('programs that change from reading to reading');

note 'a cancel while the history is written';

$other->value('BEGIN; LOCK TABLE yelp_sync_runs IN SHARE MODE');
$session->begin($sync);
wait_for_lock($session);
value('SELECT pg_cancel_backend(' . $session->pid . ')');
is($session->result->{sqlstate}, '57014', 'ends the sync');
$other->value('COMMIT');

note 'unusual tables';

value(q{CREATE TABLE mine () INHERITS (yelp_programs);
	INSERT INTO mine (username, program_id, data) VALUES ('acme', 'mine', '{}')});
my $result = sync('acme');
is_deeply([ $result->{rows}, $result->{warnings}, value('SELECT count(*) FROM mine; DROP TABLE mine') ], [ [], [], 1 ],
	'rows of a table that inherits are neither seen nor deleted');

value(q{CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'});
foreach my $case ([ 'INSERT', add => 2 ], [ 'UPDATE', alter => 2 ], [ 'DELETE', remove => 2 ])
{
	my ($event, @change) = @$case;
	my $name = "a trigger that skips $event";

	value("CREATE TRIGGER a_skip BEFORE $event ON yelp_programs FOR EACH ROW EXECUTE FUNCTION skip()");
	$api->mutate(@change);
	$result = sync('acme');
	is(outcome($result), '', "$name: nothing is reported");
	is(history('unchanged'), value('SELECT count(*) FROM yelp_programs') - ($event eq 'DELETE' ? 2 : 0), "$name: the run");
	value('DROP TRIGGER a_skip ON yelp_programs');
	is_noticed($result, 2, $name);
}
value(q{CREATE FUNCTION purge() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN DELETE FROM yelp_programs WHERE program_id = (SELECT min(program_id) FROM yelp_programs); RETURN NULL; END';
	CREATE TRIGGER purge AFTER UPDATE ON yelp_programs EXECUTE FUNCTION purge()});
$api->mutate(alter => 2);
$result = sync('acme');
value('DROP TRIGGER purge ON yelp_programs');
is_noticed($result, qr/\d/, 'a trigger that deletes');

note 'what the owner of a table can do';

value(q{CREATE ROLE ads LOGIN; GRANT CREATE ON SCHEMA public TO ads;
	GRANT USAGE ON FOREIGN SERVER yelp TO ads; CREATE USER MAPPING FOR ads SERVER yelp
		OPTIONS (username 'acme', password 's3cret');
	DROP TABLE yelp_programs, yelp_sync_runs, yelp_program_changes; DROP FUNCTION yelp_programs_edited});
is(outcome(sync('acme', role => 'ads')), 'added ' . $api->config->{accounts}{acme}{count}, 'a role creates the tables');
value('ALTER TABLE yelp_programs DROP CONSTRAINT yelp_programs_pkey; ALTER TABLE yelp_programs ALTER program_id DROP NOT NULL;
	INSERT INTO yelp_programs (username, program_id, data) VALUES (\'acme\', NULL, \'{}\')', role => 'ads');
like(failure(sync('acme', role => 'ads')), qr/^23502: .*\nHINT:  .*primary key/s, 'rows without an ID');    # should fail
value(q{DELETE FROM yelp_programs WHERE program_id IS NULL;
	CREATE FUNCTION no_id() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.program_id := NULL; RETURN NEW; END';
	CREATE TRIGGER no_id BEFORE INSERT OR UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION no_id()}, role => 'ads');
set_server(record_changes => 'on');
foreach my $change ('alter', 'add')
{
	$api->mutate($change => 1);
	like(failure(sync('acme', role => 'ads')), qr/^23502: .*\nHINT:  .*primary key/s, "a trigger that takes the ID away: $change");    # should fail
}
set_server(record_changes => undef);
value('DROP FUNCTION no_id CASCADE; ALTER TABLE yelp_programs ADD PRIMARY KEY (username, program_id);'
	  . join ';', map { "ALTER TABLE $_ OWNER TO CURRENT_USER" } qw(yelp_programs yelp_sync_runs yelp_program_changes));
value('ALTER FUNCTION yelp_programs_edited() OWNER TO CURRENT_USER');
is_healed('another owner');

value(q{CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)});
foreach my $column (qw(username program_id))
{
	my $trigger = value(q{SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'yelp_programs_edited'});

	value(qq{DROP TRIGGER yelp_programs_edited ON yelp_programs;
		ALTER TABLE yelp_programs ALTER $column TYPE text COLLATE anycase});
	$result = sync('acme');    # should fail
	is($result->{error}, qq{column "$column" of table public.yelp_programs has a nondeterministic collation},
		"$column: keys that are equal and not the same");
	value(($result->{hint} =~ s/^Run: //r) . $trigger);
	is_healed("$column with the collation of the hint");
}

note 'objects that are dropped';

$api->mutate(remove => 90);
$result = while_held($session, $call, sub { value('DROP SERVER yelp CASCADE') }, nth => 2);
is($result->{error}, undef, 'the server');
like($result->{warnings}[0], qr/programs of account "acme" are no longer listed: nothing was deleted$/, '... with a hint about its options');
$api->config(accounts => { acme => { count => $programs } });

value('CREATE SCHEMA elsewhere; DROP EXTENSION yelp_sync CASCADE');
install($node, $api, schema => 'elsewhere');
like(failure(meanwhile('CALL elsewhere.yelp_sync_all()', 'DROP SCHEMA elsewhere CASCADE')),
	qr/^HV000: .*\nDETAIL:  .*extension yelp_sync has been dropped/, 'the schema');
install($node, $api);
is(meanwhile($call, 'DROP EXTENSION yelp_sync CASCADE')->{sqlstate}, 'HV000', 'the extension');
is($session->value('SELECT 1'), 1, 'the session continues');

$_->end foreach $session, $other;
done_testing();
