/*
 * yelp_sync.c
 *	  Settings and SQL entry points.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "account.h"
#include "history.h"
#include "progress.h"
#include "sync.h"
#include "tables.h"

/* Symbols needed by the server; all others stay private to the library */
#pragma GCC visibility push(default)

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(yelp_sync);
PG_FUNCTION_INFO_V1(yelp_sync_accounts);
PG_FUNCTION_INFO_V1(yelp_sync_account_status);
PG_FUNCTION_INFO_V1(yelp_sync_add_account);
PG_FUNCTION_INFO_V1(yelp_sync_all);
PG_FUNCTION_INFO_V1(yelp_sync_create_tables);
PG_FUNCTION_INFO_V1(yelp_sync_running);
PG_FUNCTION_INFO_V1(yelp_sync_validator);

void		_PG_init(void);

#pragma GCC visibility pop

static const struct config_enum_entry progress_formats[] = {
	{"off", PROGRESS_OFF, false},
	{"text", PROGRESS_TEXT, false},
	{"json", PROGRESS_JSON, false},
	{NULL, 0, false}
};

void
_PG_init(void)
{
	DefineCustomEnumVariable("yelp_sync.progress",
							 "Sets the format in which syncs report their progress.",
							 NULL,
							 &progress_format,
							 PROGRESS_TEXT,
							 progress_formats,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("yelp_sync.log_syncs",
							 "Logs each sync that reaches its end.",
							 NULL,
							 &sync_log,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	MarkGUCPrefixReserved("yelp_sync");
}

/* ---- syncs ---- */

/*
 * JSON is UTF-8, and so is everything that comes from the API.  CREATE
 * EXTENSION calls the validator, and so fails.
 */
static void
require_utf8(void)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("yelp_sync needs a database whose encoding is UTF8"),
				 errdetail("The encoding of this database is %s.", GetDatabaseEncodingName()),
				 errhint("Run: CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8';")));
}

/*
 * Citus creates tables on the coordinator only, and the account's lock and its
 * user mapping are those of one node.
 */
static void
reject_citus_worker(void)
{
	Oid			relid = get_relname_relid("pg_dist_local_group", PG_CATALOG_NAMESPACE);
	Relation	catalog = OidIsValid(relid) ? table_open(relid, AccessShareLock) : NULL;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	if (catalog == NULL)
		return;
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	tuple = systable_getnext(scan);
	/* The group of the node is 0 on the coordinator */
	if (HeapTupleIsValid(tuple) &&
		DatumGetInt32(heap_getattr(tuple, 1, RelationGetDescr(catalog), &isnull)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a sync cannot run on a worker node of Citus"),
				 errhint("Sync on the coordinator.  Citus may send a query that joins yelp_sync() with a distributed table to a worker: use two statements.")));
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/* Checks that a sync can be stored, before anything is fetched. */
static void
require_writable(const char *function)
{
	require_utf8();
	reject_citus_worker();
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
	if (!IsUnderPostmaster)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be called in single-user mode", function)));
}

/* The extension's schema, which is that of the function. */
static Oid
schema_of(FunctionCallInfo fcinfo)
{
	return get_func_namespace(fcinfo->flinfo->fn_oid);
}

/* yelp_sync(username text) returns table (action text, program_id text, changed text[]) */
Datum
yelp_sync(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("username must not be null")));
	require_writable("yelp_sync()");
	InitMaterializedSRF(fcinfo, 0);
	sync_account(text_to_cstring(PG_GETARG_TEXT_PP(0)), schema_of(fcinfo),
				 (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

/* The username, then more of them; or the whole array. */
static List *
usernames_of(FunctionCallInfo fcinfo)
{
	List	   *usernames = NIL;
	int			last = PG_NARGS() - 1;
	Datum	   *elements = NULL;
	bool	   *nulls = NULL;
	int			count = 0;

	if (last > 0)
		usernames = list_make1(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!PG_ARGISNULL(last))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(last), TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		usernames = lappend(usernames, nulls[i] ? NULL : TextDatumGetCString(elements[i]));
	if (list_member_ptr(usernames, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("username must not be null")));
	return usernames;
}

/* The procedure commits, which must be allowed by its caller. */
static void
require_no_transaction(FunctionCallInfo fcinfo)
{
	if (IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("yelp_sync_all() cannot run inside a subtransaction"),
				 errhint("Call it outside of the EXCEPTION block or savepoint; it catches the errors of each account itself.")));
	if (fcinfo->context && IsA(fcinfo->context, CallContext) &&
		!((CallContext *) fcinfo->context)->atomic)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 InLocalUserIdChange() ?
			 errmsg("yelp_sync_all() cannot run inside a SECURITY DEFINER procedure") :
			 errmsg("yelp_sync_all() cannot run inside a transaction block"),
			 InLocalUserIdChange() ?
			 errhint("Call it as the role that has the accounts, or use SELECT yelp_sync() for each account.") :
			 errhint("In a transaction, use SELECT yelp_sync() for each account.")));
}

/*
 * yelp_sync_all(usernames text[]) and yelp_sync_all(username text, VARIADIC
 * more text[]), procedures
 */
Datum
yelp_sync_all(PG_FUNCTION_ARGS)
{
	List	   *usernames;

	require_no_transaction(fcinfo);
	require_writable("yelp_sync_all()");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	usernames = PG_NARGS() == 1 && PG_ARGISNULL(0) ? account_require_usernames() :
		usernames_of(fcinfo);
	sync_all(usernames, schema_of(fcinfo));
	SPI_finish();
	return (Datum) 0;
}

/* ---- other SQL functions ---- */

/* yelp_sync_accounts(out username text, out server text, out endpoint text) returns setof record */
Datum
yelp_sync_accounts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *accounts = account_list();
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, accounts)
	{
		Account    *account = lfirst(cell);
		Datum		values[] = {
			CStringGetTextDatum(account->username),
			CStringGetTextDatum(account->server),
			CStringGetTextDatum(account->endpoint),
		};
		bool		nulls[lengthof(values)] = {false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* yelp_sync_add_account(username text, password text, server text) returns void */
Datum
yelp_sync_add_account(PG_FUNCTION_ARGS)
{
	const char *arguments[3];

	for (int i = 0; i < (int) lengthof(arguments); i++)
		arguments[i] = PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
	account_add(arguments[0], arguments[1], arguments[2]);
	PG_RETURN_VOID();
}

/* yelp_sync_running(out pid integer, ...) returns setof record */
Datum
yelp_sync_running(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	progress_list((ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

/* yelp_sync_account_status(out username text, ...) returns setof record */
Datum
yelp_sync_account_status(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	history_status((ReturnSetInfo *) fcinfo->resultinfo, schema_of(fcinfo));
	return (Datum) 0;
}

/* yelp_sync_validator(options text[], catalog oid) returns void */
Datum
yelp_sync_validator(PG_FUNCTION_ARGS)
{
	require_utf8();
	option_validate(untransformRelOptions(PG_GETARG_DATUM(0)), PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

/* yelp_sync_create_tables(partitions integer) returns void */
Datum
yelp_sync_create_tables(PG_FUNCTION_ARGS)
{
	int			partitions = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);

	if (!PG_ARGISNULL(0) && (partitions < 1 || partitions > TABLES_MAX_PARTITIONS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partitions must be between 1 and %d", TABLES_MAX_PARTITIONS),
				 errhint("Omit the argument to create yelp_programs as a plain table.")));
	PreventCommandIfReadOnly("yelp_sync_create_tables()");
	SPI_connect();
	tables_create(schema_of(fcinfo), partitions);
	SPI_finish();
	PG_RETURN_VOID();
}
