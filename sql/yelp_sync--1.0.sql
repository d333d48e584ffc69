/* sql/yelp_sync--1.0.sql */

\echo Use "CREATE EXTENSION yelp_sync" to load this file. \quit

-- Others may have created functions and operators in the extension's schema:
-- nothing but pg_catalog is searched, and what is ours is named in full.
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- Where accounts live: servers and user mappings
--

CREATE FUNCTION @extschema@.yelp_sync_validator(options text[], catalog oid)
RETURNS void
LANGUAGE C STRICT
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_validator(text[], oid) IS
'checks the options of servers and user mappings for Yelp';

CREATE FOREIGN DATA WRAPPER yelp_sync VALIDATOR @extschema@.yelp_sync_validator;

COMMENT ON FOREIGN DATA WRAPPER yelp_sync IS
'Yelp partner API: a server is an endpoint, a user mapping an account';

CREATE FUNCTION @extschema@.yelp_sync_accounts(
	OUT username text, OUT server text, OUT endpoint text)
RETURNS SETOF record
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_accounts() IS
'what the view yelp_accounts shows';

CREATE VIEW @extschema@.yelp_accounts AS
SELECT username, server, endpoint FROM @extschema@.yelp_sync_accounts();

COMMENT ON VIEW @extschema@.yelp_accounts IS
'accounts that the current user can sync';
COMMENT ON COLUMN @extschema@.yelp_accounts.username IS 'argument for yelp_sync()';
COMMENT ON COLUMN @extschema@.yelp_accounts.server IS 'foreign server that it is mapped on';
COMMENT ON COLUMN @extschema@.yelp_accounts.endpoint IS 'URL that is asked for the programs';

GRANT SELECT ON @extschema@.yelp_accounts TO PUBLIC;

--
-- The syncs that run now
--

