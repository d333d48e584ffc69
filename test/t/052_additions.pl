# Users' additions to yelp_programs survive and work: columns, indexes, views, triggers, constraints.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest;

my ($node, $api) = YelpTest::start();
my ($what, $sync, $before);

sub value
{
	return YelpTest::value($node, @_);
}

# A number for all that the table holds, the place and the time of each row included, but for the
# marks that a transaction leaves which was rolled back
sub rows
{
	return value('SELECT count(*), sum(hashtextextended(concat(ctid, xmin, p), 0))
		FROM yelp_programs AS p');
}

note 'columns, indexes, views, triggers';

YelpTest::sync($node, 'acme');
value(q{
	ALTER TABLE yelp_programs ADD COLUMN note text;
	CREATE INDEX programs_by_business ON yelp_programs (yelp_business_id) WHERE budget > 0;
	CREATE INDEX programs_by_data ON yelp_programs USING gin (data);
	CREATE VIEW active AS SELECT program_id, budget, data FROM yelp_programs WHERE program_status = 'ACTIVE';
	CREATE MATERIALIZED VIEW budgets AS SELECT currency, sum(budget) FROM yelp_programs GROUP BY 1;
	UPDATE yelp_programs SET note = 'about ' || program_id;
	CREATE TABLE seen (what text, program_id text, changed boolean);
	CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen VALUES (TG_OP || ' ' || TG_WHEN,
			CASE TG_OP WHEN 'DELETE' THEN OLD.program_id ELSE NEW.program_id END,
			CASE TG_OP WHEN 'UPDATE' THEN OLD.data <> NEW.data END);
		RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
	END $$;
	CREATE TRIGGER watch_before BEFORE INSERT OR UPDATE OR DELETE ON yelp_programs
		FOR EACH ROW EXECUTE FUNCTION watch();
	CREATE TRIGGER watch_after AFTER INSERT OR UPDATE OR DELETE ON yelp_programs
		FOR EACH ROW EXECUTE FUNCTION watch();
	CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen SELECT TG_OP || ' rows', count(*)::text FROM affected;
		RETURN NULL;
	END $$;
	CREATE TRIGGER rows_added AFTER INSERT ON yelp_programs REFERENCING NEW TABLE AS affected
		FOR EACH STATEMENT EXECUTE FUNCTION count_rows();
	CREATE TABLE leads (username text, program_id text, lead int,
		FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON DELETE CASCADE);
	INSERT INTO leads SELECT username, program_id, 1 FROM yelp_programs});
is(scalar(@{ YelpTest::sync($node, 'acme')->{rows} }), 0, 'a column of one\'s own is no change');
is(value("SELECT count(*) FROM seen WHERE what NOT LIKE '% rows'"), '0', 'and no trigger fires for what did not change');
value('TRUNCATE seen');
$what = $api->mutate(seed => 20, remove => 4, add => 6, alter => 23, respell => 5);
YelpTest::reports(YelpTest::sync($node, 'acme'), $what, 'the changes');
my $altered = grep { $_ } values %{ $what->{altered} };
is( value('SELECT what, count(DISTINCT program_id) FROM seen WHERE changed IS NOT false AND what NOT LIKE \'% rows\' GROUP BY 1 ORDER BY 1'),
	"DELETE AFTER|4\nDELETE BEFORE|4\nINSERT AFTER|6\nINSERT BEFORE|6\nUPDATE AFTER|$altered\nUPDATE BEFORE|$altered",
	'triggers fire for each of them');
is(value(q{SELECT program_id FROM seen WHERE what = 'INSERT rows'}), '6', 'transition tables hold the new rows');
is( value('SELECT count(*) FILTER (WHERE note IS NULL), bool_and(note IS NULL OR note = \'about \' || program_id)
		FROM yelp_programs'),
	'6|t',
	'columns of one\'s own keep their values');
is(value('SELECT count(*) FROM leads'), value('SELECT count(*) - 6 FROM yelp_programs'),
	'ON DELETE CASCADE');
is( value(q{SET enable_seqscan = off; SET enable_bitmapscan = off;
		SELECT count(*) FROM yelp_programs a WHERE budget > 0 AND yelp_business_id > ''}),
	value(q{SET enable_indexscan = off; SET enable_bitmapscan = off;
		SELECT count(*) FROM yelp_programs a WHERE budget > 0 AND yelp_business_id > ''}),
	'indexes of one\'s own are right');
is(value('SELECT count(*) FROM active'),
	value(q{SELECT count(*) FROM yelp_programs WHERE data->>'program_status' = 'ACTIVE'}), 'views see it');

my $rewrite = YelpTest::run($node, q{
	ALTER TABLE yelp_programs ADD COLUMN kind text DEFAULT 'mine',
		ADD COLUMN cents bigint GENERATED ALWAYS AS (budget * 100) STORED,
		ADD COLUMN number bigserial, ADD COLUMN uuid uuid DEFAULT gen_random_uuid()});
is($rewrite->{sqlstate} // '', '', 'columns with a default, computed, numbered, random') or diag($rewrite->{stderr});
$what = $api->mutate(seed => 25, remove => 2, add => 2, alter => 23);
YelpTest::reports(YelpTest::sync($node, 'acme'), $what, 'the changes with these');
is( YelpTest::run($node, q{SELECT bool_and(kind = 'mine'), bool_and(cents IS NOT DISTINCT FROM budget * 100),
		count(DISTINCT number) = count(*), count(DISTINCT uuid) = count(*) FROM yelp_programs})->{stdout},
	"t|t|t|t\n",
	'they have their values');

# A program that a table without CASCADE refers to
value(q{ALTER TABLE leads DROP CONSTRAINT leads_username_program_id_fkey,
	ADD FOREIGN KEY (username, program_id) REFERENCES yelp_programs});
$before = rows();
my $runs = value('SELECT count(*) FROM yelp_sync_runs');
$what = $api->mutate(seed => 21, remove => 2, add => 2, alter => 5);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '23503', 'a foreign key in the way of a deletion');
is(rows(), $before, 'leaves all as it was');
is(value('SELECT count(*) FROM yelp_sync_runs'), $runs, 'the history, too');
like($sync->{detail}, qr/is still referenced from table "leads"/, 'and says which');
like($sync->{context}, qr/^SQL statement "merge into public\.yelp_programs"$/m, 'the statement itself is not in the message');
value('DROP TABLE leads');
YelpTest::reports(YelpTest::sync($node, 'acme'), $what, 'then the changes come');

# A trigger that refuses or alters
value(q{
	CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
	CREATE TRIGGER a_skip BEFORE DELETE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION skip()});
$what = $api->mutate(seed => 22, remove => 2);
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [], 'a deletion that a trigger prevents is not reported');
value('DROP TRIGGER a_skip ON yelp_programs');
YelpTest::reports(YelpTest::sync($node, 'acme'), $what, 'until it is done');

value(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0042'; END $$;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON yelp_programs DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION refuse()});
$before = rows();
$what = $api->mutate(seed => 23, add => 1);
is(YelpTest::sync($node, 'acme')->{sqlstate}, 'P0042', 'a deferred trigger that refuses');    # should fail
is(rows(), $before, 'leaves all as it was');
value('DROP TRIGGER refuse ON yelp_programs');
value('ALTER TABLE yelp_programs ADD CHECK (budget < 2000000) NOT VALID');
$api->mutate(edit => [ [ 0, { 'program_metrics' => { budget => 200_000_000 } } ] ]);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '23514', 'a constraint of one\'s own');
is(rows(), $before, 'leaves all as it was');
value('ALTER TABLE yelp_programs DROP CONSTRAINT yelp_programs_budget_check');
YelpTest::sync($node, 'acme');
value('ALTER TABLE yelp_programs DROP COLUMN note, ADD COLUMN later int');
$what = $api->mutate(seed => 24, add => 2, alter => 23, remove => 2);
YelpTest::reports(YelpTest::sync($node, 'acme'), $what, 'columns dropped and added');
YelpTest::table_is_listing($node, $api, 'acme', 'the table in the end');

note 'the order of the writes';

sub place
{
	my ($id, $status, $business) = @_;
	return qq({"program_id":"$id","program_type":"CPC","program_status":"$status",)
	  . qq("businesses":[{"yelp_business_id":"$business"}]});
}

# A unique index: one program takes another's place, in one sync
$api->config(accounts => { places => { count => 0 } });
value(YelpTest::create_server('places', endpoint => $api->url, max_deleted => '100%'));
$api->set_programs('places', place('a', 'ACTIVE', 'one'), place('b', 'ACTIVE', 'two'));
YelpTest::sync($node, 'places');
value(q{CREATE UNIQUE INDEX one_active ON yelp_programs (yelp_business_id, program_type)
	WHERE program_status = 'ACTIVE' AND username = 'places'});
foreach my $case (
	[ 'a new one for one that ended', place('a', 'INACTIVE', 'one'), place('b', 'ACTIVE', 'two'),
		place('c', 'ACTIVE', 'one') ],
	[ 'a new one for one that is gone', place('a', 'INACTIVE', 'one'), place('c', 'ACTIVE', 'one'),
		place('d', 'ACTIVE', 'two') ],
	[ 'one that is resumed for one that ends', place('a', 'ACTIVE', 'one'), place('c', 'INACTIVE', 'one'),
		place('d', 'ACTIVE', 'two') ],
	[ 'one that moves to where another is gone', place('a', 'ACTIVE', 'two'), place('c', 'INACTIVE', 'one') ])
{
	my ($name, @programs) = @$case;
	$api->set_programs('places', @programs);
	my $result = YelpTest::sync($node, 'places');
	is($result->{error}, undef, "$name: no error");
	YelpTest::table_is_listing($node, $api, 'places', "$name: the table");
}
value('DROP INDEX one_active');

done_testing();
