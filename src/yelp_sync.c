/*
 * yelp_sync.c
 *	  SQL entry points: one call fetches the programs of an account and merges
 *	  them into a table.
 *
 * Data flows one way: account -> fetch (http, retry) -> page -> merge -> rows.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "account.h"
#include "clock.h"
#include "compat.h"
#include "fetch.h"
#include "merge.h"
#include "progress.h"
#include "history.h"
#include "known.h"

/* What the server looks for; all else stays within the library */
#pragma GCC visibility push(default)

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(yelp_sync);
PG_FUNCTION_INFO_V1(yelp_sync_accounts);
PG_FUNCTION_INFO_V1(yelp_sync_document);
PG_FUNCTION_INFO_V1(yelp_sync_forget_fingerprint);
PG_FUNCTION_INFO_V1(yelp_sync_validator);

void		_PG_init(void);

#pragma GCC visibility pop

/* Tells our locks apart from those of pg_advisory_lock(), which uses 1 and 2 */
#define LOCK_CLASS 3

/* Of a listing that changes while it is read */
#define MAX_READINGS 3

/* The setting yelp_sync.log_syncs */
static bool log_syncs = true;

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
							 "Sets the form in which a sync tells its progress.",
							 NULL,
							 &progress_format,
							 PROGRESS_TEXT,
							 progress_formats,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("yelp_sync.log_syncs",
							 "Logs each sync that finished.",
							 NULL,
							 &log_syncs,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	MarkGUCPrefixReserved("yelp_sync");
}

/* ---- one sync ---- */

static void
require_rights(Oid schema, const char *table, AclMode mode)
{
	Oid			relid = get_relname_relid(table, schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist",
						get_namespace_name(schema), table)));
	if (pg_class_aclmask(relid, GetUserId(), mode, ACLMASK_ALL) != mode)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, table);
}

/* Without the rights to store what comes, nothing need be fetched. */
static void
check_rights(Oid schema)
{
	require_rights(schema, "yelp_programs",
				   ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE);
	require_rights(schema, "yelp_sync_runs", ACL_SELECT | ACL_INSERT);
}

/* One sync per account at a time in a database; the transaction's end unlocks. */
static void
lock_account(const char *username)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) username,
										   strlen(username), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 LOCK_CLASS);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("account \"%s\" is being synced already", username),
				 errhint("Another session's transaction syncs it; pg_locks shows it with locktype \"advisory\" and objsubid %d.",
						 LOCK_CLASS)));
}

static bool
may_delete(const Account *account, const Fetched *fetched)
{
	return fetched->proven && strcmp(account->program_status, "ALL") == 0;
}

static void
warn_unproven(const Account *account, const Fetched *fetched, const Merge *merge)
{
	progress_warning(ERRCODE_WARNING,
					 psprintf("could not prove which programs of account \"%s\" are gone: nothing was deleted",
							  account->username),
					 psprintf("The API told of " INT64_FORMAT " programs, but showed "
							  INT64_FORMAT " in %d reading%s.",
							  fetched->total, merge->programs, fetched->staging.pass,
							  fetched->staging.pass == 1 ? "" : "s"),
					 "What came was added and updated.");
}

static void
log_run(const Account *account, const ProgressResult *result)
{
	if (log_syncs)
		ereport(LOG_SERVER_ONLY,
				(errmsg("yelp_sync: account \"%s\" on server \"%s\": %s",
						account->username, account->server,
						progress_summary(result)),
				 errhidestmt(true)));
}

static void
report(const Account *account, const Fetched *fetched, const Merge *merge,
	   const SyncRun * run, int64 started)
{
	int64		common = merge->programs - merge->added;
	int64		gone = merge->deleted + merge->gone;
	ProgressResult result = {
		.status = fetched->proven ? "synced" : "partial",
		.added = merge->added,
		.updated = merge->updated,
		.unchanged = merge->unchanged,
		.deleted = merge->deleted,
		.programs = merge->programs,
		.fetch_us = fetched->elapsed,
		.merge_us = run->merge_us,
		.total_us = clock_us() - started,
	};

	if (!fetched->proven && fetched->failed_pages == 0)
		warn_unproven(account, fetched, merge);
	progress_merged(common + gone, merge->added, common, gone);
	progress_complete(&result);
	log_run(account, &result);
}

static void
merge_and_record(const Account *account, const Fetched *fetched, Merge *merge,
				 SyncRun * run)
{
	int64		started = clock_us();

	merge->delete_gone = fetched->confirmed && may_delete(account, fetched);
	merge->at = GetCurrentTimestamp();
	merge_programs(merge, fetched);

	run->username = account->username;
	run->server = account->server;
	run->finished_at = GetCurrentTimestamp();
	run->merge_us = clock_us() - started;
	history_add(merge->schema, run, fetched, merge);
}

