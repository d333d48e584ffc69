# The tables belong to the user: creation, partitions, and what DROP EXTENSION
# leaves.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(
	tables => 0,
	schema => 'ads',
	conf => "autovacuum = off\n");
my $seed = 0;

$api->config(accounts => { acme => { count => 95 }, map { $_ => { password => 's3cret', count => 45 } }
		map { "account$_" } 1 .. 6 });

sub value
{
	return YelpTest::value($node, @_);
}

# A server with a mapping of an account for everybody
sub map_account
{
	my ($account) = @_;
	value(YelpTest::create_server($account, endpoint => $api->url, for => 'PUBLIC')
		  . "GRANT USAGE ON FOREIGN SERVER $account TO PUBLIC");
	return;
}

sub change
{
	my (%how) = @_;
	return $api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2, %how);
}

sub sync
{
	my ($account, %options) = @_;
	my $schema = delete $options{schema} // 'ads';
	return YelpTest::sync($node, $account, search_path => $schema, %options);
}

# A checksum of the table, including the location and the version of each row
sub picture
{
	return value('SELECT count(*), sum(hashtextextended(concat(tableoid, ctid, xmin, xmax, p), 0))
		FROM ads.yelp_programs p');
}

# The user's part of the schema, as pg_dump sees it
sub shape
{
	my ($stdout) = run_command([ 'pg_dump', '--schema-only', '-n', 'ads', '-d', $node->connstr('postgres') ]);
	return join "\n", grep { !/^\\(un)?restrict / } split /\n/, $stdout;
}

note 'the first sync makes them';

map_account("account$_") foreach 1 .. 6;
value(q{CREATE ROLE regress_syncer; GRANT USAGE ON SCHEMA ads TO regress_syncer});
my $result = sync('account1', role => 'regress_syncer');    # should fail
is($result->{sqlstate}, '42501', 'without CREATE on the schema: SQLSTATE');
is($result->{error}, 'role "regress_syncer" may not create ads.yelp_programs, ads.yelp_sync_runs, ads.yelp_program_changes',
	'message');
like($result->{hint}, qr/run SELECT ads\.yelp_sync_create_tables\(\);/, 'the hint names the function');
is($api->counters->{requests}, 0, 'nothing was asked for');

value('GRANT CREATE ON SCHEMA ads TO regress_syncer');
is(value(q{BEGIN; SELECT count(*) FROM ads.yelp_sync('account1'); ROLLBACK;
	SELECT to_regclass('ads.yelp_programs') IS NULL AND to_regclass('ads.yelp_sync_runs') IS NULL
		AND to_regproc('ads.yelp_programs_edited') IS NULL}, role => 'regress_syncer'),
	"45\nt", 'a sync that is rolled back leaves none');
is_deeply(YelpTest::actions(sync('account1', role => 'regress_syncer')), { added => 45 }, 'with CREATE: a first sync');
is(value(q{SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class
	WHERE relnamespace = 'ads'::regnamespace AND relname ~ '^yelp_(programs|sync_runs|program_changes)'}),
	'regress_syncer', 'they belong to the role that synced');
is(value(q{SELECT count(*) FROM ads.yelp_programs}, role => 'regress_syncer'), 45, 'which can read them');
is_deeply(YelpTest::actions(sync('account1')), {}, 'a superuser syncs as their owner');
value('DROP OWNED BY regress_syncer; DROP ROLE regress_syncer');

# Two sessions that find no table
my @sessions = map { YelpSession->new($node, search_path => 'ads') } 1 .. 3;
$sessions[0]->run('BEGIN');
is_deeply(YelpTest::actions($sessions[0]->sync('account1')), { added => 45 }, 'a first sync whose transaction is open');
is($sessions[1]->sync('account1')->{sqlstate}, '55P03', 'another one of the account is refused at once');
$sessions[1]->begin_sync('account2');
$sessions[2]->begin('SELECT yelp_sync_create_tables()');
$node->poll_query_until('postgres',
	q{SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'}) or die 'no wait';
$sessions[0]->run('COMMIT');
is_deeply(YelpTest::actions($sessions[1]->sync_result), { added => 45 }, 'one of another account waits for the tables');
is($sessions[2]->result->{error}, undef, 'as does yelp_sync_create_tables()');
$_->end foreach @sessions;
is(value('SELECT username, count(*) FROM ads.yelp_programs GROUP BY 1 ORDER BY 1'),
	"account1|45\naccount2|45", 'both are stored');

# Within another extension's script, to which an event trigger leads
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
is_deeply(YelpTest::actions(sync('acme')), { added => 95 }, 'tables that were made by an extension\'s script');
value('DROP EXTENSION pg_walinspect');
YelpTest::table_is_listing($node, $api, 'acme', 'are no part of that extension', schema => 'ads');

note 'DROP EXTENSION leaves them';

value(q{
	CREATE ROLE regress_reader;
	ALTER TABLE ads.yelp_programs ADD COLUMN note text DEFAULT 'mine', ADD CHECK (budget < 1e9);
	UPDATE ads.yelp_programs SET note = program_id;
	CREATE INDEX mine ON ads.yelp_programs (yelp_business_id);
	CREATE VIEW ads.active AS SELECT * FROM ads.yelp_programs WHERE program_status = 'ACTIVE';
	CREATE TABLE ads.leads (username text, program_id text,
		FOREIGN KEY (username, program_id) REFERENCES ads.yelp_programs ON DELETE CASCADE);
	INSERT INTO ads.leads SELECT username, program_id FROM ads.yelp_programs LIMIT 1;
	CREATE FUNCTION ads.mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
	CREATE TRIGGER mine BEFORE INSERT OR UPDATE ON ads.yelp_programs FOR EACH ROW EXECUTE FUNCTION ads.mine();
	CREATE POLICY mine ON ads.yelp_programs TO regress_reader USING (true);
	GRANT SELECT ON ads.yelp_programs TO regress_reader;
	COMMENT ON TABLE ads.yelp_programs IS 'mine'});
my $before = picture();
my $runs = value('SELECT count(*), max(finished_at) FROM ads.yelp_sync_runs');
my $shape = shape();
my $drop = YelpTest::run($node, 'DROP EXTENSION yelp_sync CASCADE');
is($drop->{error}, undef, 'DROP EXTENSION CASCADE');
unlike($drop->{stderr}, qr/yelp_programs|yelp_sync_runs/, 'names none of them');
is(picture(), $before, 'each row is where it was');
is(shape(), $shape, 'and all that was added');
YelpTest::install($node, $api, schema => 'ads', tables => 0);
is_deeply(YelpTest::actions(sync('acme')), {}, 'the next sync finds no change');
is(picture(), $before, 'and writes nothing');
isnt(value('SELECT count(*), max(finished_at) FROM ads.yelp_sync_runs'), $runs, 'but the history');
change();
is_deeply(YelpTest::actions(sync('acme')), { added => 2, updated => 4, deleted => 3 }, 'the one after it, what is new');
value(q{UPDATE ads.yelp_programs SET budget = 1 WHERE program_id = (SELECT min(program_id) FROM ads.yelp_programs)});
is_deeply(YelpTest::actions(sync('acme')), { updated => 1 }, 'a row that is edited by hand is restored');

note 'partitions';

value('DROP TABLE ads.yelp_programs, ads.leads CASCADE; SELECT ads.yelp_sync_create_tables(partitions => 8)');
map_account("account$_") foreach 1 .. 6;
is(value(q{SELECT count(*) FROM pg_partition_tree('ads.yelp_programs') WHERE isleaf}), 8, 'eight of them');
my @accounts = ('acme', map { "account$_" } 1 .. 6);
foreach my $account (@accounts)
{
	my $count = $account eq 'acme' ? 95 : 45;
	is_deeply(YelpTest::actions(sync($account)), { added => $api->config->{accounts}{$account}{count} // $count },
		"$account: a first sync");
	change(account => $account);
	is_deeply(YelpTest::actions(sync($account)), { added => 2, updated => 4, deleted => 3 }, "$account: changes");
	YelpTest::table_is_listing($node, $api, $account, "$account: the table", schema => 'ads');
}
cmp_ok(value('SELECT count(DISTINCT tableoid) FROM ads.yelp_programs'), '>', 1, 'in several partitions');
$before = picture();
is_deeply(YelpTest::actions(sync($_)), {}, "$_: a repeat") foreach @accounts;
is(picture(), $before, 'writes nothing');
value(q{UPDATE ads.yelp_programs SET username = 'account6' WHERE username = 'account5'
	AND program_id IN (SELECT program_id FROM ads.yelp_programs WHERE username = 'account5' LIMIT 2)});
is_deeply(YelpTest::actions(sync('account5')), { added => 2 }, 'rows that were moved to another account are restored');
is_deeply(YelpTest::actions(sync('account6')), { deleted => 2 }, 'there, too');

# A sync that another one overtakes
my $slow = YelpSession->new($node, search_path => 'ads');
$slow->run('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yelp_programs');
change(add => 5, remove => 0, alter => 0);
sync('acme');
is($slow->sync('acme')->{sqlstate}, '40001', 'a sync that another one has overtaken');    # should fail
$slow->end;

$node->stop;
done_testing();
