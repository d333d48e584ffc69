/*
 * tables.c
 *	  Create the tables that a sync writes to, find them, and decide who may
 *	  use them and as whom.
 *
 * The tables are not members of the extension.  They belong to the role that
 * created them, so that pg_dump dumps them with everything that users added,
 * and DROP EXTENSION keeps them.  The install script defines how they are
 * created; this file decides when.
 *
 * Writing to a table runs code: triggers, rules, constraints, defaults, index
 * expressions.  Whoever put it there must not gain privileges by a sync:
 *
 * - If the current user could become the table's owner (a superuser, a
 *   member), statements run as the owner, as those of PostgreSQL's logical
 *   replication do: the lesser of the two.  Unless the owner could become the
 *   current user, too, they run in a security-restricted operation.
 * - Otherwise, they run as the current user, who must then trust the owner.
 * - The tables, partitions and the function of our trigger have one owner.
 * - Nobody who is not trusted has code in the tables: no function that they
 *   call, no table that pulls its own triggers in by cascading, no TRIGGER
 *   privilege.  This is looked at again under a lock that keeps out new
 *   triggers.
 *
 * Trusted is who could become the role that the statements run as, a
 * superuser for example, and the owner of the extension's schema, who could
 * replace the functions that the user called.  Superusers, who have more to
 * lose, do not trust the latter.
 */
#include "postgres.h"

#include "tables.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "compat.h"
#include "statement.h"

/* The tables; the last one is needed only if changes are recorded */
static const char *const table_names[] = {"yelp_programs", "yelp_sync_runs", "yelp_program_changes"};

#define PROGRAMS (table_names[0])
#define TABLE_COUNT(changes) ((int) lengthof(table_names) - !(changes))

/* Our trigger on yelp_programs */
#define EDIT_TRIGGER "yelp_programs_edited"

/* ---- names and owners ---- */

/*
 * The schema's name, also as a value of type name.  The extension may have been
 * dropped since our last transaction.
 */
static char *
schema_name(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	if (name == NULL || !OidIsValid(get_extension_oid("yelp_sync", true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension yelp_sync has been dropped")));
	return strcpy(palloc0(NAMEDATALEN), name);
}

/* The schema-qualified, quoted name. */
static char *
qualified(Oid schema, const char *name)
{
	return quote_qualified_identifier(schema_name(schema), name);
}

static bool
is_table(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE;
}

static Oid
table_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("an object that a sync uses was dropped by another session")));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Like qualified(), of any table. */
static char *
table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static char *
role_name(Oid role)
{
	return GetUserNameFromId(role, false);
}

/* ---- as whom ---- */

static bool
can_set_role(Oid member, Oid role)
{
	return compat_has_privilege(pg_has_role_id_id, member, role, COMPAT_SET_ROLE);
}

static void
choose_user(Tables *tables, Oid owner)
{
	Oid			user = GetUserId();

	tables->run_as = can_set_role(user, owner) ? owner : user;
	tables->restricted = !can_set_role(tables->run_as, user);
}

void
tables_run_as(const Tables *tables, void (*step) (void *arg), void *arg)
{
	Oid			user;
	int			context;
	int			level;

	GetUserIdAndSecContext(&user, &context);
	/* None is chosen where no table may be read */
	if (tables->run_as == user || !OidIsValid(tables->run_as))
	{
		step(arg);
		return;
	}
	level = NewGUCNestLevel();
	local_setting("search_path", "pg_catalog, pg_temp");
	SetUserIdAndSecContext(tables->run_as,
						   context | SECURITY_LOCAL_USERID_CHANGE |
						   (tables->restricted ? SECURITY_RESTRICTED_OPERATION : 0));
	step(arg);
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(false, level);
}

/* ---- creating tables ---- */

/*
 * While an extension's script is running, the tables would become members of
 * that extension; prevent this, because they are the user's.
 */
static void
make_tables(const Tables *creator, int partitions)
{
	bool		creating = creating_extension;
	Statement	make = {
		.purpose = "creating the tables of yelp_sync",
		.sql = psprintf("SELECT %s($1, %s)",
						qualified(creator->schema_oid, "yelp_sync_make_tables"),
						partitions > 0 ? psprintf("%d", partitions) : "NULL::pg_catalog.int4"),
	};

	statement_add(&make, NAMEOID, CStringGetDatum(schema_name(creator->schema_oid)));
	creating_extension = false;
	PG_TRY();
	{
		tables_run_as(creator, statement_run, &make);
	}
	PG_FINALLY();
	{
		creating_extension = creating;
	}
	PG_END_TRY();
}

/* The names of those among the first tables that are missing, or NULL. */
static char *
missing_tables(Oid schema, int count)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < count; i++)
	{
		if (!OidIsValid(get_relname_relid(table_names[i], schema)))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 qualified(schema, table_names[i]));
	}
	return names.len > 0 ? names.data : NULL;
}

