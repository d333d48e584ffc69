/*
 * paginator.h
 *	  Read all pages of an account's listing once.
 */
#ifndef YELP_SYNC_PAGINATOR_H
#define YELP_SYNC_PAGINATOR_H

#include "account.h"
#include "progress.h"
#include "reading.h"
#include "programs.h"

typedef struct Paginator Paginator;

typedef struct PaginatorCounts
{
	int64		requests;		/* sent */
	int64		retries;		/* attempts that were repeated */
	int64		received_bytes; /* of the pages, before any decompression */
} PaginatorCounts;

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
 * wrong number only costs requests.  A strict reading looks past the last
 * program even if a short page seems to be the end.
 *
 * Raises the errors of fetch_error.c and of CHECK_FOR_INTERRUPTS, after
 * releasing all resources.
 */
extern Reading paginator_fetch(Paginator *paginator, int64 expected,
							   bool strict);

/* Statistics so far. */
extern PaginatorCounts paginator_counts(const Paginator *paginator);

#endif							/* YELP_SYNC_PAGINATOR_H */
