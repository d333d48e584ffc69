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
 *
 * Nothing here keeps a pointer into a cache over another look-up.
 */
#include "postgres.h"

#include "tables.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"

typedef enum TableName
{
	PROGRAMS,
	RUNS,
	CHANGES
} TableName;

#define TABLE_COUNT (CHANGES + 1)

typedef struct TableRule
{
	const char *name;
	AclMode		rights;			/* needed by a sync */
	const char *grant;			/* the same, in SQL */
} TableRule;

static const TableRule rules[] =
{
	[PROGRAMS] = {
		"yelp_programs",
		ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE, "SELECT, INSERT, UPDATE, DELETE"
	},
	[RUNS] = {"yelp_sync_runs", ACL_SELECT | ACL_INSERT, "SELECT, INSERT"},
	[CHANGES] = {"yelp_program_changes", ACL_INSERT, "INSERT"},
};

StaticAssertDecl(lengthof(rules) == TABLE_COUNT, "each table has a rule");

/* Our trigger on yelp_programs */
#define EDIT_TRIGGER "yelp_programs_edited"

/* Functions that a sync calls */
static const char *const functions[] = {
	"yelp_sync_columns", "yelp_sync_changed", "yelp_sync_picked"
};

/* ---- looking at catalogs ---- */

uint64
tables_query(const char *sql, int count, Oid *types, Datum *values)
{
	int			level = NewGUCNestLevel();
	SPIPlanPtr	plan;

	local_setting("search_path", "pg_catalog, pg_temp");
	local_setting("jit", "off");
	plan = SPI_prepare(sql, count, types);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot,
							 true, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	SPI_freeplan(plan);
	AtEOXact_GUC(true, level);
	return SPI_processed;
}

/* The schema's name; it may have been dropped since our last transaction. */
static char *
schema_name(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("the schema of extension yelp_sync has been dropped")));
	return name;
}

/* The schema-qualified, quoted name. */
static char *
qualified(Oid schema, const char *name)
{
	return quote_qualified_identifier(schema_name(schema), name);
}

static char *
role_name(Oid role)
{
	return OidIsValid(role) ? GetUserNameFromId(role, false) : "public";
}

/* The schema-qualified, quoted name of a table. */
static char *
table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static Oid
owner_of(int cache, Oid object, AttrNumber column)
{
	HeapTuple	tuple = SearchSysCache1(cache, ObjectIdGetDatum(object));
	bool		isnull;
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for object %u", object);
	owner = DatumGetObjectId(SysCacheGetAttr(cache, tuple, column, &isnull));
	ReleaseSysCache(tuple);
	return owner;
}

static bool
is_missing(Oid schema, TableName table)
{
	return !OidIsValid(get_relname_relid(rules[table].name, schema));
}

static bool
is_table(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE;
}

/* ---- as whom ---- */

static void
choose_user(Tables *tables, Oid owner)
{
	Oid			user = GetUserId();

	tables->run_as = compat_can_set_role(user, owner) ? owner : user;
	tables->restricted = !compat_can_set_role(tables->run_as, user);
}

