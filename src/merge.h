/*
 * merge.h
 *	  The fetched rows into yelp_programs.
 */
#ifndef YELP_SYNC_MERGE_H
#define YELP_SYNC_MERGE_H

#include "datatype/timestamp.h"

#include "fetch.h"
#include "lost_fields.h"
#include "tables.h"

typedef struct Merge
{
	/* What to do */
	Tables		tables;
	const char *username;
	Known	   *known;			/* what is stored; NULL when it is merged */
	ProgramSet	stored;			/* the same, as a set */
	bool		delete_gone;	/* else what is not listed is left alone */
	const char *status;			/* of the sync: synced or partial */
	bool		show_missing;	/* return what is stored and not listed */
	TimestampTz at;				/* for created_at and updated_at */
	bool		record;			/* what changed, in yelp_program_changes */
	int64		run_id;			/* if so, for that */

	/* Where the rows (action, program_id, changed) go */
	Tuplestorestate *result;

	/* What was done */
	int64		added;
	int64		updated;
	int64		unchanged;
	int64		deleted;
	int64		unlisted;		/* not listed and still stored */
	int64		kept;			/* by policies, against what was to be done */
	int64		programs;		/* fetched, each counted once */
	LostFields	lost;			/* the columns that changed */
} Merge;

/* How many programs are stored that the last reading did not bring? */
extern int64 merge_count_unlisted(const Merge *merge, const Fetched *fetched);

/*
 * Makes the account's rows what was fetched, in one statement; needs an SPI
 * connection.  Raises HV021 for a program that jsonb cannot hold, and whatever
 * constraints and triggers of the table raise.
 */
extern void merge_programs(Merge *merge, const Fetched *fetched);

#endif							/* YELP_SYNC_MERGE_H */
