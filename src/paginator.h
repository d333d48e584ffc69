/*
 * paginator.h
 *	  All pages of an account's listing, once.
 */
#ifndef YELP_SYNC_PAGINATOR_H
#define YELP_SYNC_PAGINATOR_H

#include "account.h"
#include "listing.h"
#include "progress.h"
#include "staging.h"
#include "known.h"

typedef struct Paginator Paginator;

typedef struct PaginatorCounts
{
	int64		requests;		/* that went out */
	int64		retries;		/* attempts that were repeated */
	int64		received_bytes; /* of the pages, as they came */
} PaginatorCounts;

/*
 * Makes ready to fetch pages, in the current memory context; the programs on
 * them are added to the rows, those that are stored already without document.
 */
extern Paginator *paginator_create(const Account *account, const Known *known,
								   Staging *staging, Progress *progress);

/*
 * Fetches the whole listing, as often as it is called; how fast the API lets us
 * is remembered from one time to the next.  The number of programs that is
 * expected, 0 for none, decides how many pages are asked for before the first
 * has come; a wrong one costs requests and nothing else.
 *
 * The result is valid until the next call.  Raises the errors of fetch_error.c and
 * what CHECK_FOR_INTERRUPTS raises; nothing is left behind then.
 */
extern const Listing *paginator_fetch(Paginator *paginator, int64 expected);

/* What it took so far. */
extern PaginatorCounts paginator_counts(const Paginator *paginator);

#endif							/* YELP_SYNC_PAGINATOR_H */
