/*
 * fetch.h
 *	  All programs of an account, as rows, and whether they are all.
 */
#ifndef YELP_SYNC_FETCH_H
#define YELP_SYNC_FETCH_H

#include "account.h"
#include "paginator.h"
#include "progress.h"
#include "staging.h"

typedef struct Fetch Fetch;

/* Why what did not arrive may be listed all the same. */
typedef enum FetchDoubt
{
	DOUBT_NONE = 0,				/* all that is listed arrived */
	DOUBT_FAILED_PAGES,			/* pages were skipped */
	DOUBT_SKIPPED,				/* programs cannot be stored */
	DOUBT_END,					/* what is behind the last program is unknown */
	DOUBT_MISMATCH,				/* a page did not answer what was asked */
	DOUBT_GAP,					/* a page was empty, and later ones were not */
	DOUBT_FEWER,				/* fewer programs arrived than the total */
	DOUBT_MOVING				/* the listing kept changing */
} FetchDoubt;

/* What has been fetched so far. */
typedef struct Fetched
{
	/* The programs */
	Staging		staging;
	int			first_pass;		/* rows of earlier readings do not count */
	bool		repeats;		/* a program may have arrived more than once */
	ProgramSet	programs;		/* of the last reading */

	/* How far they can be trusted */
	Reading		reading;		/* the last one */
	FetchDoubt	doubt;
	bool		confirmed;		/* the last two readings brought the same */

	/* Statistics */
	int64		pages;
	int64		failed_pages;
	PaginatorCounts counts;
	int64		elapsed;		/* microseconds */
} Fetched;

/* What the account is expected to list; a wrong guess costs requests only. */
typedef struct FetchExpected
{
	int64		programs;		/* 0 for unknown: decides how many pages are
								 * asked for before the first has arrived */
	int64		surplus;		/* by which the total exceeded them last time */
} FetchExpected;

/* Are programs stored that the last reading did not bring? */
typedef bool (*FetchLacks) (void *arg, const Fetched *fetched);

/* Makes ready to fetch, in the current memory context. */
extern Fetch *fetch_create(const Account *account, Known *known,
						   Progress *progress);

/*
 * Fetches all programs: once, or as often as it takes to prove what is gone.
 * What did not arrive is proved to be gone where there is no doubt and the
 * programs are confirmed.  The result lives as long as the memory context.
 * Raises the errors of fetch_error.c and what CHECK_FOR_INTERRUPTS raises;
 * nothing is left behind then.
 */
extern Fetched *fetch_programs(Fetch *fetch, FetchExpected expected,
							   FetchLacks lacks, void *arg);

#endif							/* YELP_SYNC_FETCH_H */
