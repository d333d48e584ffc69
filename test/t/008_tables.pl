# The tables belong to the user: creation, partitions, what DROP EXTENSION leaves, and what pg_dump
# includes, however it is restored.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest ':all';

my ($node, $api) = start(
	tables => 0,
	schema => 'ads',
	server => { record_changes => 'on' },
	accounts => { acme => { count => 95 }, map { ("account$_" => { count => 45 }) } 1 .. 6 },
	conf => "autovacuum = off\n");
my @accounts = map { "account$_" } 1 .. 6;
my $seed = 0;

sub map_accounts
{
	value(create_server($_, endpoint => $api->url, for => 'PUBLIC') . "GRANT USAGE ON FOREIGN SERVER $_ TO PUBLIC")
	  foreach @accounts;
	return;
}

sub change
{
	my (%how) = @_;
	return $api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2, %how);
}

sub sync_ads
{
	my ($account, %options) = @_;
	return sync($account, search_path => 'ads', %options);
}

# A checksum of the table, including the location and the version of each row
sub picture
{
	my ($database) = @_;
	return value('SELECT count(*), sum(hashtextextended(concat(tableoid, ctid, xmin, xmax, p), 0)) FROM ads.yelp_programs p',
		database => $database // 'postgres');
}

# The schema as pg_dump shows it
sub script
{
	my ($database, @options) = @_;
	my ($stdout, $stderr) = run_command([ 'pg_dump', '--schema-only', @options, '-d', $node->connstr($database) ]);
	is($stderr, '', "$database: pg_dump has no complaint");
	return join "\n", grep { !/^\\(un)?restrict / } split /\n/, $stdout;
}

note 'the first sync creates them: sql/tables.sql has owners and privileges';

map_accounts();
value('CREATE ROLE regress_syncer; CREATE ROLE regress_reader; GRANT USAGE, CREATE ON SCHEMA ads TO regress_syncer');
is( value(q{BEGIN; SELECT count(*) FROM ads.yelp_sync('account1'); ROLLBACK;
		SELECT to_regclass('ads.yelp_programs') IS NULL AND to_regclass('ads.yelp_sync_runs') IS NULL
			AND to_regproc('ads.yelp_programs_edited') IS NULL}, role => 'regress_syncer'),
	"45\nt", 'a sync that is rolled back leaves none');
is(outcome(sync_ads('account1', role => 'regress_syncer')), 'added 45', 'a first sync');
is(outcome(sync_ads('account1')), '', 'a superuser syncs as their owner');
value('DROP OWNED BY regress_syncer; DROP ROLE regress_syncer');

# Sessions that find no tables
my @sessions = map { YelpSession->new($node, search_path => 'ads') } 1 .. 3;
$sessions[0]->run('BEGIN');
is(outcome($sessions[0]->sync('account1')), 'added 45', 'a first sync whose transaction is open');
is($sessions[1]->sync('account1')->{sqlstate}, '55P03', 'another one of the account is refused at once');
$sessions[1]->begin_sync('account2');
$sessions[2]->begin('SELECT yelp_sync_create_tables()');
wait_for_lock($_) foreach @sessions[ 1, 2 ];
$sessions[0]->run('COMMIT');
is(outcome($sessions[1]->sync_result), 'added 45', 'one of another account waits for the tables');
is($sessions[2]->result->{error}, undef, 'as does yelp_sync_create_tables()');
$_->end foreach @sessions;

# An event trigger that creates them in the script of another extension
value(q{
	DROP TABLE ads.yelp_programs, ads.yelp_sync_runs, ads.yelp_program_changes;
	DROP FUNCTION ads.yelp_programs_edited;
	CREATE FUNCTION make_tables() RETURNS event_trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF to_regclass('ads.yelp_programs') IS NULL THEN
			PERFORM ads.yelp_sync_create_tables();
		END IF;
	END $$;
	CREATE EVENT TRIGGER make_tables ON ddl_command_end EXECUTE FUNCTION make_tables();
	CREATE EXTENSION pg_walinspect;
	DROP EVENT TRIGGER make_tables});
is(outcome(sync_ads('acme')), 'added 95', 'tables that were created by the script of another extension');
value('DROP EXTENSION pg_walinspect');
table_is_listing('acme', '... are not part of that extension', schema => 'ads');

note 'DROP EXTENSION leaves them';

# What users add
sub add_to_tables
{
	my ($database) = @_;
	value(q{
		ALTER TABLE ads.yelp_programs ADD COLUMN note text DEFAULT 'mine',
			ADD COLUMN cents bigint GENERATED ALWAYS AS (budget * 100) STORED,
			ADD CONSTRAINT sane CHECK (budget < 1e9), ALTER COLUMN data SET STORAGE EXTERNAL;
		ALTER TABLE ads.yelp_sync_runs ADD COLUMN reviewed boolean;
		UPDATE ads.yelp_programs SET note = program_id;
		CREATE INDEX mine ON ads.yelp_programs (yelp_business_id) WHERE budget > 0;
		CREATE VIEW ads.active AS SELECT * FROM ads.yelp_programs WHERE program_status = 'ACTIVE';
		CREATE MATERIALIZED VIEW ads.budgets AS SELECT currency, sum(budget) FROM ads.yelp_programs GROUP BY 1;
		CREATE TABLE ads.leads (username text, program_id text, lead int,
			FOREIGN KEY (username, program_id) REFERENCES ads.yelp_programs ON DELETE CASCADE);
		INSERT INTO ads.leads SELECT username, program_id, 1 FROM ads.yelp_programs;
		CREATE FUNCTION ads.mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
		CREATE TRIGGER mine BEFORE INSERT OR UPDATE ON ads.yelp_programs FOR EACH ROW EXECUTE FUNCTION ads.mine();
		CREATE POLICY mine ON ads.yelp_programs TO regress_reader USING (username = 'acme');
		CREATE PUBLICATION programs FOR TABLE ads.yelp_programs;
		CREATE STATISTICS ads.mine ON program_type, currency FROM ads.yelp_programs;
		GRANT SELECT ON ads.yelp_programs TO regress_reader;
		GRANT SELECT (run_id, status) ON ads.yelp_sync_runs TO regress_reader;
		COMMENT ON COLUMN ads.yelp_programs.note IS 'mine';
		SELECT count(*) FROM ads.yelp_sync('acme')}, database => $database);
	return;
}

add_to_tables('postgres');
my $before = picture();
my $runs = value('SELECT count(*) FROM ads.yelp_sync_runs');
my $shape = script('postgres', '-n', 'ads');
my $drop = run('DROP EXTENSION yelp_sync CASCADE');
is($drop->{error}, undef, 'DROP EXTENSION CASCADE');
unlike($drop->{stderr}, qr/yelp_programs|yelp_sync_runs/, 'names none of them');
is(picture(), $before, 'no row has changed');
is(script('postgres', '-n', 'ads'), $shape, 'nor what was added');
install($node, $api, schema => 'ads', tables => 0, server => { record_changes => 'on' });
is(outcome(sync_ads('acme')), '', 'the next sync finds no change');
is(picture(), $before, '... and writes nothing');
is(value('SELECT count(*) FROM ads.yelp_sync_runs'), $runs + 1, '... but the history');
change();
is(outcome(sync_ads('acme')), 'added 2, deleted 3, updated 4', 'the one after it, what is new');

note 'pg_dump';

value('CREATE DATABASE parts');
install($node, $api, database => 'parts', schema => 'ads', tables => 0, server => { record_changes => 'on' });
value('SELECT ads.yelp_sync_create_tables(partitions => 3); SELECT count(*) FROM ads.yelp_sync(\'acme\')', database => 'parts');
add_to_tables('parts');

sub content
{
	my ($database) = @_;
	return join ' ', map { value("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM ads.$_ AS t", database => $database) }
	  qw(yelp_programs yelp_sync_runs yelp_program_changes leads);
}

# For each way: the database that is dumped, the options, and how it is restored
my @psql = ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f');
my @restore = ('pg_restore', '--exit-on-error');
my %ways = (
	plain => [ 'postgres', ['--format=plain'], \@psql ],
	inserts => [ 'postgres', [ '--format=plain', '--column-inserts' ], \@psql ],
	parallel => [ 'postgres', ['--format=directory'], [ @restore, '--jobs=2' ] ],
	sections => [ 'postgres', ['--format=custom'], map { [ @restore, "--section=$_" ] } qw(pre-data data post-data) ],
	partitions => [ 'parts', ['--format=custom'], \@restore ]);
my %source = map { $_ => content($_) . script($_) } qw(postgres parts);
foreach my $way (sort keys %ways)
{
	my $database = "restored_$way";
	my $file = $node->basedir . "/$way.dump";
	my ($source, $how, @steps) = @{ $ways{$way} };
	my @search = (database => $database, search_path => 'ads');

	value("CREATE DATABASE $database");
	$node->command_ok([ 'pg_dump', @$how, '-d', $node->connstr($source), '-f', $file ], "$way: pg_dump");
	foreach my $step (@steps)
	{
		my ($program, @arguments) = @$step;
		$node->command_ok([ $program, '-d', $node->connstr($database), @arguments, $file ], "$way: @$step");
	}
	is(content($database) . script($database), $source{$source}, "$way: all rows, and all that was added");
	$before = picture($database);
	is(outcome(sync('acme', @search)), '', "$way: the next sync finds no change");
	is(picture($database), $before, "$way: ... and writes nothing");
	value('UPDATE yelp_programs SET budget = 1 WHERE program_id = (SELECT min(program_id) FROM yelp_programs)', @search);
	is(outcome(sync('acme', @search)), 'updated 1', "$way: a row that is edited manually is restored");
}

note 'partitions: sql/tables.sql has rows that are moved to another one';

value('DROP TABLE ads.yelp_programs, ads.leads CASCADE; SELECT ads.yelp_sync_create_tables(partitions => 8)');
map_accounts();
unshift @accounts, 'acme';
foreach my $account (@accounts)
{
	my $count = $api->config->{accounts}{$account}{count};
	is(outcome(sync_ads($account)), "added $count", "$account: a first sync");
	change(account => $account);
	is(outcome(sync_ads($account)), 'added 2, deleted 3, updated 4', "$account: changes");
	table_is_listing($account, "$account: the table", schema => 'ads');
}
is( value(q{SELECT count(*) FROM pg_partition_tree('ads.yelp_programs') WHERE isleaf;
		SELECT count(DISTINCT tableoid) > 1 FROM ads.yelp_programs}), "8\nt", 'they are in several partitions');
$before = picture();
is(outcome(sync_ads($_)), '', "$_: a repeat") foreach @accounts;
is(picture(), $before, 'repeats write nothing');

my $slow = YelpSession->new($node, search_path => 'ads');
$slow->run('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yelp_programs');
change(add => 5, remove => 0, alter => 0);
sync_ads('acme');
is($slow->sync('acme')->{sqlstate}, '40001', 'a sync that another one has overtaken');    # should fail
$slow->end;

done_testing();
