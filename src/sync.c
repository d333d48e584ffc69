/*
 * sync.c
 *	  Sync a single account, step by step.
 *
 * Data flows one way: account -> fetch -> programs -> merge -> result.
 */
#include "postgres.h"

#include "sync.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "account.h"
#include "compat.h"
#include "fetch.h"
#include "http.h"
#include "tables.h"

/* Number of programs that may always be deleted, unless max_deleted is 0 */
#define ALWAYS_DELETABLE 20

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
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(tag->locktag_field2), Int64GetDatum(tag->locktag_field3)};
	char	   *pid = NULL;
	char	   *who = NULL;
	bool		held;

	held = tables_query("SELECT pid, format('Process %s of role \"%s\" is syncing it%s.',"
						"  pid, usename, ', since ' || xact_start)"
						" FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)"
						" WHERE locktype = 'userlock' AND granted AND classid::int8 = $1 AND objid::int8 = $2"
						"  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
						lengthof(types), types, values) > 0;
	if (held)
	{
		pid = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		who = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
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
	LOCKTAG		tag = lock_tag(sync->username);

	for (Sync *outer = sync->outer; outer; outer = outer->outer)
	{
		if (strcmp(outer->username, sync->username) == 0)
			report_concurrent(&tag, sync->username);
	}
	if (LockAcquire(&tag, ExclusiveLock, sync->session, true) == LOCKACQUIRE_NOT_AVAIL)
		report_concurrent(&tag, sync->username);
	sync->locked = true;
}

/* A transaction-level lock is released with the transaction. */
static void
unlock_account(Sync *sync)
{
	LOCKTAG		tag = lock_tag(sync->username);

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
							  reading->total, fetched->programs->listed.count,
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
	if (fetched->programs->listed.count == 0 || account->max_deleted == 0)
		return true;
	return unlisted > ALWAYS_DELETABLE &&
		unlisted > merge->programs->stored * account->max_deleted / 100;
}

static void
warn_mass_deletion(const Account *account, const Merge *merge, int64 unlisted)
{
	progress_warning(ERRCODE_WARNING,
					 psprintf(INT64_FORMAT " of " INT64_FORMAT
							  " programs of account \"%s\" are no longer listed: nothing was deleted",
							  unlisted, merge->programs->stored, account->username),
					 psprintf("The server option max_deleted is %g%%.",
							  account->max_deleted),
					 psprintf("If they really are gone, run: %s and sync again.",
							  option_command(account->server, "max_deleted", "100%")));
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
	if (fetched->doubt == DOUBT_NONE && lists_all(account) && fetched->confirmed)
	{
		unlisted = programs_count_unlisted(merge->programs);
		merge->delete_gone = !is_mass_deletion(account, merge, fetched, unlisted);
		if (!merge->delete_gone)
		{
			merge->result.status = SYNC_PARTIAL;
			warn_mass_deletion(account, merge, unlisted);
		}
	}
}

/* ---- the steps ---- */

