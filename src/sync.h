/*
 * sync.h
 *	  Sync a single account, step by step.
 *
 * The function runs all steps in its caller's transaction; the procedure
 * prepares in one transaction, and fetches and stores in the next.
 */
#ifndef YELP_SYNC_SYNC_H
#define YELP_SYNC_SYNC_H

#include "utils/tuplestore.h"

#include "history.h"

/* The setting yelp_sync.log_syncs */
extern bool sync_log;

/* Private to sync.c, except for passing it on. */
typedef struct Sync
{
	const char *username;
	Oid			schema;			/* of the tables */
	bool		session;		/* use a session-level lock */
	bool		locked;
	struct Sync *outer;			/* enclosing sync: a trigger may sync */

	Account    *account;
	Merge		merge;
	Progress	progress;
	Fetched    *fetched;
	LastRun		last;			/* the previous sync */
	SyncRun		run;
	ErrorData  *error;			/* if it failed, or NULL */
	int64		started;		/* by clock_us */
} Sync;

/*
 * Begin and end the sync of an account: sync_end must be called after
 * sync_begin in any case, and never raises errors.  Memory is allocated in
 * the context that is current in each step; it must live until sync_end.
 */
extern void sync_begin(Sync *sync, const char *username, Oid schema, bool session);
extern void sync_end(Sync *sync);

/*
 * Finds the account, locks it, prepares the tables, and reads what is stored.
 * All steps need an SPI connection.  Raises the errors of account_find and
 * tables_prepare, and 55P03 if the account is already being synced.
 */
extern void sync_prepare(Sync *sync);

/* Fetches all programs; see fetch_programs. */
extern void sync_fetch(Sync *sync);

/*
 * Merges the programs into the tables, and adds a row to the history; the
 * changes are added to the tuplestore, if there is one.
 */
extern void sync_store(Sync *sync, Tuplestorestate *result);

/* Records the failure, sync->error, in the history. */
extern void sync_record_failure(Sync *sync);

/* Reports that the sync is complete. */
extern void sync_report(Sync *sync);

#endif							/* YELP_SYNC_SYNC_H */
