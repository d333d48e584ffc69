-- Which account a username stands for
CREATE ROLE regress_yelp_super SUPERUSER;
CREATE ROLE regress_yelp_one;
CREATE ROLE regress_yelp_two;
GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO regress_yelp_one, regress_yelp_two;
GRANT SELECT, INSERT ON yelp_sync_runs TO regress_yelp_one, regress_yelp_two;

SET ROLE regress_yelp_super;

-- No server, no account
SELECT * FROM yelp_accounts;
SELECT * FROM yelp_sync('acme');	-- should fail

-- Servers where nobody listens: the notice tells which one is taken
CREATE SERVER one FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/one', attempts '1');
CREATE SERVER two FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/two', attempts '1');
SELECT * FROM yelp_sync('acme');	-- should fail

-- One's own mapping, and PUBLIC's
CREATE USER MAPPING FOR regress_yelp_one SERVER one OPTIONS (username 'acme', password 'x');
CREATE USER MAPPING FOR PUBLIC SERVER two OPTIONS (username 'everybody', password 'x');
GRANT USAGE ON FOREIGN SERVER one, two TO regress_yelp_one, regress_yelp_two;
SELECT * FROM yelp_accounts;
SET ROLE regress_yelp_one;
SELECT * FROM yelp_accounts ORDER BY server;
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
SELECT * FROM yelp_sync('everybody');	-- should fail: nobody listens
\set VERBOSITY default
SET ROLE regress_yelp_two;
SELECT * FROM yelp_accounts ORDER BY server;
SELECT * FROM yelp_sync('acme');	-- should fail: another role's
\set VERBOSITY terse
SELECT * FROM yelp_sync('everybody');	-- should fail: nobody listens
\set VERBOSITY default
SET ROLE regress_yelp_super;

-- On one server, one's own mapping goes before PUBLIC's for the same account
CREATE USER MAPPING FOR PUBLIC SERVER one OPTIONS (username 'acme', password 'y');
CREATE USER MAPPING FOR regress_yelp_two SERVER two OPTIONS (username 'own', password 'y');
SET ROLE regress_yelp_one;
SELECT * FROM yelp_accounts ORDER BY server, username;
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
\set VERBOSITY default
SET ROLE regress_yelp_two;
SELECT * FROM yelp_accounts ORDER BY server, username;
SET ROLE regress_yelp_super;

-- One's own mapping goes before PUBLIC's on another server, too
CREATE SERVER "Three 3" FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/three', attempts '1');
CREATE USER MAPPING FOR PUBLIC SERVER "Three 3" OPTIONS (username 'acme', password 'x');
GRANT USAGE ON FOREIGN SERVER "Three 3" TO regress_yelp_one, regress_yelp_two;
SET ROLE regress_yelp_one;
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
\set VERBOSITY default

-- The same account on several servers is no choice of ours
SET ROLE regress_yelp_two;
SELECT * FROM yelp_sync('acme');	-- should fail: PUBLIC's on two servers
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_yelp_super;
CREATE USER MAPPING FOR regress_yelp_one SERVER two OPTIONS (username 'acme', password 'x');
SET ROLE regress_yelp_one;
SELECT * FROM yelp_sync('acme');	-- should fail: one's own on two servers
SET ROLE regress_yelp_super;
REVOKE USAGE ON FOREIGN SERVER one FROM regress_yelp_one, regress_yelp_two;
SET ROLE regress_yelp_one;
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
SET ROLE regress_yelp_two;
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
\set VERBOSITY default
SET ROLE regress_yelp_super;

-- Usernames are compared as they are
SET ROLE regress_yelp_one;
SELECT * FROM yelp_sync('ACME');	-- should fail
SELECT * FROM yelp_sync('acme ');	-- should fail
SELECT * FROM yelp_sync('');	-- should fail
SELECT * FROM yelp_sync(NULL);	-- should fail
SELECT yelp_sync('it''s "odd" \');	-- should fail
SET ROLE regress_yelp_super;

-- Another wrapper's servers are none of ours
CREATE FOREIGN DATA WRAPPER other;
CREATE SERVER other FOREIGN DATA WRAPPER other OPTIONS (endpoint 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (username 'elsewhere', password 'x');
SELECT * FROM yelp_accounts WHERE username = 'elsewhere';
SELECT * FROM yelp_sync('elsewhere');	-- should fail
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER other CASCADE;

SELECT count(*) FROM yelp_programs;
SELECT count(*) FROM yelp_sync_runs;
DROP SERVER one, two, "Three 3" CASCADE;
RESET ROLE;
DROP OWNED BY regress_yelp_one, regress_yelp_two;
DROP ROLE regress_yelp_one, regress_yelp_two, regress_yelp_super;
