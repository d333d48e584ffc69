/*
 * merge.h
 *	  Make the rows of yelp_programs equal to the programs that were received.
 */
#ifndef YELP_SYNC_MERGE_H
#define YELP_SYNC_MERGE_H

#include "datatype/timestamp.h"
#include "nodes/execnodes.h"
#include "utils/array.h"

#include "programs.h"

typedef enum SyncStatus
{
	SYNC_SYNCED,
	SYNC_PARTIAL,				/* something was skipped or is not proved */
	SYNC_FAILED
} SyncStatus;

/* The words for them */
extern const char *const sync_status_names[];

/*
 * The result of a sync, as the history records it; of one that failed, there
 * are no counts
 */
typedef struct SyncResult
{
	SyncStatus	status;
	Datum		run_id;			/* uuid */
	const char *synced_by;		/* role */
	const char *server;			/* NULL: not found */
	const char *program_status; /* the filter; NULL: not found */
	TimestampTz started_at;
	TimestampTz finished_at;
	ArrayBuildState *warnings;	/* text[]; NULL: none */

	/* Programs */
	int64		programs;		/* received, each counted once */
	int64		added;
	int64		updated;
	int64		unchanged;
	int64		deleted;		/* proved to be gone, and deleted or, with
								 * on_gone = keep, marked */
	int64		unlisted;		/* stored programs that are not listed, and
								 * not proved to be gone */
	int64		missing;		/* the same, if they were returned */
	int64		problems;		/* stored programs with fields that could not
								 * be read, changed or not */
	char	   *first_problem;	/* about one of them, as a sentence, or NULL */

	/* Microseconds */
	int64		fetch_us;
	int64		merge_us;
	int64		total_us;
} SyncResult;

typedef struct Merge
{
	/* What to do */
	Tables		tables;
	const char *username;
	Programs   *programs;
	bool		delete_gone;	/* otherwise, leave programs that are not
								 * listed as they are */
	bool		keep_gone;		/* mark them instead of deleting them */
	bool		show_missing;	/* return programs that are stored, but not
								 * listed */
	bool		record;			/* collect the changes */
	TimestampTz at;				/* of all changes */

	/* Receives the rows (action, program_id, changed); may be NULL */
	ReturnSetInfo *returned;

	/* The step that runs; private */
	const char *statement;
	const char *action;			/* as returned to the caller */
	int64	   *count;

	/* What was done */
	SyncResult	result;
	int64		wrong;			/* programs that are not stored as they should
								 * be: others, or triggers, interfered */
	Tuplestorestate *changes;	/* rows for the history, or NULL */
	TupleDesc	change_desc;
} Merge;

/*
 * Writes what differs: programs that are gone first, then those that changed,
 * then new ones.  Needs an SPI connection.  Raises the errors of the table's
 * constraints and triggers, and 40001 if another session has added a program.
 */
extern void merge_programs(Merge *merge);

#endif							/* YELP_SYNC_MERGE_H */
