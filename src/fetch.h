/*
 * fetch.h
 *	  All pages of an account, as rows.
 */
#ifndef YELP_SYNC_FETCH_H
#define YELP_SYNC_FETCH_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "account.h"
#include "progress.h"

/* The columns of the fetched rows. */
enum FetchedColumn
{
	FETCHED_PROGRAM_ID = 1,		/* text COLLATE "C" */
	FETCHED_FINGERPRINT,		/* bigint: hash of the document */
	FETCHED_DOCUMENT,			/* text: the program's JSON */
	FETCHED_OFFSET,				/* bigint: of the page it was on */
	FETCHED_PASS				/* integer: which time the listing was fetched */
};
#define FETCHED_COLUMNS 5

typedef struct Fetched
{
	/* Rows; they spill to disk beyond work_mem */
	Tuplestorestate *rows;
	TupleDesc	desc;
	int64		nrows;
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
