/*
 * reading.h
 *	  The result of one reading of a listing, and whether its pages are the
 *	  ones requested.
 *
 * Does not depend on requests or rows.
 */
#ifndef YELP_SYNC_READING_H
#define YELP_SYNC_READING_H

#include "echo.h"
#include "listing.h"
#include "program_page.h"

typedef struct Reading
{
	int64		total;			/* number of programs, as reported by the
								 * API */
	int64		pages;			/* that arrived */
	int64		failed_pages;	/* that were skipped */
	int64		skipped;		/* programs that cannot be stored */
	const char *skip_reason;	/* of the first of them, as a sentence; or
								 * NULL */

	/* Whether it is complete */
	bool		end_seen;
	bool		total_moved;	/* pages reported different totals */
	int64		gap;			/* offset of an empty page that is followed by
								 * others, or -1 */
	const char *mismatch;		/* how a page differs from the one requested,
								 * as a sentence; or NULL */
	bool		turns_back;		/* this is only so for pages past the last
								 * program */
} Reading;

/* What the pages of a reading have shown so far */
typedef struct ReadingNotes
{
	MemoryContext context;		/* of the texts below */
	const char *program_status; /* requested */
	int64		skipped;
	const char *skip_reason;
	const char *mismatch;
	Echo		echo;			/* of the offset */
} ReadingNotes;

/* The texts of the Reading are allocated in this memory context. */
extern void reading_begin(ReadingNotes *notes, const char *program_status,
						  MemoryContext context);

/* The page requested with this offset and limit has arrived. */
extern void reading_add_page(ReadingNotes *notes, int64 offset, int limit,
							 const ProgramPage *page);

/* No more pages will arrive; they had this number of distinct programs. */
extern Reading reading_end(const ReadingNotes *notes, const Listing *listing,
						   int64 programs);

#endif							/* YELP_SYNC_READING_H */
