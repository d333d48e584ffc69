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
#include "access/xlog.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "account.h"
#include "clock.h"
#include "commit_log.h"
#include "compat.h"
#include "fetch.h"
#include "fingerprint.h"
#include "http.h"
#include "merge.h"
#include "progress.h"
#include "history.h"
#include "known.h"
#include "tables.h"

/* What the server looks for; all else stays within the library */
#pragma GCC visibility push(default)

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(yelp_sync);
PG_FUNCTION_INFO_V1(yelp_sync_accounts);
PG_FUNCTION_INFO_V1(yelp_sync_create_tables);
PG_FUNCTION_INFO_V1(yelp_sync_document);
PG_FUNCTION_INFO_V1(yelp_sync_validator);

void		_PG_init(void);

#pragma GCC visibility pop

/* Tells our locks apart from those of pg_advisory_lock(), which uses 1 and 2 */
#define LOCK_CLASS 3

/* So many programs may always be deleted, whatever max_deleted says */
#define ALWAYS_DELETABLE 20

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
							 "Logs each sync that was committed.",
							 NULL,
							 &log_syncs,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	MarkGUCPrefixReserved("yelp_sync");
}

/* ---- one sync ---- */

/* An account that this backend is syncing; a trigger may try to sync another */
typedef struct ActiveSync
{
	const char *username;
	struct ActiveSync *outer;
} ActiveSync;

static ActiveSync *active_sync;

static void
reject_concurrent(const char *username, int pid)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("account \"%s\" is already being synced", username),
			 pid ? errdetail("Process %d is syncing it.", pid) : 0,
			 errhint("pg_locks shows the lock with locktype \"advisory\" and objsubid %d.",
					 LOCK_CLASS)));
}

/* One sync per account at a time in a database; the transaction's end unlocks. */
static void
lock_account(const char *username)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) username,
										   strlen(username), 0);
	LOCKTAG		tag;

	for (ActiveSync *active = active_sync->outer; active; active = active->outer)
	{
		if (strcmp(active->username, username) == 0)
			reject_concurrent(username, MyProcPid);
	}
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 LOCK_CLASS);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		reject_concurrent(username, compat_lock_holder(&tag, ExclusiveLock));
}

static bool
lists_all(const Account *account)
{
	return strcmp(account->program_status, "ALL") == 0;
}

/* What does not prove that programs are gone, as a sentence, and what to do. */
static char *
explain_doubt(const Fetched *fetched, const char **hint)
{
	const Reading *reading = &fetched->reading;

	*hint = "What arrived was added and updated.  Sync again later.";
	switch (fetched->doubt)
	{
		case DOUBT_NONE:
		case DOUBT_FAILED_PAGES:
			break;
		case DOUBT_SKIPPED:
			*hint = "Programs that cannot be stored were skipped: until they are listed in another form, nothing is deleted.";
			return psprintf(INT64_FORMAT " program%s skipped.  %s", reading->skipped,
							reading->skipped == 1 ? " was" : "s were",
							reading->skip_reason);
		case DOUBT_END:
			return pstrdup("It was not seen where the listing ends.");
		case DOUBT_MISMATCH:
			return pstrdup(reading->mismatch);
		case DOUBT_GAP:
			return psprintf("The page at offset " INT64_FORMAT
							" is empty, but later ones are not.", reading->gap);
		case DOUBT_FEWER:
			*hint = "What arrived was added and updated.  If the API always reports a total above what it lists, set the server's option trust_total to off.";
			return psprintf("The API reports a total of " INT64_FORMAT
							", but lists " INT64_FORMAT " programs in %d reading%s.",
							reading->total, fetched->programs.count,
							fetched->staging.pass,
							fetched->staging.pass == 1 ? "" : "s");
		case DOUBT_MOVING:
			return psprintf("The listing changed while it was read, %d times in a row.",
							fetched->staging.pass);
	}
	return NULL;
}