void
tables_run_as(const Tables *tables, void (*step) (void *arg), void *arg)
{
	Oid			user;
	int			context;
	int			level;

	GetUserIdAndSecContext(&user, &context);
	if (tables->run_as == user)
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

static bool
is_trusted(const Tables *tables, Oid role)
{
	if (compat_can_set_role(role, tables->run_as))
		return true;
	return !superuser_arg(tables->run_as) &&
		has_privs_of_role(role, owner_of(NAMESPACEOID, tables->schema_oid, Anum_pg_namespace_nspowner));
}

/* ---- creating tables ---- */

typedef struct CreateTables
{
	Oid			schema;
	int			partitions;
} CreateTables;

/* A step that runs as the tables' user. */
static void
call_make_tables(void *arg)
{
	CreateTables *create = arg;
	Oid			types[] = {NAMEOID, INT4OID};
	Datum		values[] = {
		CStringGetDatum(schema_name(create->schema)),
		Int32GetDatum(create->partitions)
	};
	char		nulls[] = {' ', create->partitions > 0 ? ' ' : 'n'};
	char	   *sql = psprintf("SELECT %s($1, $2)",
							   qualified(create->schema, "yelp_sync_make_tables"));

	if (SPI_execute_with_args(sql, lengthof(types), types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not create the tables: %s", SPI_result_code_string(SPI_result));
}

/*
 * While an extension's script is running, the tables would become members of
 * that extension; prevent this, because they are the user's.
 */
static void
make_tables(const Tables *tables, int partitions)
{
	CreateTables create = {tables->schema_oid, partitions};
	bool		creating = creating_extension;

	creating_extension = false;
	PG_TRY();
	{
		tables_run_as(tables, call_make_tables, &create);
	}
	PG_FINALLY();
	{
		creating_extension = creating;
	}
	PG_END_TRY();
}

/* The names of the missing tables, or NULL. */
static char *
missing_tables(Oid schema)
{
	StringInfoData names;

	initStringInfo(&names);
	for (TableName table = 0; table < TABLE_COUNT; table++)
	{
		if (is_missing(schema, table))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 qualified(schema, rules[table].name));
	}
	return names.len > 0 ? names.data : NULL;
}

/*
 * Creates the missing tables, as the owner of the others if the current user
 * could become it.
 */
static void
create_missing(Tables *tables, Oid schema, int partitions)
{
	tables->run_as = GetUserId();
	tables->created = missing_tables(schema);
	if (tables->created == NULL)
		return;
	for (TableName table = 0; table < TABLE_COUNT && tables->run_as == GetUserId(); table++)
	{
		Oid			relid = get_relname_relid(rules[table].name, schema);

		if (OidIsValid(relid))
			choose_user(tables, owner_of(RELOID, relid, Anum_pg_class_relowner));
	}
	if (!compat_has_privilege(NamespaceRelationId, schema, tables->run_as, ACL_CREATE))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not create %s", role_name(tables->run_as),
						tables->created),
				 errdetail("The role lacks the CREATE privilege on schema \"%s\".",
						   schema_name(schema)),
				 errhint("Have a superuser or the schema's owner run SELECT %s(); and grant the role privileges on the tables.",
						 qualified(schema, "yelp_sync_create_tables"))));

	/* Others who create them wait until this transaction has ended */
	LockDatabaseObject(NamespaceRelationId, schema, 0, ShareUpdateExclusiveLock);
	tables->created = missing_tables(schema);
	tables->created_programs = is_missing(schema, PROGRAMS);
	if (tables->created)
		make_tables(tables, partitions);
}

void
tables_create(Oid schema, int partitions)
{
	Tables		tables = {.schema_oid = schema};
	Oid			programs = get_relname_relid(rules[PROGRAMS].name, schema);

	create_missing(&tables, schema, partitions);
	if (!OidIsValid(programs))
		return;
	if (partitions > 0)
		ereport(NOTICE,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table %s already exists, skipping", table_name(programs))));
	choose_user(&tables, owner_of(RELOID, programs, Anum_pg_class_relowner));
	if (is_table(programs) &&
		tables.run_as == owner_of(RELOID, programs, Anum_pg_class_relowner) &&
		!OidIsValid(get_trigger_oid(programs, EDIT_TRIGGER, true)))
		make_tables(&tables, 0);
}

/* ---- privileges ---- */

static bool
may_execute(Oid schema, const char *name, Oid role)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	List	   *oids = NIL;
	ListCell   *cell;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc function = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (function->pronamespace == schema)
			oids = lappend_oid(oids, function->oid);
	}
	ReleaseSysCacheList(list);
	foreach(cell, oids)
	{
		if (!compat_has_privilege(ProcedureRelationId, lfirst_oid(cell), role, ACL_EXECUTE))
			return false;
	}
	return true;
}