/*
 * Creates the missing tables, as the owner of the others if the current user
 * could become it.
 */
static void
create_missing(Tables *tables, int partitions)
{
	Oid			schema = tables->schema_oid;
	Tables		creator = {.schema_oid = schema,.run_as = GetUserId()};

	tables->created = missing_tables(schema, TABLE_COUNT(true));
	if (tables->created == NULL)
		return;
	for (int i = 0; i < TABLE_COUNT(true) && creator.run_as == GetUserId(); i++)
	{
		Oid			relid = get_relname_relid(table_names[i], schema);

		if (OidIsValid(relid))
			choose_user(&creator, table_owner(relid));
	}
	if (!compat_has_privilege(has_schema_privilege_id_id, creator.run_as, schema, "CREATE"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not create %s",
						role_name(creator.run_as), tables->created),
				 errdetail("The role lacks the CREATE privilege on schema \"%s\".",
						   schema_name(schema)),
				 errhint("Have a superuser or the schema's owner run SELECT %s(); and grant the role privileges on the tables.",
						 qualified(schema, "yelp_sync_create_tables"))));

	/* Others who create them wait until this transaction has ended */
	LockDatabaseObject(NamespaceRelationId, schema, 0, ShareUpdateExclusiveLock);
	tables->created = missing_tables(schema, TABLE_COUNT(true));
	tables->created_programs = missing_tables(schema, 1) != NULL;
	if (tables->created)
		make_tables(&creator, partitions);
}

void
tables_create(Oid schema, int partitions)
{
	Tables		tables = {.schema_oid = schema};
	Oid			programs = get_relname_relid(PROGRAMS, schema);

	create_missing(&tables, partitions);
	if (!OidIsValid(programs))
		return;
	if (partitions > 0)
		ereport(NOTICE,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table %s already exists, skipping", qualified(schema, PROGRAMS))));
	choose_user(&tables, table_owner(programs));
	if (is_table(programs) && tables.run_as == table_owner(programs) &&
		!OidIsValid(get_trigger_oid(programs, EDIT_TRIGGER, true)))
		make_tables(&tables, 0);
}

/* ---- what is wrong with the tables ---- */

/*
 * Raises the first error that a query over the catalogs finds: rows (sqlstate,
 * message, detail, hint), any other columns behind them.  Catalogs may be
 * closed to the current user.
 */
static void
raise_found(Statement *query)
{
	Tables		catalogs = {.run_as = BOOTSTRAP_SUPERUSERID};
	int			level = NewGUCNestLevel();
	const char *state;
	const char *detail;

	/* There are few objects, in catalogs that may be large */
	local_setting("work_mem", "64kB");
	local_setting("enable_hashjoin", "off");
	local_setting("enable_mergejoin", "off");
	local_setting("enable_seqscan", "off");
	tables_run_as(&catalogs, statement_query, query);
	AtEOXact_GUC(true, level);
	state = SPI_processed > 0 ? statement_value(1) : NULL;
	if (state == NULL)
		return;
	detail = statement_value(3);
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg_internal("%s", statement_value(2)),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errhint("%s", statement_value(4))));
}

/*
 * Raises an error that lists all privileges that a sync needs and the role $1
 * lacks, in the schema $2, on the first $3 tables.
 */
