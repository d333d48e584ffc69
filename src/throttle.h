/*
 * throttle.h
 *	  Decide when requests may be sent, and when they may be retried.
 *
 * Pure: the clock is an argument, and no memory is allocated and no errors
 * are raised.  All times are microseconds of a monotonic clock; "forever" is
 * THROTTLE_NEVER.
 */
#ifndef YELP_SYNC_THROTTLE_H
#define YELP_SYNC_THROTTLE_H

#include <time.h>

#include "common/pg_prng.h"

#define THROTTLE_NEVER PG_INT64_MAX

typedef struct Throttle
{
	/* Settings */
	int			max_in_flight;
	int64		delay;			/* maximum before the second attempt */
	double		factor;			/* by which it grows with each attempt */
	int64		max_delay;

	/* Congestion window and rate */
	int			window;			/* maximum number of requests in flight */
	double		interval;		/* between two starts; 0: none */
	int64		last_start;

	/* Delays */
	int64		hold_until;		/* requested by the API: nothing starts
								 * before */
	int64		own_hold;		/* our own, ended by the next success */

	/* Rejections */
	int64		wave_end;		/* requests sent until then belong to the
								 * wave */
	int			waves;
	int			barren_waves;	/* consecutive waves while nothing gets
								 * through */
	int64		last_success;	/* when the last successful request was sent */

	/* What the first wave shows about an overloaded API */
	bool		learning;		/* until the second wave */
	int			first_accepted; /* successes of requests sent until the
								 * first */
	int64		round_trip;		/* of the first success; 0: none yet */

	/* Search for the rate that the API allows */
	bool		costly;			/* the API asks for a pause with a rejection */
	bool		limit_met;		/* rejected at some rate, not only before */
	int64		paced_since;	/* first start at a rate since the last wave */
	int			accepted;		/* successes of requests sent since then */
	int			burst;			/* the same before the first rate */
	int64		round_start;	/* first start at the current interval */
	double		last_round;		/* the previous interval */

	pg_prng_state random;
} Throttle;

/* Delays are in microseconds; the seed is for the jitter. */
extern void throttle_init(Throttle *throttle, int max_in_flight, int64 delay,
						  double factor, int64 max_delay, uint64 seed);

/*
 * How long to wait after a page's failed attempt (1 for the first):
 * exponential backoff with full jitter, so that pages that failed together
 * are not retried together.
 */
extern int64 throttle_backoff(Throttle *throttle, int attempt);

/*
 * When the next request may be sent; immediately if that is not in the
 * future.
 */
extern int64 throttle_next_start(const Throttle *throttle, int in_flight);

/*
 * A request was started; a request sent at sent_at got a usable response,
 * while in_flight others are in flight.
 */
extern void throttle_started(Throttle *throttle, int64 now);
extern void throttle_succeeded(Throttle *throttle, int64 now, int64 sent_at,
							   int in_flight);

/*
 * A request sent at sent_at was rejected, because of its rate or because the
 * API is overloaded; in_flight others are still in flight, and retry_after is
 * the wait that the API asked for, or -1.  Delays all requests, halves the
 * window and slows down the starts.  Rejections of requests that were in
 * flight together count as one wave.
 *
 * Returns the number of consecutive barren waves: 0 while pages arrive, that
 * is, from the first success until none has arrived for max_delay.
 */
extern int	throttle_refused(Throttle *throttle, int64 now, int64 sent_at,
							 int in_flight, int64 retry_after, bool overload);

/*
 * The API asked for a pause without a rate limit (for example, with a 503):
 * delays all requests, halves the window, and spaces the starts afterwards.
 */
extern void throttle_hold(Throttle *throttle, int64 until);

/* Waiting does not help: only delays requested by the API are kept. */
extern void throttle_lift(Throttle *throttle);

/* The server has no more sockets available than these. */
extern void throttle_limit(Throttle *throttle, int max_in_flight);

/*
 * The wait that a Retry-After header asks for (RFC 9110, section 10.2.3:
 * seconds, or a date in any of three formats), or -1 if it is missing,
 * unreadable or not in the future.  At most ten years.  A date is relative to
 * the response's own Date, because the API's clock may be wrong; or to now,
 * the time of day, if date is NULL or unreadable.
 */
extern int64 parse_retry_after(const char *value, const char *date, time_t now);

#endif							/* YELP_SYNC_THROTTLE_H */
