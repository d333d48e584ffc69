-- The tables: creation, ownership, and other objects in their place
SET client_min_messages = warning;
\pset format unaligned
\pset footer off
CREATE ROLE regress_yelp_dba;
CREATE ROLE regress_yelp_sync;
CREATE ROLE regress_yelp_member IN ROLE regress_yelp_sync;
CREATE ROLE regress_yelp_evil;
CREATE SERVER yelp FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://127.0.0.1:1/programs', attempts '1');
CREATE USER MAPPING FOR PUBLIC SERVER yelp OPTIONS (username 'acme', password 's3cret');
GRANT USAGE ON FOREIGN SERVER yelp TO regress_yelp_dba, regress_yelp_sync, regress_yelp_evil;

-- CREATE EXTENSION alone makes none
SELECT to_regclass('yelp_programs') AS programs, to_regclass('yelp_sync_runs') AS runs,
	to_regclass('yelp_program_changes') AS changes;

-- should fail: without CREATE on the schema, by either way
SET ROLE regress_yelp_member;
SELECT yelp_sync_create_tables();
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;

-- should fail: numbers of partitions
SELECT yelp_sync_create_tables(0);
SELECT yelp_sync_create_tables(-1);
SELECT yelp_sync_create_tables(1001);
BEGIN READ ONLY;
SELECT yelp_sync_create_tables();
ROLLBACK;

-- They belong to the role that creates them, and existing ones are left alone
GRANT CREATE ON SCHEMA public TO regress_yelp_dba, regress_yelp_evil;
SET ROLE regress_yelp_dba;
SELECT yelp_sync_create_tables();
ALTER TABLE yelp_programs ADD COLUMN note text;
SELECT yelp_sync_create_tables();
SET client_min_messages = notice;
SELECT yelp_sync_create_tables(partitions => 4);
SET client_min_messages = warning;
DROP TABLE yelp_sync_runs;
SELECT yelp_sync_create_tables(NULL);
RESET ROLE;
SELECT relname, relkind, relowner::regrole FROM pg_class
WHERE relname ~ '^yelp_(programs|sync_runs|program_changes)' AND relkind IN ('r', 'S', 'p') ORDER BY 1;
SELECT count(*) FROM pg_attribute WHERE attrelid = 'yelp_programs'::regclass AND attname = 'note';
SELECT proowner::regrole FROM pg_proc WHERE oid = 'yelp_programs_edited'::regproc;

-- They are no members of the extension and do not depend on it
SELECT classid::regclass, objid::regclass FROM pg_depend
WHERE deptype = 'e' AND objid IN ('yelp_programs'::regclass, 'yelp_sync_runs'::regclass, 'yelp_program_changes'::regclass,
	'yelp_programs_edited'::regproc);
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS dependent
FROM pg_depend d JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
WHERE e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'yelp_sync')
AND d.classid IN ('pg_class'::regclass, 'pg_trigger'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass)
AND pg_describe_object(d.classid, d.objid, d.objsubid) NOT SIMILAR TO '%view yelp_(accounts|sync_progress)'
AND pg_describe_object(d.classid, d.objid, d.objsubid) NOT LIKE '%composite type yelp_sync_values';

-- should fail: tables of another role, which owns neither the schema nor the extension
GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs, yelp_sync_runs TO regress_yelp_sync;
SET ROLE regress_yelp_member;
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
SELECT yelp_sync_create_tables();
RESET ROLE;
-- should fail: nothing listens, for a superuser and for their owner
\set VERBOSITY terse
SELECT * FROM yelp_sync('acme');
SET ROLE regress_yelp_dba;
SELECT * FROM yelp_sync('acme');
RESET ROLE;

-- should fail: nothing listens, where their owner is the schema's
SELECT nspowner::regrole AS schema_owner FROM pg_namespace WHERE nspname = 'public' \gset
ALTER SCHEMA public OWNER TO regress_yelp_dba;
SET ROLE regress_yelp_member;
SELECT * FROM yelp_sync('acme');
RESET ROLE;
ALTER SCHEMA public OWNER TO :schema_owner;

-- should fail: nothing listens, where a superuser vouches for them
ALTER TABLE yelp_programs OWNER TO CURRENT_USER;
ALTER TABLE yelp_sync_runs OWNER TO CURRENT_USER;
-- should fail: the former owner could still change the trigger's function
SELECT * FROM yelp_sync('acme');
ALTER FUNCTION yelp_programs_edited() OWNER TO CURRENT_USER;
SET ROLE regress_yelp_member;
SELECT * FROM yelp_sync('acme');
RESET ROLE;
SELECT * FROM yelp_sync('acme');

-- should fail: not all belong to the same role
ALTER TABLE yelp_sync_runs OWNER TO regress_yelp_evil;
GRANT regress_yelp_evil TO regress_yelp_member;
SET ROLE regress_yelp_member;
SELECT * FROM yelp_sync('acme');
RESET ROLE;
DROP TABLE yelp_programs, yelp_sync_runs, yelp_program_changes;
DROP FUNCTION yelp_programs_edited;

-- Columns that were renamed, dropped or retyped are found before anything is fetched
SELECT yelp_sync_create_tables();
\set VERBOSITY default
ALTER TABLE yelp_programs RENAME budget TO amount;
SELECT * FROM yelp_sync('acme');	-- should fail
\echo :LAST_ERROR_SQLSTATE
ALTER TABLE yelp_programs RENAME amount TO budget;
ALTER TABLE yelp_programs RENAME created_at TO made_at;
SELECT * FROM yelp_sync('acme');	-- should fail
ALTER TABLE yelp_programs RENAME made_at TO created_at;
ALTER TABLE yelp_programs ALTER created_at TYPE timestamp;
SELECT * FROM yelp_sync('acme');	-- should fail
\echo :LAST_ERROR_SQLSTATE
ALTER TABLE yelp_programs ALTER created_at TYPE timestamptz;

