/*
 * paginator.h
 *	  Read all pages of an account's listing once.
 */
#ifndef YELP_SYNC_PAGINATOR_H
#define YELP_SYNC_PAGINATOR_H

#include "account.h"
#include "programs.h"
#include "progress.h"

typedef struct Paginator Paginator;

/* The result of one reading */
typedef struct Reading
{
	int64		total;			/* number of programs, as reported by the API */
	int64		positions;		/* of programs, up to the end of the listing */
	int64		pages;			/* that arrived */
	int64		failed_pages;	/* that were skipped */
	int64		skipped;		/* programs that cannot be stored */
	const char *skip_reason;	/* of the first of them, as a sentence; or
								 * NULL */

	/* In all readings so far */
	int64		requests;		/* sent */
	int64		retries;		/* attempts that were repeated */
	int64		received_bytes; /* of the pages, before any decompression */

	/* Whether it is complete */
	bool		end_seen;
	bool		total_moved;	/* pages reported different totals */
	bool		refused;		/* the API refused an offset that should exist */
	int64		gap;			/* offset of an empty page that is followed by
								 * others, or -1 */
	const char *mismatch;		/* how a page differs from the one requested,
								 * as a sentence; or NULL */

	/* Why the end was not seen, or the offset was refused */
	int			failure_sqlstate;
	const char *failure;		/* NULL: unknown */
	const char *failure_detail;
} Reading;

/*
 * Prepares to fetch pages, in the current memory context; their programs are
 * added to the rows, without document if they are already stored.
 */
extern Paginator *paginator_create(const Account *account, Programs *programs,
								   Progress *progress);

/*
 * Reads the whole listing; can be called repeatedly, and remembers the rate
 * that the API allowed.  The expected number of programs, 0 if unknown,
 * determines how many pages are requested before the first has arrived; a
 * wrong number only costs requests.
 *
 * Raises the errors of fetch_error.c and of CHECK_FOR_INTERRUPTS, after
 * releasing all resources.
 */
extern Reading paginator_fetch(Paginator *paginator, int64 expected);

#endif							/* YELP_SYNC_PAGINATOR_H */