CREATE FUNCTION @extschema@.yelp_sync_running(
	OUT pid integer, OUT username text, OUT phase text, OUT reading integer,
	OUT pages_done bigint, OUT pages_total bigint, OUT programs bigint, OUT retries bigint,
	OUT in_flight integer, OUT started_at timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL RESTRICTED
ROWS 10
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_running() IS
'what the view yelp_sync_progress shows';

CREATE VIEW @extschema@.yelp_sync_progress AS
SELECT pid, username, phase, reading, pages_done, pages_total, programs, retries, in_flight, started_at
FROM @extschema@.yelp_sync_running();

COMMENT ON VIEW @extschema@.yelp_sync_progress IS
'syncs that run now in this database; needs PostgreSQL 17 or later';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.pid IS 'process that syncs, as in pg_stat_activity';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.username IS 'account that is synced';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.phase IS 'preparing, fetching or merging';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.reading IS
'1, or more when the listing is read again';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.pages_done IS 'pages that arrived in this reading';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.pages_total IS
'pages that are expected; NULL before the first has arrived';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.programs IS 'programs that arrived in this reading';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.retries IS 'attempts that were repeated so far';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.in_flight IS 'requests that wait for their answer';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.started_at IS 'when the sync began';

GRANT SELECT ON @extschema@.yelp_sync_progress TO PUBLIC;

--
-- From a program's document to the columns of yelp_programs
--

CREATE FUNCTION @extschema@.yelp_sync_document(document text, program_id text, page_offset bigint)
RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_document(text, text, bigint) IS
'a program''s text as jsonb; an error names the program and its page';

-- The one list of these columns, from which yelp_programs is made and by which a
-- sync compares and writes.  Not the table's row type: a function that used that
-- would tie the table to the extension.
CREATE TYPE @extschema@.yelp_sync_values AS (
	program_type text,
	program_status text,
	program_pause_status text,
	start_date date,
	end_date date,
	yelp_business_id text,
	partner_business_id text,
	budget numeric(14,2),
	max_bid numeric(14,2),
	ad_cost numeric(14,2),
	currency text,
	fee_period text,
	is_autobid boolean,
	billed_impressions bigint,
	billed_clicks bigint,
	active_features text[],
	available_features text[],
	problems text[]
);

COMMENT ON TYPE @extschema@.yelp_sync_values IS
'the columns of yelp_programs that a program''s document fills';
COMMENT ON COLUMN @extschema@.yelp_sync_values.program_type IS 'CPC, BP, LOGO and others: an open set';
COMMENT ON COLUMN @extschema@.yelp_sync_values.program_status IS 'ACTIVE or INACTIVE';
COMMENT ON COLUMN @extschema@.yelp_sync_values.program_pause_status IS 'PAUSED or NOT_PAUSED';
COMMENT ON COLUMN @extschema@.yelp_sync_values.start_date IS 'first day';
COMMENT ON COLUMN @extschema@.yelp_sync_values.end_date IS 'last day; 9999-12-31 for no end';
COMMENT ON COLUMN @extschema@.yelp_sync_values.yelp_business_id IS 'of the first business';
COMMENT ON COLUMN @extschema@.yelp_sync_values.partner_business_id IS 'of the first business';
COMMENT ON COLUMN @extschema@.yelp_sync_values.budget IS 'in units of the currency, not in cents';
COMMENT ON COLUMN @extschema@.yelp_sync_values.max_bid IS 'in units of the currency, not in cents';
COMMENT ON COLUMN @extschema@.yelp_sync_values.ad_cost IS 'in units of the currency, not in cents';
COMMENT ON COLUMN @extschema@.yelp_sync_values.currency IS 'of budget, max_bid and ad_cost';
COMMENT ON COLUMN @extschema@.yelp_sync_values.fee_period IS 'period that the budget is for';
COMMENT ON COLUMN @extschema@.yelp_sync_values.is_autobid IS 'whether Yelp sets the bid';
COMMENT ON COLUMN @extschema@.yelp_sync_values.billed_impressions IS 'impressions billed so far';
COMMENT ON COLUMN @extschema@.yelp_sync_values.billed_clicks IS 'clicks billed so far';
COMMENT ON COLUMN @extschema@.yelp_sync_values.active_features IS
'features that are on; NULL where the API names none';
COMMENT ON COLUMN @extschema@.yelp_sync_values.available_features IS
'features that could be on; NULL where the API names none';
COMMENT ON COLUMN @extschema@.yelp_sync_values.problems IS
'fields that could not be read into their columns; NULL where there are none';

CREATE FUNCTION @extschema@.yelp_sync_columns(program jsonb, problems text[])
RETURNS @extschema@.yelp_sync_values
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_columns(jsonb, text[]) IS
'the columns of yelp_programs that a program''s document fills';

CREATE FUNCTION @extschema@.yelp_sync_rest(document jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN jsonb_build_array(
	CASE WHEN jsonb_typeof(document) = 'object'
		THEN document - '{program_id,program_type,program_status,program_pause_status,start_date,end_date,program_metrics,businesses,active_features,available_features}'::text[]
		ELSE document END,
	CASE WHEN jsonb_typeof(document -> 'program_metrics') = 'object'
		THEN (document -> 'program_metrics')
			- '{budget,max_bid,ad_cost,currency,fee_period,is_autobid,billed_impressions,billed_clicks}'::text[]
		ELSE coalesce(nullif(document -> 'program_metrics', 'null'), '{}') END,
	CASE WHEN jsonb_typeof(document -> 'businesses' -> 0) = 'object'
		THEN coalesce(nullif((document -> 'businesses')
			#- '{0,yelp_business_id}' #- '{0,partner_business_id}', '[{}]'), '[]')
		ELSE coalesce(nullif(document -> 'businesses', 'null'), '[]') END);

COMMENT ON FUNCTION @extschema@.yelp_sync_rest(jsonb) IS
'what no column of yelp_programs but data shows of a program''s document';

CREATE FUNCTION @extschema@.yelp_sync_differences(
	stored @extschema@.yelp_sync_values, new @extschema@.yelp_sync_values)
RETURNS text[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_differences(
	@extschema@.yelp_sync_values, @extschema@.yelp_sync_values) IS
'the names of the columns in which two rows differ';

CREATE FUNCTION @extschema@.yelp_sync_changed(
	stored @extschema@.yelp_sync_values, new @extschema@.yelp_sync_values,
	stored_document jsonb, document jsonb)
RETURNS SETOF text[]
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN stored_document <> document AND (columns.changed = '{}'
			OR @extschema@.yelp_sync_rest(stored_document) <> @extschema@.yelp_sync_rest(document))
		THEN columns.changed || 'data'::text ELSE columns.changed END
	FROM (SELECT @extschema@.yelp_sync_differences(stored, new) AS changed OFFSET 0) AS columns;
END;

COMMENT ON FUNCTION @extschema@.yelp_sync_changed(
	@extschema@.yelp_sync_values, @extschema@.yelp_sync_values, jsonb, jsonb) IS
'the columns in which a stored program differs from a document; none where only the spelling does';

CREATE FUNCTION @extschema@.yelp_sync_picked(
	columns @extschema@.yelp_sync_values, document jsonb, names text[])
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT jsonb_object_agg(key, value)
	FROM jsonb_each(to_jsonb(columns) || jsonb_build_object('data', document))
	WHERE key = ANY (names);
END;

COMMENT ON FUNCTION @extschema@.yelp_sync_picked(@extschema@.yelp_sync_values, jsonb, text[]) IS
'the columns with these names, data among them, as one JSON object';

--
-- The tables, which belong to whoever makes them
--
-- They are no members of the extension, and nothing of theirs depends on one:
-- pg_dump carries them with all that users add, and DROP EXTENSION leaves them.
--

CREATE FUNCTION @extschema@.yelp_sync_make_tables(schema name, partitions integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	filled text := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = format('%I.yelp_sync_values', schema)::regclass);
BEGIN
	IF to_regclass(format('%I.yelp_programs', schema)) IS NULL THEN
		EXECUTE format($ddl$
			CREATE TABLE %1$I.yelp_programs (
				username text COLLATE "C" NOT NULL,
				program_id text COLLATE "C" NOT NULL,
				LIKE %1$I.yelp_sync_values INCLUDING COMMENTS,
				data jsonb NOT NULL,
				fingerprint bigint,
				created_at timestamptz NOT NULL DEFAULT now(),
				updated_at timestamptz NOT NULL DEFAULT now(),
				-- the fingerprint is included so that a sync need not read the rows
				PRIMARY KEY (username, program_id) INCLUDE (fingerprint)
			) %2$s;

			COMMENT ON TABLE %1$I.yelp_programs IS
			'advertising programs as of the last sync of their account';
			COMMENT ON COLUMN %1$I.yelp_programs.username IS 'account that the program belongs to';
			COMMENT ON COLUMN %1$I.yelp_programs.program_id IS 'Yelp''s id of the program';
			COMMENT ON COLUMN %1$I.yelp_programs.data IS 'the whole program as the API sent it';
			COMMENT ON COLUMN %1$I.yelp_programs.fingerprint IS
			'hash of the program''s text; NULL when the row was edited and the next sync is to restore it';
			COMMENT ON COLUMN %1$I.yelp_programs.created_at IS 'when the row was added';
			COMMENT ON COLUMN %1$I.yelp_programs.updated_at IS 'when a sync last changed the row';

			-- A row that is edited by hand is restored by the next sync
			CREATE OR REPLACE FUNCTION %1$I.yelp_programs_edited()
			RETURNS trigger
			LANGUAGE plpgsql
			AS $body$
			BEGIN
				NEW.fingerprint := NULL;
				RETURN NEW;
			END
			$body$;
			-- whoever made one before keeps no right to alter what it does
			ALTER FUNCTION %1$I.yelp_programs_edited() OWNER TO CURRENT_USER;

			COMMENT ON FUNCTION %1$I.yelp_programs_edited() IS
			'makes the next sync look at a row of yelp_programs that was edited';

			CREATE TRIGGER yelp_programs_edited
			BEFORE UPDATE OF username, program_id, %3$s, data ON %1$I.yelp_programs
			FOR EACH ROW
			WHEN (OLD.fingerprint IS NOT DISTINCT FROM NEW.fingerprint)
			EXECUTE FUNCTION %1$I.yelp_programs_edited();

			COMMENT ON TRIGGER yelp_programs_edited ON %1$I.yelp_programs IS
			'makes the next sync look at a row that was edited';
		$ddl$, schema, CASE WHEN partitions IS NOT NULL THEN 'PARTITION BY HASH (username)' END, filled);

		FOR i IN 0 .. coalesce(partitions, 0) - 1 LOOP
			EXECUTE format($ddl$
				CREATE TABLE %1$I.yelp_programs_%2$s PARTITION OF %1$I.yelp_programs
				FOR VALUES WITH (MODULUS %3$s, REMAINDER %2$s);

				COMMENT ON TABLE %1$I.yelp_programs_%2$s IS 'one of %3$s parts of yelp_programs';
			$ddl$, schema, i, partitions);
		END LOOP;
	END IF;

	IF to_regclass(format('%I.yelp_sync_runs', schema)) IS NULL THEN
		EXECUTE format($ddl$
			CREATE TABLE %1$I.yelp_sync_runs (
				run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
				username text COLLATE "C" NOT NULL,
				server text,
				synced_by text NOT NULL,
				started_at timestamptz NOT NULL,
				finished_at timestamptz NOT NULL,
				status text NOT NULL,
				-- a sync that failed has none of what follows but the error
				program_status text,
				programs bigint,
				listed bigint,
				pages bigint,
				requests bigint,
				retries bigint,
				received_bytes bigint,
				added bigint,
				updated bigint,
				unchanged bigint,
				deleted bigint,
				missing bigint,
				problems bigint,
				failed_pages bigint,
				fetch_time interval,
				merge_time interval,
				warnings text[],
				sqlstate text,
				error text
			);

			CREATE INDEX ON %1$I.yelp_sync_runs (username, run_id);

			COMMENT ON TABLE %1$I.yelp_sync_runs IS 'one row for each sync that finished';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.run_id IS 'number of the sync';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.username IS 'account that was synced';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.server IS 'foreign server that it was synced from';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.synced_by IS 'role that synced';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.started_at IS 'when the sync began';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.finished_at IS 'when the merge was done, or the sync failed';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.status IS
			'synced, partial where something was skipped or could not be proved, or failed';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.program_status IS 'filter that was asked for';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.programs IS 'total that the API reported';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.listed IS 'distinct programs that arrived';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.pages IS 'pages that came';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.requests IS 'requests sent';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.retries IS 'attempts that were repeated';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.received_bytes IS 'bytes of the pages, compressed where they were';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.added IS 'programs that were new';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.updated IS 'programs that had changed';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.unchanged IS 'programs that had not';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.deleted IS 'programs that were gone';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.missing IS
			'programs that were not listed and not proved to be gone';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.problems IS
			'programs that arrived with fields that could not be read';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.failed_pages IS 'pages skipped, with the option partial';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.fetch_time IS 'time that the pages took';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.merge_time IS 'time that the merge took';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.warnings IS 'messages of its WARNINGs; NULL where there were none';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.sqlstate IS 'of the error that it failed with';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.error IS 'message of the error that it failed with';
		$ddl$, schema);
	END IF;

	IF to_regclass(format('%I.yelp_program_changes', schema)) IS NULL THEN
		EXECUTE format($ddl$
			CREATE TABLE %1$I.yelp_program_changes (
				run_id bigint NOT NULL,
				changed_at timestamptz NOT NULL,
				username text COLLATE "C" NOT NULL,
				program_id text COLLATE "C" NOT NULL,
				action text NOT NULL,
				changed text[],
				old jsonb,
				new jsonb,
				PRIMARY KEY (run_id, program_id)
			);

			CREATE INDEX ON %1$I.yelp_program_changes (username, program_id, run_id);

			COMMENT ON TABLE %1$I.yelp_program_changes IS
			'what syncs changed in yelp_programs, where the server''s option record_changes is on';
			COMMENT ON COLUMN %1$I.yelp_program_changes.run_id IS 'the sync, in yelp_sync_runs';
			COMMENT ON COLUMN %1$I.yelp_program_changes.changed_at IS 'when it changed the row';
			COMMENT ON COLUMN %1$I.yelp_program_changes.username IS 'account that the program belongs to';
			COMMENT ON COLUMN %1$I.yelp_program_changes.program_id IS 'Yelp''s id of the program';
			COMMENT ON COLUMN %1$I.yelp_program_changes.action IS 'added, updated or deleted';
			COMMENT ON COLUMN %1$I.yelp_program_changes.changed IS 'columns that an update changed';
			COMMENT ON COLUMN %1$I.yelp_program_changes.old IS
			'these columns as they were, or the whole program that was deleted';
			COMMENT ON COLUMN %1$I.yelp_program_changes.new IS
			'these columns as they are, or the whole program that was added';
		$ddl$, schema);
	END IF;
END
$function$;

COMMENT ON FUNCTION @extschema@.yelp_sync_make_tables(name, integer) IS
'creates in a schema what yelp_sync_create_tables() finds missing';

CREATE FUNCTION @extschema@.yelp_sync_create_tables(partitions integer DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_create_tables(integer) IS
'creates the tables that are missing, as the first sync does; yelp_programs in as many partitions';

--
-- For queries: they take columns, not rows, whose type is the user's
--

CREATE FUNCTION @extschema@.yelp_program_state(
	program_status text, program_pause_status text, start_date date, end_date date)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
	WHEN program_pause_status = 'PAUSED' THEN 'PAUSED'
	WHEN start_date > (now() AT TIME ZONE 'America/Los_Angeles')::date THEN 'FUTURE'
	WHEN end_date < (now() AT TIME ZONE 'America/Los_Angeles')::date THEN 'PAST'
	WHEN program_status = 'ACTIVE' THEN 'CURRENT'
	ELSE 'INACTIVE'
END;

COMMENT ON FUNCTION @extschema@.yelp_program_state(text, text, date, date) IS
'PAUSED, FUTURE, PAST, CURRENT or INACTIVE: what a program is today, Pacific time';

CREATE FUNCTION @extschema@.yelp_program_businesses(data jsonb)
RETURNS TABLE (yelp_business_id text, partner_business_id text)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT business ->> 'yelp_business_id', business ->> 'partner_business_id'
	FROM jsonb_array_elements(CASE WHEN jsonb_typeof(data -> 'businesses') = 'array'
		THEN data -> 'businesses' ELSE '[]' END) WITH ORDINALITY AS list(business, place)
	ORDER BY place;
END;

COMMENT ON FUNCTION @extschema@.yelp_program_businesses(jsonb) IS
'the businesses of a program''s document, one row for each';

--
-- The sync
--

CREATE FUNCTION @extschema@.yelp_sync(username text)
RETURNS TABLE (action text, program_id text, changed text[])
LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
ROWS 100 COST 1000000
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync(text) IS
'fetches all programs of an account, merges them into yelp_programs, and returns what changed';

CREATE PROCEDURE @extschema@.yelp_sync_all(usernames text[] DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME';

COMMENT ON PROCEDURE @extschema@.yelp_sync_all(text[]) IS
'syncs the accounts with these usernames, or all, each in a transaction of its own';
