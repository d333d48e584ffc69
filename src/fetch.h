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

/* What has been fetched so far. */
typedef struct Fetched
{
	/* The programs */
	Staging		staging;
	int			first_pass;		/* rows of earlier passes do not count */
	bool		repeats;		/* a program may have come more than once */
	ProgramSet	programs;		/* of the last pass */

	/* What they are worth */
	int64		total;			/* of programs, says the API */
	bool		proven;			/* what did not come seems to be gone */
	bool		confirmed;		/* the last two passes brought the same */

	/* Statistics */
	int64		pages;
	int64		last_pages;		/* of the last pass */
	int64		failed_pages;
	PaginatorCounts counts;		/* known in the end */
	int64		elapsed;		/* microseconds; known in the end */
} Fetched;

/* Makes ready to fetch, in the current memory context. */
extern Fetch *fetch_create(const Account *account, const Known *known,
						   Progress *progress);

/*
 * Fetches all programs, once or, where that proves nothing, twice.  The number
 * that is expected, 0 for none, decides how many pages are asked for before
 * the first has come; a wrong one costs requests and nothing else.
 *
 * The result lives as long as the memory context.  Raises the errors of
 * fetch_error.c and what CHECK_FOR_INTERRUPTS raises; nothing is left behind then.
 */
extern Fetched *fetch_programs(Fetch *fetch, int64 expected);

/* Fetches them once more; why is the end of a sentence. */
extern void fetch_again(Fetch *fetch, const char *why);

/* Completes the statistics. */
extern void fetch_end(Fetch *fetch);

#endif							/* YELP_SYNC_FETCH_H */