-- should fail: nothing listens, but columns may be wider, and edited rows need the trigger
\set VERBOSITY terse
SET client_min_messages = notice;
ALTER TABLE yelp_programs DISABLE TRIGGER yelp_programs_edited;
SELECT * FROM yelp_sync('acme');
DROP TRIGGER yelp_programs_edited ON yelp_programs;
ALTER TABLE yelp_programs ALTER budget TYPE numeric(20, 4);
SELECT * FROM yelp_sync('acme');
SET ROLE regress_yelp_evil;
SELECT yelp_sync_create_tables();	-- not its table
RESET ROLE;
SELECT yelp_sync_create_tables();	-- creates the trigger
SELECT * FROM yelp_sync('acme');
SET client_min_messages = warning;

-- should fail: on a worker node of Citus
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_local_group AS SELECT 1 AS groupid;
\set VERBOSITY default
SELECT * FROM yelp_sync('acme');
\set VERBOSITY terse
UPDATE pg_catalog.pg_dist_local_group SET groupid = 0;
SELECT * FROM yelp_sync('acme');	-- should fail: nobody listens
DROP TABLE pg_catalog.pg_dist_local_group;
RESET allow_system_table_mods;

-- A role without privileges takes no lock before it is refused
SET ROLE regress_yelp_evil;
BEGIN;
SELECT yelp_sync_create_tables();
SAVEPOINT before;
SELECT * FROM yelp_sync('acme');	-- should fail
ROLLBACK TO before;
SELECT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text ~ '^yelp_(programs|sync_runs|program_changes)$';
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'object';
ROLLBACK;
RESET ROLE;
DROP TABLE yelp_program_changes;
REVOKE CREATE ON SCHEMA public FROM regress_yelp_evil;
SET ROLE regress_yelp_evil;
BEGIN;
SAVEPOINT before;
SELECT yelp_sync_create_tables();	-- should fail
ROLLBACK TO before;
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'object';
ROLLBACK;
RESET ROLE;
GRANT CREATE ON SCHEMA public TO regress_yelp_evil;

-- Missing tables are made as the owner of the others
CREATE ROLE regress_yelp_root SUPERUSER;
SET ROLE regress_yelp_root;
SELECT yelp_sync_create_tables();
DROP TABLE yelp_programs;
SELECT yelp_sync_create_tables();
RESET ROLE;
SELECT DISTINCT relowner::regrole = current_user::regrole AS same FROM pg_class
WHERE relname IN ('yelp_programs', 'yelp_sync_runs', 'yelp_program_changes');
DROP ROLE regress_yelp_root;
DROP TABLE yelp_programs, yelp_sync_runs, yelp_program_changes;
DROP FUNCTION yelp_programs_edited;

-- A role that creates the trigger's function first does not keep it
SET ROLE regress_yelp_evil;
CREATE FUNCTION yelp_programs_edited() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
	SET work_mem = '64kB' AS $$ BEGIN RAISE 'evil'; END $$;
RESET ROLE;
GRANT CREATE ON SCHEMA public TO regress_yelp_dba;
SET ROLE regress_yelp_dba;
SELECT yelp_sync_create_tables();	-- should fail: evil's function
RESET ROLE;
SELECT yelp_sync_create_tables();
SELECT proowner = 'regress_yelp_evil'::regrole AS evil, prosecdef, proconfig FROM pg_proc
WHERE oid = 'yelp_programs_edited'::regproc;
INSERT INTO yelp_programs (username, program_id, data, fingerprint) VALUES ('acme', 'a', '{}', 1);
UPDATE yelp_programs SET budget = 1.5 RETURNING budget, fingerprint;
UPDATE yelp_programs SET budget = 2.5, fingerprint = 2 RETURNING budget, fingerprint;

-- should fail: something else in a table's place
DROP TABLE yelp_programs;
CREATE VIEW yelp_programs AS SELECT 1 AS a;
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
DROP VIEW yelp_programs;
CREATE TYPE yelp_programs AS (a int);
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
DROP TYPE yelp_programs;
CREATE DOMAIN yelp_programs AS int;
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
DROP DOMAIN yelp_programs;
CREATE SEQUENCE yelp_programs;
SELECT * FROM yelp_sync('acme');
\echo :LAST_ERROR_SQLSTATE
DROP SEQUENCE yelp_programs;

-- Partitions
SELECT yelp_sync_create_tables(partitions => 8);
SELECT relkind, pg_get_partkeydef(oid) FROM pg_class WHERE oid = 'yelp_programs'::regclass;
SELECT relid, pg_get_expr(relpartbound, oid) FROM pg_partition_tree('yelp_programs')
JOIN pg_class ON oid = relid WHERE isleaf ORDER BY 1;
INSERT INTO yelp_programs (username, program_id, data, fingerprint)
SELECT 'account' || n, 'a', '{}', n FROM generate_series(1, 100) AS n;
UPDATE yelp_programs SET budget = n FROM generate_series(1, 10) AS n WHERE username = 'account' || n;
UPDATE yelp_programs SET username = username || 'x' WHERE username LIKE 'account2_';
SELECT count(*), count(fingerprint), count(DISTINCT tableoid) FROM yelp_programs;
DROP TABLE yelp_programs, yelp_sync_runs, yelp_program_changes;
DROP FUNCTION yelp_programs_edited;

\set VERBOSITY default
DROP SERVER yelp CASCADE;
DROP OWNED BY regress_yelp_dba, regress_yelp_sync, regress_yelp_member, regress_yelp_evil;
DROP ROLE regress_yelp_dba, regress_yelp_sync, regress_yelp_member, regress_yelp_evil;