/* Raises an error that lists all privileges that the role lacks. */
static void
require_rights(Oid schema, TableName last, Oid role)
{
	const char *name = quote_identifier(role_name(role));
	StringInfoData grants;

	initStringInfo(&grants);
	if (!compat_has_privilege(NamespaceRelationId, schema, role, ACL_USAGE))
		appendStringInfo(&grants, " GRANT USAGE ON SCHEMA %s TO %s;",
						 quote_identifier(schema_name(schema)), name);
	for (TableName table = 0; table <= last; table++)
	{
		Oid			relid = get_relname_relid(rules[table].name, schema);

		if (OidIsValid(relid) &&
			pg_class_aclmask(relid, role, rules[table].rights, ACLMASK_ALL) != rules[table].rights)
			appendStringInfo(&grants, " GRANT %s ON %s TO %s;", rules[table].grant,
							 qualified(schema, rules[table].name), name);
	}
	for (int i = 0; i < (int) lengthof(functions); i++)
	{
		if (!may_execute(schema, functions[i], role))
			appendStringInfo(&grants, " GRANT EXECUTE ON FUNCTION %s TO %s;",
							 qualified(schema, functions[i]), name);
	}
	if (grants.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" lacks privileges that a sync needs", role_name(role)),
				 errhint("Run:%s", grants.data)));
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

/* ---- whose code ---- */

/* What is looked at */
typedef struct Code
{
	Tables	   *tables;
	Oid			owner;			/* of yelp_programs */
	List	   *relids;			/* the tables, partitions, and tables that
								 * cascade */
	List	   *seen;			/* functions, operators and types */
} Code;

/* A function or domain that something uses, for example a trigger. */
static void
check_code_owner(const Code *code, const ObjectAddress *object, const ObjectAddress *user)
{
	bool		function = object->classId == ProcedureRelationId;
	Oid			role = function ?
		owner_of(PROCOID, object->objectId, Anum_pg_proc_proowner) :
		owner_of(TYPEOID, object->objectId, Anum_pg_type_typowner);
	char	   *name = function ? format_procedure_qualified(object->objectId) :
		format_type_be_qualified(object->objectId);

	if (!is_trusted(code->tables, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s %s belongs to role \"%s\"", function ? "function" : "domain",
						name, role_name(role)),
				 errdetail("It is used by %s, and would run with the privileges of role \"%s\".",
						   getObjectDescription(user, false), role_name(code->tables->run_as)),
				 errhint("Check it, then run: ALTER %s %s OWNER TO %s; or drop what uses it.",
						 function ? "FUNCTION" : "DOMAIN", name,
						 quote_identifier(role_name(code->owner)))));
}

/*
 * What belongs to a table or domain (constraints, defaults, rules, indexes),
 * or else what an object calls, as a list of ObjectAddress *.  Built-in
 * functions, operators and types are not in pg_depend.
 */
static List *
find_dependencies(Code *code, const ObjectAddress *object, bool belongs)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	List	   *found = NIL;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], belongs ? Anum_pg_depend_refclassid : Anum_pg_depend_classid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object->classId));
	ScanKeyInit(&key[1], belongs ? Anum_pg_depend_refobjid : Anum_pg_depend_objid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object->objectId));
	scan = systable_beginscan(depend, belongs ? DependReferenceIndexId : DependDependerIndexId,
							  true, NULL, lengthof(key), key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);
		Oid			class = belongs ? row->classid : row->refclassid;
		Oid			id = belongs ? row->objid : row->refobjid;
		ObjectAddress *address = palloc(sizeof(ObjectAddress));

		if (belongs ? (row->deptype != DEPENDENCY_AUTO && row->deptype != DEPENDENCY_INTERNAL) ||
			(class != ConstraintRelationId && class != AttrDefaultRelationId &&
			 class != RewriteRelationId && class != RelationRelationId) ||
			list_member_oid(code->relids, id) :
			class != ProcedureRelationId && class != OperatorRelationId && class != TypeRelationId)
			continue;
		ObjectAddressSet(*address, class, id);
		found = lappend(found, address);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

/*
 * Checks whose functions an object calls, whatever it calls them through.
 * "user" is what shall be named in the error; NULL for a table.
 */
static void
check_code(Code *code, const ObjectAddress *object, const ObjectAddress *user)
{
	List	   *found = NIL;
	ListCell   *cell;

	check_stack_depth();
	if (object->classId == ProcedureRelationId ||
		(object->classId == TypeRelationId && get_typtype(object->objectId) == TYPTYPE_DOMAIN))
		check_code_owner(code, object, user);
	if (object->classId == RelationRelationId || object->classId == TypeRelationId)
		found = find_dependencies(code, object, true);
	found = list_concat(found, find_dependencies(code, object, false));
	foreach(cell, found)
	{
		const ObjectAddress *next = lfirst(cell);

		if (list_member_oid(code->seen, next->objectId))
			continue;
		if (next->classId != ConstraintRelationId && next->classId != RelationRelationId)
			code->seen = lappend_oid(code->seen, next->objectId);
		check_code(code, next, user ? user : next);
	}
}

