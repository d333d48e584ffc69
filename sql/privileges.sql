-- Privileges
SET client_min_messages = warning;
\pset format unaligned
\pset footer off
CREATE ROLE regress_yelp_plain;
CREATE ROLE regress_yelp_admin;
GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO regress_yelp_admin;
SELECT yelp_sync_create_tables();

-- Default privileges of PUBLIC
SELECT has_table_privilege('regress_yelp_plain', 'yelp_programs', 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS programs,
	has_table_privilege('regress_yelp_plain', 'yelp_sync_runs', 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS runs,
	has_table_privilege('regress_yelp_plain', 'yelp_accounts', 'SELECT') AS accounts,
	has_foreign_data_wrapper_privilege('regress_yelp_plain', 'yelp_sync', 'USAGE') AS wrapper;

SET ROLE regress_yelp_plain;
CREATE SERVER mine FOREIGN DATA WRAPPER yelp_sync;	-- should fail
SELECT * FROM yelp_accounts;
SELECT * FROM yelp_programs;	-- should fail
SELECT * FROM yelp_sync('acme');	-- should fail: no account
RESET ROLE;

-- USAGE on the server is needed, a mapping alone is not enough
CREATE SERVER yelp FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/programs', attempts '1');
CREATE USER MAPPING FOR regress_yelp_plain SERVER yelp OPTIONS (username 'acme', password 's3cret');
SET ROLE regress_yelp_plain;
SELECT * FROM yelp_accounts;
SELECT * FROM yelp_sync('acme');	-- should fail: no USAGE
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM yelp_sync('another');	-- should fail: no account
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER yelp TO regress_yelp_plain;
SET ROLE regress_yelp_plain;
SELECT * FROM yelp_accounts;

-- should fail: all privileges that a sync lacks are named, before any request is sent
SELECT * FROM yelp_sync('acme');
RESET ROLE;
GRANT SELECT, INSERT, UPDATE ON yelp_programs TO regress_yelp_plain;
GRANT SELECT, INSERT ON yelp_sync_runs TO regress_yelp_plain;
REVOKE EXECUTE ON FUNCTION yelp_sync_columns FROM PUBLIC;
SET ROLE regress_yelp_plain;
SELECT * FROM yelp_sync('acme');
RESET ROLE;
GRANT EXECUTE ON FUNCTION yelp_sync_columns TO PUBLIC;
GRANT DELETE ON yelp_programs TO regress_yelp_plain;
SET ROLE regress_yelp_plain;
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
\set VERBOSITY default
RESET ROLE;

-- EXECUTE
REVOKE EXECUTE ON FUNCTION yelp_sync(text) FROM PUBLIC;
SET ROLE regress_yelp_plain;
SELECT * FROM yelp_sync('acme');	-- should fail
RESET ROLE;
GRANT EXECUTE ON FUNCTION yelp_sync(text) TO PUBLIC;

-- Passwords are visible only to roles that may see the mapping's options
SET ROLE regress_yelp_admin;
SELECT umoptions IS NULL AS hidden FROM pg_user_mappings WHERE srvname = 'yelp';
SELECT column_name FROM information_schema.columns WHERE table_name = 'yelp_accounts' ORDER BY 1;
RESET ROLE;

-- ca_file makes the server read a file
SET ROLE regress_yelp_admin;
CREATE SERVER mine FOREIGN DATA WRAPPER yelp_sync OPTIONS (ca_file '/etc/ssl/ca.pem');	-- should fail
CREATE SERVER mine FOREIGN DATA WRAPPER yelp_sync;
ALTER SERVER mine OPTIONS (ADD ca_file '/etc/ssl/ca.pem');	-- should fail
ALTER SERVER mine OPTIONS (ADD page_size '40');
RESET ROLE;
GRANT pg_read_server_files TO regress_yelp_admin;
SET ROLE regress_yelp_admin;
ALTER SERVER mine OPTIONS (ADD ca_file '/etc/ssl/ca.pem');
RESET ROLE;
-- Without the right the other options can be altered only where there is no ca_file
REVOKE pg_read_server_files FROM regress_yelp_admin;
SET ROLE regress_yelp_admin;
ALTER SERVER mine OPTIONS (SET ca_file '/etc/passwd');	-- should fail
ALTER SERVER mine OPTIONS (SET page_size '20');	-- should fail: its ca_file
ALTER SERVER mine OPTIONS (DROP ca_file);
ALTER SERVER mine OPTIONS (SET page_size '20');

-- The owner of a server maps roles on it
CREATE USER MAPPING FOR regress_yelp_plain SERVER mine OPTIONS (username 'other', password 'x');
DROP SERVER mine CASCADE;
RESET ROLE;

-- A function that runs as its owner syncs the owner's accounts
CREATE FUNCTION sync_for_others(username text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
AS 'SELECT count(*) FROM yelp_sync(username)';
ALTER FUNCTION sync_for_others OWNER TO regress_yelp_plain;
SET ROLE regress_yelp_admin;
\set VERBOSITY terse
SELECT sync_for_others('acme');	-- should fail: nobody listens
\set VERBOSITY default
SELECT * FROM yelp_sync('acme');	-- should fail: no account
RESET ROLE;

-- The settings
SET ROLE regress_yelp_plain;
SET yelp_sync.progress = 'json';
SET yelp_sync.log_syncs = off;	-- should fail
RESET ROLE;
RESET yelp_sync.progress;

DROP FUNCTION sync_for_others;
DROP SERVER yelp CASCADE;
DROP OWNED BY regress_yelp_plain, regress_yelp_admin;
DROP ROLE regress_yelp_plain, regress_yelp_admin;
