-- Finding the account of a username
\pset format unaligned
\pset footer off
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

-- Servers to which nothing listens: the notice shows which one is used
CREATE SERVER one FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/one', attempts '1');
CREATE SERVER two FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/two', attempts '1');
SELECT * FROM yelp_sync('acme');	-- should fail

-- The user's own mapping, and PUBLIC's
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

-- On one server, the user's own mapping takes precedence over PUBLIC's for the same account
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

-- The user's own mapping does not take precedence over PUBLIC's on another server
CREATE SERVER "Three 3" FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/three', attempts '1');
CREATE USER MAPPING FOR PUBLIC SERVER "Three 3" OPTIONS (username 'acme', password 'x');
GRANT USAGE ON FOREIGN SERVER "Three 3" TO regress_yelp_one, regress_yelp_two;
SET ROLE regress_yelp_one;
SELECT * FROM yelp_sync('acme');	-- should fail: one's own, and PUBLIC's on another server
\echo :LAST_ERROR_SQLSTATE

-- The same account on several servers is ambiguous
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

-- Usernames are compared byte by byte
SET ROLE regress_yelp_one;
SELECT * FROM yelp_sync('ACME');	-- should fail
SELECT * FROM yelp_sync('acme ');	-- should fail
SELECT * FROM yelp_sync('');	-- should fail
SELECT * FROM yelp_sync(NULL);	-- should fail
SELECT yelp_sync('it''s "odd" \');	-- should fail
SET ROLE regress_yelp_super;

-- Another role's server never takes precedence: a role with USAGE on the wrapper creates one, and maps others on it
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

-- A misspelt name: some of the existing accounts are listed
SET ROLE regress_yelp_super;
DO $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		EXECUTE format('CREATE SERVER many%s FOREIGN DATA WRAPPER yelp_sync', i);
		EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER many%s OPTIONS (username %L, password %L)',
			i, 'account ' || i, 'x');
	END LOOP;
END $$;
SELECT * FROM yelp_sync(E'acount\x1b[2J');	-- should fail

-- A near miss: few edits for its length, or another case
SELECT * FROM yelp_sync('Everybod');	-- should fail
SELECT * FROM yelp_sync('evreybodi');	-- should fail
SELECT * FROM yelp_sync('ACME');	-- should fail
SELECT * FROM yelp_sync('acne');	-- should fail
SELECT * FROM yelp_sync('me');	-- should fail: too short to be a near miss
SELECT * FROM yelp_sync('everybody else');	-- should fail: five edits are none
SELECT * FROM yelp_sync(repeat('x', 300));	-- should fail: shortened
-- Two usernames of the same hash
SELECT hashtext('u28412') = hashtext('n77467') AS same_hash;
SELECT yelp_sync_add_account('u28412', 's3cret', 'hash');
SELECT * FROM yelp_sync('n77467');	-- should fail

-- What to do by situation: for a role without any right, with USAGE on a server, on the wrapper, and
-- where all servers are taken
CREATE ROLE "regress_yelp New";
REVOKE USAGE ON FOREIGN SERVER evil FROM PUBLIC;
SET ROLE "regress_yelp New";
SELECT * FROM yelp_sync('mine');	-- should fail
RESET ROLE;
SET ROLE regress_yelp_super;
GRANT USAGE ON FOREIGN SERVER many7 TO "regress_yelp New";
SET ROLE "regress_yelp New";
SELECT * FROM yelp_sync('mine');	-- should fail
CREATE USER MAPPING FOR CURRENT_USER SERVER many7 OPTIONS (username 'first', password 'x');
SELECT * FROM yelp_sync('mine');	-- should fail
SET ROLE regress_yelp_super;
GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO "regress_yelp New";
CREATE SERVER yelp FOREIGN DATA WRAPPER yelp_sync;
CREATE SERVER yelp2 FOREIGN DATA WRAPPER yelp_sync;
SET ROLE "regress_yelp New";
SELECT * FROM yelp_sync('mine');	-- should fail