/* A trigger on one of the tables. */
static void
check_trigger(Code *code, Form_pg_trigger trigger)
{
	Tables	   *tables = code->tables;
	char	   *name = pstrdup(NameStr(trigger->tgname));
	bool		ours = strcmp(name, EDIT_TRIGGER) == 0;
	ObjectAddress address;

	tables->heals |= ours && trigger->tgrelid == tables->programs &&
		trigger->tgenabled != TRIGGER_DISABLED;
	if (tables->restricted && trigger->tginitdeferred && trigger->tgenabled != TRIGGER_DISABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" on table %s is deferred", name,
						table_name(trigger->tgrelid)),
				 errdetail("It would run with the privileges of role \"%s\" when the transaction ends.",
						   role_name(GetUserId())),
				 errhint("Sync as role \"%s\".", role_name(code->owner))));

	/*
	 * Before PostgreSQL 18, a table that references ours and cascades runs
	 * its own triggers as the role that deletes our rows.
	 */
	if (!COMPAT_TRIGGERS_KEEP_ROLE && trigger->tgisinternal &&
		RI_FKey_trigger_type(trigger->tgfoid) == RI_TRIGGER_PK &&
		trigger->tgfoid != F_RI_FKEY_NOACTION_DEL && trigger->tgfoid != F_RI_FKEY_NOACTION_UPD &&
		trigger->tgfoid != F_RI_FKEY_RESTRICT_DEL && trigger->tgfoid != F_RI_FKEY_RESTRICT_UPD)
		code->relids = list_append_unique_oid(code->relids, trigger->tgconstrrelid);
	ObjectAddressSet(address, TriggerRelationId, trigger->oid);
	check_code(code, &address, &address);
}

/* The triggers on a table, as a list of HeapTuple. */
static List *
find_triggers(Oid relid)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	List	   *triggers = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		triggers = lappend(triggers, heap_copytuple(tuple));
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return triggers;
}

/*
 * Who may create triggers on the table?  Their conditions and arguments have
 * no owner, so those that exist are not told apart.
 */
static void
check_trigger_right(const Code *code, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = owner_of(RELOID, relid, Anum_pg_class_relowner);
	const char *table = table_name(relid);
	bool		isnull;
	Datum		datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	Acl		   *acl = isnull ? NULL : DatumGetAclPCopy(datum);

	ReleaseSysCache(tuple);
	for (int i = -1; i < (acl ? ACL_NUM(acl) : 0); i++)
	{
		Oid			role = i < 0 ? owner : ACL_DAT(acl)[i].ai_grantee;

		if ((i < 0 || ACL_DAT(acl)[i].ai_privs & ACL_TRIGGER) && !is_trusted(code->tables, role))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\" may create triggers on table %s", role_name(role), table),
					 errdetail("They would run with the privileges of role \"%s\".",
							   role_name(code->tables->run_as)),
					 i < 0 ? errhint("Check its triggers, then run: ALTER TABLE %s OWNER TO %s;",
									 table, quote_identifier(role_name(code->owner))) :
					 errhint("Check its triggers, then run: REVOKE TRIGGER ON %s FROM %s;",
							 table, OidIsValid(role) ? quote_identifier(role_name(role)) : "PUBLIC")));
	}
}

/*
 * The tables, their partitions and the function of our trigger must have the
 * same owner; all that have another are named.
 */
static void
require_one_owner(const Code *code, const List *triggers)
{
	const char *owner = quote_identifier(role_name(code->owner));
	StringInfoData alters;
	ListCell   *cell;

	initStringInfo(&alters);
	foreach(cell, code->relids)
	{
		if (owner_of(RELOID, lfirst_oid(cell), Anum_pg_class_relowner) != code->owner)
			appendStringInfo(&alters, " ALTER TABLE %s OWNER TO %s;",
							 table_name(lfirst_oid(cell)), owner);
	}
	foreach(cell, triggers)
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT((HeapTuple) lfirst(cell));

		if (trigger->tgrelid == code->tables->programs &&
			strcmp(NameStr(trigger->tgname), EDIT_TRIGGER) == 0 &&
			owner_of(PROCOID, trigger->tgfoid, Anum_pg_proc_proowner) != code->owner)
			appendStringInfo(&alters, " ALTER FUNCTION %s OWNER TO %s;",
							 format_procedure_qualified(trigger->tgfoid), owner);
	}
	if (alters.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("not all tables of yelp_sync belong to role \"%s\", the owner of yelp_programs",
						role_name(code->owner)),
				 errdetail("Other owners could have code run with the privileges of role \"%s\".",
						   role_name(code->tables->run_as)),
				 errhint("Check what they are, then run:%s", alters.data)));
}