static void
warn_problems(const Account *account, const Merge *merge)
{
	int64		count = merge->result.problems;

	if (count > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf("could not read all fields of " INT64_FORMAT " program%s of account \"%s\"",
								  count, count == 1 ? "" : "s", account->username),
						 merge->result.first_problem,
						 "Their columns are NULL; the column problems lists the fields.");
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

static void
log_run(const Sync *sync)
{
	if (sync_log)
		ereport(LOG_SERVER_ONLY,
				(errmsg_internal("yelp_sync: account \"%s\" on server \"%s\": %s",
								 sync->username, sync->account->server,
								 progress_summary(&sync->merge.result)),
				 errhidestmt(true),
				 errhidecontext(true)));
}

/*
 * What the last sync listed or, if there is none, what is stored.  After a
 * partial sync, nothing is known about an untrusted total.
 */
static FetchExpected
expect_programs(const Sync *sync)
{
	LastRun		last = sync->last;
	bool		unknown = last.listed < 0;
	bool		informative = !unknown && (last.synced || sync->account->trust_total);
	FetchExpected expected = {
		.programs = Min(unknown ? sync->merge.programs->stored : last.listed, PAGE_MAX_TOTAL),
		.surplus = informative ? last.total - last.listed : 0,
	};

	return expected;
}

void
sync_begin(Sync *sync, const char *username, Oid schema, bool session)
{
	memset(sync, 0, sizeof(Sync));
	sync->username = sync->merge.username = sync->run.username = username;
	sync->schema = schema;
	sync->session = session;
	sync->started = clock_us();
	sync->run.synced_by = GetUserNameFromId(GetUserId(), false);
	sync->run.started_at = GetCurrentTimestamp();
	sync->outer = active_sync;
	active_sync = sync;
	progress_enter(&sync->progress, username, sync->run.started_at);
}

/*
 * A failed transaction may not be rolled back for a long time, so release
 * everything now.
 */
void
sync_end(Sync *sync)
{
	http_release();
	progress_leave(&sync->progress);
	unlock_account(sync);
	active_sync = sync->outer;
}

static void
prepare_tables(Sync *sync, bool changes, LOCKMODE mode)
{
	sync->merge.tables = tables_prepare(sync->schema, changes, mode);
	sync->merge.record = changes;
}

/* A step that runs as the tables' user. */
static void
read_stored(void *arg)
{
	Sync	   *sync = arg;
	Merge	   *merge = &sync->merge;

	sync->last = history_last_run(merge->tables.schema, sync->username,
								  sync->account->server);
	merge->programs = programs_read(&merge->tables, sync->username, sync->last.listed);
}

/* What the user may not expect of the tables. */
static void
report_tables(Sync *sync)
{
	const Tables *tables = &sync->merge.tables;

	if (tables->created)
		progress_created(tables->created);
	if (tables->created_programs && sync->last.listed > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf("table %s.yelp_programs was created anew, although account \"%s\" was synced before",
								  tables->schema, sync->username),
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

void
sync_prepare(Sync *sync)
{
	sync->account = account_find(sync->username);
	sync->run.server = sync->account->server;
	sync->run.program_status = program_status_names[sync->account->program_status];
	lock_account(sync);
	prepare_tables(sync, sync->account->record_changes, AccessShareLock);
	progress_start(&sync->progress, sync->username, sync->account->server);
	tables_run_as(&sync->merge.tables, read_stored, sync);
	report_tables(sync);
}

void
sync_fetch(Sync *sync)
{
	sync->fetched = fetch_programs(sync->account, sync->merge.programs, &sync->progress,
								   expect_programs(sync));
}

/* A step that runs as the tables' user. */
static void
store(void *arg)
{
	Sync	   *sync = arg;
	Merge	   *merge = &sync->merge;
	int64		started = clock_us();

	decide_deletion(sync->account, sync->fetched, merge);
	merge->keep_gone = sync->account->on_gone == ON_GONE_KEEP;
	merge->at = GetCurrentTimestamp();
	merge_programs(merge);
	warn_problems(sync->account, merge);
	warn_wrong(merge);

	sync->run.finished_at = GetCurrentTimestamp();
	sync->run.run_id = history_new_run_id();
	sync->run.warnings = sync->progress.warnings;
	merge->result.fetch_us = sync->fetched->elapsed;
	merge->result.merge_us = clock_us() - started;
	if (merge->changes)
		history_add_changes(&sync->run, merge);
	history_add(merge->tables.schema, &sync->run, &merge->result, sync->fetched, NULL);
}

/*
 * The tables are looked at again: while the API was waited for, others may
 * have altered them, or their owner planted code.
 */
void
sync_store(Sync *sync, Tuplestorestate *result)
{
	AcceptInvalidationMessages();
	prepare_tables(sync, sync->account->record_changes, RowExclusiveLock);
	sync->merge.rows = result;
	tables_run_as(&sync->merge.tables, store, sync);
	sync->merge.result.total_us = clock_us() - sync->started;
	log_run(sync);
	programs_free(sync->merge.programs);
}

/* A step that runs as the tables' user. */
static void
add_failure(void *arg)
{
	Sync	   *sync = arg;

	sync->run.finished_at = GetCurrentTimestamp();
	sync->run.warnings = sync->progress.warnings;
	sync->run.run_id = history_new_run_id();
	sync->merge.result.status = SYNC_FAILED;
	history_add(sync->merge.tables.schema, &sync->run, &sync->merge.result, NULL, sync->error);
}

void
sync_record_failure(Sync *sync)
{
	prepare_tables(sync, false, RowExclusiveLock);
	tables_run_as(&sync->merge.tables, add_failure, sync);
}

void
sync_report(Sync *sync)
{
	SyncResult *result = &sync->merge.result;

	result->total_us = clock_us() - sync->started;
	progress_complete(result);
}
