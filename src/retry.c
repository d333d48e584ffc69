/*
 * retry.c
 *	  What to do about a page that did not arrive: whether it is tried again,
 *	  and when.
 *
 * A page has so many attempts, each but the first on a connection of its own.
 * Three things cost none: a connection from before that had died unseen, a
 * refusal for the rate, and an API that is overloaded, as long as pages arrive.
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

/* The page's next attempt, after its own backoff. */
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

/* Refused for the rate: no attempt is used up while any page gets through. */
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
 * The API has too much to do: no attempt is used up where pages have arrived
 * since this one failed last.  It may go out over a connection that is there:
 * the API may have refused one more.
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
			/* Nothing arrives: the throttle holds back all, the first page least */
			tries->attempt++;
			return try_at(0);
		}
	}
	/*
	 * It is down, or at this page; one that is under way may show which.  The
	 * pages that are left need not wait for each other.
	 */
	throttle_lift(state->throttle);
	tries->attempt = state->attempts;
	if (state->arrived == 0 && state->in_flight == 0)
		error->kind = FETCH_ERROR_FATAL;
	return give_up();
}

/*
 * It is about the credentials, unless one of the requests that are under way
 * shows that they are good.
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
 * As many requests as are in flight now are all that there is room for.  Where
 * there is no socket for a single one, waiting would not help.
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
 * Did a connection from before fail, and not the API?  It may have been closed
 * or forgotten on its way while it was not used.
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
		case FETCH_ERROR_NO_BUFFER:
			return use_less_room(error, state);
		case FETCH_ERROR_FINAL:
		case FETCH_ERROR_FATAL:
			break;
	}
	return give_up();
}
