/*
 * throttle.c
 *	  Decide when requests may be sent, and whether failed ones are sent again.
 *
 * The first requests are not delayed: an API without a limit answers those of
 * a repeat sync in one round trip.  A loss is a request that is rejected
 * because of its rate or of overload, or that times out.  From the first one
 * on, the congestion window limits the requests in flight and the interval
 * spaces their starts, both by additive increase and multiplicative decrease.
 * Requests in flight together are lost together: losses of requests sent
 * before the last loss was known belong to the same epoch, and count once.
 *
 * What an API limits shows in different ways:
 *
 * - The rate: slow start shortens the interval in steps, one per round trip,
 *	 until the next loss; then congestion avoidance does so slowly, or from the
 *	 start if the API asks for a pause with each loss.
 * - Requests at a time, by 503 or refused connections: as such a loss costs
 *	 next to nothing, the first epoch is an experiment.  As many as are accepted
 *	 may be in flight, and as many may be started per round trip.
 * - Its own work, by making requests wait: no more are in flight than should
 *	 be answered within half of their timeout.
 * - Connections at a time, for as long as we keep them: the others hang.  A
 *	 page is requested a second time, over a kept connection; if that one is
 *	 answered, all requests that hang are sent again.
 * - Requests per minute, say, by rejecting all others: single requests are
 *	 sent at increasing intervals for as long as max_retry_after.
 *
 * test/unit/throttle_test.c simulates these APIs, and shows what the constants
 * below achieve.
 */
#include "postgres.h"

#include <math.h>

#include "throttle.h"

#include "compat.h"

/*
 * 18.5 starts per second, just below the common 20/s: a higher rate would
 * cause a second pause there, and other limits are found in a few steps.
 */
#define FIRST_INTERVAL 54000.0

/*
 * Never start more than a thousand requests per second after a loss, nor fewer
 * than one: a limit that is used up by others rejects us at any rate.
 */
#define MIN_INTERVAL 1000.0
#define MAX_INTERVAL 1000000.0

/* Factor for the interval: once per round trip of the slow start */
#define SLOW_START 0.8

/*
 * Congestion avoidance: the n-th success since the last loss shortens the
 * interval by n times this fraction, divided by the cost of a loss; a loss
 * after FEW successes is another step, and otherwise a factor.
 */
#define INCREASE 1e-4
#define FEW 2
#define DECREASE 1.1

/* A request hangs after so many times the slowest response, and this time */
#define PATIENCE 3
#define MIN_PATIENCE (100 * USECS_PER_MSEC)
#define MAX_PROBES 8

void
throttle_init(Throttle *throttle, const Account *account, uint64 seed)
{
	memset(throttle, 0, sizeof(Throttle));
	throttle->account = account;
	throttle->window = throttle->max_window = account->concurrency;
	throttle->last_start = throttle->epoch_end = PG_INT64_MIN;
	throttle->hold_until = throttle->backoff_until = PG_INT64_MIN;
	throttle->round_start = PG_INT64_MIN;
	pg_prng_seed(&throttle->random, seed);
}

int64
throttle_next_start(const Throttle *throttle, int in_flight)
{
	int64		next = Max(throttle->hold_until, throttle->backoff_until);
	bool		idle = throttle->idle_epochs > 1 && !throttle->given_up;

	if (in_flight >= throttle->window || (idle && in_flight > 0) ||
		in_flight * throttle->gap > throttle->account->timeout * USECS_PER_MSEC / 2)
		return THROTTLE_NEVER;
	if (throttle->interval > 0 && throttle->last_start != PG_INT64_MIN)
		next = Max(next, throttle->last_start + (int64) throttle->interval);
	return next;
}

void
throttle_started(Throttle *throttle, int64 now)
{
	throttle->last_start = now;
}

/* ---- successes ---- */

/*
 * One of the requests that were in flight at the first loss has been answered.
 * Those still in flight may be rejected as well, so each answer improves the
 * estimate of how many are accepted at a time.
 */