/*
 * Looks at all code that writing to the tables may run.  "relids" are those
 * tables and their partitions.
 */
static void
check_tables(Tables *tables, Oid owner, List *relids)
{
	Code		code = {tables, owner, relids, NIL};
	List	   *triggers = NIL;
	ListCell   *cell;

	if (tables->run_as != owner && !is_trusted(tables, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table %s belongs to role \"%s\"", table_name(tables->programs),
						role_name(owner)),
				 errdetail("Its triggers, rules and defaults would run with the privileges of role \"%s\".",
						   role_name(tables->run_as)),
				 errhint("Sync as its owner or a member of that role, or have a superuser check it and run: ALTER TABLE %s OWNER TO ...;",
						 table_name(tables->programs))));
	foreach(cell, relids)
		triggers = list_concat(triggers, find_triggers(lfirst_oid(cell)));
	require_one_owner(&code, triggers);
	foreach(cell, triggers)
		check_trigger(&code, (Form_pg_trigger) GETSTRUCT((HeapTuple) lfirst(cell)));

	/* Tables that reference ours may have been appended, and append others */
	for (int i = list_length(relids); i < list_length(code.relids); i++)
	{
		foreach(cell, find_triggers(list_nth_oid(code.relids, i)))
			check_trigger(&code, (Form_pg_trigger) GETSTRUCT((HeapTuple) lfirst(cell)));
	}
	foreach(cell, code.relids)
	{
		ObjectAddress address;

		ObjectAddressSet(address, RelationRelationId, lfirst_oid(cell));
		check_trigger_right(&code, lfirst_oid(cell));
		check_code(&code, &address, NULL);
	}
	/* A trigger on a parent becomes one on each partition */
	if (get_rel_relispartition(tables->programs))
	{
		foreach(cell, get_partition_ancestors(tables->programs))
			check_trigger_right(&code, lfirst_oid(cell));
	}
}

/* ---- columns ---- */

typedef struct Column
{
	const char *name;
	Oid			type;
} Column;

/*
 * Those of yelp_programs that a sync uses, in addition to yelp_sync_values.
 * Those of the other tables decide nothing: see history.h.
 */
static const Column columns[] =
{
	{"username", TEXTOID}, {"program_id", TEXTOID}, {"data", JSONBOID},
	{"fingerprint", INT8OID}, {"gone_at", TIMESTAMPTZOID},
	{"created_at", TIMESTAMPTZOID}, {"updated_at", TIMESTAMPTZOID}
};

/*
 * A column that was renamed, dropped or retyped is found before anything is
 * fetched.  Equal keys must be the same text, or programs would be mistaken
 * for others.
 */
static void
check_column(Oid relid, const char *name, Oid type)
{
	const char *table = table_name(relid);
	const char *quoted = quote_identifier(name);
	AttrNumber	number = get_attnum(relid, name);
	Oid			found;
	int32		typmod;
	Oid			collation;

	if (number == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table %s does not exist", name, table),
				 errhint("If it was renamed, run: ALTER TABLE %s RENAME ... TO %s;",
						 table, quoted)));
	get_atttypetypmodcoll(relid, number, &found, &typmod, &collation);
	if (found != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table %s has type %s instead of %s", name, table,
						format_type_be(found), format_type_be(type)),
				 errhint("Run: ALTER TABLE %s ALTER %s TYPE %s;", table, quoted,
						 format_type_be(type))));
	if ((strcmp(name, "username") == 0 || strcmp(name, "program_id") == 0) &&
		!get_collation_isdeterministic(collation))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of table %s has a nondeterministic collation", name, table),
				 errhint("Run: ALTER TABLE %s ALTER %s TYPE text COLLATE \"C\";", table, quoted)));
}