static void
warn_doubt(const Account *account, const Fetched *fetched)
{
	const char *hint;
	char	   *detail = explain_doubt(fetched, &hint);

	if (detail && fetched->doubt != DOUBT_END)
		progress_warning(ERRCODE_WARNING,
						 psprintf("could not prove which programs of account \"%s\" are gone: nothing was deleted",
								  account->username),
						 detail, hint);
}

/* Are so many programs gone that it is more likely a mistake of the API's? */
static bool
is_mass_deletion(const Account *account, const Merge *merge,
				 const Fetched *fetched, int64 unlisted)
{
	if (account->max_deleted >= 100)
		return false;
	if (fetched->programs.count == 0 && unlisted > 0)
		return true;
	return unlisted > ALWAYS_DELETABLE &&
		unlisted > merge->stored.count * account->max_deleted / 100;
}

static void
warn_mass_deletion(const Account *account, const Merge *merge, int64 unlisted)
{
	progress_warning(ERRCODE_WARNING,
					 psprintf(INT64_FORMAT " of " INT64_FORMAT
							  " programs of account \"%s\" are no longer listed: nothing was deleted",
							  unlisted, merge->stored.count, account->username),
					 psprintf("The server's option max_deleted is %g%%.",
							  account->max_deleted),
					 psprintf("If they really are gone, run: ALTER SERVER %s OPTIONS (%s max_deleted '100%%'); and sync again.",
							  quote_identifier(account->server),
							  account->max_deleted == 50 ? "ADD" : "SET"));
}

/* Decides whether to delete what is not listed, and says why not. */
static void
decide_deletion(const Account *account, const Fetched *fetched, Merge *merge)
{
	int64		unlisted;

	merge->status = fetched->doubt == DOUBT_NONE ? "synced" : "partial";
	merge->show_missing = lists_all(account) &&
		fetched->doubt != DOUBT_FAILED_PAGES &&
		fetched->doubt != DOUBT_SKIPPED && fetched->doubt != DOUBT_END;
	if (fetched->doubt != DOUBT_NONE)
		warn_doubt(account, fetched);
	else if (lists_all(account) && fetched->confirmed)
	{
		unlisted = merge_count_unlisted(merge, fetched);
		merge->delete_gone = !is_mass_deletion(account, merge, fetched, unlisted);
		if (!merge->delete_gone)
		{
			merge->status = "partial";
			warn_mass_deletion(account, merge, unlisted);
		}
	}
}

static void
warn_problems(const Account *account, const Staging *staging)
{
	int64		count = staging->with_problems;

	if (count > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf(INT64_FORMAT " program%s of account \"%s\" with fields that could not be read",
								  count, count == 1 ? "" : "s", account->username),
						 staging->first_problem,
						 "Their columns are NULL; the column problems names them.");
}

static void
log_run(const Account *account, const ProgressResult *result)
{
	if (log_syncs)
		commit_log(psprintf("yelp_sync: account \"%s\" on server \"%s\": %s",
							account->username, account->server,
							progress_summary(result)));
}

static void
report(const Account *account, const Fetched *fetched, const Merge *merge,
	   const SyncRun *run, int64 started)
{
	int64		common = merge->programs - merge->added;
	ProgressResult result = {
		.status = merge->status,
		.added = merge->added,
		.updated = merge->updated,
		.unchanged = merge->unchanged,
		.deleted = merge->deleted,
		.programs = merge->programs,
		.fetch_us = fetched->elapsed,
		.merge_us = run->merge_us,
		.total_us = clock_us() - started,
	};

	warn_problems(account, &fetched->staging);
	progress_merged(merge->added, common, merge->deleted, merge->unlisted);
	progress_complete(&result);
	log_run(account, &result);
}

static void
merge_and_record(const Account *account, const Fetched *fetched, Merge *merge,
				 SyncRun *run)
{
	int64		started = clock_us();

	decide_deletion(account, fetched, merge);
	merge->at = GetCurrentTimestamp();
	merge_programs(merge, fetched);

	run->username = account->username;
	run->server = account->server;
	run->program_status = account->program_status;
	run->finished_at = GetCurrentTimestamp();
	run->merge_us = clock_us() - started;
	history_add(merge->schema, run, fetched, merge);
}