static void
require_rights(Oid schema, bool changes, Oid role)
{
	static SPIPlanPtr plan;
	Statement	query = {
		.kept = &plan,
		.purpose = "looking at privileges",
		.sql = "WITH lacking AS ("
		" SELECT 0 AS place, format('USAGE ON SCHEMA %I', nspname) AS privileges FROM pg_namespace"
		" WHERE oid = $2 AND NOT has_schema_privilege($1, oid, 'USAGE')"
		" UNION ALL SELECT place, format('%s ON %s', rights, oid::regclass)"
		" FROM (VALUES (1, 'yelp_programs', 'SELECT, INSERT, UPDATE, DELETE'),"
		"  (2, 'yelp_sync_runs', 'SELECT, INSERT'), (3, 'yelp_program_changes', 'INSERT'))"
		"  AS needed(place, name, rights)"
		" JOIN pg_class ON relname = name AND relnamespace = $2"
		" WHERE place <= $3 AND EXISTS (SELECT FROM string_to_table(rights, ', ') AS one"
		"  WHERE NOT has_table_privilege($1, oid, one))"
		" UNION ALL SELECT DISTINCT 4, 'EXECUTE ON FUNCTION ' || oid::regproc FROM pg_proc"
		" WHERE proname IN ('yelp_sync_columns', 'yelp_sync_changed', 'yelp_sync_picked')"
		"  AND pronamespace = $2 AND NOT has_function_privilege($1, oid, 'EXECUTE')"
		") "
		"SELECT '42501', format('role \"%s\" lacks privileges that a sync needs', rolname), NULL,"
		" 'Run:' || string_agg(format(' GRANT %s TO %I;', privileges, rolname), '' ORDER BY place)"
		" FROM lacking, pg_authid WHERE oid = $1 GROUP BY rolname",
	};

	statement_add(&query, OIDOID, ObjectIdGetDatum(role));
	statement_add(&query, OIDOID, ObjectIdGetDatum(schema));
	statement_add(&query, INT4OID, Int32GetDatum(TABLE_COUNT(changes)));
	raise_found(&query);
}

/* Policies filter silently, so a sync could leave outdated rows. */
static void
reject_row_security(const Tables *tables, Oid relid)
{
	if (check_enable_rls(relid, tables->run_as, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row-level security on table %s applies to role \"%s\"",
						table_name(relid), role_name(tables->run_as)),
				 errdetail("A sync must see and write all rows of its account."),
				 errhint("Let the table's owner sync, for example through a SECURITY DEFINER function, or a role with BYPASSRLS.")));
}

/*
 * The columns of yelp_programs, the table $1, that a sync uses; one that was
 * renamed, dropped or retyped is found before anything is fetched.  Those that
 * are filled from a program's document are defined by the install script, as a
 * type in the schema $2.  Equal keys must be the same text, or programs would
 * be mistaken for others.  The columns of the other tables decide nothing: see
 * history.h.
 */
static char *
check_columns(Oid schema, Oid programs)
{
	static SPIPlanPtr plan;
	Statement	query = {
		.kept = &plan,
		.purpose = "looking at the columns of yelp_programs",
		.sql = "WITH filled AS ("
		" SELECT attnum AS place, attname AS name, atttypid AS type FROM pg_attribute"
		" JOIN pg_type t ON typrelid = attrelid"
		" WHERE typname = 'yelp_sync_values' AND typnamespace = $2 AND attnum > 0 AND NOT attisdropped"
		"), needed AS ("
		" SELECT 0 AS place, name, type::regtype::oid, name IN ('username', 'program_id') AS is_key"
		" FROM (VALUES ('username', 'text'), ('program_id', 'text'), ('data', 'jsonb'), ('fingerprint', 'bigint'),"
		"  ('gone_at', 'timestamptz'), ('created_at', 'timestamptz'), ('updated_at', 'timestamptz')) AS v(name, type)"
		" UNION ALL SELECT place, name, type, false FROM filled"
		"), wrong AS ("
		" SELECT n.*, atttypid, CASE WHEN attnum IS NULL THEN '42703' WHEN atttypid <> type THEN '42804'"
		"  WHEN is_key AND NOT collisdeterministic THEN '0A000' END AS state"
		" FROM needed n LEFT JOIN pg_attribute ON attrelid = $1 AND attname = name AND NOT attisdropped"
		"  LEFT JOIN pg_collation c ON c.oid = attcollation"
		") "
		"SELECT state, format('column \"%s\" of table %s ' || message, name, $1::regclass,"
		"  format_type(atttypid, NULL), format_type(type, NULL)), NULL,"
		" format(hint, $1::regclass, name, format_type(type, NULL)),"
		" (SELECT string_agg(quote_ident(name), ', ' ORDER BY place) FROM filled)"
		" FROM (VALUES ('42703', 'does not exist', 'If it was renamed, run: ALTER TABLE %s RENAME ... TO %I;'),"
		"  ('42804', 'has type %s instead of %s', 'Run: ALTER TABLE %s ALTER %I TYPE %s;'),"
		"  ('0A000', 'has a nondeterministic collation', 'Run: ALTER TABLE %s ALTER %I TYPE text COLLATE \"C\";'))"
		"  AS kinds(kind, message, hint)"
		" RIGHT JOIN wrong ON kind = state ORDER BY state IS NULL, place LIMIT 1",
	};

	statement_add(&query, OIDOID, ObjectIdGetDatum(programs));
	statement_add(&query, OIDOID, ObjectIdGetDatum(schema));
	raise_found(&query);
	return statement_value(5);
}

