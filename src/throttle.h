/*
 * throttle.h
 *	  When a request may go out, and when it may be tried again.
 *
 * Pure: the clock is an argument, nothing is allocated and nothing is raised.
 * All times are microseconds on one clock that only goes forward; "forever"
 * is THROTTLE_NEVER.
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
	int64		delay;			/* before the second attempt, at most */
	double		factor;			/* by which it grows with each attempt */
	int64		max_delay;

	/* How many requests, and how fast */
	int			window;			/* requests in flight at most */
	double		interval;		/* between two starts; 0: no pace to keep */
	int64		last_start;

	/* Holding back */
	int64		hold_until;		/* the API's wish: nothing starts before */
	int64		own_hold;		/* ours, which the next success ends */

	/* Refusals */
	int64		wave_end;		/* of requests sent until then: count once */
	int			waves;
	int			barren_waves;	/* waves in a row while nothing gets through */
	int64		last_success;	/* when the latest request to succeed was sent */

	/* What the first wave shows of an API that is overloaded */
	bool		learning;		/* until the second wave */
	int			first_accepted; /* successes of requests sent until the first */
	int64		round_trip;		/* of the first success; 0: none yet */

	/* Looking for the pace that the API allows */
	bool		costly;			/* the API asks for a pause when it refuses */
	bool		limit_met;		/* refused at a pace, not only before */
	int64		paced_since;	/* first start at a pace since the last wave */
	int			accepted;		/* successes of requests sent since then */
	int			burst;			/* and of those sent before the first pace */
	int64		round_start;	/* first start at the present interval */
	double		last_round;		/* the interval before that */

	pg_prng_state random;
} Throttle;

/* Delays in microseconds; the seed decides over the jitter. */
extern void throttle_init(Throttle *throttle, int max_in_flight, int64 delay,
						  double factor, int64 max_delay, uint64 seed);

/*
 * How long to wait after a page's failed attempt (1 for the first):
 * exponential with full jitter, so that pages which failed together do not
 * return together.
 */
extern int64 throttle_backoff(Throttle *throttle, int attempt);

/* When the next request may go out: now or earlier means at once. */
extern int64 throttle_next_start(const Throttle *throttle, int in_flight);

/*
 * A request went out; one sent at sent_at brought an answer of any use, while
 * in_flight others are under way.
 */
extern void throttle_started(Throttle *throttle, int64 now);
extern void throttle_succeeded(Throttle *throttle, int64 now, int64 sent_at,
							   int in_flight);

/*
 * A request sent at sent_at was refused, for the rate or by an API that is
 * overloaded; in_flight others are still under way, and retry_after is the wait
 * that the API asked for, or -1.  Holds back all requests, halves the window and slows the starts.  The
 * refusals of requests that were on their way together count as one wave.
 *
 * Returns how many waves in a row were barren: 0 while pages arrive, that is,
 * from the first success on until none has come for as long as max_delay.
 */
extern int	throttle_refused(Throttle *throttle, int64 now, int64 sent_at,
							 int in_flight, int64 retry_after, bool overload);

/*
 * The API asked for a pause without refusing for the rate (a 503, say): holds
 * back all requests, halves the window, and spaces the starts afterwards.
 */
extern void throttle_hold(Throttle *throttle, int64 until);

/* Nothing is to be gained by waiting: only what the API asked for is kept. */
extern void throttle_lift(Throttle *throttle);

/* The server has no more sockets to give than these. */
extern void throttle_limit(Throttle *throttle, int max_in_flight);

/*
 * The wait that a Retry-After header asks for (RFC 9110, section 10.2.3:
 * seconds, or a date in any of three formats), or -1 where it is absent,
 * unreadable or not in the future.  At most ten years.  A date is counted from
 * the answer's own Date, since the API's clock may be wrong; from now, the time
 * of day, where date is NULL or unreadable.
 */
extern int64 parse_retry_after(const char *value, const char *date, time_t now);

#endif							/* YELP_SYNC_THROTTLE_H */
