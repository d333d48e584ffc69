/*
 * sync.c
 *	  Sync accounts: a single one, or several, each in transactions of its own.
 *
 * Data flows one way: account -> fetch -> programs -> merge -> result.
 *
 * yelp_sync() runs all steps in its caller's transaction.  yelp_sync_all()
 * takes two transactions per account.  The first finds it, locks it and reads
 * what is stored.  The second waits for the API without a snapshot and without
 * a lock on any table, so that it blocks nobody, and then merges.  In between,
 * the session holds the account lock.
 *
 * There, each step runs in a subtransaction.  An error rolls it back, together
 * with anything that the failed code had open, for example the SPI connections
 * of a user's trigger, which would prevent a commit.
 */
#include "postgres.h"

#include "sync.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "account.h"
#include "compat.h"
#include "fetch.h"
#include "history.h"
#include "http.h"
#include "statement.h"
#include "tables.h"
#include "text.h"

/* Number of programs that may always be deleted, unless max_deleted is 0 */
#define ALWAYS_DELETABLE 20

/* Number of failures in the final ERROR; the others are only counted */
#define MAX_SHOWN_FAILURES 20

/*
 * The sync of an account.  Memory is allocated in the context that is current
 * in each step; it must live until the end.
 */
typedef struct Sync
{
	Oid			schema;			/* of the tables */
	bool		session;		/* use a session-level lock */
	bool		locked;
	struct Sync *outer;			/* enclosing sync: a trigger may sync */

	Account    *account;
	Merge		merge;
	Progress	progress;
	FetchExpected expected;		/* from the previous sync */
	Fetched    *fetched;
	ErrorData  *error;			/* if it failed, or NULL */
	int64		started;		/* by clock_us */
} Sync;

bool		sync_log = true;

/* The running sync, or NULL */
static Sync *active_sync;

/* ---- account lock ---- */

/*
 * Not an advisory lock, which pg_advisory_unlock_all() would release: a
 * trigger of the user's may call that.
 */
static LOCKTAG
lock_tag(const char *username)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) username,
										   strlen(username), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, 0);
	tag.locktag_type = LOCKTAG_USERLOCK;
	tag.locktag_lockmethodid = DEFAULT_LOCKMETHOD;
	return tag;
}

/* Names who syncs the account, as far as the current user may see it. */
static void
report_concurrent(const LOCKTAG *tag, const char *username)
{
	Statement	holder = {
		.purpose = "looking for the sync that runs",
		.sql = "SELECT pid, format('Process %s of role \"%s\" is syncing it%s.',"
		"  pid, pg_get_userbyid(usesysid), ', since ' || xact_start)"
		" FROM pg_lock_status() LEFT JOIN pg_stat_get_activity(NULL) USING (pid)"
		" WHERE locktype = 'userlock' AND granted AND classid::int8 = $1 AND objid::int8 = $2"
		"  AND database = $3",
	};
	char	   *pid = NULL;
	char	   *who = NULL;
	bool		held;

	statement_add(&holder, INT8OID, Int64GetDatum(tag->locktag_field2));
	statement_add(&holder, INT8OID, Int64GetDatum(tag->locktag_field3));
	statement_add(&holder, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	statement_query(&holder);
	held = SPI_processed > 0;
	if (held)
	{
		pid = statement_value(1);
		who = statement_value(2);
	}
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("account \"%s\" is already being synced", username),
			 pid ? errdetail_internal("%s", who) :
			 held ? errdetail("A prepared transaction synced it, and is neither committed nor rolled back.") : 0,
			 pid ? errhint("Wait for its transaction to end; see it in pg_stat_activity: SELECT * FROM pg_stat_activity WHERE pid = %s;", pid) :
			 held ? errhint("Find it in pg_prepared_xacts, and run COMMIT PREPARED or ROLLBACK PREPARED.") :
			 errhint("Sync again.")));
}

/* Only one sync per account runs at a time in a database. */
static void
lock_account(Sync *sync)
{
	LOCKTAG		tag = lock_tag(sync->merge.username);

	for (Sync *outer = sync->outer; outer; outer = outer->outer)
	{
		if (strcmp(outer->merge.username, sync->merge.username) == 0)
			report_concurrent(&tag, sync->merge.username);
	}
	if (LockAcquire(&tag, ExclusiveLock, sync->session, true) == LOCKACQUIRE_NOT_AVAIL)
		report_concurrent(&tag, sync->merge.username);
	sync->locked = true;
}

/* A transaction-level lock is released with the transaction. */
static void
unlock_account(Sync *sync)
{
	LOCKTAG		tag = lock_tag(sync->merge.username);

	if (sync->locked && sync->session)
		LockRelease(&tag, ExclusiveLock, true);
	sync->locked = false;
}

/* ---- what may be deleted ---- */

