-- Errors that need no API: SQLSTATE, message and hint; nothing changes
SET client_min_messages = warning;
\pset format unaligned
\pset footer off
CREATE ROLE regress_yelp_super SUPERUSER;
SELECT yelp_sync_create_tables();
SET ROLE regress_yelp_super;
CREATE SERVER yelp FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/programs', attempts '2', retry_delay '1ms');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret');
INSERT INTO yelp_programs (username, program_id, data) VALUES ('acme', 'a', '{}');

-- should fail: nothing listens; the detail is in libcurl's words
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');
SELECT yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
-- should fail: with a repeat sync's many requests, too
INSERT INTO yelp_sync_runs (username, server, synced_by, status, program_status, started_at,
	finished_at, programs, listed, pages, requests, retries, received_bytes, added, updated,
	unchanged, deleted, missing, problems, failed_pages, fetch_time, merge_time)
VALUES ('acme', 'yelp', 'me', 'synced', 'ALL', now(), now(), 1000, 1000, 50, 50, 0, 0, 0, 0, 0, 0,
	0, 0, 0, '1s', '1s');
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE

-- should fail: with a proxy where nothing listens
ALTER SERVER yelp OPTIONS (SET endpoint 'https://api.example/programs', ADD proxy 'http://127.0.0.1:1');
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
ALTER SERVER yelp OPTIONS (SET endpoint 'http://127.0.0.1:1/programs', DROP proxy);

-- A sync that failed can be tried again in the same transaction
BEGIN;
SAVEPOINT before;
SELECT * FROM yelp_sync('acme');	-- should fail
ROLLBACK TO before;
SELECT * FROM yelp_sync('acme');	-- should fail
ROLLBACK;

-- The notices before an error, in each form
RESET client_min_messages;
SELECT * FROM yelp_sync('acme');	-- should fail
SET yelp_sync.progress = 'json';
SELECT * FROM yelp_sync('acme');	-- should fail
SET yelp_sync.progress = 'off';
SELECT * FROM yelp_sync('acme');	-- should fail
RESET yelp_sync.progress;
SET client_min_messages = warning;

\set VERBOSITY default

-- should fail: NULL, no such account, no transaction that may write
SELECT * FROM yelp_sync(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM yelp_sync('nobody');
\echo :LAST_ERROR_SQLSTATE
BEGIN READ ONLY;
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;

-- should fail: settings
SET yelp_sync.progress = 'xml';
SET yelp_sync.log_syncs = 'sometimes';
SET yelp_sync.nonsense = 1;

-- Nothing has changed
SELECT username, program_id, data FROM yelp_programs;
SELECT username, programs FROM yelp_sync_runs;

-- A missing table is created in the transaction, and rolled back with it
ALTER TABLE yelp_programs RENAME TO renamed;
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
\set VERBOSITY default
SELECT to_regclass('yelp_programs');
ALTER TABLE renamed RENAME TO yelp_programs;

DELETE FROM yelp_programs;
DELETE FROM yelp_sync_runs;
DROP SERVER yelp CASCADE;
RESET ROLE;
DROP ROLE regress_yelp_super;
