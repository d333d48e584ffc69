/*
 * staging.h
 *	  The fetched programs as rows that spill to disk.
 */
#ifndef YELP_SYNC_STAGING_H
#define YELP_SYNC_STAGING_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "known.h"
#include "program_page.h"

/* The columns */
enum RowColumn
{
	ROW_PROGRAM_ID = 1,			/* text COLLATE "C" */
	ROW_FINGERPRINT,			/* bigint: hash of the document */
	ROW_DOCUMENT,				/* text: the program's JSON; NULL: as stored */
	ROW_PAGE_OFFSET,			/* bigint: of the page it was on */
	ROW_PASS,					/* integer: which time the listing was fetched */
	ROW_POSITION,				/* integer: on the page, from 0 */
	ROW_PROBLEMS				/* text: fields that could not be read, with
								 * commas between them; or NULL */
};
#define ROW_COLUMNS 7

typedef struct Staging
{
	MemoryContext context;
	Known	   *known;			/* the programs that are stored */
	Tuplestorestate *store;
	TupleDesc	desc;
	int64		count;			/* rows */
	struct seen_ids_hash *seen; /* ids of the others that arrived */
	int64		programs;		/* that arrived in any reading, each once */

	/* The reading that is under way, or was the last */
	int			pass;			/* 1 for the first */
	ProgramSet	set;
	int64		stored;			/* programs of the set that are stored */
	int64		arrived;		/* repeated programs included */
	int64		with_problems;	/* programs with fields that cannot be read */
	char	   *first_problem;	/* of the first of them, as a sentence; or
								 * NULL */
} Staging;

/*
 * In the current memory context; work_mem bounds what is not on disk.  What is
 * known of the stored programs must live as long.
 */
extern void staging_init(Staging *staging, Known *known);
extern void staging_free(Staging *staging);

/* A pass begins, and ends with the set of its programs. */
extern void staging_begin_pass(Staging *staging);
extern ProgramSet staging_end_pass(Staging *staging);

/* There will be no more passes: gives back what only they need. */
extern void staging_finish(Staging *staging);

/*
 * Adds the programs of a page: a row for each that is not as it is stored, and
 * for others only where one of the same id has a row.  Returns how many of them are new in this
 * reading.  Raises 22P05 for a character that the server's
 * encoding does not have; the username is for that message.
 */
extern int	staging_add_page(Staging *staging, const ProgramPage *page, int64 offset,
							 const char *username);

#endif							/* YELP_SYNC_STAGING_H */
