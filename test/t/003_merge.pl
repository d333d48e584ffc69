# The merge: exactly what changed is written and reported, and what users add to
# yelp_programs stays.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(conf => q{
	autovacuum = off
	checkpoint_timeout = 1h
	full_page_writes = off
});

# The lines that a query returns
sub query
{
	my ($sql, %options) = @_;
	return YelpTest::must_run($node, $sql, %options)->{stdout} =~ s/\n\z//r;
}

# A number for all that the table holds, the place and the time of each row included
sub picture
{
	return query('SELECT count(*), sum(hashtextextended(concat(ctid, xmin, xmax, p), 0))
		FROM yelp_programs AS p');
}

# The same but for the marks that a transaction leaves which was rolled back
sub rows
{
	return query('SELECT count(*), sum(hashtextextended(concat(ctid, xmin, p), 0))
		FROM yelp_programs AS p');
}

# What a sync of acme reports, by program_id
sub reported
{
	my ($sync) = @_;
	diag($sync->{stderr}) if $sync->{error};
	my %rows = map { $_->{program_id} => [ $_->{action}, $_->{changed} ] } @{ $sync->{rows} };
	is(scalar(keys %rows), scalar(@{ $sync->{rows} }), 'no program is reported twice');
	return \%rows;
}

# What mutate() says that a sync must report
sub expected
{
	my ($what) = @_;
	return {
		(map { $_ => [ 'added', undef ] } @{ $what->{added} }),
		(map { $_ => [ 'deleted', undef ] } @{ $what->{removed} }),
		(map { $_ => [ 'updated', $what->{altered}{$_} ] }
			grep { $what->{altered}{$_} } keys %{ $what->{altered} }),
	};
}

sub complete_line
{
	my ($sync) = @_;
	return $sync->{notices}[-1] =~ s/ in [\d.]+ s$//r;
}

note 'a repeat writes nothing';

YelpTest::sync($node, 'acme');
YelpTest::table_is_listing($node, $api, 'acme', 'the first sync');
# Hint bits and the visibility map are written now, so that it is not done below
$node->safe_psql('postgres', 'VACUUM (FREEZE) yelp_programs; CHECKPOINT; CREATE EXTENSION pg_walinspect');
my $before = picture();
my $repeat = YelpTest::run($node, q{
	SELECT pg_current_wal_insert_lsn() AS lsn \gset
	BEGIN;
	SELECT count(*) FROM yelp_sync('acme');
	SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables WHERE relname = 'yelp_programs';
	COMMIT;
	SELECT count(*) FROM pg_get_wal_records_info(:'lsn', pg_current_wal_flush_lsn())
	WHERE block_ref LIKE ANY (SELECT format('%%rel %s/%s/%s %%',
			CASE reltablespace WHEN 0 THEN 1663 ELSE reltablespace END, d.oid, pg_relation_filenode(c.oid))
		FROM pg_class c, pg_database d WHERE datname = current_database()
		AND c.oid IN ('yelp_programs'::regclass, 'yelp_programs_pkey'::regclass,
			(SELECT reltoastrelid FROM pg_class WHERE relname = 'yelp_programs')));
	SELECT count(*) > 0 FROM pg_get_wal_records_info(:'lsn', pg_current_wal_flush_lsn())
	WHERE block_ref LIKE (SELECT format('%%rel 1663/%s/%s %%', oid, pg_relation_filenode('yelp_sync_runs'))
		FROM pg_database WHERE datname = current_database())
});
is($repeat->{stdout}, "0\n0|0|0\n0\nt\n",
	'no row, no tuple, no WAL record of yelp_programs; those of the history are seen')
  or diag($repeat->{stderr});
is(picture(), $before, 'each row is where it was, and as it was');
is($repeat->{notices}[-1] =~ s/ in [\d.]+ s$//r,
	'yelp_sync: complete: +0 added, ~0 updated, =1913 unchanged, -0 deleted', 'the notice');

note 'added, updated with what changed, deleted, spelt anew';

my $what = $api->mutate(seed => 1, remove => 5, add => 5, alter => 30, respell => 10);
my $listed_before = query(q{SELECT count(*) FROM yelp_programs});
my $sync = YelpTest::sync($node, 'acme');
is_deeply(reported($sync), expected($what), '5 gone, 5 new and 30 altered: these 40 rows');
is(scalar(@{ $sync->{rows} }), 40, '40 rows');
is( complete_line($sync),
	'yelp_sync: complete: +5 added, ~30 updated, =1878 unchanged, -5 deleted',
	'the notice counts those spelt anew as unchanged');
YelpTest::table_is_listing($node, $api, 'acme', 'the table after the changes');
is(query('SELECT count(*) FROM yelp_programs WHERE updated_at > created_at'),
	'30', 'updated_at moved for the 30 altered programs, and for no other');
is( query('SELECT count(DISTINCT updated_at) FROM yelp_programs WHERE updated_at > created_at'),
	'1',
	'all at one time');
is( query(q{SELECT count(*), count(*) FILTER (WHERE created_at = updated_at) FROM yelp_programs
		WHERE created_at > (SELECT max(started_at) FROM yelp_sync_runs)}),
	'5|5',
	'created_at is the time of the sync that added the row');
$before = picture();
is(scalar(@{ YelpTest::sync($node, 'acme')->{rows} }), 0, 'a repeat finds nothing');
is(picture(), $before, 'and touches nothing, not even what was spelt anew');

# Every kind of change, more than once, with other values
foreach my $seed (2 .. 6)
{
	$what = $api->mutate(seed => $seed, remove => $seed, add => 2 * $seed, alter => 92, respell => 3);
	is_deeply(reported(YelpTest::sync($node, 'acme')), expected($what), "changes of seed $seed");
	YelpTest::table_is_listing($node, $api, 'acme', "the table after seed $seed");
}
my %seen = map { $_ => 1 } map { @$_ } values %{ $what->{altered} };
# All that a program's document fills; problems are told by other tests
my @filled = grep { $_ ne 'problems' } split /\n/, query(q{SELECT attname FROM pg_attribute
	WHERE attrelid = 'yelp_sync_values'::regclass ORDER BY attname});
is_deeply([ sort keys %seen ], [ sort @filled, 'data' ],
	'among them, every column that a document fills, and none together with data');

# Several columns at once, and a change that columns and data show
$what = $api->mutate(edit => [ [ 3, { program_type => 'X', start_date => '2001-01-01', 'unknown' => 1 } ] ]);
my ($id) = keys %{ $what->{altered} };
my $row = reported(YelpTest::sync($node, 'acme'))->{$id};
is($row->[0], 'updated', 'several columns at once');
is_deeply([ sort grep { $_ ne 'data' } @{ $row->[1] } ], [ 'program_type', 'start_date' ], 'are named');

note 'hand edits and deletions are put right';

my @edits = (
	[ program_type => q{'EDITED'} ], [ program_status => 'NULL' ], [ program_pause_status => q{''} ],
	[ start_date => q{'1999-01-01'} ], [ end_date => q{'infinity'} ],
	[ yelp_business_id => q{'x'} ], [ partner_business_id => q{'x'} ], [ budget => '0.55' ],
	[ max_bid => '-1' ], [ ad_cost => '123456789012.34' ], [ currency => q{'XXX'} ],
	[ fee_period => q{'never'} ], [ is_autobid => 'NOT coalesce(is_autobid, false)' ],
	[ billed_impressions => '-5' ], [ billed_clicks => '-6' ], [ active_features => q{'{edited}'} ],
	[ available_features => q{'{{1},{2}}'} ]);
is_deeply([ sort map { $_->[0] } @edits ], \@filled, 'an edit of each column');
foreach my $edit (@edits)
{
	my ($column, $value) = @$edit;
	query("UPDATE yelp_programs SET $column = $value WHERE ctid IN (SELECT ctid FROM yelp_programs LIMIT 2)");
	my $rows = reported(YelpTest::sync($node, 'acme'));
	is_deeply([ values %$rows ], [ ([ 'updated', [$column] ]) x 2 ], "a hand edit of $column");
}
query(q{UPDATE yelp_programs SET data = '{}' WHERE ctid IN (SELECT ctid FROM yelp_programs LIMIT 1)});
is_deeply([ map { $_->{action} } @{ YelpTest::sync($node, 'acme')->{rows} } ],
	['updated'], 'a hand edit of data');
query(q{UPDATE yelp_programs SET fingerprint = NULL});
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [], 'without fingerprints all is compared, and nothing is reported');
query(q{UPDATE yelp_programs SET program_type = 'EDITED'});
$sync = YelpTest::sync($node, 'acme');
is( scalar(grep { $_->{action} eq 'updated' && "@{ $_->{changed} }" eq 'program_type' } @{ $sync->{rows} }),
	query('SELECT count(*) FROM yelp_programs'),
	'an edit of all rows');
query(q{UPDATE yelp_programs SET program_id = 'renamed' WHERE program_id = (SELECT min(program_id) FROM yelp_programs)});
is_deeply([ sort map { $_->{action} } @{ YelpTest::sync($node, 'acme')->{rows} } ],
	[ 'added', 'deleted' ], 'an edit of the key');
query(q{INSERT INTO yelp_programs (username, program_id, data) VALUES ('acme', 'mine', '{}')});
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [ { action => 'deleted', program_id => 'mine', changed => undef } ],
	'a row of one\'s own');