static bool
lists_all(const Account *account)
{
	return account->program_status == PROGRAM_STATUS_ALL;
}

/*
 * Warns that programs are not proved to be gone, and says why and what to do
 * about it.  Pages that were skipped have warnings of their own.
 */
static void
warn_doubt(const Account *account, const Fetched *fetched)
{
	const Reading *reading = &fetched->reading;
	const char *hint = "The programs that arrived were added or updated.  Sync again later.";
	const char *detail = NULL;

	switch (fetched->doubt)
	{
		case DOUBT_NONE:
		case DOUBT_FAILED_PAGES:
			return;
		case DOUBT_SKIPPED:
			hint = "Nothing is deleted until these programs can be read.";
			detail = psprintf(INT64_FORMAT " program%s skipped.  %s", reading->skipped,
							  reading->skipped == 1 ? " was" : "s were",
							  reading->skip_reason);
			break;
		case DOUBT_REFUSED:
		case DOUBT_END:
			if (reading->failure)
			{
				progress_warning(reading->failure_sqlstate, reading->failure,
								 reading->failure_detail,
								 "The programs that arrived were added or updated; nothing was deleted, because more may be listed there.");
				return;
			}
			detail = "The end of the listing was not seen.";
			break;
		case DOUBT_MISMATCH:
			detail = reading->mismatch;
			break;
		case DOUBT_GAP:
			detail = psprintf("The page at offset " INT64_FORMAT
							  " is empty, but later ones are not.", reading->gap);
			break;
		case DOUBT_FEWER:
			hint = "The programs that arrived were added or updated.  If the API always reports a total above what it lists, set the server option trust_total to off.";
			detail = psprintf("The API reports a total of " INT64_FORMAT
							  ", but lists " INT64_FORMAT " programs in %d reading%s.",
							  reading->total, fetched->programs->listed,
							  fetched->programs->reading,
							  fetched->programs->reading == 1 ? "" : "s");
			break;
		case DOUBT_MOVING:
			detail = psprintf("The listing changed while it was being read, %d times in a row.",
							  fetched->programs->reading);
			break;
	}
	progress_warning(ERRCODE_WARNING,
					 psprintf("could not prove which programs of account \"%s\" are gone: nothing was deleted",
							  account->username),
					 detail, hint);
}

/* Are so many programs gone that it is probably an error of the API? */
static bool
is_mass_deletion(const Account *account, const Merge *merge,
				 const Fetched *fetched, int64 unlisted)
{
	if (account->max_deleted >= 100 || unlisted == 0)
		return false;
	if (fetched->programs->listed == 0 || account->max_deleted == 0)
		return true;
	return unlisted > ALWAYS_DELETABLE &&
		unlisted > merge->programs->stored * account->max_deleted / 100;
}

/* Decides whether to delete what is not listed, or explains why not. */
static void
decide_deletion(const Account *account, const Fetched *fetched, Merge *merge)
{
	int64		unlisted;

	merge->result.status = fetched->doubt == DOUBT_NONE ? SYNC_SYNCED : SYNC_PARTIAL;
	merge->show_missing = lists_all(account) &&
		fetched->doubt != DOUBT_FAILED_PAGES && fetched->doubt != DOUBT_SKIPPED &&
		fetched->doubt != DOUBT_REFUSED && fetched->doubt != DOUBT_END;
	warn_doubt(account, fetched);
	if (fetched->doubt != DOUBT_NONE || !lists_all(account) || !fetched->confirmed)
		return;
	unlisted = programs_count_unlisted(merge->programs);
	merge->delete_gone = !is_mass_deletion(account, merge, fetched, unlisted);
	if (merge->delete_gone)
		return;
	merge->result.status = SYNC_PARTIAL;
	progress_warning(ERRCODE_WARNING,
					 psprintf(INT64_FORMAT " of " INT64_FORMAT
							  " programs of account \"%s\" are no longer listed: nothing was deleted",
							  unlisted, merge->programs->stored, account->username),
					 psprintf("The server option max_deleted is %g%%.", account->max_deleted),
					 psprintf("If they really are gone, run: %s and sync again.",
							  option_command(account->server, "max_deleted", "100%")));
}

/* Triggers and other sessions may have interfered, at any time. */
static void
warn_wrong(Merge *merge)
{
	if (merge->wrong == 0)
		return;
	merge->result.status = SYNC_PARTIAL;
	progress_warning(ERRCODE_WARNING,
					 psprintf(INT64_FORMAT " program%s of account \"%s\" %s not as listed in table %s.yelp_programs",
							  merge->wrong, merge->wrong == 1 ? "" : "s", merge->username,
							  merge->wrong == 1 ? "is" : "are", merge->tables.schema),
					 "Another session changed or deleted them during the sync, or a trigger kept them from being written.",
					 "Sync again.  If this recurs, check the triggers on yelp_programs.");
}

