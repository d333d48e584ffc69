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
 * Nothing here keeps a pointer into a cache over another look-up, unless it is
 * pinned.
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
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "statement.h"

/* The tables; the last one is needed only if changes are recorded */
static const struct
{
	const char *name;
	AclMode		rights;			/* needed by a sync */
	const char *grant;			/* the same, in SQL */
}			rules[] =

{
	{"yelp_programs", ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE, "SELECT, INSERT, UPDATE, DELETE"},
	{"yelp_sync_runs", ACL_SELECT | ACL_INSERT, "SELECT, INSERT"},
	{"yelp_program_changes", ACL_INSERT, "INSERT"}
};

#define PROGRAMS (rules[0].name)
#define TABLE_COUNT(changes) ((int) lengthof(rules) - !(changes))

/* Functions that a sync calls */
static const char *const functions[] = {
	"yelp_sync_columns", "yelp_sync_changed", "yelp_sync_picked"
};

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

/* The owner of an object in this catalog. */
static Oid
owner_of(Oid catalog, Oid object)
{
	int			cache = get_object_catcache_oid(catalog);
	HeapTuple	tuple = SearchSysCache1(cache, ObjectIdGetDatum(object));
	bool		isnull;
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("an object that a sync uses was dropped by another session")));
	owner = DatumGetObjectId(SysCacheGetAttr(cache, tuple, get_object_attnum_owner(catalog),
											 &isnull));
	ReleaseSysCache(tuple);
	return owner;
}

static Oid
table_owner(Oid relid)
{
	return owner_of(RelationRelationId, relid);
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
	return OidIsValid(role) ? GetUserNameFromId(role, false) : "public";
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

/*
 * Does the role that statements run as trust the other one?  Superusers, who
 * have more to lose, do not trust the schema's owner.
 */
static bool
is_trusted(const Tables *tables, Oid role)
{
	return compat_can_set_role(role, tables->run_as) ||
		(!superuser_arg(tables->run_as) &&
		 has_privs_of_role(role, owner_of(NamespaceRelationId, tables->schema_oid)));
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
		if (!OidIsValid(get_relname_relid(rules[i].name, schema)))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 qualified(schema, rules[i].name));
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
		Oid			relid = get_relname_relid(rules[i].name, schema);

		if (OidIsValid(relid))
			choose_user(&creator, table_owner(relid));
	}
	if (!compat_has_privilege(NamespaceRelationId, schema, creator.run_as, ACL_CREATE))
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

/* ---- privileges ---- */

static bool
may_execute(Oid schema, const char *name, Oid role)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	bool		may = true;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc function = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (function->pronamespace == schema)
			may &= compat_has_privilege(ProcedureRelationId, function->oid, role, ACL_EXECUTE);
	}
	ReleaseSysCacheList(list);
	return may;
}

/* Raises an error that lists all privileges that the role lacks. */
static void
require_rights(Oid schema, bool changes, Oid role)
{
	const char *name = quote_identifier(role_name(role));
	StringInfoData grants;

	initStringInfo(&grants);
	if (!compat_has_privilege(NamespaceRelationId, schema, role, ACL_USAGE))
		appendStringInfo(&grants, " GRANT USAGE ON SCHEMA %s TO %s;",
						 quote_identifier(schema_name(schema)), name);
	for (int i = 0; i < TABLE_COUNT(changes); i++)
	{
		Oid			relid = get_relname_relid(rules[i].name, schema);

		if (OidIsValid(relid) &&
			pg_class_aclmask(relid, role, rules[i].rights, ACLMASK_ALL) != rules[i].rights)
			appendStringInfo(&grants, " GRANT %s ON %s TO %s;", rules[i].grant,
							 qualified(schema, rules[i].name), name);
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
	ObjectAddresses *seen;
} Code;

/* Whose is a function or type that something else uses, such as a trigger? */
static void
check_code_owner(const Code *code, const ObjectAddress *object, const ObjectAddress *user)
{
	Oid			role = owner_of(object->classId, object->objectId);
	const char *name = getObjectIdentity(object, false);

	if (!is_trusted(code->tables, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s %s belongs to role \"%s\"", getObjectTypeDescription(object, false),
						name, role_name(role)),
				 errdetail("It is used by %s, and would run with the privileges of role \"%s\".",
						   getObjectDescription(user, false), role_name(code->tables->run_as)),
				 errhint("Check it, then run: ALTER %s %s OWNER TO %s; or drop what uses it.",
						 object->classId == ProcedureRelationId ? "FUNCTION" : "TYPE", name,
						 quote_identifier(role_name(code->owner)))));
}

