/*
 * throttle.h
 *	  Decide when requests may be sent, and whether failed ones are sent again.
 *
 * Pure: the clock is an argument, no memory is allocated and no errors are
 * raised.  All times are microseconds of a monotonic clock; THROTTLE_NEVER is
 * none of them.
 */
#ifndef YELP_SYNC_THROTTLE_H
#define YELP_SYNC_THROTTLE_H

#include "common/pg_prng.h"

#include "fetch_error.h"

#define THROTTLE_NEVER PG_INT64_MAX

typedef struct Throttle
{
	const Account *account;
	pg_prng_state random;

	/* Congestion window and interval */
	int			max_window;
	int			window;			/* maximum number of requests in flight */
	double		interval;		/* between two starts; 0: none */
	int64		last_start;

	/* Losses; those of requests sent until epoch_end belong to the last one */
	int64		epoch_end;
	int			epochs;
	bool		learning;		/* from the first: see learn_limit() */
	bool		slow_start;		/* until the next */
	double		loss_cost;		/* of the last, in starts */
	int			accepted;		/* successes of requests sent since then */
	int64		idle_since;		/* first loss since the last success */
	int			idle_epochs;	/* their number */
	bool		given_up;		/* because they were too many */

	/* Delays */
	int64		hold_until;		/* requested by the API */
	int64		backoff_until;	/* our own, ended by the next success */

	/* Successes; a round trip ends with one of a request sent during it */
	int64		arrived;
	int64		last_arrival;
	int64		fastest;		/* response times */
	int64		slowest;
	double		gap;			/* between two arrivals, smoothed */
	int64		round_start;
	int			probes;			/* since the last that showed anything */
} Throttle;

/* The attempts for a page so far */
typedef struct Tries
{
	int			attempt;		/* 1 for the first */
	int64		sent_at;
	bool		fresh;			/* requires a new connection */
	bool		stale;			/* failed because of a kept connection */
	int			timeouts;
} Tries;

/* The account's options must live as long; the seed is for the jitter. */
extern void throttle_init(Throttle *throttle, const Account *account, uint64 seed);

/* When the next request may be sent: now, if that is not in the future. */
extern int64 throttle_next_start(const Throttle *throttle, int in_flight);

/*
 * A request was started; a request sent at sent_at got a usable response,
 * while in_flight others are in flight.
 */
extern void throttle_started(Throttle *throttle, int64 now);
extern void throttle_succeeded(Throttle *throttle, int64 now, int64 sent_at,
							   int in_flight);

/*
 * An attempt for a page failed, while in_flight other requests are in flight.
 * Returns FETCH_ERROR_RETRY or, if it was not really sent and does not count,
 * FETCH_ERROR_NO_SOCKET: then not_before says when to try again, and tries
 * whether on a new connection.  Otherwise, FETCH_ERROR_FINAL or
 * FETCH_ERROR_FATAL.
 */
extern FetchErrorKind throttle_failed(Throttle *throttle, Tries *tries, const FetchError *error,
									  int in_flight, int64 now, int64 *not_before);

/*
 * When a page in flight since sent_at should be requested a second time, over
 * a kept connection, to find out whether the first request is being served at
 * all.  Then say so, and whether the second one succeeded first: if it did,
 * give up all requests for which a probe is due, and say how many.
 */
extern int64 throttle_next_probe(const Throttle *throttle, int64 sent_at);
extern void throttle_probed(Throttle *throttle, bool overtaken);
extern void throttle_gave_up(Throttle *throttle, int count);

#endif							/* YELP_SYNC_THROTTLE_H */
