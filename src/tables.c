/*
 * tables.c
 *	  Create the tables that a sync writes to, find them, and check that they
 *	  can be used.
 *
 * The tables are not members of the extension.  They belong to the role that
 * created them, so that pg_dump dumps them with everything that users added,
 * and DROP EXTENSION keeps them.  The install script defines how they are
 * created; this file decides when.
 *
 * The owner of a table can have code run with the privileges of the role that
 * syncs (triggers, rules, policies, defaults), and anybody with CREATE on the
 * extension's schema can create a table of that name first.  Therefore the
 * owner must be trusted with servers (account.c), or be the owner of the
 * schema, who could replace the function that was called.  Superusers, who
 * have more to lose, do not trust the latter.
 */
#include "postgres.h"

#include "tables.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/plancat.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "account.h"
#include "compat.h"
#include "row_security.h"

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
} TableRule;

static const TableRule rules[] =
{
	[PROGRAMS] = {"yelp_programs", ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE},
	[RUNS] = {"yelp_sync_runs", ACL_SELECT | ACL_INSERT},
	[CHANGES] = {"yelp_program_changes", ACL_INSERT},
};

StaticAssertDecl(lengthof(rules) == TABLE_COUNT, "each table has a rule");

/* Our trigger on yelp_programs */
#define EDIT_TRIGGER "yelp_programs_edited"

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

/* ---- ownership ---- */

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
is_trusted(Oid owner, Oid schema)
{
	if (account_trusts(owner))
		return true;
	return !superuser() &&
		has_privs_of_role(owner, owner_of(NAMESPACEOID, schema, Anum_pg_namespace_nspowner));
}

static void
reject_untrusted(const char *table, Oid owner)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("table %s belongs to role \"%s\"", table,
					GetUserNameFromId(owner, false)),
			 errdetail("Only tables owned by the current user, a superuser, the extension's owner or, unless the current user is a superuser, the schema's owner are used, because a table's triggers, rules and defaults run with the privileges of the role that syncs."),
			 errhint("Check its triggers, rules and defaults, then have a superuser change its owner: ALTER TABLE %s OWNER TO ...; or rename it, and a new one is created.",
					 table)));
}

static void
reject_untrusted_trigger(const Trigger *trigger, const char *table, Oid owner)
{
	char	   *function = format_procedure_qualified(trigger->tgfoid);

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("trigger \"%s\" on table %s executes a function that belongs to role \"%s\"",
					trigger->tgname, table, GetUserNameFromId(owner, false)),
			 errdetail("The owner could change the function, which runs with the privileges of the role that syncs."),
			 errhint("Check the function, then have a superuser change its owner: ALTER FUNCTION %s OWNER TO ...; or drop the trigger.",
					 function)));
}

/* ---- finding tables ---- */

/* The schema-qualified, quoted name of the table. */
static char *
qualified(Oid schema, const char *name)
{
	return quote_qualified_identifier(schema_name(schema), name);
}

static bool
is_missing(Oid schema, TableName table)
{
	return !OidIsValid(get_relname_relid(rules[table].name, schema));
}

/* The table, if it may be used; locks it so that it cannot be dropped. */
static Oid
find_table(Oid schema, TableName table)
{
	char	   *name = qualified(schema, rules[table].name);
	RangeVar   *reference = makeRangeVar(schema_name(schema), pstrdup(rules[table].name), -1);
	Oid			relid = RangeVarGetRelid(reference, AccessShareLock, false);
	char		relkind = get_rel_relkind(relid);
	Oid			owner = owner_of(RELOID, relid, Anum_pg_class_relowner);

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", name),
				 errhint("Rename it, and a table will be created in its place.")));
	if (!is_trusted(owner, schema))
		reject_untrusted(name, owner);
	return relid;
}

/* ---- creating tables ---- */

static void
require_create_right(Oid schema, const char *name)
{
	if (compat_schema_create(schema, GetUserId()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("table %s does not exist, and role \"%s\" may not create it",
					qualified(schema, name), GetUserNameFromId(GetUserId(), false)),
			 errdetail("The role lacks the CREATE privilege on schema \"%s\".",
					   schema_name(schema)),
			 errhint("Have a superuser or the schema's owner run SELECT %s(); and grant the role privileges on the tables.",
					 qualified(schema, "yelp_sync_create_tables"))));
}

static void
call_make_tables(Oid schema, int partitions)
{
	Oid			types[] = {NAMEOID, INT4OID};
	Datum		values[] = {
		CStringGetDatum(schema_name(schema)),
		Int32GetDatum(partitions)
	};
	char		nulls[] = {' ', partitions > 0 ? ' ' : 'n'};
	char	   *sql = psprintf("SELECT %s($1, $2)",
							   qualified(schema, "yelp_sync_make_tables"));

	if (SPI_execute_with_args(sql, lengthof(types), types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not create the tables: %s", SPI_result_code_string(SPI_result));
}

/*
 * While an extension's script is running, the tables would become members of
 * that extension; prevent this, because they are the user's.
 */
static void
make_tables(Oid schema, int partitions)
{
	bool		creating = creating_extension;

	creating_extension = false;
	PG_TRY();
	{
		call_make_tables(schema, partitions);
	}
	PG_FINALLY();
	{
		creating_extension = creating;
	}
	PG_END_TRY();
}

/*
 * Only one session creates tables at a time: others wait until its
 * transaction has ended, and check again.
 */
void
tables_create(Oid schema, int partitions)
{
	bool		complete = true;

	LockDatabaseObject(NamespaceRelationId, schema, 0, ShareUpdateExclusiveLock);
	for (TableName table = 0; table < TABLE_COUNT; table++)
	{
		if (!is_missing(schema, table))
			find_table(schema, table);
		else
		{
			require_create_right(schema, rules[table].name);
			complete = false;
		}
	}
	if (partitions > 0 && !is_missing(schema, PROGRAMS))
		ereport(NOTICE,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table %s already exists, skipping",
						qualified(schema, rules[PROGRAMS].name))));
	if (!complete)
		make_tables(schema, partitions);
}

