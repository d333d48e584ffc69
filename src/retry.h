/*
 * retry.h
 *	  What to do about a page that did not arrive: whether it is tried again,
 *	  and when.
 */
#ifndef YELP_SYNC_RETRY_H
#define YELP_SYNC_RETRY_H

#include "fetch_error.h"
#include "throttle.h"

/* The attempts for a page so far */
typedef struct Tries
{
	int			attempt;		/* 1 for the first */
	int64		sent_at;		/* by clock_us */
	bool		stale;			/* an old connection failed it */
	bool		fresh;			/* it needs a connection of its own */
	int64		arrived;		/* pages that had arrived when it failed last */
} Tries;

/* What counts beside the page itself */
typedef struct RetryState
{
	int			attempts;		/* the most for a page */
	int64		max_wait_ms;	/* that the API may ask for */
	Throttle   *throttle;
	int			in_flight;		/* other requests */
	int64		arrived;		/* pages so far */
	int64		now;			/* by clock_us */
} RetryState;

typedef struct Retry
{
	bool		again;
	bool		unsent;			/* the attempt was ours to give up: it counts
								 * for nothing */
	int64		not_before;		/* by clock_us */
} Retry;

/*
 * Decides, and tells the throttle what the failure says of the API.  Where the
 * page is not to be tried again, the error's kind says whether another page
 * would fare better.
 */
extern Retry retry_decide(Tries *tries, FetchError *error,
						  const HttpResponse *response, const RetryState *state);

#endif							/* YELP_SYNC_RETRY_H */
