/*
 * sync.h
 *	  A sync of one account, step by step.
 *
 * The function takes all steps in its caller's transaction; the procedure
 * prepares in one transaction, and fetches and stores in the next one.
 */
#ifndef YELP_SYNC_SYNC_H
#define YELP_SYNC_SYNC_H

#include "utils/tuplestore.h"

#include "history.h"

/* The setting yelp_sync.log_syncs */
extern bool sync_log;

/* Others than sync.c only hand it on. */
typedef struct Sync
{
	const char *username;
	Oid			schema;			/* of the tables */
	bool		session;		/* the lock outlives the transaction */
	bool		locked;
	struct Sync *outer;			/* that this one runs within; a trigger may sync */

	Account    *account;
	Merge		merge;
	Progress	progress;
	Fetched    *fetched;
	LastRun		last;			/* the sync before */
	SyncRun		run;
	ErrorData  *error;			/* that it failed with, or NULL */
	int64		started;		/* by clock_us */
} Sync;

/*
 * Begins to sync an account, and ends it: sync_end must follow sync_begin
 * whatever happens in between, and never raises.  Memory of a sync is in the
 * context that is current in each step; it must live until sync_end.
 */
extern void sync_begin(Sync *sync, const char *username, Oid schema, bool session);
extern void sync_end(Sync *sync);

/*
 * Finds the account, locks it, prepares the tables, and reads what is stored.
 * The steps need an SPI connection.  Raises the errors of account_find and
 * tables_prepare, and 55P03 where the account is being synced already.
 */
extern void sync_prepare(Sync *sync);

/* Fetches all programs; see fetch_programs. */
extern void sync_fetch(Sync *sync);

/*
 * Merges them into the tables, with a row in the history; the rows of what
 * changed go to the tuplestore, if there is one.
 */
extern void sync_store(Sync *sync, Tuplestorestate *result);

/* Records in the history that it failed, with sync->error. */
extern void sync_record_failure(Sync *sync);

/* Says that it is complete. */
extern void sync_report(Sync *sync);

#endif							/* YELP_SYNC_SYNC_H */