/* ---- requirements of a sync ---- */

/* Equal keys must be the same text, or programs would be mistaken for others. */
static void
check_collation(Oid relid, const char *column, const char *table)
{
	AttrNumber	number = get_attnum(relid, column);
	Oid			type;
	int32		typmod;
	Oid			collation;

	if (number == InvalidAttrNumber)
		return;
	get_atttypetypmodcoll(relid, number, &type, &typmod, &collation);
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of table %s has a nondeterministic collation",
						column, table),
				 errhint("Change it: ALTER TABLE %s ALTER %s TYPE text COLLATE \"C\";",
						 table, column)));
}

/*
 * Checks who owns the functions of the table's triggers; returns whether
 * there are any but ours.
 */
static bool
check_triggers(Oid relid, Oid schema)
{
	Relation	table = table_open(relid, AccessShareLock);
	const TriggerDesc *triggers = table->trigdesc;
	bool		found = false;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];
		Oid			owner = owner_of(PROCOID, trigger->tgfoid, Anum_pg_proc_proowner);

		if (!is_trusted(owner, schema))
			reject_untrusted_trigger(trigger,
									 qualified(RelationGetNamespace(table),
											   RelationGetRelationName(table)),
									 owner);
		found |= !trigger->tgisinternal && strcmp(trigger->tgname, EDIT_TRIGGER) != 0;
	}
	table_close(table, NoLock);
	return found;
}

/* The table and its partitions, locked; not other tables that inherit from it. */
static List *
with_partitions(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, AccessShareLock, NULL) : list_make1_oid(relid);
}

/* The same for the table with its partitions. */
static bool
check_all_triggers(Oid relid, Oid schema)
{
	List	   *relids = with_partitions(relid);
	bool		found = false;
	ListCell   *cell;

	foreach(cell, relids)
		found |= check_triggers(lfirst_oid(cell), schema);
	return found;
}

/*
 * The table, if the current user has the necessary privileges; also returns
 * whether row-level security applies.
 */
static Oid
prepare_table(Oid schema, TableName table, bool *row_security)
{
	Oid			relid = find_table(schema, table);
	AclMode		rights = rules[table].rights;

	if (pg_class_aclmask(relid, GetUserId(), rights, ACLMASK_ALL) != rights)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, rules[table].name);
	*row_security = row_security_applies(relid, rights);
	check_collation(relid, "username", qualified(schema, rules[table].name));
	check_collation(relid, "program_id", qualified(schema, rules[table].name));
	return relid;
}

/* Functions that the merge calls with the current user's privileges */
static void
require_functions(Oid schema)
{
	static const char *const names[] = {
		"yelp_sync_columns", "yelp_sync_changed", "yelp_sync_picked"
	};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP,
											   CStringGetDatum(names[i]));

		for (int j = 0; j < list->n_members; j++)
		{
			Form_pg_proc function = (Form_pg_proc) GETSTRUCT(&list->members[j]->tuple);

			if (function->pronamespace == schema &&
				!compat_function_execute(function->oid, GetUserId()))
				aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, names[i]);
		}
		ReleaseSysCacheList(list);
	}
}

/* The install script defines these columns as a type. */
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
tables_prepare(Oid schema, bool changes)
{
	Tables		tables = {.schema = quote_identifier(schema_name(schema))};
	bool		row_security;

	if (is_missing(schema, PROGRAMS) || is_missing(schema, RUNS) ||
		(changes && is_missing(schema, CHANGES)))
		tables_create(schema, 0);
	tables.programs = prepare_table(schema, PROGRAMS, &tables.row_security);
	tables.partitioned = get_rel_relkind(tables.programs) == RELKIND_PARTITIONED_TABLE;
	tables.filled = filled_columns(schema);
	tables.triggers = check_all_triggers(tables.programs, schema);
	tables.runs = prepare_table(schema, RUNS, &row_security);
	check_all_triggers(tables.runs, schema);
	if (changes)
		check_all_triggers(prepare_table(schema, CHANGES, &row_security), schema);
	require_functions(schema);
	return tables;
}

double
tables_estimate_programs(const Tables *tables)
{
	List	   *relids = with_partitions(tables->programs);
	double		programs = 0;
	ListCell   *cell;

	foreach(cell, relids)
	{
		Relation	table = table_open(lfirst_oid(cell), NoLock);
		BlockNumber pages;
		double		tuples;
		double		all_visible;

		estimate_rel_size(table, NULL, &pages, &tuples, &all_visible);
		programs += Max(tuples, 0);	/* -1: unknown */
		table_close(table, NoLock);
	}
	return programs;
}
