-- Which account a username stands for
CREATE ROLE regress_yelp_super SUPERUSER;
CREATE ROLE regress_yelp_one;
CREATE ROLE regress_yelp_two;
SELECT yelp_sync_create_tables();
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

-- One's own mapping does not take precedence over PUBLIC's on another server
CREATE SERVER "Three 3" FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/three', attempts '1');
CREATE USER MAPPING FOR PUBLIC SERVER "Three 3" OPTIONS (username 'acme', password 'x');
GRANT USAGE ON FOREIGN SERVER "Three 3" TO regress_yelp_one, regress_yelp_two;
SET ROLE regress_yelp_one;
SELECT * FROM yelp_sync('acme');	-- should fail: one's own, and PUBLIC's on another server
\echo :LAST_ERROR_SQLSTATE

-- The same account on several servers is no choice of ours
SET ROLE regress_yelp_two;
SELECT * FROM yelp_sync('acme');	-- should fail: PUBLIC's on two servers
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_yelp_super;
CREATE USER MAPPING FOR regress_yelp_one SERVER two OPTIONS (username 'acme', password 'x');
SET ROLE regress_yelp_one;
SELECT * FROM yelp_sync('acme');	-- should fail: one's own on two servers
SET ROLE regress_yelp_super;
DROP USER MAPPING FOR PUBLIC SERVER "Three 3";
REVOKE USAGE ON FOREIGN SERVER one FROM regress_yelp_one;
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

-- Somebody else's server never wins: a role with USAGE on the wrapper makes one, and maps others on it
CREATE ROLE regress_yelp_evil;
CREATE ROLE regress_yelp_alice;
GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO regress_yelp_evil, regress_yelp_alice;
GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO regress_yelp_alice, regress_yelp_evil;
GRANT SELECT, INSERT ON yelp_sync_runs TO regress_yelp_alice, regress_yelp_evil;
SET ROLE regress_yelp_evil;
CREATE SERVER evil FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/evil', attempts '1');
CREATE USER MAPPING FOR regress_yelp_alice SERVER evil OPTIONS (username 'genuine', password 'x');
CREATE USER MAPPING FOR PUBLIC SERVER evil OPTIONS (username 'lure', password 'x');
GRANT USAGE ON FOREIGN SERVER evil TO PUBLIC;
SET ROLE regress_yelp_alice;
SELECT * FROM yelp_accounts WHERE server = 'evil';
SELECT * FROM yelp_sync('genuine');	-- should fail: evil's only
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM yelp_sync('lure');	-- should fail: evil's only
SET ROLE regress_yelp_super;
SELECT * FROM yelp_sync('lure');	-- should fail: evil's, for a superuser, too
GRANT regress_yelp_evil TO regress_yelp_alice;	-- membership is no trust: evil may grant it
SET ROLE regress_yelp_alice;
SELECT * FROM yelp_accounts WHERE server = 'evil';
SELECT * FROM yelp_sync('genuine');	-- should fail: evil's only
SET ROLE regress_yelp_super;
CREATE USER MAPPING FOR PUBLIC SERVER "Three 3" OPTIONS (username 'genuine', password 'x');
GRANT USAGE ON FOREIGN SERVER "Three 3" TO regress_yelp_alice;
SET ROLE regress_yelp_alice;
SELECT * FROM yelp_accounts WHERE username = 'genuine';
\set VERBOSITY terse
SELECT * FROM yelp_sync('genuine');	-- should fail: nobody listens on PUBLIC's, and evil's is not taken
CREATE SERVER alice FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/alice', attempts '1');
CREATE USER MAPPING FOR CURRENT_USER SERVER alice OPTIONS (username 'mine', password 'x');
SELECT * FROM yelp_sync('mine');	-- should fail: nobody listens on a server of one's own
SET ROLE regress_yelp_evil;
SELECT * FROM yelp_sync('lure');	-- should fail: nobody listens on a server of one's own
SET ROLE regress_yelp_super;
ALTER SERVER evil OWNER TO regress_yelp_super;	-- a superuser vouches for it
SET ROLE regress_yelp_alice;
SELECT * FROM yelp_sync('lure');	-- should fail: nobody listens
\set VERBOSITY default
SELECT * FROM yelp_accounts ORDER BY username, server;

-- A misspelt name: some of the accounts that there are
SET ROLE regress_yelp_super;
DO $$
BEGIN
	FOR i IN 1 .. 12 LOOP
		EXECUTE format('CREATE SERVER many%s FOREIGN DATA WRAPPER yelp_sync', i);
		EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER many%s OPTIONS (username %L, password %L)',
			i, 'account ' || i, 'x');
	END LOOP;
END $$;
SELECT * FROM yelp_sync(E'acount\x1b[2J');	-- should fail

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
SELECT string_agg(quote_ident(srvname), ', ') AS servers FROM pg_foreign_server
WHERE srvfdw = (SELECT oid FROM pg_foreign_data_wrapper WHERE fdwname = 'yelp_sync') \gset
DROP SERVER :servers CASCADE;
RESET ROLE;
DROP OWNED BY regress_yelp_one, regress_yelp_two, regress_yelp_evil, regress_yelp_alice;
DROP ROLE regress_yelp_one, regress_yelp_two, regress_yelp_evil, regress_yelp_alice, regress_yelp_super;