/* ---- whose code ---- */

/*
 * Everything that writing to the tables, or reading them, may run, and what is
 * wrong with it.
 *
 * $1 are the tables, yelp_programs first, with their partitions; $2 is the
 * role that statements run as, $3 the current user, $4 the schema; $5: are they
 * written?
 */

/* Does the role $2 trust another one?  See above. */
#define TRUSTED(role) \
	"(pg_has_role(" role ", $2, '" COMPAT_SET_ROLE "')" \
	" OR (NOT rolsuper AND pg_has_role(" role ", nspowner, 'USAGE')))"

/* For the messages; none if the table is only to be read, and of a stranger */
#define NAMES \
	"us AS (" \
	" SELECT relowner, pg_get_userbyid(relowner) AS owner, rolname AS runner, rolsuper, nspowner" \
	" FROM pg_class c, pg_authid r, pg_namespace n" \
	" WHERE c.oid = $1[1] AND r.oid = $2 AND n.oid = $4 AND ($5 OR " TRUSTED("relowner") "))"

/*
 * The tables, and others whose triggers are run: a parent's trigger becomes a
 * partition's own, its key a constraint.  Before PostgreSQL 18, a table that
 * references ours and cascades runs its own triggers as the role that deletes
 * our rows.
 */
#define ALL_TABLES \
	"tables(relid, refers) AS (" \
	" SELECT unnest($1), false" \
	" UNION SELECT more.* FROM tables t CROSS JOIN LATERAL (" \
	"  SELECT p.relid::oid, false FROM pg_partition_ancestors(t.relid) AS p" \
	"  UNION ALL SELECT inhrelid, true FROM pg_inherits WHERE inhparent = t.relid AND t.refers" \
	"  UNION ALL SELECT tgconstrrelid, true FROM pg_trigger" \
	"   WHERE tgrelid = t.relid AND tgisinternal AND $5 AND NOT " COMPAT_TRIGGERS_KEEP_ROLE \
	"    AND tgfoid IN ('\"RI_FKey_cascade_del\"'::regproc, '\"RI_FKey_cascade_upd\"'::regproc," \
	"     '\"RI_FKey_setnull_del\"'::regproc, '\"RI_FKey_setnull_upd\"'::regproc," \
	"     '\"RI_FKey_setdefault_del\"'::regproc, '\"RI_FKey_setdefault_upd\"'::regproc)) AS more)," \
	" triggers AS (SELECT g.* FROM tables JOIN pg_trigger g ON tgrelid = relid WHERE $5)"

/*
 * Objects, and what they are used by, for the error.  They are found whatever
 * calls them: constraints, defaults, rules, indexes and statistics (both of
 * which the planner evaluates), operators and types.  What is built in is not
 * in pg_depend.  The partitions that matter are among the tables.
 */
#define OBJECTS \
	"objects(class, object, user_class, user_object) AS (" \
	" SELECT 'pg_class'::regclass::oid, relid, NULL::oid, NULL::oid FROM tables" \
	" UNION ALL SELECT 'pg_trigger'::regclass, oid, 'pg_trigger'::regclass, oid FROM triggers" \
	" UNION SELECT next.class, next.object, COALESCE(user_class, by_class), COALESCE(user_object, by_object)" \
	" FROM objects o CROSS JOIN LATERAL (" \
	"  SELECT refclassid, refobjid, classid, objid FROM pg_depend" \
	"   WHERE classid = o.class AND objid = o.object" \
	"    AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)" \
	"  UNION ALL SELECT classid, objid, classid, objid FROM pg_depend" \
	"   WHERE refclassid = o.class AND refobjid = o.object AND deptype IN ('a', 'i')" \
	"    AND o.class IN ('pg_class'::regclass, 'pg_type'::regclass)" \
	"    AND (classid IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_rewrite'::regclass," \
	"      'pg_statistic_ext'::regclass) OR classid = 'pg_class'::regclass" \
	"     AND (SELECT relkind NOT IN ('r', 'p') FROM pg_class WHERE oid = objid))" \
	" ) AS next(class, object, by_class, by_object))"