/*
 * Does an object of this class belong to a table or type, and run code?
 * Partitions do not: those that matter are looked at by themselves.
 */
static bool
is_part(Form_pg_depend row)
{
	return (row->deptype == DEPENDENCY_AUTO || row->deptype == DEPENDENCY_INTERNAL) &&
		(row->classid == ConstraintRelationId || row->classid == AttrDefaultRelationId ||
		 row->classid == RewriteRelationId || row->classid == StatisticExtRelationId ||
		 (row->classid == RelationRelationId && !is_table(row->objid)));
}

/*
 * Checks whose functions an object calls, whatever it calls them through: its
 * constraints, defaults, rules, indexes and statistics (both of which the
 * planner evaluates), operators and types.  What is built in is not in
 * pg_depend.  "user" is what shall be named in the error; NULL for a table.
 */
static void
check_code(Code *code, ObjectAddress object, const ObjectAddress *user)
{
	bool		has_parts = object.classId == RelationRelationId ||
	object.classId == TypeRelationId;
	Relation	depend;

	check_stack_depth();
	if (object_address_present(&object, code->seen))
		return;
	add_exact_object_address(&object, code->seen);
	/* The owner of a type may create casts; that of an array has the element */
	if (object.classId == ProcedureRelationId ||
		(object.classId == TypeRelationId && get_typtype(object.objectId) != TYPTYPE_BASE))
		check_code_owner(code, &object, user);
	depend = table_open(DependRelationId, AccessShareLock);
	for (int parts = 0; parts <= has_parts; parts++)
	{
		ScanKeyData key[2];
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&key[0], parts ? Anum_pg_depend_refclassid : Anum_pg_depend_classid,
					BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object.classId));
		ScanKeyInit(&key[1], parts ? Anum_pg_depend_refobjid : Anum_pg_depend_objid,
					BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object.objectId));
		scan = systable_beginscan(depend,
								  parts ? DependReferenceIndexId : DependDependerIndexId,
								  true, NULL, lengthof(key), key);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);
			ObjectAddress next;

			if (parts)
				ObjectAddressSet(next, row->classid, row->objid);
			else
				ObjectAddressSet(next, row->refclassid, row->refobjid);
			if (parts ? is_part(row) :
				next.classId == ProcedureRelationId || next.classId == OperatorRelationId ||
				next.classId == TypeRelationId)
				check_code(code, next, user ? user : parts ? &next : &object);
		}
		systable_endscan(scan);
	}
	table_close(depend, AccessShareLock);
}

/* The triggers on a table, as the relation cache has them; NULL: none. */
static TriggerDesc *
copy_triggers(Oid relid)
{
	Relation	relation = RelationIdGetRelation(relid);
	TriggerDesc *triggers = relation ? CopyTriggerDesc(relation->trigdesc) : NULL;

	if (relation)
		RelationClose(relation);
	return triggers;
}

/*
 * A deferred trigger on the history would fail the sync when it commits, so
 * these run with the rows that they are for.  Only a foreign key of the changes
 * must wait: a change may reference its run, which is added last.
 */
static void
add_deferred(Tables *tables, Oid relid, const Trigger *trigger)
{
	const char *table = get_rel_name(relid);
	int			kind = RI_FKey_trigger_type(trigger->tgfoid);

	if (trigger->tginitdeferred && kind != RI_TRIGGER_PK &&
		(strcmp(table, "yelp_sync_runs") == 0 ||
		 (strcmp(table, "yelp_program_changes") == 0 && kind != RI_TRIGGER_FK)))
		tables->deferred = psprintf("%s%s%s.%s", tables->deferred ? tables->deferred : "",
									tables->deferred ? ", " : "", tables->schema,
									quote_identifier(get_constraint_name(trigger->tgconstraint)));
}

static void
check_trigger(Code *code, Oid relid, const Trigger *trigger)
{
	ObjectAddress address;

	add_deferred(code->tables, relid, trigger);
	if (code->tables->restricted && trigger->tginitdeferred &&
		trigger->tgenabled != TRIGGER_DISABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" on table %s is deferred", trigger->tgname,
						table_name(relid)),
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
		code->relids = list_concat_unique_oid(code->relids,
											  find_all_inheritors(trigger->tgconstrrelid, NoLock, NULL));
	ObjectAddressSet(address, TriggerRelationId, trigger->tgoid);
	check_code(code, address, &address);
}

/*
 * Who may create triggers on the table?  Their conditions and arguments have
 * no owner, so those that exist are not told apart.
 */
