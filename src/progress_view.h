/*
 * progress_view.h
 *	  The syncs that run now, where all sessions can see them.
 */
#ifndef YELP_SYNC_PROGRESS_VIEW_H
#define YELP_SYNC_PROGRESS_VIEW_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* Longest username that is shown, in bytes: that of the option */
#define PROGRESS_VIEW_NAME 255

typedef enum ProgressPhase
{
	PHASE_PREPARING = 0,		/* reads what is stored */
	PHASE_FETCHING,
	PHASE_MERGING
} ProgressPhase;

/* How a sync goes; what is unknown is 0. */
typedef struct ProgressRow
{
	/* Whose it is, which progress_view_show fills in */
	int			pid;
	Oid			database;
	Oid			role;

	TimestampTz started_at;
	ProgressPhase phase;
	int			reading;		/* of the listing, 1 for the first */
	int			in_flight;		/* requests */
	int64		pages_done;		/* of this reading */
	int64		pages_total;
	int64		programs;
	int64		retries;		/* in all readings */
	char		username[PROGRESS_VIEW_NAME + 1];
} ProgressRow;

/*
 * Makes ready to show syncs of this session; a sync that cannot be shown is a
 * line in the server's log and no error.
 */
extern void progress_view_prepare(void);

/* Shows this in the place of what the session showed; NULL for nothing.  Never raises. */
extern void progress_view_show(const ProgressRow *row);

/*
 * The syncs in this database, as a list of ProgressRow.  Raises 0A000 where the
 * server has no memory that sessions can share without preloading a library.
 */
extern List *progress_view_list(void);

/* May the current user see more of the row than its pid? */
extern bool progress_view_may_read(const ProgressRow *row);

extern const char *progress_view_phase(ProgressPhase phase);

#endif							/* YELP_SYNC_PROGRESS_VIEW_H */
