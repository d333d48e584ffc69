/*
 * retry.h
 *	  Decide whether and when a failed request for a page is retried.
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
	bool		stale;			/* failed because of a kept connection */
	bool		fresh;			/* requires a new connection */
	int64		arrived;		/* pages that had arrived when it last
								 * failed */
} Tries;

/* Anything else that matters */
typedef struct RetryState
{
	int			attempts;		/* maximum number per page */
	int64		max_wait_ms;	/* maximum wait that the API may ask for */
	Throttle   *throttle;
	int			in_flight;		/* other requests */
	int64		arrived;		/* pages so far */
	int64		now;			/* by clock_us */
} RetryState;

typedef struct Retry
{
	bool		again;
	bool		unsent;			/* the attempt was given up by us and does not
								 * count */
	int64		not_before;		/* by clock_us */
} Retry;

/*
 * Decides what to do, and informs the throttle.  If the page is not to be
 * retried, the error's kind says whether other pages can still be fetched.
 */
extern Retry retry_decide(Tries *tries, FetchError *error,
						  const HttpResponse *response, const RetryState *state);

#endif							/* YELP_SYNC_RETRY_H */
