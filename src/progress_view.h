/*
 * progress_view.h
 *	  Show running syncs to all sessions.
 */
#ifndef YELP_SYNC_PROGRESS_VIEW_H
#define YELP_SYNC_PROGRESS_VIEW_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "option.h"

typedef enum ProgressPhase
{
	PHASE_PREPARING = 0,		/* reading what is stored */
	PHASE_FETCHING,
	PHASE_MERGING
} ProgressPhase;

/* The state of a sync; unknown values are 0. */
typedef struct ProgressRow
{
	/* Filled in by progress_view_show */
	int			pid;
	Oid			database;
	Oid			role;

	TimestampTz started_at;
	ProgressPhase phase;
	int			reading;		/* of the listing, 1 for the first */
	int			in_flight;		/* requests */
	int64		pages_done;		/* in this reading */
	int64		pages_total;
	int64		programs;
	int64		retries;		/* in all readings */
	char		username[MAX_USERNAME_LENGTH + 1];
} ProgressRow;

/*
 * Prepares to show this session's syncs; if that fails, a message is logged,
 * but no error is raised.
 */
extern void progress_view_prepare(void);

/*
 * Replaces what is shown for this session; NULL for nothing.  Never raises
 * errors.
 */
extern void progress_view_show(const ProgressRow *row);

/*
 * The syncs in this database, as a list of ProgressRow.  Raises 0A000 if the
 * server does not support shared memory without preloading a library.
 */
extern List *progress_view_list(void);

/* May the current user see more of the row than its pid? */
extern bool progress_view_may_read(const ProgressRow *row);

extern const char *progress_view_phase(ProgressPhase phase);

#endif							/* YELP_SYNC_PROGRESS_VIEW_H */