/* ---- the steps ---- */

/*
 * The end must be called after the beginning in any case, and never raises
 * errors.
 */
static void
begin(Sync *sync, const char *username, Oid schema, bool session)
{
	SyncResult *result = &sync->merge.result;

	memset(sync, 0, sizeof(Sync));
	sync->merge.username = username;
	sync->schema = schema;
	sync->session = session;
	sync->started = clock_us();
	result->synced_by = GetUserNameFromId(GetUserId(), false);
	result->started_at = GetCurrentTimestamp();
	sync->outer = active_sync;
	active_sync = sync;
	progress_enter(&sync->progress, username, result->started_at);
}

/*
 * A failed transaction may not be rolled back for a long time, so release
 * everything now.
 */
static void
end(Sync *sync)
{
	http_release();
	progress_leave(&sync->progress);
	unlock_account(sync);
	active_sync = sync->outer;
}

/* Those with an argument of type void * run as the tables' user, or are caught. */
static void
read_stored(void *arg)
{
	Sync	   *sync = arg;
	Merge	   *merge = &sync->merge;

	sync->expected = history_expected(merge, sync->account->trust_total);
	merge->programs = programs_read(&merge->tables, merge->username, sync->expected.programs);
}

/* What the user may not expect of the tables. */
static void
report_tables(Sync *sync)
{
	const Tables *tables = &sync->merge.tables;

	if (tables->created)
		progress_created(tables->created);
	if (tables->created_programs && sync->expected.programs > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf("table %s.yelp_programs was created anew, although account \"%s\" was synced before",
								  tables->schema, sync->merge.username),
						 "It may have been renamed, dropped, or moved to another schema.",
						 "To use the former table, drop the new one, and rename or move that back.");
	if (!tables->heals)
		progress_warning(ERRCODE_WARNING,
						 psprintf("trigger yelp_programs_edited on table %s.yelp_programs is missing or disabled",
								  tables->schema),
						 "Rows that are edited by hand are not restored by the next sync.",
						 psprintf("SELECT %s.yelp_sync_create_tables(); creates it; ALTER TABLE %s.yelp_programs ENABLE TRIGGER yelp_programs_edited; enables it.",
								  tables->schema, tables->schema));
}

/*
 * Finds the account, locks it, prepares the tables, and reads what is stored.
 * Raises the errors of account_find and tables_prepare, and 55P03 if the
 * account is already being synced.
 */
static void
prepare(void *arg)
{
	Sync	   *sync = arg;
	Merge	   *merge = &sync->merge;

	PushActiveSnapshot(GetTransactionSnapshot());
	sync->account = account_find(sync->merge.username);
	merge->result.server = sync->account->server;
	merge->result.program_status = program_status_names[sync->account->program_status];
	lock_account(sync);
	merge->record = sync->account->record_changes;
	merge->tables = tables_prepare(sync->schema, merge->record, AccessShareLock);
	progress_start(&sync->progress, sync->account->server);
	tables_run_as(&merge->tables, read_stored, sync);
	report_tables(sync);
	PopActiveSnapshot();
}

static void
store(void *arg)
{
	Sync	   *sync = arg;
	Merge	   *merge = &sync->merge;
	SyncResult *result = &merge->result;
	int64		started = clock_us();

	decide_deletion(sync->account, sync->fetched, merge);
	merge->keep_gone = sync->account->on_gone == ON_GONE_KEEP;
	merge->at = GetCurrentTimestamp();
	merge_programs(merge);
	if (result->problems > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf("could not read all fields of " INT64_FORMAT " program%s of account \"%s\"",
								  result->problems, result->problems == 1 ? "" : "s", sync->merge.username),
						 result->first_problem,
						 "Their columns are NULL; the column problems lists the fields.");
	warn_wrong(merge);
	result->fetch_us = sync->fetched->elapsed;
	result->merge_us = clock_us() - started;
	result->warnings = sync->progress.warnings;
	history_add(merge, sync->fetched, NULL);
}

/*
 * The tables are looked at again: while the API was waited for, others may
 * have altered them, or their owner planted code.
 */
static void
fetch_and_store(void *arg)
{
	Sync	   *sync = arg;
	Merge	   *merge = &sync->merge;

	/* What the last sync listed or, if there is none, what is stored */
	if (sync->expected.programs < 0)
		sync->expected.programs = Min(merge->programs->stored, PAGE_MAX_TOTAL);
	sync->fetched = fetch_programs(sync->account, merge->programs, &sync->progress,
								   sync->expected);

	PushActiveSnapshot(GetTransactionSnapshot());
	AcceptInvalidationMessages();
	merge->tables = tables_prepare(sync->schema, merge->record, RowExclusiveLock);
	tables_run_as(&merge->tables, store, sync);
	merge->result.total_us = clock_us() - sync->started;
	if (sync_log)
		ereport(LOG_SERVER_ONLY,
				(errmsg_internal("yelp_sync: account \"%s\" on server \"%s\": %s",
								 sync->merge.username, sync->account->server,
								 progress_summary(&merge->result)),
				 errhidestmt(true),
				 errhidecontext(true)));
	programs_free(merge->programs);
	PopActiveSnapshot();
}