static void
check_trigger_right(const Code *code, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = table_owner(relid);
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
require_one_owner(Code *code, Oid programs)
{
	const char *owner = quote_identifier(role_name(code->owner));
	TriggerDesc *triggers = copy_triggers(programs);
	StringInfoData alters;
	ListCell   *cell;

	initStringInfo(&alters);
	foreach(cell, code->relids)
	{
		if (table_owner(lfirst_oid(cell)) != code->owner)
			appendStringInfo(&alters, " ALTER TABLE %s OWNER TO %s;",
							 table_name(lfirst_oid(cell)), owner);
	}
	for (int i = 0; i < (triggers ? triggers->numtriggers : 0); i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (strcmp(trigger->tgname, EDIT_TRIGGER) != 0)
			continue;
		code->tables->heals = trigger->tgenabled != TRIGGER_DISABLED;
		if (owner_of(ProcedureRelationId, trigger->tgfoid) != code->owner)
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
 * Looks at all code that writing to the tables, or reading them, may run.
 * "relids" are those tables and their partitions.
 */
static void
check_tables(Tables *tables, Oid programs, List *relids, bool writing)
{
	Code		code = {tables, table_owner(programs), relids, new_object_addresses()};
	ListCell   *cell;

	if (!is_trusted(tables, code.owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table %s belongs to role \"%s\"", table_name(programs),
						role_name(code.owner)),
				 errdetail("Its triggers, rules and defaults would run with the privileges of role \"%s\".",
						   role_name(tables->run_as)),
				 errhint("Sync as its owner or a member of that role, or have a superuser check it and run: ALTER TABLE %s OWNER TO ...;",
						 table_name(programs))));
	require_one_owner(&code, programs);
	/* Parents and tables that reference ours are appended, and append others */
	for (int i = 0; i < list_length(code.relids); i++)
	{
		Oid			relid = list_nth_oid(code.relids, i);
		TriggerDesc *triggers = writing ? copy_triggers(relid) : NULL;

		/* A parent's trigger becomes a partition's own, its key a constraint */
		if (get_rel_relispartition(relid))
			code.relids = list_concat_unique_oid(code.relids, get_partition_ancestors(relid));
		for (int j = 0; j < (triggers ? triggers->numtriggers : 0); j++)
			check_trigger(&code, relid, &triggers->triggers[j]);
	}
	foreach(cell, code.relids)
	{
		ObjectAddress address;

		ObjectAddressSet(address, RelationRelationId, lfirst_oid(cell));
		if (writing)
			check_trigger_right(&code, lfirst_oid(cell));
		check_code(&code, address, NULL);
	}
}

/* ---- columns ---- */

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

/*
 * The columns of yelp_programs that a sync uses.  Those that are filled from a
 * program's document are defined by the install script, as a type.  The
 * columns of the other tables decide nothing: see history.h.
 */
static char *
check_columns(Oid schema, Oid programs)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum("yelp_sync_values"),
									   ObjectIdGetDatum(schema));
	TupleDesc	filled = lookup_rowtype_tupdesc_copy(type, -1);
	StringInfoData list;

	check_column(programs, "username", TEXTOID);
	check_column(programs, "program_id", TEXTOID);
	check_column(programs, "data", JSONBOID);
	check_column(programs, "fingerprint", INT8OID);
	check_column(programs, "gone_at", TIMESTAMPTZOID);
	check_column(programs, "created_at", TIMESTAMPTZOID);
	check_column(programs, "updated_at", TIMESTAMPTZOID);
	initStringInfo(&list);
	for (int i = 0; i < filled->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(filled, i);

		if (column->attisdropped)
			continue;
		check_column(programs, NameStr(column->attname), column->atttypid);
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
						 quote_identifier(NameStr(column->attname)));
	}
	return list.data;
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
	Oid			relids[lengthof(rules)];
	List	   *locked = NIL;

	if (missing_tables(schema, TABLE_COUNT(changes)))
		create_missing(&tables, 0);
	/* Whoever has no privileges must not hold a lock, either */
	require_rights(schema, changes, GetUserId());
	for (int i = 0; i < TABLE_COUNT(changes); i++)
		relids[i] = lock_table(schema, rules[i].name, mode, &locked);
	choose_user(&tables, table_owner(relids[0]));
	for (int i = 0; i < TABLE_COUNT(changes); i++)
		reject_row_security(&tables, relids[i]);
	tables.partitioned = get_rel_relkind(relids[0]) == RELKIND_PARTITIONED_TABLE;
	tables.distributed = is_distributed(relids[0]);
	tables.columns = check_columns(schema, relids[0]);
	check_tables(&tables, relids[0], locked, true);
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
	if (!is_trusted(tables, table_owner(relid)))
		return NULL;
	check_tables(tables, relid, locked, false);
	return table_name(relid);
}
