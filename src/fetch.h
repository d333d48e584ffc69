/*
 * fetch.h
 *	  All pages of an account, as rows.
 */
#ifndef YELP_SYNC_FETCH_H
#define YELP_SYNC_FETCH_H

#include "account.h"
#include "progress.h"
#include "rows.h"

typedef struct Fetched
{
	/* The programs */
	Rows		rows;
	int			first_pass;		/* rows of earlier passes do not count */
	bool		repeats;		/* a program may have come more than once */

	/* What they are worth */
	int64		total;			/* of programs, says the API */
	int64		programs;		/* that came, each counted once */
	bool		proven;			/* what did not come is gone */

	/* Statistics */
	int64		pages;
	int64		requests;
	int64		retries;
	int64		failed_pages;
	int64		received_bytes;
	int64		elapsed;		/* microseconds */
} Fetched;

/*
 * Fetches all programs of the account.  The number that is expected, 0 for
 * none, decides how many pages are asked for before the first has come; a
 * wrong one costs requests and nothing else.
 *
 * Allocates in the current memory context.  Raises the errors of failure.c,
 * and what CHECK_FOR_INTERRUPTS raises; nothing is left behind then.
 */
extern Fetched *fetch_programs(const Account *account, int64 expected,
							   Progress *progress);

#endif							/* YELP_SYNC_FETCH_H */
