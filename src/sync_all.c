/*
 * sync_all.c
 *	  Syncs of several accounts, each in transactions of its own.
 *
 * An account takes two transactions.  The first finds it, locks it and reads what
 * is stored.  The second waits for the API without a snapshot and without a lock
 * on any table, so that it is in nobody's way, and then merges.  In between the
 * session holds the account's lock.
 *
 * Each of these steps runs in a subtransaction.  An error rolls that back, and
 * with it whatever the code that failed had open: the connections to SPI of a
 * user's trigger, for example, without which nothing could be committed.
 */
#include "postgres.h"

#include "sync_all.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/snapmgr.h"

#include "subtransaction.h"
#include "sync.h"

/* Failures that the ERROR at the end tells; the others are only counted. */
#define MAX_TOLD_FAILURES 20

typedef struct Failures
{
	int			count;
	StringInfoData text;
} Failures;

/* ---- transactions ---- */

/* Commits, after which there is a new transaction; the error that it ends with, or NULL. */
static ErrorData *
try_commit(void)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		SPI_commit();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

/* ---- an account ---- */

static void
prepare(void *arg)
{
	Sync	   *sync = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	sync_prepare(sync);
	PopActiveSnapshot();
}

static void
fetch_and_store(void *arg)
{
	Sync	   *sync = arg;

	sync_fetch(sync);
	PushActiveSnapshot(GetTransactionSnapshot());
	sync_store(sync, NULL);
	PopActiveSnapshot();
}

static void
record_failure(void *arg)
{
	Sync	   *sync = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	sync_record_failure(sync);
	PopActiveSnapshot();
}

static ErrorData *
try_sync(Sync *sync)
{
	ErrorData  *error = subtransaction_try(prepare, sync);

	if (error == NULL)
		error = try_commit();
	if (error == NULL)
		error = subtransaction_try(fetch_and_store, sync);
	return error ? error : try_commit();
}

/* An interruption is not about the account. */
static void
rethrow_if_it_ends_all(ErrorData *error)
{
	if (error && is_interruption(error))
		ReThrowError(error);
}

static void
note_failure(Failures *failures, const Sync *sync, const ErrorData *error)
{
	if (++failures->count <= MAX_TOLD_FAILURES)
		appendStringInfo(&failures->text, "%sAccount \"%s\": %s",
						 failures->count > 1 ? "\n" : "", sync->username,
						 error->message);
}

/* The account's failure goes on record, if that can be done. */
static void
take_failure(Sync *sync, ErrorData *error, Failures *failures)
{
	rethrow_if_it_ends_all(error);
	sync->error = error;
	rethrow_if_it_ends_all(subtransaction_try(record_failure, sync));
	rethrow_if_it_ends_all(try_commit());
	note_failure(failures, sync, error);
	progress_failure(sync->username, error);
}

/* A connection to SPI of its own brings memory that outlives transactions. */
static void
sync_account(const char *username, Oid schema, Failures *failures)
{
	Sync		sync;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	sync_begin(&sync, username, schema, true);
	PG_TRY();
	{
		ErrorData  *error = try_sync(&sync);

		if (error)
			take_failure(&sync, error, failures);
		else
			sync_report(&sync);
	}
	PG_FINALLY();
	{
		sync_end(&sync);
	}
	PG_END_TRY();
	SPI_finish();
}

/* ---- all of them ---- */

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static void
raise_failures(const Failures *failures, int accounts)
{
	int			more = failures->count - MAX_TOLD_FAILURES;

	ereport(ERROR,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("could not sync %d of %d account%s", failures->count, accounts,
					accounts == 1 ? "" : "s"),
			 errdetail_internal("%s%s", failures->text.data,
								more > 0 ? psprintf("\nand %d more", more) : ""),
			 errhint("Syncs that succeeded are committed.  See the columns sqlstate and error of yelp_sync_runs.")));
}

void
sync_all(List *usernames, Oid schema)
{
	Failures	failures = {0};
	const char *before = NULL;
	int			accounts = 0;
	ListCell   *cell;

	initStringInfo(&failures.text);
	list_sort(usernames, compare_names);
	foreach(cell, usernames)
	{
		const char *username = lfirst(cell);

		if (before && strcmp(before, username) == 0)
			continue;
		before = username;
		accounts++;
		sync_account(username, schema, &failures);
	}
	if (failures.count > 0)
		raise_failures(&failures, accounts);
}
