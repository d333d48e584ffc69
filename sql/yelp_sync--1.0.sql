/* sql/yelp_sync--1.0.sql */

\echo Use "CREATE EXTENSION yelp_sync" to load this file. \quit

-- Other roles may have created functions and operators in the extension's
-- schema, so search only pg_catalog and schema-qualify our own objects.
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- Accounts: servers and user mappings
--

CREATE FUNCTION @extschema@.yelp_sync_validator(options text[], catalog oid)
RETURNS void
LANGUAGE C STRICT
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_validator(text[], oid) IS
'validates the options of servers and user mappings';

CREATE FOREIGN DATA WRAPPER yelp_sync VALIDATOR @extschema@.yelp_sync_validator;

COMMENT ON FOREIGN DATA WRAPPER yelp_sync IS
'Yelp partner API: a server is an endpoint, a user mapping an account';

CREATE FUNCTION @extschema@.yelp_sync_accounts(
	OUT username text, OUT server text, OUT endpoint text)
RETURNS SETOF record
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_accounts() IS
'implements the view yelp_accounts';

CREATE VIEW @extschema@.yelp_accounts AS
SELECT * FROM @extschema@.yelp_sync_accounts();

COMMENT ON VIEW @extschema@.yelp_accounts IS
'accounts that the current user can sync';
COMMENT ON COLUMN @extschema@.yelp_accounts.username IS 'argument to pass to yelp_sync()';
COMMENT ON COLUMN @extschema@.yelp_accounts.server IS 'foreign server that has the user mapping';
COMMENT ON COLUMN @extschema@.yelp_accounts.endpoint IS 'URL of the API';

GRANT SELECT ON @extschema@.yelp_accounts TO PUBLIC;

