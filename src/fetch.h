/*
 * fetch.h
 *	  Fetch all programs of an account, and determine whether the listing is
 *	  complete.
 */
#ifndef YELP_SYNC_FETCH_H
#define YELP_SYNC_FETCH_H

#include "account.h"
#include "paginator.h"
#include "programs.h"
#include "progress.h"

/* Reasons why programs that did not arrive may still be listed. */
typedef enum FetchDoubt
{
	DOUBT_NONE = 0,				/* the listing is complete */
	DOUBT_FAILED_PAGES,			/* pages were skipped */
	DOUBT_SKIPPED,				/* programs could not be stored */
	DOUBT_REFUSED,				/* the API refused an offset that should exist */
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
	int64		elapsed;		/* microseconds */
} Fetched;

/* What the account is expected to list; a wrong guess only costs requests. */
typedef struct FetchExpected
{
	int64		programs;		/* 0 if unknown; determines how many pages are
								 * requested before the first has arrived */
	int64		surplus;		/* excess of the total over them last time */
} FetchExpected;

/*
 * Fetches all programs, reading the listing as often as needed to prove which
 * of the stored ones are gone: those that did not arrive, if there is no doubt
 * and the reading is confirmed.  The result lives in the current memory
 * context.  Raises the errors of fetch_error.c and of CHECK_FOR_INTERRUPTS,
 * after releasing all resources.
 */
extern Fetched *fetch_programs(const Account *account, Programs *programs,
							   Progress *progress, FetchExpected expected);

#endif							/* YELP_SYNC_FETCH_H */
