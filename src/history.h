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

/* A sync that is done. */
typedef struct SyncRun
{
	int64		run_id;			/* 0: the table numbers it */
	const char *username;
	const char *server;			/* NULL: it was not found */
	const char *program_status; /* the filter; NULL likewise */
	TimestampTz started_at;
	TimestampTz finished_at;
	int64		merge_us;
	ArrayBuildState *warnings;	/* text[]; NULL: none */
} SyncRun;

/* What the sync before brought. */
typedef struct LastRun
{
	int64		listed;			/* programs that arrived, or -1 */
	int64		total;			/* that the API reported, or -1 */
	bool		synced;			/* its status was not "partial" */
} LastRun;

/* Needs an SPI connection; the schema is quoted. */
extern LastRun history_last_run(const char *schema, const char *username,
								const char *server);

/*
 * The number of the run that is to be added, where it must be known before; the
 * right to INSERT is all that takes.  Raises 55000 where run_id is no identity
 * column.
 */
extern int64 history_next_run(Oid runs);

/* Adds a row.  Needs an SPI connection. */
extern void history_add(const char *schema, const SyncRun *run, const Fetched *fetched,
						const Merge *merge);

/* The same for a sync that failed: without figures. */
extern void history_add_failure(const char *schema, const SyncRun *run,
								const ErrorData *error);

#endif							/* YELP_SYNC_HISTORY_H */
