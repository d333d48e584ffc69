-- What the page needs in the database: a role that may sync and read, and no more.
--
--     psql -d DATABASE -f setup.sql
--
-- Run it as the role that has the accounts' user mappings, and that owns the tables or may create
-- them.  It needs CREATE on the database, and CREATEROLE unless the role yelp_page exists.
-- Running it again creates everything in the schema sync_page anew.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_min_messages = warning;

SELECT 'CREATE ROLE yelp_page LOGIN CONNECTION LIMIT 20'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'yelp_page')
\gexec

SELECT extnamespace::regnamespace AS extension_schema
FROM pg_extension WHERE extname = 'yelp_sync'
\gset
SET LOCAL search_path = :extension_schema, pg_temp;

-- A failed sync is recorded with the privileges of the role that runs this.  Triggers on the
-- history must not belong to another one.
DO $$
DECLARE
    owner name;
BEGIN
    IF to_regclass('yelp_programs') IS NULL THEN
        PERFORM yelp_sync_create_tables();
    END IF;
    owner := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'yelp_sync_runs'::regclass);
    IF owner <> current_user THEN
        RAISE 'the tables of yelp_sync belong to role "%"', owner
            USING HINT = 'Run setup.sql as this role.';
    END IF;
END $$;

DROP SCHEMA IF EXISTS sync_page CASCADE;
CREATE SCHEMA sync_page;
GRANT USAGE ON SCHEMA sync_page TO yelp_page;

CREATE FUNCTION sync_page.accounts()
RETURNS TABLE (username text, server text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT a.username, a.server FROM yelp_accounts AS a;
END;

CREATE VIEW sync_page.programs WITH (security_barrier) AS
SELECT username, program_id, program_type,
    CASE WHEN gone_at IS NOT NULL THEN 'GONE'
        ELSE yelp_program_state(program_status, program_pause_status, start_date, end_date)
    END AS state,
    start_date, end_date, yelp_business_id, partner_business_id, budget, currency,
    billed_impressions, billed_clicks, problems, updated_at
FROM yelp_programs;

-- Internal errors of the server are for its log
CREATE VIEW sync_page.runs WITH (security_barrier) AS
SELECT run_id, username, status, started_at, finished_at, programs, requests, added, updated,
    unchanged, deleted, missing, sqlstate,
    CASE WHEN sqlstate ~ '^(XX|58)' THEN 'the database failed' ELSE error END AS error
FROM yelp_sync_runs;

-- Values of the updated columns; all three are empty unless the server option record_changes is on
CREATE VIEW sync_page.changes WITH (security_barrier) AS
SELECT run_id, program_id, action, changed,
    CASE action WHEN 'updated' THEN old - 'data' END AS old,
    CASE action WHEN 'updated' THEN new - 'data' END AS new
FROM yelp_program_changes;

-- Syncs an account with the owner's user mappings and privileges, whoever calls it, and returns
-- the last event of its stream: what changed or, recorded as a failed sync, the error.  Errors
-- that yelp_sync_all() does not record either are raised.
SELECT format($create$
    CREATE FUNCTION sync_page.sync(account text)
    RETURNS json
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        began timestamptz := clock_timestamp();
        source text := (SELECT min(a.server) FROM sync_page.accounts() AS a WHERE a.username = account);
        synced json;
        detail text;
        hint text;
        failed uuid;
    BEGIN
        synced := (SELECT coalesce(json_agg(s), '[]') FROM %1$s.yelp_sync(account) AS s);
        RETURN (
            WITH run AS (
                SELECT * FROM sync_page.runs WHERE username = account AND finished_at >= began
                ORDER BY finished_at DESC LIMIT 1
            ), first AS (
                SELECT s.action, s.program_id, s.changed, c.old, c.new
                FROM json_to_recordset(synced) AS s(action text, program_id text, changed text[])
                LEFT JOIN sync_page.changes AS c
                    ON c.run_id = (SELECT run_id FROM run) AND c.program_id = s.program_id
                LIMIT 1000)
            SELECT json_build_object('type', 'changes',
                'run_id', (SELECT run_id FROM run), 'status', (SELECT status FROM run),
                'finished_at', (SELECT finished_at FROM run),
                'total', json_array_length(synced),
                'rows', (SELECT coalesce(json_agg(first), '[]') FROM first)));
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        IF SQLSTATE = '55P03' OR source IS NULL THEN
            RAISE;
        END IF;
        INSERT INTO %1$s.yelp_sync_runs
            (username, server, synced_by, started_at, finished_at, status, sqlstate, error)
        VALUES (account, source, current_user, began, clock_timestamp(), 'failed', SQLSTATE,
            concat_ws(': ', SQLERRM, nullif(detail, '')))
        RETURNING run_id INTO failed;
        RETURN json_strip_nulls(json_build_object('type', 'error', 'run_id', failed, 'sqlstate', SQLSTATE,
            'message', SQLERRM, 'detail', nullif(detail, ''), 'hint', nullif(hint, '')));
    END
    $$
$create$, :'extension_schema')
\gexec

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sync_page FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sync_page TO yelp_page;
GRANT SELECT ON ALL TABLES IN SCHEMA sync_page TO yelp_page;

COMMIT;