#define STRANGE_OWNER \
	"SELECT 0, format('table %s belongs to role \"%s\"', $1[1]::regclass, owner)," \
	" format('Its triggers, rules and defaults would run with the privileges of role \"%s\".', runner)," \
	" format('Sync as its owner or a member of that role, or have a superuser check it and run:" \
	" ALTER TABLE %s OWNER TO ...;', $1[1]::regclass) FROM us WHERE NOT " TRUSTED("relowner")

/* The tables, partitions and the function of our trigger have one owner */
#define OTHER_OWNERS \
	"SELECT 1, format('not all tables of yelp_sync belong to role \"%s\", the owner of yelp_programs', owner)," \
	" format('Other owners could have code run with the privileges of role \"%s\".', runner)," \
	" 'Check what they are, then run:' || string_agg(format(' ALTER %s OWNER TO %I;', what, owner), '' ORDER BY place)" \
	" FROM us CROSS JOIN LATERAL (" \
	"  SELECT place, 'TABLE ' || oid::regclass FROM unnest($1) WITH ORDINALITY AS t(relid, place)" \
	"   JOIN pg_class c ON oid = relid WHERE c.relowner <> us.relowner" \
	"  UNION ALL SELECT NULL, 'FUNCTION ' || p.oid::regprocedure FROM pg_trigger JOIN pg_proc p ON p.oid = tgfoid" \
	"   WHERE tgrelid = $1[1] AND tgname = '" EDIT_TRIGGER "' AND proowner <> relowner) AS other(place, what)" \
	" GROUP BY owner, runner"

/* A security-restricted operation ends before they run */
#define DEFERRED \
	"SELECT 2, format('trigger \"%s\" on table %s is deferred', tgname, tgrelid::regclass)," \
	" format('It would run with the privileges of role \"%s\" when the transaction ends.', pg_get_userbyid($3))," \
	" format('Sync as role \"%s\".', owner) FROM us, triggers" \
	" WHERE tginitdeferred AND tgenabled <> 'D' AND NOT pg_has_role($2, $3, '" COMPAT_SET_ROLE "')"

/*
 * Who may create triggers?  Their conditions and arguments have no owner, so
 * those that exist are not told apart.
 */
#define TRIGGER_RIGHTS \
	"SELECT 3, format('role \"%s\" may create triggers on table %s'," \
	"  CASE role WHEN 0 THEN 'public' ELSE pg_get_userbyid(role) END, c.oid::regclass)," \
	" format('They would run with the privileges of role \"%s\".', runner)," \
	" 'Check its triggers, then run: ' || CASE role" \
	"  WHEN c.relowner THEN format('ALTER TABLE %s OWNER TO %I;', c.oid::regclass, owner)" \
	"  WHEN 0 THEN format('REVOKE TRIGGER ON %s FROM PUBLIC;', c.oid::regclass)" \
	"  ELSE format('REVOKE TRIGGER ON %s FROM %I;', c.oid::regclass, pg_get_userbyid(role)) END" \
	" FROM us CROSS JOIN tables JOIN pg_class c ON c.oid = relid CROSS JOIN LATERAL (SELECT c.relowner" \
	"  UNION SELECT grantee FROM aclexplode(relacl) WHERE privilege_type = 'TRIGGER') AS may(role)" \
	" WHERE $5 AND NOT " TRUSTED("role")

/* The owner of a type may create casts; that of an array has the element */
#define OWNERS \
	"SELECT 4, format('%s %s belongs to role \"%s\"', what.type, what.identity, pg_get_userbyid(role))," \
	" format('It is used by %s, and would run with the privileges of role \"%s\".'," \
	"  pg_describe_object(user_class, user_object, 0), runner)," \
	" format('Check it, then run: ALTER %s %s OWNER TO %I; or drop what uses it.'," \
	"  CASE class WHEN 'pg_proc'::regclass THEN 'FUNCTION' ELSE 'TYPE' END, what.identity, owner)" \
	" FROM us CROSS JOIN objects CROSS JOIN LATERAL (" \
	"  SELECT proowner FROM pg_proc WHERE oid = object AND class = 'pg_proc'::regclass" \
	"  UNION ALL SELECT typowner FROM pg_type" \
	"   WHERE oid = object AND class = 'pg_type'::regclass AND typtype <> 'b') AS code(role)" \
	" CROSS JOIN LATERAL pg_identify_object(class, object, 0) AS what WHERE NOT " TRUSTED("role")