/* As many rows as programs were listed last time, none where that is unknown. */
static int64
expected_rows(int64 last_listed)
{
	return Min(Max(last_listed, 0), PAGE_MAX_TOTAL);
}

/* As many programs as last time, or as are stored. */
static int64
expected_programs(const Merge *merge, int64 last_listed)
{
	return Min(last_listed < 0 ? merge->stored.count : last_listed, PAGE_MAX_TOTAL);
}

/* A FetchLacks: would the merge delete something? */
static bool
lacks_programs(void *arg, const Fetched *fetched)
{
	return merge_count_unlisted(arg, fetched) > 0;
}

/* A FetchLacks for a filter other than ALL, with which nothing is deleted. */
static bool
lacks_nothing(pg_attribute_unused() void *arg,
			  pg_attribute_unused() const Fetched *fetched)
{
	return false;
}

static Fetched *
fetch_account(const Account *account, Merge *merge, Progress *progress)
{
	int64		expected = history_last_listed(merge->schema, account->username,
											   account->server);
	Fetch	   *fetch;

	merge->known = known_read(merge->schema, merge->partitioned,
							  account->username, expected_rows(expected));
	merge->stored = known_set(merge->known);
	fetch = fetch_create(account, merge->known, progress);
	return fetch_programs(fetch, expected_programs(merge, expected),
						  lists_all(account) ? lacks_programs : lacks_nothing,
						  merge);
}

static void
sync_account(const char *username, Oid schema, Tuplestorestate *result)
{
	int64		started = clock_us();
	SyncRun		run = {.started_at = GetCurrentTimestamp()};
	Progress	progress = {0};
	Account    *account = account_find(username);
	Merge		merge = {
		.username = username,
		.result = result,
	};
	Tables		tables;
	Fetched    *fetched;

	lock_account(username);
	tables = tables_prepare(schema);
	merge.schema = tables.schema;
	merge.partitioned = tables.partitioned;
	fingerprint_set_seed(GetSystemIdentifier());
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
	ActiveSync	active;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("username must not be null")));
	PreventCommandIfReadOnly("yelp_sync()");
	PreventCommandIfParallelMode("yelp_sync()");
	PreventCommandDuringRecovery("yelp_sync()");
	if (!IsUnderPostmaster)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("yelp_sync() cannot be called in single-user mode")));
	InitMaterializedSRF(fcinfo, 0);

	active.username = text_to_cstring(PG_GETARG_TEXT_PP(0));
	active.outer = active_sync;
	active_sync = &active;
	PG_TRY();
	{
		SPI_connect();
		sync_account(active.username,
					 get_func_namespace(fcinfo->flinfo->fn_oid),
					 ((ReturnSetInfo *) fcinfo->resultinfo)->setResult);
		SPI_finish();
	}
	PG_FINALLY();
	{
		/* The transaction may not be rolled back for long: give back now */
		http_release();
		active_sync = active.outer;
	}
	PG_END_TRY();
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
	option_validate(untransformRelOptions(PG_GETARG_DATUM(0)), PG_GETARG_OID(1));
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

/* yelp_sync_create_tables(partitions integer) returns void */
Datum
yelp_sync_create_tables(PG_FUNCTION_ARGS)
{
	int			partitions = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);

	if (!PG_ARGISNULL(0) && (partitions < 1 || partitions > TABLES_MAX_PARTITIONS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partitions must be between 1 and %d", TABLES_MAX_PARTITIONS),
				 errhint("Without the argument yelp_programs is a plain table.")));
	PreventCommandIfReadOnly("yelp_sync_create_tables()");
	SPI_connect();
	tables_create(get_func_namespace(fcinfo->flinfo->fn_oid), partitions);
	SPI_finish();
	PG_RETURN_VOID();
}