my @gone = split /\n/, query('DELETE FROM yelp_programs WHERE ctid IN
	(SELECT ctid FROM yelp_programs LIMIT 3) RETURNING program_id');
is_deeply([ sort map { "$_->{action} $_->{program_id}" } @{ YelpTest::sync($node, 'acme')->{rows} } ],
	[ sort map { "added $_" } @gone ], 'rows deleted by hand come back');
query('TRUNCATE yelp_programs');
is(scalar(@{ YelpTest::sync($node, 'acme')->{rows} }),
	query('SELECT count(*) FROM yelp_programs'), 'all rows deleted by hand come back');
YelpTest::table_is_listing($node, $api, 'acme', 'the table is whole again');

note q{what users add};

query(q{
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
is(query("SELECT count(*) FROM seen WHERE what NOT LIKE '% rows'"), '0', 'and no trigger fires for what did not change');
query('TRUNCATE seen');
$what = $api->mutate(seed => 20, remove => 4, add => 6, alter => 23, respell => 5);
is_deeply(reported(YelpTest::sync($node, 'acme')), expected($what), 'the changes');
my $altered = grep { $_ } values %{ $what->{altered} };
is( query('SELECT what, count(DISTINCT program_id) FROM seen WHERE changed IS NOT false AND what NOT LIKE \'% rows\' GROUP BY 1 ORDER BY 1'),
	"DELETE AFTER|4\nDELETE BEFORE|4\nINSERT AFTER|6\nINSERT BEFORE|6\nUPDATE AFTER|$altered\nUPDATE BEFORE|$altered",
	'triggers fire for each of them');
is(query(q{SELECT program_id FROM seen WHERE what = 'INSERT rows'}), '6', 'transition tables hold the new rows');
is( query('SELECT count(*) FILTER (WHERE note IS NULL), bool_and(note IS NULL OR note = \'about \' || program_id)
		FROM yelp_programs'),
	'6|t',
	'columns of one\'s own keep their values');
is(query('SELECT count(*) FROM leads'), query('SELECT count(*) - 6 FROM yelp_programs'),
	'ON DELETE CASCADE');
is( query(q{SET enable_seqscan = off; SET enable_bitmapscan = off;
		SELECT count(*) FROM yelp_programs a WHERE budget > 0 AND yelp_business_id > ''}),
	query(q{SET enable_indexscan = off; SET enable_bitmapscan = off;
		SELECT count(*) FROM yelp_programs a WHERE budget > 0 AND yelp_business_id > ''}),
	'indexes of one\'s own are right');
is(query('SELECT count(*) FROM active'),
	query(q{SELECT count(*) FROM yelp_programs WHERE data->>'program_status' = 'ACTIVE'}), 'views see it');

my $rewrite = YelpTest::run($node, q{
	ALTER TABLE yelp_programs ADD COLUMN kind text DEFAULT 'mine',
		ADD COLUMN cents bigint GENERATED ALWAYS AS (budget * 100) STORED,
		ADD COLUMN number bigserial, ADD COLUMN uuid uuid DEFAULT gen_random_uuid()});
is($rewrite->{sqlstate} // '', '', 'columns with a default, computed, numbered, random') or diag($rewrite->{stderr});
$what = $api->mutate(seed => 25, remove => 2, add => 2, alter => 23);
is_deeply(reported(YelpTest::sync($node, 'acme')), expected($what), 'the changes with these');
is( YelpTest::run($node, q{SELECT bool_and(kind = 'mine'), bool_and(cents IS NOT DISTINCT FROM budget * 100),
		count(DISTINCT number) = count(*), count(DISTINCT uuid) = count(*) FROM yelp_programs})->{stdout},
	"t|t|t|t\n",
	'they have their values');

# A program that a table without CASCADE refers to
query(q{ALTER TABLE leads DROP CONSTRAINT leads_username_program_id_fkey,
	ADD FOREIGN KEY (username, program_id) REFERENCES yelp_programs});
$before = rows();
my $runs = query('SELECT count(*) FROM yelp_sync_runs');
$what = $api->mutate(seed => 21, remove => 2, add => 2, alter => 5);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '23503', 'a foreign key in the way of a deletion');
is(rows(), $before, 'leaves all as it was');
is(query('SELECT count(*) FROM yelp_sync_runs'), $runs, 'the history, too');
like($sync->{detail}, qr/is still referenced from table "leads"/, 'and says which');
unlike($sync->{context} // '', qr/WITH difference/, 'the statement itself is not in the message');
query('DROP TABLE leads');
is_deeply(reported(YelpTest::sync($node, 'acme')), expected($what), 'then the changes come');

# A trigger that refuses or alters
query(q{
	CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
	CREATE TRIGGER a_skip BEFORE DELETE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION skip()});
$what = $api->mutate(seed => 22, remove => 2);
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [], 'a deletion that a trigger prevents is not reported');
query('DROP TRIGGER a_skip ON yelp_programs');
is_deeply(reported(YelpTest::sync($node, 'acme')), expected($what), 'until it is done');

query(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0042'; END $$;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON yelp_programs DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION refuse()});
$before = rows();
$what = $api->mutate(seed => 23, add => 1);
is(YelpTest::sync($node, 'acme')->{sqlstate}, 'P0042', 'a deferred trigger that refuses');    # should fail
is(rows(), $before, 'leaves all as it was');
query('DROP TRIGGER refuse ON yelp_programs');
query('ALTER TABLE yelp_programs ADD CHECK (budget < 2000000) NOT VALID');
$api->mutate(edit => [ [ 0, { 'program_metrics' => { budget => 200_000_000 } } ] ]);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '23514', 'a constraint of one\'s own');
is(rows(), $before, 'leaves all as it was');
query('ALTER TABLE yelp_programs DROP CONSTRAINT yelp_programs_budget_check');
YelpTest::sync($node, 'acme');
query('ALTER TABLE yelp_programs DROP COLUMN note, ADD COLUMN later int');
$what = $api->mutate(seed => 24, add => 2, alter => 23, remove => 2);
is_deeply(reported(YelpTest::sync($node, 'acme')), expected($what), 'columns dropped and added');
YelpTest::table_is_listing($node, $api, 'acme', 'the table in the end');

note 'accounts do not touch each other';

$api->config(accounts => { other => { count => 33, seed => 'acme' } });
query('CREATE SERVER second FOREIGN DATA WRAPPER yelp_sync OPTIONS (endpoint '
	  . YelpTest::literal($api->url) . q{);
	CREATE USER MAPPING FOR CURRENT_USER SERVER second OPTIONS (username 'other', password 's3cret')});
$before = rows();
is(scalar(@{ YelpTest::sync($node, 'other')->{rows} }), 33, 'another account with the same programs');
is(query(q{SELECT count(*) FROM yelp_programs a JOIN yelp_programs b USING (program_id)
		WHERE a.username = 'acme' AND b.username = 'other'}) > 10, 1, 'the same program_ids');
$what = $api->mutate(account => 'other', seed => 1, remove => 3, alter => 10);
is_deeply(reported(YelpTest::sync($node, 'other')), expected($what), 'its changes');
YelpTest::table_is_listing($node, $api, 'other', 'its table');
query(q{DELETE FROM yelp_programs WHERE username = 'other'});
is(rows(), $before, 'and the first account\'s rows are as they were');

note 'row-level security';

query(q{
	CREATE ROLE regress_owner LOGIN;
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO regress_owner;
	GRANT SELECT, INSERT ON yelp_sync_runs TO regress_owner;
	GRANT USAGE ON FOREIGN SERVER second TO regress_owner;
	GRANT INSERT ON seen TO regress_owner;
	GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO regress_owner;
	CREATE USER MAPPING FOR regress_owner SERVER second OPTIONS (username 'other', password 's3cret');
	ALTER TABLE yelp_programs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON yelp_programs TO regress_owner USING (username = 'other')});
is(scalar(@{ YelpTest::sync($node, 'other', role => 'regress_owner')->{rows} }),
	30, 'a role that may see its own account syncs it');
is(query('SELECT count(DISTINCT username) FROM yelp_programs', role => 'regress_owner'),
	'1', 'and sees no other');
$what = $api->mutate(account => 'other', seed => 2, remove => 3, alter => 10, add => 1);
is_deeply(reported(YelpTest::sync($node, 'other', role => 'regress_owner')), expected($what), 'its changes');
YelpTest::table_is_listing($node, $api, 'other', 'its table');
query(q{DROP POLICY own ON yelp_programs;
	CREATE POLICY none ON yelp_programs TO regress_owner USING (username = 'nobody')});
$sync = YelpTest::sync($node, 'other', role => 'regress_owner');    # should fail
is($sync->{sqlstate}, '42501', 'a role that may not see its own account is refused');

# A unique index of the user's: one program takes another's place, in one sync
note 'the order of the writes';

sub place
{
	my ($id, $status, $business) = @_;
	return qq({"program_id":"$id","program_type":"CPC","program_status":"$status",)
	  . qq("businesses":[{"yelp_business_id":"$business"}]});
}

$api->config(accounts => { places => { count => 0 } });
query('CREATE SERVER places FOREIGN DATA WRAPPER yelp_sync '
	  . YelpTest::options(endpoint => $api->url, max_deleted => '100%')
	  . '; CREATE USER MAPPING FOR CURRENT_USER SERVER places '
	  . YelpTest::options(username => 'places', password => 's3cret'));
$api->set_programs('places', place('a', 'ACTIVE', 'one'), place('b', 'ACTIVE', 'two'));
YelpTest::sync($node, 'places');
query(q{CREATE UNIQUE INDEX one_active ON yelp_programs (yelp_business_id, program_type)
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
query('DROP INDEX one_active');

done_testing();
