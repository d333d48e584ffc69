/*
 * retry.c
 *	  Decide whether and when a failed request for a page is retried.
 *
 * The number of attempts per page is limited, and all but the first use a new
 * connection.  Three kinds of failures do not count as attempts: a kept
 * connection that was closed without notice, a rate limit, and an overloaded
 * API as long as pages arrive.
 */
#include "postgres.h"

#include "retry.h"

#include "clock.h"

static Retry
give_up(void)
{
	return (Retry)
	{
		.again = false
	};
}

static Retry
try_at(int64 when)
{
	return (Retry)
	{
		.again = true,.not_before = when
	};
}

/* The page's next attempt, after its backoff. */
static Retry
use_attempt(Tries *tries, const RetryState *state)
{
	int64		backoff;

	if (tries->attempt >= state->attempts)
		return give_up();
	backoff = throttle_backoff(state->throttle, tries->attempt);
	tries->attempt++;
	return try_at(state->now + backoff);
}

static Retry
try_again(Tries *tries, const RetryState *state, int64 wait)
{
	if (wait >= 0 && tries->attempt < state->attempts)
		throttle_hold(state->throttle, state->now + wait);
	tries->fresh = true;
	return use_attempt(tries, state);
}

/* Rate limit: does not count as an attempt while any page gets through. */
static Retry
slow_down(Tries *tries, FetchError *error, const RetryState *state, int64 wait)
{
	int			barren = throttle_refused(state->throttle, state->now, tries->sent_at,
										  state->in_flight, wait, false);

	if (barren < state->attempts)
		return try_at(state->now);
	tries->attempt = barren;
	error->kind = FETCH_ERROR_FATAL;
	return give_up();
}

/*
 * The API is overloaded: this does not count as an attempt if pages have
 * arrived since the page last failed.  The retry may use a kept connection,
 * because the API may have refused to accept more.
 */
static Retry
relieve_api(Tries *tries, FetchError *error, const RetryState *state, int64 wait)
{
	int			barren = throttle_refused(state->throttle, state->now, tries->sent_at,
										  state->in_flight, wait, true);
	bool		arriving = state->arrived > tries->arrived;

	tries->arrived = state->arrived;
	if (barren < state->attempts)
	{
		if (arriving)
			return try_at(state->now);
		if (barren == 0)
			return use_attempt(tries, state);
		if (tries->attempt < state->attempts)
		{
			/* Nothing arrives: the throttle delays all requests */
			tries->attempt++;
			return try_at(0);
		}
	}
	/*
	 * The API is down, or fails for this page; a request in flight may show
	 * which.  The remaining pages need not wait for each other.
	 */
	throttle_lift(state->throttle);
	tries->attempt = state->attempts;
	if (state->arrived == 0 && state->in_flight == 0)
		error->kind = FETCH_ERROR_FATAL;
	return give_up();
}

/*
 * It is about the credentials, unless a request in flight shows that they are
 * valid.
 */
static Retry
doubt_credentials(Tries *tries, FetchError *error, const RetryState *state,
				  int64 wait)
{
	if (state->in_flight > 0)
		return relieve_api(tries, error, state, wait);
	error->kind = FETCH_ERROR_FATAL;
	return give_up();
}

/*
 * There is only room for as many requests as are now in flight.  If there is
 * not a single socket, waiting would not help.
 */
static Retry
use_less_room(FetchError *error, const RetryState *state)
{
	if (error->kind == FETCH_ERROR_NO_SOCKET && state->in_flight == 0)
	{
		error->kind = FETCH_ERROR_FATAL;
		return give_up();
	}
	throttle_limit(state->throttle, Max(state->in_flight, 1));
	return (Retry)
	{
		.again = true,.unsent = true,.not_before = state->now
	};
}

/*
 * Did a kept connection fail, and not the API?  It may have been closed or
 * dropped on its way while it was idle.
 */
static bool
is_stale(const Tries *tries, const HttpResponse *response)
{
	return response->lost_kept && !tries->stale && tries->attempt == 1;
}

static bool
may_be_tried_again(const FetchError *error)
{
	return error->kind == FETCH_ERROR_RETRY || error->kind == FETCH_ERROR_RATE ||
		error->kind == FETCH_ERROR_OVERLOAD;
}

Retry
retry_decide(Tries *tries, FetchError *error, const HttpResponse *response,
			 const RetryState *state)
{
	int64		wait = parse_retry_after(response->retry_after, response->date,
										 time(NULL));

	if (is_stale(tries, response))
	{
		tries->stale = tries->fresh = true;
		return try_at(state->now);
	}
	if (may_be_tried_again(error) && wait > state->max_wait_ms * USECS_PER_MSEC)
		fetch_error_of_wait(error, wait / USECS_PER_MSEC, state->max_wait_ms);
	switch (error->kind)
	{
		case FETCH_ERROR_RETRY:
			return try_again(tries, state, wait);
		case FETCH_ERROR_RATE:
			return slow_down(tries, error, state, wait);
		case FETCH_ERROR_OVERLOAD:
			return relieve_api(tries, error, state, wait);
		case FETCH_ERROR_DENIED:
			return doubt_credentials(tries, error, state, wait);
		case FETCH_ERROR_NO_SOCKET:
			return use_less_room(error, state);
		case FETCH_ERROR_FINAL:
		case FETCH_ERROR_FATAL:
			break;
	}
	return give_up();
}
