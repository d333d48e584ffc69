/*
 * sync_all.c
 *	  Sync several accounts, each in its own transactions.
 *
 * An account takes two transactions.  The first finds it, locks it and reads
 * what is stored.  The second waits for the API without a snapshot and
 * without a lock on any table, so that it blocks nobody, and then merges.  In
 * between, the session holds the account lock.
 *
 * Each step runs in a subtransaction.  An error rolls it back, together with
 * anything that the failed code had open, for example the SPI connections of
 * a user's trigger, which would prevent a commit.
 */
#include "postgres.h"

#include "sync_all.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "http.h"
#include "subtransaction.h"
#include "sync.h"
#include "text.h"

/* Number of failures in the final ERROR; the others are only counted */
#define MAX_SHOWN_FAILURES 20

typedef struct Failures
{
	int			count;
	StringInfoData text;
} Failures;

/* ---- transactions ---- */

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
	ErrorData  *error = subtransaction_try(prepare, sync);

	if (error == NULL)
		error = try_commit(sync);
	require_same_user(user);
	if (error == NULL)
		error = subtransaction_try(fetch_and_store, sync);
	return error ? error : try_commit(sync);
}

/* Interruptions are not about the account, so they end the whole call. */
static void
rethrow_if_it_ends_all(ErrorData *error)
{
	if (error && is_interruption(error))
		ReThrowError(error);
}

static void
note_failure(Failures *failures, const Sync *sync, const ErrorData *error)
{
	if (++failures->count <= MAX_SHOWN_FAILURES)
		appendStringInfo(&failures->text, "%sAccount \"%s\": %s",
						 failures->count > 1 ? "\n" : "", sync->username,
						 error->message);
}

static void
warn_unrecorded(const Sync *sync, ErrorData *error)
{
	rethrow_if_it_ends_all(error);
	if (error)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not record the failed sync of account \"%s\": %s",
						client_text(sync->username), client_text(error->message))));
}

/* Records the account's failure, if possible. */
static void
take_failure(Sync *sync, ErrorData *error, Failures *failures)
{
	rethrow_if_it_ends_all(error);
	/* A trigger on the history may sync another account */
	http_release();
	sync->error = error;
	warn_unrecorded(sync, subtransaction_try(record_failure, sync));
	warn_unrecorded(sync, try_commit(sync));
	note_failure(failures, sync, error);
	progress_failure(sync->username, error);
}

/* The SPI connection provides memory that outlives transactions. */
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

/* ---- all accounts ---- */

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static void
raise_failures(const Failures *failures, int accounts)
{
	int			more = failures->count - MAX_SHOWN_FAILURES;

	ereport(ERROR,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("could not sync %d of %d account%s", failures->count, accounts,
					accounts == 1 ? "" : "s"),
			 errdetail_internal("%s%s", client_text(failures->text.data),
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