/* As many programs as last time, or as are stored. */
static int64
expected_programs(const Account *account, const Merge *merge)
{
	int64		expected = history_last_total(merge->schema, account->username,
											  account->server);

	if (expected < 0)
		expected = merge->stored.count;
	return Min(expected, PAGE_MAX_TOTAL);
}

/*
 * Fetches the programs, and again as long as some seem to be gone that no
 * second reading confirms.  A listing that will not settle proves nothing.
 */
static Fetched *
fetch_account(const Account *account, Merge *merge, Progress *progress)
{
	Known	   *known = known_read(merge->schema, account->username);
	Fetch	   *fetch = fetch_create(account, known, progress);
	Fetched    *fetched;

	merge->stored = known_set(known);
	fetched = fetch_programs(fetch, expected_programs(account, merge));
	while (may_delete(account, fetched) && !fetched->confirmed &&
		   merge_would_delete(merge, fetched))
	{
		if (fetched->staging.pass < MAX_READINGS)
			fetch_again(fetch, "programs seem to be gone");
		else
			fetched->proven = false;
	}
	fetch_end(fetch);
	known_free(known);
	return fetched;
}

static void
sync_account(const char *username, Oid schema, Tuplestorestate *result)
{
	int64		started = clock_us();
	SyncRun		run = {.started_at = GetCurrentTimestamp()};
	Progress	progress = {0};
	Account    *account = account_find(username);
	Merge		merge = {
		.schema = quote_identifier(get_namespace_name(schema)),
		.username = username,
		.result = result,
	};
	Fetched    *fetched;

	check_rights(schema);
	lock_account(username);
	progress_start(&progress, username, account->server);
	fetched = fetch_account(account, &merge, &progress);
	merge_and_record(account, fetched, &merge, &run);
	report(account, fetched, &merge, &run, started);
	staging_free(&fetched->staging);
}

/* yelp_sync(username text) returns table (action text, program_id text, changed text[]) */
Datum
yelp_sync(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("username must not be null")));
	PreventCommandIfReadOnly("yelp_sync()");
	PreventCommandDuringRecovery("yelp_sync()");
	InitMaterializedSRF(fcinfo, 0);

	SPI_connect();
	sync_account(text_to_cstring(PG_GETARG_TEXT_PP(0)),
				 get_func_namespace(fcinfo->flinfo->fn_oid),
				 ((ReturnSetInfo *) fcinfo->resultinfo)->setResult);
	SPI_finish();
	return (Datum) 0;
}

/* ---- what else SQL calls ---- */

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

/* yelp_sync_validator(options text[], catalog oid) returns void */
Datum
yelp_sync_validator(PG_FUNCTION_ARGS)
{
	account_validate(untransformRelOptions(PG_GETARG_DATUM(0)), PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

/*
 * Errors that are about the document's content, not about the server's state;
 * an escape that the server's encoding has no character for is "not supported".
 */
static bool
is_about_content(int sqlstate)
{
	int			category = ERRCODE_TO_CATEGORY(sqlstate);

	return category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		category == ERRCODE_FEATURE_NOT_SUPPORTED;
}

/*
 * yelp_sync_document(document text, program_id text, page_offset bigint) returns jsonb
 *
 * What PostgreSQL's own JSON input cannot hold is an error of the API's.  It is
 * raised anew at once, so no subtransaction is needed.
 */
Datum
yelp_sync_document(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *document = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum		data = (Datum) 0;

	PG_TRY();
	{
		data = DirectFunctionCall1(jsonb_in, CStringGetDatum(document));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!is_about_content(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION),
				 errmsg("could not store program \"%s\" from the page at offset " INT64_FORMAT
						": %s",
						text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_INT64(2),
						error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0));
	}
	PG_END_TRY();
	pfree(document);
	return data;
}

/* The trigger function yelp_sync_forget_fingerprint(), BEFORE UPDATE on yelp_programs. */
Datum
yelp_sync_forget_fingerprint(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Datum		none = (Datum) 0;
	bool		isnull = true;
	int			column;
	TupleDesc	desc;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("yelp_sync_forget_fingerprint() must be called by a trigger before an update of a row")));
	desc = RelationGetDescr(trigger->tg_relation);
	column = SPI_fnumber(desc, "fingerprint");
	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has no column \"fingerprint\"",
						RelationGetRelationName(trigger->tg_relation))));
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_newtuple, desc, 1,
													 &column, &none, &isnull));
}
