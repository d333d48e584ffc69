/*
 * runs.h
 *	  The history of syncs, yelp_sync_runs.
 */
#ifndef YELP_SYNC_RUNS_H
#define YELP_SYNC_RUNS_H

#include "datatype/timestamp.h"

#include "fetch.h"
#include "merge.h"

/* A sync that is done. */
typedef struct Run
{
	const char *username;
	const char *server;
	TimestampTz started_at;
	TimestampTz finished_at;
	int64		merge_us;
} Run;

/*
 * How many programs the API told of last time, or -1.  Needs an SPI connection;
 * the schema is quoted.
 */
extern int64 runs_last_total(const char *schema, const char *username,
							 const char *server);

/* Adds a row.  Needs an SPI connection. */
extern void runs_add(const char *schema, const Run *run, const Fetched *fetched,
					 const Merge *merge);

#endif							/* YELP_SYNC_RUNS_H */
