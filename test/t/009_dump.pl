# pg_dump includes the tables with all additions by users, in every way to restore.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(
	schema => 'ads',
	server => { record_changes => 'on' },
	conf => "autovacuum = off\n");
my $dump = $node->basedir . '/yelp.dump';

sub query
{
	my ($sql, $database) = @_;
	return YelpTest::must_run($node, $sql, database => $database // 'postgres')->{stdout} =~ s/\n\z//r;
}

# Fills a database with programs and with what users add
sub fill
{
	my ($database) = @_;
	query(q{SELECT count(*) FROM ads.yelp_sync('acme')}, $database);
	query(q{
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
		CREATE TRIGGER mine BEFORE INSERT OR UPDATE ON ads.yelp_programs
			FOR EACH ROW EXECUTE FUNCTION ads.mine();
		CREATE POLICY mine ON ads.yelp_programs TO regress_reader USING (username = 'acme');
		CREATE PUBLICATION programs FOR TABLE ads.yelp_programs;
		CREATE STATISTICS ads.mine ON program_type, currency FROM ads.yelp_programs;
		GRANT SELECT ON ads.yelp_programs TO regress_reader;
		GRANT SELECT (run_id, status) ON ads.yelp_sync_runs TO regress_reader;
		COMMENT ON COLUMN ads.yelp_programs.note IS 'mine';
		SELECT count(*) FROM ads.yelp_sync('acme')}, $database);
	return;
}

# The contents of each table
sub content
{
	my ($database) = @_;
	return { map { $_ => query("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM $_ AS t", $database) }
		  qw(ads.yelp_programs ads.yelp_sync_runs ads.yelp_program_changes ads.leads) };
}

# The database as a script; what is dumped and restored must be dumped alike
sub script
{
	my ($database) = @_;
	my ($stdout, $stderr) = run_command([ 'pg_dump', '--schema-only', '-d', $node->connstr($database) ]);
	is($stderr, '', "$database: pg_dump has no complaint");
	return join "\n", grep { !/^\\(un)?restrict / } split /\n/, $stdout;
}

$api->config(accounts => { acme => { count => 95 } });
query('CREATE ROLE regress_reader; CREATE DATABASE parts');
YelpTest::install($node, $api, database => 'parts', schema => 'ads', tables => 0);
query('SELECT ads.yelp_sync_create_tables(partitions => 3)', 'parts');

# By the name of a way: which database is dumped, how, and how it is restored
my @psql = ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f');
my @restore = ('pg_restore', '--exit-on-error');
my %ways = (
	plain => [ 'postgres', ['--format=plain'], \@psql ],
	custom => [ 'postgres', ['--format=custom'], \@restore ],
	inserts => [ 'postgres', [ '--format=plain', '--column-inserts' ], \@psql ],
	parallel => [ 'postgres', ['--format=directory'], [ @restore, '--jobs=2' ] ],
	sections => [ 'postgres', ['--format=custom'], map { [ @restore, "--section=$_" ] }
		  qw(pre-data data post-data) ],
	partitions => [ 'parts', ['--format=custom'], \@restore ]);
my (%whole, %shape);
foreach my $source ('postgres', 'parts')
{
	fill($source);
	$whole{$source} = content($source);
	$shape{$source} = script($source);
	like($shape{$source}, qr/CREATE TABLE ads\.yelp_programs .*CREATE TRIGGER yelp_programs_edited /s,
		"$source: the script makes the table and its trigger");
}

foreach my $way (sort keys %ways)
{
	my $database = "restored_$way";
	my ($source, $how, @steps) = @{ $ways{$way} };
	query("CREATE DATABASE $database");
	$node->command_ok([ 'pg_dump', @$how, '-d', $node->connstr($source), '-f', "$dump.$way" ], "$way: pg_dump");
	foreach my $step (@steps)
	{
		my ($program, @arguments) = @$step;
		$node->command_ok([ $program, '-d', $node->connstr($database), @arguments, "$dump.$way" ], "$way: @$step");
	}

	is_deeply(content($database), $whole{$source}, "$way: each table is whole");
	is(script($database), $shape{$source}, "$way: with all that was added");
	my $rows = 'SELECT sum(hashtextextended(concat(tableoid, ctid, xmin, xmax, p), 0)) FROM ads.yelp_programs p';
	my $before = query($rows, $database);
	my $sync = YelpTest::sync($node, 'acme', database => $database, search_path => 'ads');
	is($sync->{error}, undef, "$way: the next sync");
	is_deeply($sync->{rows}, [], "$way: finds no change");
	is(query($rows, $database), $before, "$way: and writes nothing");
	is(query(q{SELECT username FROM ads.yelp_sync_runs ORDER BY finished_at DESC LIMIT 1}, $database),
		'acme', "$way: the history goes on");
	query(q{UPDATE ads.yelp_programs SET budget = 1
		WHERE program_id = (SELECT min(program_id) FROM ads.yelp_programs)}, $database);
	$sync = YelpTest::sync($node, 'acme', database => $database, search_path => 'ads');
	is_deeply([ map { $_->{action} } @{ $sync->{rows} } ], ['updated'],
		"$way: a row that is edited by hand is restored");
}

$node->stop;
done_testing();
