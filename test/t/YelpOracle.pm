# YelpOracle - the expected result of syncs, for TAP tests
#
#   $observer->value(YelpOracle::install());
#   $observer->value(YelpOracle::remember('acme'));
#   ... a sync ...
#   my @runs = YelpOracle::runs($observer->value(YelpOracle::runs_query('acme')));
#   $observer->value(YelpOracle::load('acme', $api->programs_json('acme')));
#   is($observer->value(YelpOracle::wrong('acme', is_synced => 1)), '', 'all is as it must be');
#
# Each function returns SQL, which can be repeated after a session was lost.  It only looks at tables,
# so the session that synced need not exist any more.

package YelpOracle;

use strict;
use warnings FATAL => 'all';

use YelpTest;

# YelpOracle::install()
# Creates the schema oracle.
#
# YelpOracle::edit($account)
# A manual edit of an account's rows, after which a column of some programs differs from the listing.

my $columns = YelpTest::listing_columns();

sub install
{
	return qq{
CREATE SCHEMA oracle;

-- Rows as one value; "place" tells whether a row was written
CREATE VIEW oracle.after AS
SELECT p.username, p.program_id, p.fingerprint, p.xmin::text || p.ctid::text AS place, to_jsonb(r) AS row
FROM public.yelp_programs p CROSS JOIN LATERAL (SELECT $columns, problems) AS r;
CREATE TABLE oracle.before AS SELECT * FROM oracle.after;
CREATE TABLE oracle.last_run (username text, finished_at timestamptz);

-- The listing, as it was at one moment or at several
CREATE TABLE oracle.listed (moment integer, program_id text, row jsonb);

-- A program's row as it was, as it is, as it was listed, and whether it was at each of the
-- moments; where somebody edited it, without what he did
CREATE TABLE oracle.program (program_id text PRIMARY KEY, was jsonb, is_now jsonb, listed jsonb[],
	is_listed boolean, is_edited boolean);
CREATE TABLE oracle.replayed (program_id text PRIMARY KEY, row jsonb);

CREATE FUNCTION oracle.is_edited(program_id text) RETURNS boolean LANGUAGE sql
RETURN program_id COLLATE "C" < 'I';

CREATE FUNCTION oracle.runs(account text) RETURNS SETOF public.yelp_sync_runs LANGUAGE sql AS '
	SELECT r.* FROM public.yelp_sync_runs r JOIN oracle.last_run l USING (username)
	WHERE username = account AND r.finished_at > l.finished_at ORDER BY r.finished_at';

CREATE FUNCTION oracle.compare(account text, edited boolean) RETURNS void LANGUAGE sql AS '
	DELETE FROM oracle.program;
	INSERT INTO oracle.program
	SELECT program_id,
		CASE WHEN is_edited THEN b.row - ''budget'' ELSE b.row END,
		CASE WHEN is_edited THEN a.row - ''budget'' ELSE a.row END,
		CASE WHEN is_edited THEN ARRAY(SELECT r - ''budget'' FROM unnest(l.rows) r) ELSE l.rows END,
		l.rows IS NOT NULL AND cardinality(l.rows) = (SELECT max(moment) FROM oracle.listed),
		is_edited
	FROM (SELECT * FROM oracle.before WHERE username = account) b
	FULL JOIN (SELECT * FROM oracle.after WHERE username = account) a USING (program_id)
	FULL JOIN (SELECT program_id, array_agg(row) FROM oracle.listed WHERE row IS NOT NULL
		GROUP BY 1) l(program_id, rows) USING (program_id),
	LATERAL (SELECT edited AND oracle.is_edited(program_id)) AS e(is_edited)';

-- Of a sync that was not done
CREATE FUNCTION oracle.touched(account text, edited boolean) RETURNS SETOF text LANGUAGE sql AS '
	SELECT format(''%s was %s and is %s'', program_id, b, a)
	FROM (SELECT * FROM oracle.before WHERE username = account) b
	FULL JOIN (SELECT * FROM oracle.after WHERE username = account) a USING (program_id)
	WHERE CASE WHEN edited AND oracle.is_edited(program_id)
		THEN a.row - ''budget'' IS DISTINCT FROM b.row - ''budget''
		ELSE (a.row, a.fingerprint, a.place) IS DISTINCT FROM (b.row, b.fingerprint, b.place) END';

-- Of syncs that were done; the last one called itself synced, all of them partial
CREATE FUNCTION oracle.misplaced(synced boolean, partial boolean) RETURNS SETOF text LANGUAGE sql AS '
	SELECT CASE
		WHEN is_now <> was AND listed IS NULL OR NOT is_now = ANY (was || listed)
			THEN format(''%s is neither as it was nor as it is listed: it was %s and is %s'', program_id, was, is_now)
		WHEN was IS NOT NULL AND is_now IS NULL AND is_listed
			THEN format(''%s was deleted, and is listed'', program_id)
		WHEN was IS NOT NULL AND is_now IS NULL AND partial
			THEN format(''%s was deleted without proof'', program_id)
		WHEN synced AND is_listed AND is_now IS NULL
			THEN format(''%s is listed, and not stored'', program_id)
		WHEN synced AND (SELECT max(moment) = 1 FROM oracle.listed) AND is_now IS DISTINCT FROM listed[1]
			THEN format(''%s is listed as %s and stored as %s'', program_id, listed[1], is_now)
		END
	FROM oracle.program';

-- How many programs changed, as the runs say, and as the table does; the more runs, the less is known
CREATE FUNCTION oracle.miscounted(account text) RETURNS SETOF text LANGUAGE sql AS '
	SELECT format(''the runs say %s, the table says %s'', told, found)
	FROM (SELECT sum(added) AS added, sum(deleted) AS deleted, sum(updated) AS updated, count(*) AS runs
			FROM oracle.runs(account) WHERE status <> ''failed'') AS told,
		(SELECT count(*) FILTER (WHERE was IS NULL) AS added, count(*) FILTER (WHERE is_now IS NULL) AS deleted,
			count(*) FILTER (WHERE was <> is_now) AS updated
			FROM oracle.program WHERE was IS NOT NULL OR is_now IS NOT NULL) AS found
	WHERE told.added - told.deleted <> found.added - found.deleted
		OR runs = 1 AND (told.added, told.deleted, told.updated) <> (found.added, found.deleted, found.updated)';

-- Has one of these what the other has otherwise?
CREATE FUNCTION oracle.contradicts(a jsonb, b jsonb) RETURNS boolean LANGUAGE sql
RETURN EXISTS (SELECT FROM jsonb_each(a) AS x WHERE b ? x.key AND b -> x.key <> x.value);

CREATE FUNCTION oracle.names(object jsonb) RETURNS text[] LANGUAGE sql
RETURN ARRAY(SELECT jsonb_object_keys(object) COLLATE "C" ORDER BY 1);

-- Do the changes of a run fit the rows that there were?
CREATE FUNCTION oracle.misrecorded(run uuid) RETURNS SETOF text LANGUAGE sql AS '
	SELECT format(''run %s: %s is recorded for the row %s'', run, c, r.row)
	FROM public.yelp_program_changes c LEFT JOIN oracle.replayed r USING (program_id)
	WHERE run_id = run AND NOT COALESCE(CASE action
		WHEN ''added'' THEN r.row IS NULL AND old IS NULL AND new IS NOT NULL AND changed IS NULL
		WHEN ''deleted'' THEN NOT oracle.contradicts(jsonb_build_object(''data'', old), r.row)
			AND old IS NOT NULL AND new IS NULL AND changed IS NULL
		WHEN ''updated'' THEN NOT oracle.contradicts(old, r.row)
			AND oracle.names(new) = ARRAY(SELECT unnest(changed) COLLATE "C" ORDER BY 1)
			AND oracle.names(old) = oracle.names(new || ''{"data": 0}'')
			AND NOT EXISTS (SELECT FROM jsonb_each(new) AS n WHERE n.value = old -> n.key)
		END, false)';

-- Of a program that was added only the document is known, and no document where columns show
-- all that changed in it
CREATE FUNCTION oracle.replay(run uuid) RETURNS void LANGUAGE sql AS '
	DELETE FROM oracle.replayed r USING public.yelp_program_changes c
	WHERE run_id = run AND action = ''deleted'' AND c.program_id = r.program_id;
	UPDATE oracle.replayed r
	SET row = CASE WHEN new ? ''data'' THEN row ELSE row - ''data'' END || new
	FROM public.yelp_program_changes c
	WHERE run_id = run AND action = ''updated'' AND c.program_id = r.program_id;
	INSERT INTO oracle.replayed SELECT program_id, jsonb_build_object(''data'', new)
	FROM public.yelp_program_changes c WHERE run_id = run AND action = ''added''';

-- The changes of all runs, over the table as it was, give the table as it is
CREATE FUNCTION oracle.wrong_changes(account text) RETURNS SETOF text LANGUAGE plpgsql AS '
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
	SELECT format(''%s is %s, and by the changes %s'', program_id, is_now, row)
	FROM oracle.program FULL JOIN oracle.replayed USING (program_id)
	WHERE (is_now IS NULL) <> (row IS NULL) OR oracle.contradicts(is_now, row);
END';

CREATE FUNCTION oracle.wrong(account text, synced boolean, partial boolean, edited boolean, recorded boolean,
	deceived boolean)
RETURNS SETOF text LANGUAGE plpgsql AS '
BEGIN
	PERFORM oracle.compare(account, edited);
	IF deceived THEN
		-- Nobody knows what was listed throughout
		UPDATE oracle.program SET is_listed = false;
		INSERT INTO oracle.listed VALUES (2);
	END IF;
	RETURN QUERY SELECT * FROM oracle.misplaced(synced, partial) m WHERE m IS NOT NULL;
	IF NOT edited THEN
		RETURN QUERY SELECT * FROM oracle.miscounted(account);
	END IF;
	IF recorded AND NOT edited THEN
		RETURN QUERY SELECT * FROM oracle.wrong_changes(account);
	ELSIF NOT recorded THEN
		RETURN QUERY SELECT format(''recorded, unasked: %s'', c) FROM public.yelp_program_changes c
			WHERE run_id IN (SELECT run_id FROM oracle.runs(account));
	END IF;
END';
};
}

sub edit
{
	my ($account) = map { YelpTest::literal($_) } @_;
	return "UPDATE yelp_programs SET budget = 17 WHERE username = $account AND oracle.is_edited(program_id)";
}

# YelpOracle::remember($account)
# Keeps how things are before a sync.
#
# YelpOracle::runs_query($account), YelpOracle::runs($text)
# The runs since then, and these as a list of hashes: status, sqlstate, and told, which is all of it.
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
	return "SELECT status, sqlstate, row_to_json(r) FROM oracle.runs($account) AS r";
}

sub runs
{
	my ($text) = @_;
	return map {
		my %run;
		@run{qw(status sqlstate told)} = split /\|/, $_, 3;
		\%run
	} split /\n/, $text;
}

# YelpOracle::load(@listings)
# The listing as the API had it, in JSON: at one moment, or at several where it moved meanwhile.
#
# YelpOracle::touched($account, $is_edited)
# Rows that were written since, as lines of text; but for an edit.
#
# YelpOracle::wrong($account, %syncs)
# What is wrong after one sync or several that were done.  is_synced: the last one called itself so;
# is_partial: none of them did; is_edited: somebody edited rows meanwhile; is_recorded: with
# record_changes; is_deceived: the API seemed to list fewer programs than it does.
sub load
{
	my (@listings) = @_;
	my $sql = "BEGIN;\nDELETE FROM oracle.listed;\n";
	my $moment = 0;

	foreach my $listing (map { YelpTest::listing_query($_) } @listings)
	{
		$moment++;
		# A listing without programs is a moment, too
		$sql .= "INSERT INTO oracle.listed VALUES ($moment);
			INSERT INTO oracle.listed SELECT $moment, l.program_id, to_jsonb(r)
			FROM ($listing) AS l CROSS JOIN LATERAL (SELECT $columns, NULL::text[] AS problems) AS r;\n";
	}
	return $sql . 'COMMIT';
}

sub touched
{
	my ($account, $is_edited) = @_;
	return 'SELECT * FROM oracle.touched('
	  . YelpTest::literal($account) . ', '
	  . ($is_edited ? 'true' : 'false')
	  . ') LIMIT 3';
}

sub wrong
{
	my ($account, %syncs) = @_;
	my @flags = map { $syncs{$_} ? 'true' : 'false' } qw(is_synced is_partial is_edited is_recorded is_deceived);
	return 'SELECT * FROM oracle.wrong(' . join(', ', YelpTest::literal($account), @flags) . ') LIMIT 5';
}

1;