/* ---- the tables of a sync ---- */

/*
 * Locks the table with its partitions, and adds them to the list.  Other
 * tables that inherit from it are not used.
 */
static Oid
lock_table(Oid schema, TableName table, LOCKMODE mode, List **relids)
{
	char	   *name = pstrdup(rules[table].name);
	Oid			relid = RangeVarGetRelid(makeRangeVar(schema_name(schema), name, -1), mode, false);

	if (!is_table(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", qualified(schema, name)),
				 errhint("Rename it, and a table will be created in its place.")));
	*relids = get_rel_relkind(relid) == RELKIND_RELATION ? lappend_oid(*relids, relid) :
		list_concat(*relids, find_all_inheritors(relid, mode, NULL));
	return relid;
}

/* On a worker, Citus refuses to create tables, and the account lock is local. */
static void
reject_citus_worker(void)
{
	if (OidIsValid(get_relname_relid("pg_dist_local_group", PG_CATALOG_NAMESPACE)) &&
		tables_query("SELECT FROM pg_dist_local_group WHERE groupid <> 0", 0, NULL, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a sync cannot run on a worker node of Citus"),
				 errhint("Sync on the coordinator.")));
}

/* Does Citus plan the statements on the table? */
static bool
is_distributed(Oid relid)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};

	return OidIsValid(get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE)) &&
		tables_query("SELECT FROM pg_dist_partition WHERE logicalrelid = $1::regclass",
					 lengthof(types), types, values) > 0;
}

/* The install script defines the other columns of yelp_programs as a type. */
static TupleDesc
filled_columns(Oid schema)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum("yelp_sync_values"),
									   ObjectIdGetDatum(schema));

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type %s does not exist", qualified(schema, "yelp_sync_values")),
				 errhint("The extension yelp_sync may have been dropped.")));
	return lookup_rowtype_tupdesc_copy(type, -1);
}

Tables
tables_prepare(Oid schema, bool changes, LOCKMODE mode)
{
	Tables		tables = {.schema_oid = schema, .schema = quote_identifier(schema_name(schema))};
	TableName	last = changes ? CHANGES : RUNS;
	Oid			relids[TABLE_COUNT];
	List	   *locked = NIL;
	Oid			owner;

	reject_citus_worker();
	for (TableName table = 0; table <= last; table++)
	{
		if (is_missing(schema, table))
			create_missing(&tables, schema, 0);
	}
	/* Whoever has no privileges must not hold a lock, either */
	require_rights(schema, last, GetUserId());
	for (TableName table = 0; table <= last; table++)
		relids[table] = lock_table(schema, table, mode, &locked);
	tables.programs = relids[PROGRAMS];
	tables.partitioned = get_rel_relkind(tables.programs) == RELKIND_PARTITIONED_TABLE;
	tables.distributed = is_distributed(tables.programs);
	tables.filled = filled_columns(schema);

	owner = owner_of(RELOID, tables.programs, Anum_pg_class_relowner);
	choose_user(&tables, owner);
	for (TableName table = 0; table <= last; table++)
		reject_row_security(&tables, relids[table]);
	for (int i = 0; i < (int) lengthof(columns); i++)
		check_column(tables.programs, columns[i].name, columns[i].type);
	for (int i = 0; i < tables.filled->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(tables.filled, i);

		if (!column->attisdropped)
			check_column(tables.programs, NameStr(column->attname), column->atttypid);
	}
	check_tables(&tables, owner, locked);
	require_rights(schema, last, tables.run_as);
	return tables;
}

const char *
tables_readable(Tables *tables, const char *name)
{
	Oid			relid = get_relname_relid(name, tables->schema_oid);
	Oid			owner;

	if (!is_table(relid) ||
		pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return NULL;
	LockRelationOid(relid, AccessShareLock);
	if (get_relname_relid(name, tables->schema_oid) != relid)
		return NULL;
	owner = owner_of(RELOID, relid, Anum_pg_class_relowner);
	if (!OidIsValid(tables->run_as))
		choose_user(tables, owner);
	return tables->run_as == owner || is_trusted(tables, owner) ? table_name(relid) : NULL;
}