static void
learn_limit(Throttle *throttle, int in_flight)
{
	int			limit = Max(in_flight + (int) throttle->arrived, 1);

	if (throttle->arrived > 0)
	{
		throttle->interval = Min((double) throttle->fastest / limit, FIRST_INTERVAL);
		limit = Max(limit, (int) (throttle->fastest / throttle->interval));
	}
	throttle->window = Min(limit, throttle->max_window);
}

void
throttle_succeeded(Throttle *throttle, int64 now, int64 sent_at, int in_flight)
{
	int64		response_time = Max(now - sent_at, 1);
	bool		round_ended = sent_at >= throttle->round_start;
	double		increase;

	if (throttle->arrived++ == 0)
		throttle->fastest = response_time;
	else
		throttle->gap += (now - throttle->last_arrival - throttle->gap) / 8;
	throttle->fastest = Min(throttle->fastest, response_time);
	throttle->slowest = Max(throttle->slowest, response_time);
	throttle->last_arrival = now;
	if (round_ended)
		throttle->round_start = now;

	throttle->idle_epochs = 0;
	throttle->given_up = false;
	throttle->backoff_until = PG_INT64_MIN;
	throttle->window = Min(throttle->window + 1, throttle->max_window);
	if (sent_at <= throttle->epoch_end)
	{
		if (throttle->learning)
			learn_limit(throttle, in_flight);
		return;
	}
	throttle->accepted++;
	if (throttle->interval == 0)
		return;
	if (throttle->slow_start)
		increase = round_ended ? 1 - SLOW_START : 0;
	else
		increase = throttle->accepted * INCREASE / (1 + throttle->loss_cost);
	throttle->interval = Max(throttle->interval * (1 - increase), MIN_INTERVAL);
}

/* ---- losses ---- */

/* The delay after this many failures, without jitter. */
static double
delay_after(const Throttle *throttle, int failures)
{
	const Account *account = throttle->account;
	double		delay = account->retry_delay * pow(account->retry_factor, failures - 1);

	return Min(delay, account->retry_max_delay) * USECS_PER_MSEC;
}

static void
slow_down(Throttle *throttle, const FetchError *error)
{
	if (throttle->interval == 0)
	{
		throttle->interval = FIRST_INTERVAL;
		throttle->slow_start = error->wait <= 0;
	}
	else if (throttle->idle_epochs == 1)	/* or else nothing gets through */
	{
		bool		step = throttle->slow_start || throttle->accepted < FEW;

		throttle->interval *= step ? 1 / SLOW_START : DECREASE;
		throttle->interval = Min(throttle->interval, MAX_INTERVAL);
		throttle->slow_start = false;
	}
}

/* The first loss of an epoch. */
static void
begin_epoch(Throttle *throttle, const FetchError *error, int in_flight, int64 now)
{
	double		backoff;

	if (throttle->idle_epochs++ == 0)
		throttle->idle_since = now;
	throttle->window = Max(Min(throttle->window, in_flight) / 2, 1);
	if (error->kind != FETCH_ERROR_TIMED_OUT)
		slow_down(throttle, error);
	throttle->learning = throttle->epochs++ == 0 && error->wait <= 0 &&
		error->kind == FETCH_ERROR_OVERLOAD;
	throttle->loss_cost = Max(error->wait, 0) / Max(throttle->interval, MIN_INTERVAL);
	throttle->accepted = 0;
	throttle->epoch_end = now;

	if (throttle->arrived == 0)
		backoff = delay_after(throttle, throttle->idle_epochs);
	else
		backoff = Min(throttle->interval * pow(2, throttle->idle_epochs - 1),
					  throttle->account->retry_max_delay * USECS_PER_MSEC);
	/* However short the delays are, ask only so often */
	backoff = Max(backoff, (now - throttle->idle_since) / 8);
	throttle->backoff_until = now + (int64) backoff;
}

/*
 * Overload uses up no attempt of the page's.  It is no use to go on if nothing
 * gets through in so many epochs, and for max_retry_after if pages have arrived
 * before or if it is a rate limit.
 */
