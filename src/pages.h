/*
 * pages.h
 *	  All pages of an account's listing, once.
 */
#ifndef YELP_SYNC_PAGES_H
#define YELP_SYNC_PAGES_H

#include "account.h"
#include "listing.h"
#include "progress.h"
#include "rows.h"
#include "stored.h"

typedef struct Pages Pages;

typedef struct PagesCounts
{
	int64		requests;		/* that went out */
	int64		retries;		/* attempts that were repeated */
	int64		received_bytes; /* of the pages, as they came */
} PagesCounts;

/*
 * Makes ready to fetch pages, in the current memory context; the programs on
 * them are added to the rows, those that are stored already without document.
 */
extern Pages *pages_create(const Account *account, const Stored *stored,
						   Rows *rows, Progress *progress);

/*
 * Fetches the whole listing, as often as it is called; how fast the API lets us
 * is remembered from one time to the next.  The number of programs that is
 * expected, 0 for none, decides how many pages are asked for before the first
 * has come; a wrong one costs requests and nothing else.
 *
 * The result is valid until the next call.  Raises the errors of failure.c and
 * what CHECK_FOR_INTERRUPTS raises; nothing is left behind then.
 */
extern const Listing *pages_fetch(Pages *pages, int64 expected);

/* What it took so far. */
extern PagesCounts pages_counts(const Pages *pages);

#endif							/* YELP_SYNC_PAGES_H */
