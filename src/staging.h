/*
 * staging.h
 *	  The fetched programs as rows that spill to disk.
 */
#ifndef YELP_SYNC_STAGING_H
#define YELP_SYNC_STAGING_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

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

/* A set of programs, condensed to what tells it from another. */
typedef struct ProgramSet
{
	int64		count;
	uint64		digest;			/* hashes of their ids, by xor */
	uint64		content;		/* hashes of ids and fingerprints, by xor;
								 * only where each program comes once */
} ProgramSet;

typedef struct Staging
{
	MemoryContext context;
	Tuplestorestate *store;
	TupleDesc	desc;
	int64		count;

	/* The reading that is under way */
	int			pass;			/* 1 for the first */
	struct seen_ids_hash *seen; /* its program ids */
	ProgramSet	set;
	int64		pass_rows;		/* repeated programs included */
	int64		with_problems;	/* programs with fields that cannot be read */
	char	   *first_problem;	/* of the first of them, as a sentence; or
								 * NULL */
} Staging;

static inline bool
program_set_equal(ProgramSet a, ProgramSet b)
{
	return a.count == b.count && a.digest == b.digest;
}

static inline bool
program_set_same_content(ProgramSet a, ProgramSet b)
{
	return program_set_equal(a, b) && a.content == b.content;
}

/* Adds a program that is not yet in the set. */
extern void program_set_add(ProgramSet *set, text *id, int64 fingerprint);

/* In the current memory context; work_mem bounds what is not on disk. */
extern void staging_init(Staging *staging);
extern void staging_free(Staging *staging);

/* A pass begins, and ends with the set of its programs. */
extern void staging_begin_pass(Staging *staging);
extern ProgramSet staging_end_pass(Staging *staging);

/*
 * Adds the programs of a page; returns how many of them are new in this
 * reading.  Raises 22P05 for a character that the server's
 * encoding does not have; the username is for that message.
 */
extern int	staging_add_page(Staging *staging, const ProgramPage *page, int64 offset,
							 const char *username);

#endif							/* YELP_SYNC_STAGING_H */
