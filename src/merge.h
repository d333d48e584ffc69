/*
 * merge.h
 *	  The fetched rows into yelp_programs.
 */
#ifndef YELP_SYNC_MERGE_H
#define YELP_SYNC_MERGE_H

#include "datatype/timestamp.h"

#include "fetch.h"

typedef struct Merge
{
	/* What to do */
	const char *schema;			/* where the extension's tables are, quoted */
	const char *username;
	ProgramSet	stored;			/* what is stored */
	bool		delete_gone;	/* else what did not come is left alone */
	TimestampTz at;				/* for created_at and updated_at */

	/* Where the rows (action, program_id, changed) go */
	Tuplestorestate *result;

	/* What was done */
	int64		added;
	int64		updated;
	int64		unchanged;
	int64		deleted;
	int64		gone;			/* not fetched and still stored */
	int64		programs;		/* fetched, each counted once */
} Merge;

/*
 * Are programs stored that did not come in the last reading?  Needs an SPI
 * connection.
 */
extern bool merge_would_delete(const Merge *merge, const Fetched *fetched);

/*
 * Makes the account's rows what was fetched, in one statement; needs an SPI
 * connection.  Raises HV021 for a program that jsonb cannot hold, HV000 when
 * nothing was fetched that could take the place of the rows that are stored,
 * and whatever constraints and triggers of the table raise.
 */
extern void merge_programs(Merge *merge, const Fetched *fetched);

#endif							/* YELP_SYNC_MERGE_H */
