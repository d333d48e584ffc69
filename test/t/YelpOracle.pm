# YelpOracle - the expected result of syncs, for TAP tests
#
#   $observer->value(YelpOracle::install());
#   $observer->value(YelpOracle::remember('acme'));
#   ... a sync ...
#   my ($run) = YelpOracle::runs($observer->value(YelpOracle::runs_query('acme')));
#   $observer->value(YelpOracle::load($api->programs_json('acme')));
#   is($observer->value(YelpOracle::wrong('acme', synced => 1)), '', 'everything is as it should be');
#
# Each function returns SQL, which can be repeated after a session was lost.  It only reads tables, so
# the session that synced need not exist any more.

package YelpOracle;

use strict;
use warnings FATAL => 'all';

use JSON::PP ();

use YelpTest;

my $json = JSON::PP->new->canonical;

# YelpOracle::install()
# Creates the schema oracle.
#
# YelpOracle::edit($account)
# A manual edit of an account's rows, after which a column of some programs differs from the listing.
sub install
{
	my $stored = YelpTest::stored_columns();
	my $columns = YelpTest::listing_columns();
	my $query = YelpTest::listing_query('$2');
	return qq{
CREATE SCHEMA oracle;

-- Rows as one value; "place" shows whether a row was written
CREATE VIEW oracle.after AS
SELECT username, p.program_id, fingerprint, p.xmin::text || p.ctid::text AS place, created_at, updated_at, to_jsonb(r) AS row
FROM public.yelp_programs p CROSS JOIN LATERAL (SELECT $stored) AS r;
} . <<'END' . qq{
CREATE TABLE oracle.before AS SELECT * FROM oracle.after;
CREATE TABLE oracle.last_run (username text, finished_at timestamptz);

-- The listing, as it was at one moment or at several; a program may be listed twice
CREATE TABLE oracle.listed (moment integer, program_id text, row jsonb);

-- What a sync returned
CREATE TABLE oracle.reported (action text, program_id text, changed text[]);

-- A program's row as it was, as it is, as it was listed, and whether it was listed at each moment;
-- without the column that was edited; and what is wrong about the times and the place of the row
CREATE TABLE oracle.program (program_id text PRIMARY KEY, was jsonb, is_now jsonb, listed jsonb[],
	is_listed boolean, fault text);
CREATE TABLE oracle.replayed (program_id text PRIMARY KEY, row jsonb);

CREATE FUNCTION oracle.is_edited(program_id text) RETURNS boolean LANGUAGE sql
RETURN program_id COLLATE "C" < 'I';

CREATE FUNCTION oracle.runs(account text) RETURNS SETOF public.yelp_sync_runs LANGUAGE sql AS $$
	SELECT r.* FROM public.yelp_sync_runs r JOIN oracle.last_run l USING (username)
	WHERE username = account AND r.finished_at > l.finished_at ORDER BY r.finished_at $$;

CREATE FUNCTION oracle.compare(account text, edited boolean) RETURNS void LANGUAGE sql AS $$
	DELETE FROM oracle.program;
	INSERT INTO oracle.program
	SELECT program_id,
		CASE WHEN is_edited THEN b.row - 'budget' ELSE b.row END,
		CASE WHEN is_edited THEN a.row - 'budget' ELSE a.row END,
		CASE WHEN is_edited THEN ARRAY(SELECT r - 'budget' FROM unnest(l.rows) r) ELSE l.rows END,
		coalesce(moments, 0) = (SELECT max(moment) FROM oracle.listed),
		CASE WHEN NOT is_edited AND a.row IS NOT NULL AND b.row IS NOT NULL THEN CASE
			WHEN a.created_at <> b.created_at THEN 'has another created_at'
			WHEN (a.row = b.row) <> (a.updated_at = b.updated_at) THEN 'has a wrong updated_at'
			WHEN a.row = b.row AND a.place <> b.place AND a.fingerprint = b.fingerprint THEN 'was written without a change'
		END END
	FROM (SELECT * FROM oracle.before WHERE username = account) b
	FULL JOIN (SELECT * FROM oracle.after WHERE username = account) a USING (program_id)
	FULL JOIN (SELECT program_id, array_agg(row), count(DISTINCT moment) FROM oracle.listed WHERE row IS NOT NULL
		GROUP BY 1) l(program_id, rows, moments) USING (program_id),
	LATERAL (SELECT edited AND oracle.is_edited(program_id)) AS e(is_edited) $$;

-- After a sync that failed
CREATE FUNCTION oracle.touched(account text, edited boolean) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s was %s and is %s', program_id, b, a)
	FROM (SELECT * FROM oracle.before WHERE username = account) b
	FULL JOIN (SELECT * FROM oracle.after WHERE username = account) a USING (program_id)
	WHERE CASE WHEN edited AND oracle.is_edited(program_id)
		THEN a.row - 'budget' IS DISTINCT FROM b.row - 'budget'
		ELSE (a.row, a.fingerprint, a.place) IS DISTINCT FROM (b.row, b.fingerprint, b.place) END $$;

-- After syncs that succeeded; for "how" see YelpOracle::wrong
CREATE FUNCTION oracle.misplaced(how jsonb) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s %s: it was %s, is %s, and is listed as %s', program_id, what, was, is_now, listed)
	FROM oracle.program, LATERAL (SELECT CASE
		WHEN is_now IS NOT NULL AND is_now IS DISTINCT FROM was AND NOT coalesce(is_now = ANY (listed), false)
			THEN 'is neither as it was nor as it is listed'
		WHEN was IS NOT NULL AND is_now IS NULL AND is_listed THEN 'was deleted, and is listed'
		WHEN was IS NOT NULL AND is_now IS NULL AND how ? 'partial' THEN 'was deleted without proof'
		WHEN is_listed AND is_now IS NULL AND (how ?| ARRAY['synced', 'complete'] OR how->'readable' ? program_id)
			THEN 'is listed, and not stored'
		WHEN how ? 'synced' AND listed IS NULL AND is_now IS NOT NULL THEN 'is stored, and not listed'
		WHEN how ? 'complete' AND NOT is_now = ANY (listed) THEN 'is not stored as it is listed'
		ELSE fault END) AS wrong(what)
	WHERE what IS NOT NULL $$;

-- The columns that differ; the document differs without being named if columns show it
CREATE FUNCTION oracle.differ(was jsonb, is_now jsonb, changed text[]) RETURNS boolean LANGUAGE sql
RETURN (SELECT expected IN (names, array_remove(names, 'data'))
	FROM (SELECT ARRAY(SELECT key COLLATE "C" FROM jsonb_each(is_now)
			WHERE value IS DISTINCT FROM was->key ORDER BY 1) AS names,
		ARRAY(SELECT c COLLATE "C" FROM unnest(changed) c ORDER BY 1) AS expected) AS d);

-- What a sync returned is how the rows differ
CREATE FUNCTION oracle.misreported(how jsonb) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s: %s %s was returned: it was %s, is %s, and is listed as %s', program_id, action, changed, was, is_now, listed)
	FROM oracle.program FULL JOIN oracle.reported USING (program_id)
	WHERE action IS DISTINCT FROM CASE
		WHEN was IS NULL AND is_now IS NOT NULL THEN 'added'
		WHEN was IS NOT NULL AND is_now IS NULL THEN 'deleted'
		WHEN was <> is_now THEN 'updated'
		WHEN was IS NOT NULL AND listed IS NULL AND (how ? 'tells_missing' OR action IS NOT NULL) THEN 'missing' END
	OR action = 'updated' AND oracle.differ(was, is_now, changed) IS NOT TRUE $$;

-- The numbers of the runs, and of the table; the more runs, the less is known
CREATE FUNCTION oracle.miscounted(account text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('the runs have %s, the table %s', counted, found)
	FROM (SELECT sum(added) AS added, sum(deleted) AS deleted, sum(updated) AS updated, max(problems) AS problems,
			bool_and(unchanged = listed - added - updated) AS adds_up, count(*) AS runs
			FROM oracle.runs(account) WHERE status <> 'failed') AS counted,
		(SELECT count(*) FILTER (WHERE was IS NULL) AS added, count(*) FILTER (WHERE is_now IS NULL) AS deleted,
			count(*) FILTER (WHERE was <> is_now) AS updated, count(*) FILTER (WHERE is_now->'problems' <> 'null') AS problems
			FROM oracle.program WHERE was IS NOT NULL OR is_now IS NOT NULL) AS found
	WHERE counted.added - counted.deleted <> found.added - found.deleted OR NOT adds_up
		OR runs = 1 AND (counted.added, counted.deleted, counted.updated, counted.problems)
			<> (found.added, found.deleted, found.updated, found.problems) $$;

-- Does an object have another value of one of the other's members?
CREATE FUNCTION oracle.contradicts(a jsonb, b jsonb) RETURNS boolean LANGUAGE sql
RETURN EXISTS (SELECT FROM jsonb_each(a) AS x WHERE b ? x.key AND b -> x.key <> x.value);

CREATE FUNCTION oracle.names(object jsonb) RETURNS text[] LANGUAGE sql
RETURN ARRAY(SELECT jsonb_object_keys(object) COLLATE "C" ORDER BY 1);

-- Do the recorded changes of a run fit the rows before it?
CREATE FUNCTION oracle.misrecorded(run uuid) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('run %s: %s is recorded for the row %s', run, c, r.row)
	FROM public.yelp_program_changes c LEFT JOIN oracle.replayed r USING (program_id)
	WHERE run_id = run AND NOT COALESCE(CASE action
		WHEN 'added' THEN r.row IS NULL AND old IS NULL AND new IS NOT NULL AND changed IS NULL
		WHEN 'deleted' THEN NOT oracle.contradicts(jsonb_build_object('data', old), r.row)
			AND old IS NOT NULL AND new IS NULL AND changed IS NULL
		WHEN 'updated' THEN NOT oracle.contradicts(old - 'problems', r.row)
			AND oracle.names(new) = ARRAY(SELECT unnest(changed) COLLATE "C" ORDER BY 1)
			AND oracle.names(old) = oracle.names(new || '{"data": 0}')
			AND NOT EXISTS (SELECT FROM jsonb_each(new) AS n WHERE n.value = old -> n.key)
		END, false) $$;

-- Of a program that was added only the document is known; and no document if columns show everything
-- that changed in it
CREATE FUNCTION oracle.replay(run uuid) RETURNS void LANGUAGE sql AS $$
	DELETE FROM oracle.replayed r USING public.yelp_program_changes c
	WHERE run_id = run AND action = 'deleted' AND c.program_id = r.program_id;
	UPDATE oracle.replayed r
	SET row = CASE WHEN new ? 'data' THEN row ELSE row - 'data' END || new
	FROM public.yelp_program_changes c
	WHERE run_id = run AND action = 'updated' AND c.program_id = r.program_id;
	INSERT INTO oracle.replayed SELECT program_id, jsonb_build_object('data', new)
	FROM public.yelp_program_changes c WHERE run_id = run AND action = 'added' $$;

-- The changes of all runs, applied to the table as it was, result in the table as it is; problems are
-- recorded in another order
CREATE FUNCTION oracle.wrong_changes(account text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	run uuid;
BEGIN
	DELETE FROM oracle.replayed;
	INSERT INTO oracle.replayed SELECT program_id, was FROM oracle.program WHERE was IS NOT NULL;
	FOR run IN SELECT run_id FROM oracle.runs(account) LOOP
		RETURN QUERY SELECT oracle.misrecorded(run);
		PERFORM oracle.replay(run);
	END LOOP;
	RETURN QUERY
	SELECT format('%s is %s, and by the changes %s', program_id, is_now, row)
	FROM oracle.program FULL JOIN oracle.replayed USING (program_id)
	WHERE (is_now IS NULL) <> (row IS NULL) OR oracle.contradicts(is_now - 'problems', row);
END $$;

CREATE FUNCTION oracle.wrong(account text, how jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM oracle.compare(account, how ? 'edited');
	IF how ? 'deceived' THEN
		UPDATE oracle.program SET is_listed = false;
	END IF;
	RETURN QUERY SELECT * FROM oracle.misplaced(how);
	IF how ? 'reported' THEN
		RETURN QUERY SELECT * FROM oracle.misreported(how);
	END IF;
	IF NOT how ? 'edited' THEN
		RETURN QUERY SELECT * FROM oracle.miscounted(account);
	END IF;
	IF how ? 'recorded' AND NOT how ? 'edited' THEN
		RETURN QUERY SELECT * FROM oracle.wrong_changes(account);
	ELSIF NOT how ? 'recorded' THEN
		RETURN QUERY SELECT format('recorded: %s', c) FROM public.yelp_program_changes c
			WHERE run_id IN (SELECT run_id FROM oracle.runs(account));
	END IF;
END $$;
END
-- A listing without programs is a moment, too
CREATE FUNCTION oracle.load(integer, json) RETURNS void LANGUAGE plpgsql AS \$load\$
BEGIN
	INSERT INTO oracle.listed VALUES (\$1);
	INSERT INTO oracle.listed SELECT \$1, l.program_id, to_jsonb(r)
	FROM ($query) AS l CROSS JOIN LATERAL (SELECT $columns) AS r;
END \$load\$};
}

sub edit
{
	my ($account) = map { YelpTest::literal($_) } @_;
	return "UPDATE yelp_programs SET budget = 17 WHERE username = $account AND oracle.is_edited(program_id)";
}

# YelpOracle::remember($account)
# Keeps the rows before a sync.
#
# YelpOracle::runs_query($account), YelpOracle::runs($text)
# The runs since then; these as a list of hashes.
#
# YelpOracle::reporting_sync($account)
# A sync whose rows are kept, for "reported".
#
# YelpOracle::load(@listings)
# The listing as the API had it, in JSON: at one moment, or at several if it moved meanwhile.
#
# YelpOracle::touched($account, $is_edited)
# Rows that were written since, as lines of text, except by an edit.
#
# YelpOracle::wrong($account, %how)
# What is wrong after one sync or several that succeeded, as lines of text.  These are true in %how:
#   synced         the last one has this status
#   partial        nothing may be deleted
#   complete       every listed program was read, and the listing did not move
#   readable       a list of IDs: these programs were read
#   tells_missing  it is certain which programs are not listed
#   reported       the rows were kept that the sync returned
#   recorded       with record_changes
#   edited         somebody edited rows meanwhile
#   deceived       the API seemed to list fewer programs than it does
sub remember
{
	my ($account) = map { YelpTest::literal($_) } @_;
	return qq{
BEGIN;
DELETE FROM oracle.before WHERE username = $account;
INSERT INTO oracle.before SELECT * FROM oracle.after WHERE username = $account;
DELETE FROM oracle.last_run WHERE username = $account;
INSERT INTO oracle.last_run SELECT $account, COALESCE(max(finished_at), '-infinity') FROM yelp_sync_runs
	WHERE username = $account;
COMMIT};
}

sub runs_query
{
	my ($account) = map { YelpTest::literal($_) } @_;
	return "SELECT row_to_json(r) FROM oracle.runs($account) AS r";
}

sub runs
{
	my ($text) = @_;
	return map { $json->decode($_) } split /\n/, $text;
}

sub reporting_sync
{
	my ($account) = map { YelpTest::literal($_) } @_;
	return "DELETE FROM oracle.reported; INSERT INTO oracle.reported SELECT * FROM yelp_sync($account)";
}

sub load
{
	my (@listings) = @_;
	my $moment = 0;
	return join ";\n", 'BEGIN', 'DELETE FROM oracle.listed',
	  (map { 'SELECT oracle.load(' . ++$moment . ', ' . YelpTest::json_literal($_) . ')' } @listings), 'COMMIT';
}

sub touched
{
	my ($account, $is_edited) = @_;
	return 'SELECT * FROM oracle.touched(' . YelpTest::literal($account) . ', ' . ($is_edited ? 'true' : 'false') . ') LIMIT 3';
}

sub wrong
{
	my ($account, %how) = @_;
	my %given = map { $how{$_} ? ($_ => $how{$_}) : () } keys %how;
	return 'SELECT * FROM oracle.wrong(' . YelpTest::literal($account) . ', ' . YelpTest::literal($json->encode(\%given)) . ') LIMIT 5';
}

1;