static void
report(Sync *sync)
{
	sync->merge.result.total_us = clock_us() - sync->started;
	progress_complete(&sync->merge.result);
}

void
sync_account(const char *username, Oid schema, ReturnSetInfo *changes)
{
	Sync		sync;

	begin(&sync, username, schema, false);
	sync.merge.returned = changes;
	PG_TRY();
	{
		SPI_connect();
		prepare(&sync);
		fetch_and_store(&sync);
		report(&sync);
		SPI_finish();
	}
	PG_FINALLY();
	{
		end(&sync);
	}
	PG_END_TRY();
}

/* ---- several accounts ---- */

static void
add_failure(void *arg)
{
	Sync	   *sync = arg;

	sync->merge.result.status = SYNC_FAILED;
	sync->merge.result.warnings = sync->progress.warnings;
	history_add(&sync->merge, NULL, sync->error);
}

static void
record_failure(void *arg)
{
	Sync	   *sync = arg;
	Tables	   *tables = &sync->merge.tables;

	PushActiveSnapshot(GetTransactionSnapshot());
	*tables = tables_prepare(sync->schema, false, RowExclusiveLock);
	tables_run_as(tables, add_failure, sync);
	PopActiveSnapshot();
}

/*
 * Commits and starts a new transaction; returns the error if that fails, or
 * NULL.  A transaction that is rolled back takes the account lock along.
 */
static ErrorData *
try_commit(Sync *sync)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		SPI_commit();
	}
	PG_CATCH();
	{
		sync->locked = false;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	rethrow_interruption(error);
	return error;
}

/*
 * SET LOCAL ROLE ends with the first commit, after which another user would
 * store what this one fetched.
 */
static void
require_same_user(Oid user)
{
	if (GetUserId() != user)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the current role changed while yelp_sync_all() was running"),
				 errhint("Use SET ROLE instead of SET LOCAL ROLE.")));
}

static ErrorData *
try_sync(Sync *sync)
{
	Oid			user = GetUserId();
	ErrorData  *error = statement_try(prepare, sync);

	if (error == NULL)
		error = try_commit(sync);
	require_same_user(user);
	if (error == NULL)
		error = statement_try(fetch_and_store, sync);
	return error ? error : try_commit(sync);
}

static void
warn_unrecorded(const Sync *sync, ErrorData *error)
{
	if (error)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not record the failed sync of account \"%s\": %s",
						client_text(sync->merge.username), client_text(error->message))));
}

/* True if the sync succeeded; otherwise, adds the message to the list, if any. */
static bool
try_account(const char *username, Oid schema, StringInfo failures)
{
	Sync		sync;

	/* The SPI connection provides memory that outlives transactions */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	begin(&sync, username, schema, true);
	PG_TRY();
	{
		sync.error = try_sync(&sync);
		if (sync.error == NULL)
			report(&sync);
		else
		{
			/* A trigger on the history may sync another account */
			http_release();
			warn_unrecorded(&sync, statement_try(record_failure, &sync));
			warn_unrecorded(&sync, try_commit(&sync));
			if (failures)
				appendStringInfo(failures, "%sAccount \"%s\": %s", failures->len > 0 ? "\n" : "",
								 username, sync.error->message);
			progress_failure(username, sync.error);
		}
	}
	PG_FINALLY();
	{
		end(&sync);
	}
	PG_END_TRY();
	SPI_finish();
	return sync.error == NULL;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

void
sync_all(List *usernames, Oid schema)
{
	StringInfoData failures;
	const char *before = NULL;
	int			accounts = 0;
	int			failed = 0;
	ListCell   *cell;

	initStringInfo(&failures);
	list_sort(usernames, compare_names);
	foreach(cell, usernames)
	{
		const char *username = lfirst(cell);

		if (before && strcmp(before, username) == 0)
			continue;
		before = username;
		accounts++;
		failed += !try_account(username, schema,
							   failed < MAX_SHOWN_FAILURES ? &failures : NULL);
	}
	if (failed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("could not sync %d of %d account%s", failed, accounts,
						accounts == 1 ? "" : "s"),
				 errdetail_internal("%s%s", client_text(failures.data),
									failed > MAX_SHOWN_FAILURES ?
									psprintf("\nand %d more", failed - MAX_SHOWN_FAILURES) : ""),
				 errhint("Syncs that succeeded are committed.  See the columns sqlstate and error of yelp_sync_runs.")));
}
