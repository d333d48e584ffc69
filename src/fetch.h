/*
 * fetch.h
 *	  Fetch all programs of an account, and determine whether the listing is
 *	  complete.
 */
#ifndef YELP_SYNC_FETCH_H
#define YELP_SYNC_FETCH_H

#include "account.h"
#include "paginator.h"
#include "progress.h"

typedef struct Fetch Fetch;

/* Reasons why programs that did not arrive may still be listed. */
typedef enum FetchDoubt
{
	DOUBT_NONE = 0,				/* the listing is complete */
	DOUBT_FAILED_PAGES,			/* pages were skipped */
	DOUBT_SKIPPED,				/* programs could not be stored */
	DOUBT_END,					/* the end of the listing was not seen */
	DOUBT_MISMATCH,				/* a page is not the one requested */
	DOUBT_GAP,					/* a page was empty, but later ones were not */
	DOUBT_FEWER,				/* the total exceeds the number of programs */
	DOUBT_MOVING				/* the listing kept changing */
} FetchDoubt;

/* The state and the result of fetching. */
typedef struct Fetched
{
	/* The programs */
	Programs   *programs;

	/* How complete they are */
	Reading		reading;		/* the last reading */
	FetchDoubt	doubt;
	bool		confirmed;		/* the last two readings returned the same */

	/* Statistics */
	int64		pages;
	int64		failed_pages;
	PaginatorCounts counts;
	int64		elapsed;		/* microseconds */
} Fetched;

/* What the account is expected to list; a wrong guess only costs requests. */
typedef struct FetchExpected
{
	int64		programs;		/* 0 if unknown; determines how many pages are
								 * requested before the first has arrived */
	int64		surplus;		/* excess of the total over them last time */
} FetchExpected;

/* Are there stored programs that the last reading did not return? */
typedef bool (*FetchLacks) (void *arg, const Fetched *fetched);

/* Prepares to fetch, in the current memory context. */
extern Fetch *fetch_create(const Account *account, Programs *programs,
						   Progress *progress);

/*
 * Fetches all programs, reading the listing as often as needed to prove what
 * is gone.  Programs that did not arrive are gone if there is no doubt and
 * the reading is confirmed.  The result lives as long as the memory context.
 * Raises the errors of fetch_error.c and of CHECK_FOR_INTERRUPTS, after
 * releasing all resources.
 */
extern Fetched *fetch_programs(Fetch *fetch, FetchExpected expected,
							   FetchLacks lacks, void *arg);

#endif							/* YELP_SYNC_FETCH_H */