CREATE FUNCTION @extschema@.yelp_sync_add_account(
	username text, password text, server text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_add_account(text, text, text) IS
'creates a user mapping for the current user, and its server unless it exists';

--
-- Running syncs
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
'implements the view yelp_sync_progress';

CREATE VIEW @extschema@.yelp_sync_progress AS
SELECT * FROM @extschema@.yelp_sync_running();

COMMENT ON VIEW @extschema@.yelp_sync_progress IS
'syncs currently running in this database; empty before PostgreSQL 17';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.pid IS 'process ID of the backend, as in pg_stat_activity';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.username IS 'account being synced';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.phase IS 'preparing, fetching or merging';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.reading IS
'1, or higher when the listing is read again';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.pages_done IS 'pages received in this reading';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.pages_total IS
'pages expected; NULL until the first one is received';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.programs IS 'programs received in this reading';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.retries IS 'requests retried so far';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.in_flight IS 'requests in flight';
COMMENT ON COLUMN @extschema@.yelp_sync_progress.started_at IS 'when the sync began';

GRANT SELECT ON @extschema@.yelp_sync_progress TO PUBLIC;

--
-- How the accounts' syncs went
--

CREATE FUNCTION @extschema@.yelp_sync_account_status(
	OUT username text, OUT mapped boolean, OUT running boolean, OUT programs bigint,
	OUT last_attempt timestamptz, OUT last_status text, OUT last_complete timestamptz,
	OUT last_sqlstate text, OUT last_error text)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
ROWS 10
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_account_status() IS
'implements the view yelp_sync_status';

CREATE VIEW @extschema@.yelp_sync_status AS
SELECT * FROM @extschema@.yelp_sync_account_status();

COMMENT ON VIEW @extschema@.yelp_sync_status IS
'accounts that are mapped, stored or in the history, and how their syncs went';
COMMENT ON COLUMN @extschema@.yelp_sync_status.username IS 'account';
COMMENT ON COLUMN @extschema@.yelp_sync_status.mapped IS
'whether there is a user mapping for the current user, even if it may not use the server';
COMMENT ON COLUMN @extschema@.yelp_sync_status.running IS
'whether a sync is running, or its transaction has not ended yet';
COMMENT ON COLUMN @extschema@.yelp_sync_status.programs IS
'programs stored; NULL if none, or if the current user may not read the table';
COMMENT ON COLUMN @extschema@.yelp_sync_status.last_attempt IS
'when the last recorded sync ended; attempts during another sync are not counted';
COMMENT ON COLUMN @extschema@.yelp_sync_status.last_status IS 'its status: synced, partial or failed';
COMMENT ON COLUMN @extschema@.yelp_sync_status.last_complete IS
'when the last sync with status synced ended';
COMMENT ON COLUMN @extschema@.yelp_sync_status.last_sqlstate IS
'SQLSTATE of the last attempt, if it failed';
COMMENT ON COLUMN @extschema@.yelp_sync_status.last_error IS
'message of the last attempt, if it failed';

GRANT SELECT ON @extschema@.yelp_sync_status TO PUBLIC;

--
-- Mapping a program's document to the columns of yelp_programs
--

-- The only list of these columns: yelp_programs is created from it, and a sync
-- uses it to compare and write rows.  It is not the table's row type, because a
-- function using that would make the extension depend on the table.
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
'the columns of yelp_programs that are filled from a program''s document';
COMMENT ON COLUMN @extschema@.yelp_sync_values.program_type IS 'CPC, BP, LOGO or another type';
COMMENT ON COLUMN @extschema@.yelp_sync_values.program_status IS 'ACTIVE or INACTIVE';
COMMENT ON COLUMN @extschema@.yelp_sync_values.program_pause_status IS 'PAUSED or NOT_PAUSED';
COMMENT ON COLUMN @extschema@.yelp_sync_values.start_date IS 'first day';
COMMENT ON COLUMN @extschema@.yelp_sync_values.end_date IS 'last day; 9999-12-31 for no end';
COMMENT ON COLUMN @extschema@.yelp_sync_values.yelp_business_id IS 'Yelp''s ID of the first business';
COMMENT ON COLUMN @extschema@.yelp_sync_values.partner_business_id IS 'the partner''s ID of the first business';
COMMENT ON COLUMN @extschema@.yelp_sync_values.budget IS 'in units of the currency, not in cents';
COMMENT ON COLUMN @extschema@.yelp_sync_values.max_bid IS 'in units of the currency, not in cents';
COMMENT ON COLUMN @extschema@.yelp_sync_values.ad_cost IS 'in units of the currency, not in cents';
COMMENT ON COLUMN @extschema@.yelp_sync_values.currency IS 'currency of budget, max_bid and ad_cost';
COMMENT ON COLUMN @extschema@.yelp_sync_values.fee_period IS 'period covered by the budget';
COMMENT ON COLUMN @extschema@.yelp_sync_values.is_autobid IS 'whether Yelp sets the bid';
COMMENT ON COLUMN @extschema@.yelp_sync_values.billed_impressions IS 'impressions billed so far';
COMMENT ON COLUMN @extschema@.yelp_sync_values.billed_clicks IS 'clicks billed so far';
COMMENT ON COLUMN @extschema@.yelp_sync_values.active_features IS
'enabled features; NULL if the API lists none';
COMMENT ON COLUMN @extschema@.yelp_sync_values.available_features IS
'features that can be enabled; NULL if the API lists none';
COMMENT ON COLUMN @extschema@.yelp_sync_values.problems IS
'fields that could not be converted to their columns; NULL if none';

CREATE FUNCTION @extschema@.yelp_sync_columns(program jsonb)
RETURNS @extschema@.yelp_sync_values
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_columns(jsonb) IS
'the columns of yelp_programs that are filled from a program''s document, and what could not be read';

CREATE FUNCTION @extschema@.yelp_sync_changed(
	stored @extschema@.yelp_sync_values, new @extschema@.yelp_sync_values,
	stored_data jsonb, data jsonb)
RETURNS text[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_changed(
	@extschema@.yelp_sync_values, @extschema@.yelp_sync_values, jsonb, jsonb) IS
'the columns that differ; data if none does, but the documents; none if only the formatting differs';

CREATE FUNCTION @extschema@.yelp_sync_picked(
	columns @extschema@.yelp_sync_values, data jsonb, gone_at timestamptz, names text[])
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT jsonb_object_agg(key, value)
	FROM jsonb_each(to_jsonb(columns) || jsonb_build_object('data', data, 'gone_at', gone_at))
	WHERE key = ANY (names);
END;

COMMENT ON FUNCTION @extschema@.yelp_sync_picked(@extschema@.yelp_sync_values, jsonb, timestamptz, text[]) IS
'the named columns, possibly including data and gone_at, as a JSON object';

--
-- The tables, which belong to the role that creates them
--
-- They are not members of the extension and do not depend on one, so pg_dump
-- dumps them with everything that users add, and DROP EXTENSION keeps them.
--

CREATE FUNCTION @extschema@.yelp_sync_make_tables(schema name, partitions integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	-- Counters change in each sync.  With space on the pages, and without the
	-- fingerprint in an index, most updates touch no index (HOT): 92 % of those
	-- in 12 syncs of 2,000 programs, after which the table was twice as large,
	-- instead of none and 13 times without VACUUM.  The price is that a sync
	-- reads the fingerprints from the table, which takes 55 ms for 100,000
	-- programs (fingerprint is one of the first columns) instead of 30 ms.
	storage text := 'WITH (fillfactor = 70)';
	filled text := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = format('%I.yelp_sync_values', schema)::regclass);
	statement text;
BEGIN
	IF to_regclass(format('%I.yelp_programs', schema)) IS NULL THEN
		EXECUTE format($ddl$
			CREATE TABLE %1$I.yelp_programs (
				username text COLLATE "C" NOT NULL,
				program_id text COLLATE "C" NOT NULL,
				fingerprint bigint,
				gone_at timestamptz,
				LIKE %1$I.yelp_sync_values INCLUDING COMMENTS,
				data jsonb NOT NULL,
				created_at timestamptz NOT NULL DEFAULT now(),
				updated_at timestamptz NOT NULL DEFAULT now(),
				PRIMARY KEY (username, program_id)
			) %2$s;

			CREATE INDEX ON %1$I.yelp_programs (username) WHERE problems IS NOT NULL;

			COMMENT ON TABLE %1$I.yelp_programs IS
			'advertising programs as of their account''s last sync';
			COMMENT ON COLUMN %1$I.yelp_programs.username IS 'account that the program belongs to';
			COMMENT ON COLUMN %1$I.yelp_programs.program_id IS 'Yelp''s ID of the program';
			COMMENT ON COLUMN %1$I.yelp_programs.data IS 'the whole program as returned by the API';
			COMMENT ON COLUMN %1$I.yelp_programs.fingerprint IS
			'hash of the program''s text; NULL if the row was edited, in which case the next sync restores it';
			COMMENT ON COLUMN %1$I.yelp_programs.gone_at IS
			'since when the API no longer lists the program, if the server option on_gone is keep';
			COMMENT ON COLUMN %1$I.yelp_programs.created_at IS 'when the row was added';
			COMMENT ON COLUMN %1$I.yelp_programs.updated_at IS 'when a sync last changed the row';
		$ddl$, schema, CASE WHEN partitions IS NULL THEN storage ELSE 'PARTITION BY HASH (username)' END);

		FOR i IN 0 .. coalesce(partitions, 0) - 1 LOOP
			EXECUTE format($ddl$
				CREATE TABLE %1$I.yelp_programs_%2$s PARTITION OF %1$I.yelp_programs
				FOR VALUES WITH (MODULUS %3$s, REMAINDER %2$s) %4$s;

				COMMENT ON TABLE %1$I.yelp_programs_%2$s IS 'one of %3$s partitions of yelp_programs';
			$ddl$, schema, i, partitions, storage);
		END LOOP;
	END IF;

	IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'yelp_programs_edited'
			AND tgrelid = format('%I.yelp_programs', schema)::regclass) THEN
		-- Rows edited by hand are restored by the next sync.  Citus passes on one
		-- statement at a time.
		FOREACH statement IN ARRAY ARRAY[
			$ddl$
			CREATE OR REPLACE FUNCTION %1$I.yelp_programs_edited()
			RETURNS trigger
			LANGUAGE plpgsql
			AS $body$
			BEGIN
				NEW.fingerprint := NULL;
				RETURN NEW;
			END
			$body$
			$ddl$,
			-- the owner of an existing function must not be able to change it later
			'ALTER FUNCTION %1$I.yelp_programs_edited() OWNER TO CURRENT_USER',
			$ddl$
			COMMENT ON FUNCTION %1$I.yelp_programs_edited() IS
			'makes the next sync restore an edited row of yelp_programs'
			$ddl$,
			$ddl$
			CREATE TRIGGER yelp_programs_edited
			BEFORE UPDATE OF username, program_id, %2$s, data ON %1$I.yelp_programs
			FOR EACH ROW
			WHEN (OLD.fingerprint IS NOT DISTINCT FROM NEW.fingerprint)
			EXECUTE FUNCTION %1$I.yelp_programs_edited()
			$ddl$,
			$ddl$
			COMMENT ON TRIGGER yelp_programs_edited ON %1$I.yelp_programs IS
			'makes the next sync restore an edited row'
			$ddl$]
		LOOP
			EXECUTE format(statement, schema, filled);
		END LOOP;
	END IF;

	IF to_regclass(format('%I.yelp_sync_runs', schema)) IS NULL THEN
		EXECUTE format($ddl$
			CREATE TABLE %1$I.yelp_sync_runs (
				run_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
				username text COLLATE "C" NOT NULL,
				server text,
				synced_by text NOT NULL,
				started_at timestamptz NOT NULL,
				finished_at timestamptz NOT NULL,
				status text NOT NULL,
				-- of the following columns, a failed sync sets only the error columns
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

			CREATE INDEX ON %1$I.yelp_sync_runs (username, finished_at);

			COMMENT ON TABLE %1$I.yelp_sync_runs IS 'one row for each finished sync';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.run_id IS 'random ID of the sync';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.username IS 'account that was synced';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.server IS 'foreign server that was used';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.synced_by IS 'role that ran the sync';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.started_at IS 'when the sync began';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.finished_at IS 'when the merge ended or the sync failed';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.status IS
			'synced, failed, or partial if something was skipped or could not be proved';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.program_status IS 'requested filter';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.programs IS 'total reported by the API';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.listed IS 'distinct programs received';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.pages IS 'pages received';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.requests IS 'requests sent';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.retries IS 'requests retried';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.received_bytes IS 'size of the pages in bytes, before any decompression';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.added IS 'new programs';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.updated IS 'changed programs';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.unchanged IS 'unchanged programs';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.deleted IS 'programs that were gone, and were deleted or marked';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.missing IS
			'programs that were not listed but not proved to be gone';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.problems IS
			'programs with fields that could not be read';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.failed_pages IS 'pages skipped because of the option partial';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.fetch_time IS 'time spent fetching pages';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.merge_time IS 'time spent merging';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.warnings IS 'warnings raised, with their details; NULL if none';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.sqlstate IS 'SQLSTATE of the error, if the sync failed';
			COMMENT ON COLUMN %1$I.yelp_sync_runs.error IS 'message and detail of the error, if the sync failed';
		$ddl$, schema);
	END IF;

	IF to_regclass(format('%I.yelp_program_changes', schema)) IS NULL THEN
		EXECUTE format($ddl$
			CREATE TABLE %1$I.yelp_program_changes (
				run_id uuid NOT NULL,
				changed_at timestamptz NOT NULL,
				username text COLLATE "C" NOT NULL,
				program_id text COLLATE "C" NOT NULL,
				action text NOT NULL,
				changed text[],
				old jsonb,
				new jsonb,
				PRIMARY KEY (run_id, program_id)
			);

			CREATE INDEX ON %1$I.yelp_program_changes (username, program_id, changed_at);

			COMMENT ON TABLE %1$I.yelp_program_changes IS
			'changes made to yelp_programs by syncs, if the server option record_changes is on';
			COMMENT ON COLUMN %1$I.yelp_program_changes.run_id IS 'sync in yelp_sync_runs that made the change';
			COMMENT ON COLUMN %1$I.yelp_program_changes.changed_at IS 'when the row was changed';
			COMMENT ON COLUMN %1$I.yelp_program_changes.username IS 'account that the program belongs to';
			COMMENT ON COLUMN %1$I.yelp_program_changes.program_id IS 'Yelp''s ID of the program';
			COMMENT ON COLUMN %1$I.yelp_program_changes.action IS 'added, updated, deleted or gone';
			COMMENT ON COLUMN %1$I.yelp_program_changes.changed IS 'columns changed by an update';
			COMMENT ON COLUMN %1$I.yelp_program_changes.old IS
			'old values of these columns and of data, or the whole program that is gone';
			COMMENT ON COLUMN %1$I.yelp_program_changes.new IS
			'new values of these columns, or the whole added program';
		$ddl$, schema);
	END IF;
END
$function$;

COMMENT ON FUNCTION @extschema@.yelp_sync_make_tables(name, integer) IS
'creates the missing tables for yelp_sync_create_tables()';

CREATE FUNCTION @extschema@.yelp_sync_create_tables(partitions integer DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION @extschema@.yelp_sync_create_tables(integer) IS
'creates missing tables, as the first sync does; optionally partitions yelp_programs';

--
-- Functions for queries; they take columns, because the row type is the user's
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
'state of a program today, Pacific time: PAUSED, FUTURE, PAST, CURRENT or INACTIVE';

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
'the businesses in a program''s document, one per row';

-- It reads the tables as the caller's own SELECT would.  Its columns are those
-- of yelp_sync_values.  A program was as the first change
-- after that time found it or, if there is none, as it is.
DO $do$
BEGIN
	EXECUTE format($ddl$
		CREATE FUNCTION @extschema@.yelp_programs_at(at timestamptz)
		RETURNS TABLE (username text, program_id text, %1$s, data jsonb, gone_at timestamptz)
		LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 10000
		SET search_path = pg_catalog, pg_temp
		AS $function$
		#variable_conflict use_column
		BEGIN
			RETURN QUERY
			WITH changed AS MATERIALIZED (
				SELECT DISTINCT ON (username, program_id) username, program_id, action, old
				FROM @extschema@.yelp_program_changes
				WHERE changed_at > at
				ORDER BY username, program_id, changed_at
			), found AS (
				SELECT username, program_id, action = 'updated' AS updated,
					CASE action WHEN 'updated' THEN old -> 'data' ELSE old END AS data, old
				FROM changed WHERE action <> 'added' OFFSET 0
			)
			SELECT username, program_id, (columns).*, data, gone_at FROM (
				SELECT username, program_id, @extschema@.yelp_sync_columns(data) AS columns, data,
					CASE WHEN updated THEN (old ->> 'gone_at')::timestamptz END AS gone_at
				FROM found OFFSET 0) AS f
			UNION ALL
			SELECT username, program_id, %2$s, data, gone_at FROM @extschema@.yelp_programs AS p
			WHERE created_at <= at AND NOT EXISTS (SELECT FROM changed AS c
				WHERE c.username = p.username AND c.program_id = p.program_id);
		END
		$function$
	$ddl$,
		(SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = '@extschema@.yelp_sync_values'::regclass),
		(SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = '@extschema@.yelp_sync_values'::regclass));
END
$do$;

COMMENT ON FUNCTION @extschema@.yelp_programs_at(timestamptz) IS
'the programs as they were stored at a time, as far back as yelp_program_changes has all changes';

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
'syncs the named accounts, or all accounts, each in its own transaction';

-- Also CALL yelp_sync_all('acme', 'globex')
CREATE PROCEDURE @extschema@.yelp_sync_all(username text, VARIADIC more text[] DEFAULT '{}')
LANGUAGE C
AS 'MODULE_PATHNAME';

COMMENT ON PROCEDURE @extschema@.yelp_sync_all(text, text[]) IS
'syncs the named accounts, each in its own transaction';
