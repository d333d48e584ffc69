/*
 * history.h
 *	  The history of syncs, yelp_sync_runs, and of programs,
 *	  yelp_program_changes.
 *
 * They decide about nothing but how many pages to ask for at once, and cannot
 * fail a sync: there is a WARNING, and it goes on.
 */
#ifndef YELP_SYNC_HISTORY_H
#define YELP_SYNC_HISTORY_H

#include "datatype/timestamp.h"
#include "utils/array.h"

#include "fetch.h"
#include "merge.h"

/* A finished sync */
typedef struct SyncRun
{
	Datum		run_id;			/* uuid */
	const char *username;
	const char *synced_by;		/* role */
	const char *server;			/* NULL: not found */
	const char *program_status; /* the filter; NULL: not found */
	TimestampTz started_at;
	TimestampTz finished_at;
	ArrayBuildState *warnings;	/* text[]; NULL: none */
} SyncRun;

/* The result of the previous sync */
typedef struct LastRun
{
	int64		listed;			/* programs that arrived, or -1 */
	int64		total;			/* total reported by the API, or -1 */
	bool		synced;			/* was its status not "partial"? */
} LastRun;

/* Needs an SPI connection, as all of these do; the schema is quoted. */
extern LastRun history_last_run(const char *schema, const char *username,
								const char *server);

/* A random run_id, in the current memory context. */
extern Datum history_new_run_id(void);

/* Adds a row; a sync that failed has an error instead of programs. */
extern void history_add(const char *schema, const SyncRun *run, const SyncResult *result,
						const Fetched *fetched, const ErrorData *error);

/* Adds the changes that a merge has collected: all or, if that fails, none. */
extern void history_add_changes(const SyncRun *run, const Merge *merge);

#endif							/* YELP_SYNC_HISTORY_H */
