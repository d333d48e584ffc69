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
	ROW_DOCUMENT,				/* text: the program's JSON; NULL: unchanged */
	ROW_PAGE_OFFSET,			/* bigint: of its page */
	ROW_PASS,					/* integer: the pass in which it was fetched */
	ROW_POSITION				/* integer: on the page, from 0 */
};
#define ROW_COLUMNS 6

typedef struct Staging
{
	MemoryContext context;
	Known	   *known;			/* the stored programs */
	Tuplestorestate *store;
	TupleDesc	desc;
	int64		count;			/* rows */
	struct seen_ids_hash *seen; /* IDs of the others that have arrived */
	int64		programs;		/* arrived in any reading, each counted once */

	/* The current or the last reading */
	int			pass;			/* 1 for the first */
	ProgramSet	set;
	int64		stored;			/* programs of the set that are stored */
	int64		arrived;		/* including repeated programs */
} Staging;

/*
 * Allocates in the current memory context; work_mem limits what is kept in
 * memory.  The stored programs must live as long.
 */
extern void staging_init(Staging *staging, Known *known);
extern void staging_free(Staging *staging);

/* Begins a pass, or ends it and returns the set of its programs. */
extern void staging_begin_pass(Staging *staging);
extern ProgramSet staging_end_pass(Staging *staging);

/* No more passes follow: frees what only they need. */
extern void staging_finish(Staging *staging);

/*
 * Adds the programs of a page: a row for each that is not stored unchanged,
 * and for others only if one with the same ID has a row.  Returns how many of
 * them are new in this reading.  Raises 22P05 for a character that does not
 * exist in the server encoding; the username is for that message.
 */
extern int	staging_add_page(Staging *staging, const ProgramPage *page, int64 offset,
							 const char *username);

#endif							/* YELP_SYNC_STAGING_H */