static FetchErrorKind
on_overload(Throttle *throttle, Tries *tries, const FetchError *error, int in_flight,
			int64 now)
{
	const Account *account = throttle->account;
	bool		is_rate = error->kind == FETCH_ERROR_RATE;
	bool		again;

	if (tries->sent_at > throttle->epoch_end)
		begin_epoch(throttle, error, in_flight, now);
	if (throttle->learning)
		learn_limit(throttle, in_flight);

	/*
	 * After a timeout at an API that answers others, use a kept connection:
	 * it may serve no others.  Unless that has timed out, and may be dead.
	 */
	if (error->kind == FETCH_ERROR_TIMED_OUT)
		tries->fresh = throttle->arrived == 0 || ++tries->timeouts % 2 == 0;
	again = throttle->idle_epochs < account->attempts ||
		((throttle->arrived > 0 || is_rate) &&
		 now - throttle->idle_since < account->max_retry_after * USECS_PER_MSEC);
	if (again && !throttle->given_up)
		return FETCH_ERROR_RETRY;

	/*
	 * The API is down, or fails for this page; a request in flight may show
	 * which.  The remaining pages need not wait for each other.
	 */
	throttle->given_up = true;
	throttle->window = throttle->max_window;
	throttle->interval = MIN_INTERVAL;
	throttle->backoff_until = PG_INT64_MIN;
	tries->attempt = account->attempts;
	return is_rate || (throttle->arrived == 0 && in_flight == 0) ? FETCH_ERROR_FATAL :
		FETCH_ERROR_FINAL;
}

FetchErrorKind
throttle_failed(Throttle *throttle, Tries *tries, const FetchError *error, int in_flight,
				int64 now, int64 *not_before)
{
	const Account *account = throttle->account;

	*not_before = now;
	switch (error->kind)
	{
		case FETCH_ERROR_FINAL:
		case FETCH_ERROR_FATAL:
			return error->kind;
		case FETCH_ERROR_NO_SOCKET:
			/* There are as many as are in flight now, if any */
			throttle->window = throttle->max_window = Max(in_flight, 1);
			return in_flight > 0 ? FETCH_ERROR_NO_SOCKET : FETCH_ERROR_FATAL;
		case FETCH_ERROR_DENIED:
			/* A request in flight may show that the credentials are valid */
			return in_flight > 0 ? on_overload(throttle, tries, error, in_flight, now) :
				FETCH_ERROR_FATAL;
		case FETCH_ERROR_LOST:
			if (tries->attempt > 1 || tries->stale)
				break;
			tries->stale = tries->fresh = true;
			return FETCH_ERROR_RETRY;
		default:
			break;
	}
	if (error->wait > 0)
	{
		throttle->hold_until = Max(throttle->hold_until, now + error->wait);
		if (tries->sent_at > throttle->epoch_end)
			begin_epoch(throttle, error, in_flight, now);
	}
	if (error->kind != FETCH_ERROR_RETRY && error->kind != FETCH_ERROR_LOST)
		return on_overload(throttle, tries, error, in_flight, now);

	tries->fresh = true;
	if (tries->attempt >= account->attempts)
		return FETCH_ERROR_FINAL;
	/* With full jitter, so that pages that failed together go separately */
	*not_before += (int64) (pg_prng_double(&throttle->random) *
							delay_after(throttle, tries->attempt++));
	return FETCH_ERROR_RETRY;
}

/* ---- requests that hang ---- */

int64
throttle_next_probe(const Throttle *throttle, int64 sent_at)
{
	int64		patience = Max(throttle->slowest * PATIENCE, MIN_PATIENCE);

	/* Is there a kept connection that no other request has taken since? */
	if (throttle->last_arrival <= throttle->last_start)
		return THROTTLE_NEVER;
	return sent_at + (patience << Min(throttle->probes, MAX_PROBES));
}

void
throttle_probed(Throttle *throttle, bool overtaken)
{
	throttle->probes = overtaken ? 0 : throttle->probes + 1;
}

void
throttle_gave_up(Throttle *throttle, int count)
{
	/* So many connections may be served, and have been */
	throttle->max_window = Max(Min(throttle->max_window - count, throttle->arrived - 1), 1);
	throttle->window = Min(throttle->window, throttle->max_window);
}
