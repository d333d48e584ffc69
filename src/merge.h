/*
 * merge.h
 *	  Merge the fetched rows into yelp_programs.
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
	Known	   *known;			/* what is stored; NULL during the merge */
	ProgramSet	stored;			/* the same, as a set */
	bool		delete_gone;	/* otherwise, keep programs that are not
								 * listed */
	const char *status;			/* of the sync: synced or partial */
	bool		show_missing;	/* return programs that are stored, but not
								 * listed */
	TimestampTz at;				/* for created_at and updated_at */
	bool		record;			/* record changes in yelp_program_changes */
	int64		run_id;			/* if so, the run_id to use */

	/* Receives the rows (action, program_id, changed) */
	Tuplestorestate *result;

	/* What was done */
	int64		added;
	int64		updated;
	int64		unchanged;
	int64		deleted;
	int64		unlisted;		/* not listed, but still stored */
	int64		kept;			/* not added, updated or deleted because of
								 * policies or triggers */
	int64		programs;		/* fetched, each counted once */
	int64		problems;		/* stored with fields that could not be read,
								 * changed or not */
	char	   *first_problem;	/* about one of them, as a sentence, or NULL */
	LostFields	lost;			/* the columns that changed */
} Merge;

/* The number of stored programs that the last reading did not return. */
extern int64 merge_count_unlisted(const Merge *merge, const Fetched *fetched);

/*
 * Makes the account's rows equal to what was fetched, in one statement; needs
 * an SPI connection.  Raises the errors of the table's constraints and
 * triggers.
 */
extern void merge_programs(Merge *merge, const Fetched *fetched);

/*
 * The number of programs that should be stored after the merge, but are not:
 * other transactions, or triggers, have deleted them.  Needs an SPI connection.
 */
extern int64 merge_count_lost(const Merge *merge);

#endif							/* YELP_SYNC_MERGE_H */
