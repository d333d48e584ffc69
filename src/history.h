/*
 * history.h
 *	  The history of syncs, yelp_sync_runs.
 */
#ifndef YELP_SYNC_HISTORY_H
#define YELP_SYNC_HISTORY_H

#include "datatype/timestamp.h"
#include "utils/array.h"

#include "fetch.h"
#include "merge.h"

/* A finished sync. */
typedef struct SyncRun
{
	int64		run_id;			/* 0: assigned by the table */
	const char *username;
	const char *synced_by;		/* role */
	const char *server;			/* NULL: not found */
	const char *program_status; /* the filter; NULL: not found */
	TimestampTz started_at;
	TimestampTz finished_at;
	int64		merge_us;
	ArrayBuildState *warnings;	/* text[]; NULL: none */
} SyncRun;

/* The result of the previous sync. */
typedef struct LastRun
{
	int64		listed;			/* programs that arrived, or -1 */
	int64		total;			/* total reported by the API, or -1 */
	bool		synced;			/* was its status not "partial"? */
} LastRun;

/* Needs an SPI connection; the schema is quoted. */
extern LastRun history_last_run(const char *schema, const char *username,
								const char *server);

/*
 * Reserves the number of the next run, if it is needed before the row is
 * added; requires only the INSERT privilege.  Raises 55000 if run_id is not
 * an identity column.
 */
extern int64 history_next_run(Oid runs);

/* Adds a row.  Needs an SPI connection. */
extern void history_add(const char *schema, const SyncRun *run, const Fetched *fetched,
						const Merge *merge);

/* The same for a failed sync, without figures. */
extern void history_add_failure(const char *schema, const SyncRun *run,
								const ErrorData *error);

#endif							/* YELP_SYNC_HISTORY_H */