static const char strange_code[] =
"WITH RECURSIVE " NAMES ", " ALL_TABLES ", " OBJECTS
" SELECT state, message, detail, hint, EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1[1]"
"  AND tgname = '" EDIT_TRIGGER "' AND tgenabled <> 'D')"
" FROM us LEFT JOIN (SELECT '42501' AS state, * FROM (" STRANGE_OWNER " UNION ALL " OTHER_OWNERS
" UNION ALL " DEFERRED " UNION ALL " TRIGGER_RIGHTS " UNION ALL " OWNERS
")  AS strange(place, message, detail, hint) ORDER BY place, message LIMIT 1) AS first ON true";

/* False if the first table is only to be read, and belongs to a stranger. */
static bool
check_code(Tables *tables, List *relids, bool writing)
{
	static SPIPlanPtr plan;
	Statement	query = {
		.kept = &plan,
		.purpose = "looking at whose code a sync runs",
		.sql = strange_code,
	};
	Datum	   *array = palloc(list_length(relids) * sizeof(Datum));

	for (int i = 0; i < list_length(relids); i++)
		array[i] = ObjectIdGetDatum(list_nth_oid(relids, i));
	statement_add(&query, OIDARRAYOID,
				  PointerGetDatum(construct_array(array, list_length(relids), OIDOID,
												  sizeof(Oid), true, TYPALIGN_INT)));
	statement_add(&query, OIDOID, ObjectIdGetDatum(tables->run_as));
	statement_add(&query, OIDOID, ObjectIdGetDatum(GetUserId()));
	statement_add(&query, OIDOID, ObjectIdGetDatum(tables->schema_oid));
	statement_add(&query, BOOLOID, BoolGetDatum(writing));
	raise_found(&query);
	tables->heals = SPI_processed > 0 && strcmp(statement_value(5), "t") == 0;
	return SPI_processed > 0;
}

/* ---- the tables of a sync ---- */

/*
 * Locks the table with its partitions, and adds them to the list, and other
 * tables that inherit from it: those of the history are read with it.
 */
static Oid
lock_table(Oid schema, const char *name, LOCKMODE mode, List **relids)
{
	Oid			relid = RangeVarGetRelid(makeRangeVar(schema_name(schema), pstrdup(name), -1),
										 mode, false);

	if (!is_table(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", qualified(schema, name)),
				 errhint("Rename it, and a table will be created in its place.")));
	*relids = list_concat(*relids, find_all_inheritors(relid, mode, NULL));
	return relid;
}

/* Does Citus plan the statements on the table? */
static bool
is_distributed(Oid relid)
{
	Statement	query = {
		.purpose = "reading the catalogs of Citus",
		.sql = "SELECT FROM pg_dist_partition WHERE logicalrelid = $1::regclass",
	};

	if (!OidIsValid(get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE)))
		return false;
	statement_add(&query, OIDOID, ObjectIdGetDatum(relid));
	statement_query(&query);
	return SPI_processed > 0;
}

Tables
tables_prepare(Oid schema, bool changes, LOCKMODE mode)
{
	Tables		tables = {
		.schema_oid = schema,
		.schema = quote_identifier(schema_name(schema)),
	};
	Oid			relids[lengthof(table_names)];
	List	   *locked = NIL;

	if (missing_tables(schema, TABLE_COUNT(changes)))
		create_missing(&tables, 0);
	/* Whoever has no privileges must not hold a lock, either */
	require_rights(schema, changes, GetUserId());
	for (int i = 0; i < TABLE_COUNT(changes); i++)
		relids[i] = lock_table(schema, table_names[i], mode, &locked);
	choose_user(&tables, table_owner(relids[0]));
	for (int i = 0; i < TABLE_COUNT(changes); i++)
		reject_row_security(&tables, relids[i]);
	tables.partitioned = get_rel_relkind(relids[0]) == RELKIND_PARTITIONED_TABLE;
	tables.distributed = is_distributed(relids[0]);
	tables.columns = check_columns(schema, relids[0]);
	check_code(&tables, locked, true);
	require_rights(schema, changes, tables.run_as);
	return tables;
}

const char *
tables_readable(Tables *tables, const char *name)
{
	Oid			relid = get_relname_relid(name, tables->schema_oid);
	List	   *locked = NIL;

	if (!is_table(relid) ||
		pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		lock_table(tables->schema_oid, name, AccessShareLock, &locked) != relid)
		return NULL;
	if (!OidIsValid(tables->run_as))
		choose_user(tables, table_owner(relid));
	return check_code(tables, locked, false) ? table_name(relid) : NULL;
}