-- yelp_sync_add_account(): a server named like the account, another one, one that exists
SELECT yelp_sync_add_account('it''s "Mine" \', 'p''w\');
SELECT yelp_sync_add_account('second', 's3cret', server => 'Own "2"');
SELECT yelp_sync_add_account(server => 'yelp2', username => 'third', password => 's3cret');	-- should fail
SET ROLE regress_yelp_super;
GRANT USAGE ON FOREIGN SERVER yelp2 TO "regress_yelp New";
SET ROLE "regress_yelp New";
SELECT yelp_sync_add_account(server => 'yelp2', username => 'third', password => 's3cret');
SELECT * FROM yelp_accounts;
SELECT srvname, umoptions FROM pg_user_mappings WHERE usename = current_user ORDER BY srvname;
\set VERBOSITY sqlstate
SELECT yelp_sync_add_account('third', 's3cret', 'another');	-- should fail: mapped already
SELECT yelp_sync_add_account('fourth', 's3cret', 'yelp2');	-- should fail: the server is taken
SELECT yelp_sync_add_account('fo:urth', 's3cret');	-- should fail
SELECT yelp_sync_add_account('fourth', '');	-- should fail
SELECT yelp_sync_add_account(NULL, 's3cret');	-- should fail
SELECT yelp_sync_add_account('fourth', NULL);	-- should fail
SELECT yelp_sync_add_account('fourth', 's3cret', repeat('a', 64));	-- should fail
SELECT yelp_sync_add_account(repeat('b', 64), 's3cret');	-- should fail
\set VERBOSITY default
SELECT yelp_sync_add_account('third', 's3cret', 'another');	-- should fail
SELECT yelp_sync_add_account(repeat('b', 64), 's3cret');	-- should fail
SELECT yelp_sync_add_account(repeat('b', 64), 's3cret', repeat('a', 63));
SET ROLE regress_yelp_one;
SELECT yelp_sync_add_account('own', 's3cret');	-- should fail
SET ROLE regress_yelp_alice;
SELECT yelp_sync_add_account('own', 's3cret', 'evil');	-- should fail: not granted any more
SET ROLE regress_yelp_super;
ALTER SERVER evil OWNER TO regress_yelp_evil;
GRANT USAGE ON FOREIGN SERVER evil TO regress_yelp_alice;
SET ROLE regress_yelp_alice;
SELECT yelp_sync_add_account('own', 's3cret', 'evil');	-- should fail: not trusted
SELECT count(*) FROM pg_foreign_server WHERE srvname IN ('own', 'fourth', 'fo:urth', 'another');
SET ROLE regress_yelp_super;
BEGIN READ ONLY;
SELECT yelp_sync_add_account('read', 'only');	-- should fail
ROLLBACK;
BEGIN;
SELECT yelp_sync_add_account('back', 's3cret');
SELECT username, server FROM yelp_accounts WHERE username = 'back';
ROLLBACK;
SELECT username, server FROM yelp_accounts WHERE username = 'back';
SELECT * FROM yelp_sync('back');	-- should fail
-- A session that knows an account notices that another one takes its mapping's place
BEGIN;
SELECT yelp_sync_add_account('before', 's3cret', 'back');
ALTER USER MAPPING FOR CURRENT_USER SERVER back OPTIONS (SET username 'after');
SELECT yelp_sync_add_account('before', 's3cret', 'again');
SAVEPOINT taken;
SELECT yelp_sync_add_account('after', 's3cret', 'third');	-- should fail
ROLLBACK TO taken;
DROP USER MAPPING FOR CURRENT_USER SERVER back;
SELECT yelp_sync_add_account('after', 's3cret', 'back');
SELECT username, server FROM yelp_accounts WHERE server IN ('back', 'again');
ROLLBACK;
-- The error context is hidden only while the account is added
DO $$ BEGIN PERFORM yelp_sync_add_account('back', 's3cret'); RAISE 'undone'; END $$;	-- should fail

-- What was created without the validator: no username or password is no account, other options are ignored
ALTER FOREIGN DATA WRAPPER yelp_sync NO VALIDATOR;
CREATE SERVER old FOREIGN DATA WRAPPER yelp_sync OPTIONS (obsolete 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER old OPTIONS (username 'old');
CREATE USER MAPPING FOR PUBLIC SERVER old OPTIONS (password 'x');
SELECT count(*) FROM yelp_accounts WHERE server = 'old';
ALTER USER MAPPING FOR CURRENT_USER SERVER old OPTIONS (DROP username, ADD password 'x');
ALTER USER MAPPING FOR PUBLIC SERVER old OPTIONS (ADD username 'shared');
SELECT username, server FROM yelp_accounts WHERE server = 'old';
ALTER USER MAPPING FOR CURRENT_USER SERVER old OPTIONS (ADD username 'old', ADD obsolete 'x');
SELECT username, server FROM yelp_accounts WHERE server = 'old';
-- A value that is not valid concerns its account only
ALTER SERVER old OPTIONS (ADD concurrency '5000', ADD endpoint 'x');
SELECT username, server FROM yelp_accounts WHERE server = 'old';
SELECT username, mapped FROM yelp_sync_status WHERE username = 'old';
SELECT * FROM yelp_sync('old');	-- should fail
SELECT * FROM yelp_sync('nobody');	-- should fail
ALTER FOREIGN DATA WRAPPER yelp_sync VALIDATOR yelp_sync_validator;

-- Catalogs that are closed to the user
BEGIN;
REVOKE SELECT ON pg_roles, pg_user_mappings FROM PUBLIC;
SET LOCAL ROLE "regress_yelp New";
SELECT * FROM yelp_sync('nobody');	-- should fail
ROLLBACK;

-- Servers of other wrappers are ignored
CREATE FOREIGN DATA WRAPPER other;
CREATE SERVER other FOREIGN DATA WRAPPER other OPTIONS (endpoint 'x');
CREATE SERVER "First" FOREIGN DATA WRAPPER other;
CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (username 'elsewhere', password 'x');
SELECT * FROM yelp_accounts WHERE username = 'elsewhere';
SELECT * FROM yelp_sync('elsewhere');	-- should fail
SELECT yelp_sync_add_account('else', 's3cret', 'other');	-- should fail
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER other CASCADE;

SELECT count(*) FROM yelp_programs;
SELECT count(*) FROM yelp_sync_runs;
SELECT string_agg(quote_ident(srvname), ', ') AS servers FROM pg_foreign_server
WHERE srvfdw = (SELECT oid FROM pg_foreign_data_wrapper WHERE fdwname = 'yelp_sync') \gset
DROP SERVER :servers CASCADE;
RESET ROLE;
DROP OWNED BY regress_yelp_one, regress_yelp_two, regress_yelp_evil, regress_yelp_alice, "regress_yelp New";
DROP ROLE regress_yelp_one, regress_yelp_two, regress_yelp_evil, regress_yelp_alice, "regress_yelp New",
	regress_yelp_super;
