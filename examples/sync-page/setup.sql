-- What the page needs in the database: a role that may sync and read, and no more.
--
--     psql -d DATABASE -f setup.sql
--
-- Run it as the role whose user mappings are the accounts, where the extension and its servers
-- are there already.  That role needs CREATE on the database, and CREATEROLE unless the role
-- yelp_page exists.  Running it again makes everything in the schema sync_page anew.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_min_messages = warning;

SELECT 'CREATE ROLE yelp_page LOGIN CONNECTION LIMIT 20'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'yelp_page')
\gexec

-- Bodies of functions and views are resolved now, in the extension's schema, once and for all
SELECT extnamespace::regnamespace AS extension_schema
FROM pg_extension WHERE extname = 'yelp_sync'
\gset
SET LOCAL search_path = :extension_schema, pg_temp;

DO $$
BEGIN
    IF to_regclass('yelp_programs') IS NULL THEN
        PERFORM yelp_sync_create_tables();
    END IF;
END $$;

DROP SCHEMA IF EXISTS sync_page CASCADE;
CREATE SCHEMA sync_page;
GRANT USAGE ON SCHEMA sync_page TO yelp_page;

-- With the owner's user mappings and rights, whoever calls
CREATE FUNCTION sync_page.sync(username text)
RETURNS TABLE (action text, program_id text, changed text[])
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT s.action, s.program_id, s.changed FROM yelp_sync(sync.username) AS s;
END;
REVOKE ALL ON FUNCTION sync_page.sync(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sync_page.sync(text) TO yelp_page;

CREATE FUNCTION sync_page.accounts()
RETURNS TABLE (username text, server text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT a.username, a.server FROM yelp_accounts AS a;
END;
REVOKE ALL ON FUNCTION sync_page.accounts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sync_page.accounts() TO yelp_page;

CREATE VIEW sync_page.programs WITH (security_barrier) AS
SELECT username, program_id, program_type,
    CASE
        WHEN program_pause_status = 'PAUSED' THEN 'PAUSED'
        WHEN start_date > today THEN 'FUTURE'
        WHEN end_date < today THEN 'PAST'
        WHEN program_status = 'ACTIVE' THEN 'CURRENT'
        ELSE 'INACTIVE'
    END AS state,
    start_date, end_date, yelp_business_id, partner_business_id, budget, currency,
    billed_impressions, billed_clicks, problems, updated_at
FROM yelp_programs,
    CAST(CURRENT_TIMESTAMP AT TIME ZONE 'America/Los_Angeles' AS date) AS today;
GRANT SELECT ON sync_page.programs TO yelp_page;

CREATE VIEW sync_page.runs WITH (security_barrier) AS
SELECT run_id, username, status, finished_at, programs, requests, added, updated, unchanged,
    deleted, missing
FROM yelp_sync_runs;
GRANT SELECT ON sync_page.runs TO yelp_page;

COMMIT;
