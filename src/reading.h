/*
 * reading.h
 *	  What one reading of a listing showed, and whether its pages answered what
 *	  was asked.
 *
 * Knows neither requests nor rows.
 */
#ifndef YELP_SYNC_READING_H
#define YELP_SYNC_READING_H

#include "echo.h"
#include "listing.h"
#include "program_page.h"

typedef struct Reading
{
	int64		total;			/* of programs, as the API reports it */
	int64		pages;			/* that arrived */
	int64		failed_pages;	/* that were skipped */
	int64		skipped;		/* programs that cannot be stored */
	const char *skip_reason;	/* of the first of them, as a sentence; or
								 * NULL */

	/* Whether it shows everything that is listed */
	bool		end_seen;
	bool		total_moved;	/* pages reported different totals */
	int64		gap;			/* offset of a page without programs before
								 * others, or -1 */
	const char *mismatch;		/* how a page did not answer what was asked,
								 * as a sentence; or NULL */
	bool		turns_back;		/* only pages behind the last program did so */
} Reading;

/* What the pages of a reading show, while they arrive */
typedef struct ReadingNotes
{
	MemoryContext context;		/* of the texts below */
	const char *program_status; /* that was asked for */
	int64		skipped;
	const char *skip_reason;
	const char *mismatch;
	Echo		echo;			/* of the offset */
} ReadingNotes;

/* The texts of the Reading will live in this memory context. */
extern void reading_begin(ReadingNotes *notes, const char *program_status,
						  MemoryContext context);

/* The page that was asked for by this offset and limit arrived. */
extern void reading_add_page(ReadingNotes *notes, int64 offset, int limit,
							 const ProgramPage *page);

/* All pages arrived that will; they held so many distinct programs. */
extern Reading reading_end(const ReadingNotes *notes, const Listing *listing,
						   int64 programs);

#endif							/* YELP_SYNC_READING_H */
