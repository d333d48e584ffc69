/*
 * throttle.c
 *	  Decide when requests may be sent, and when they may be retried.
 *
 * The first requests are not delayed: a repeat sync sends all its requests at
 * once, and an API without a limit answers them in one round trip.  After the
 * API has rejected a request because of its rate, two mechanisms limit the
 * requests.  The congestion window limits the requests in flight; it is
 * halved by a rejection and grows with each success.  The interval spaces the
 * starts, and searches for the rate that the API allows:
 *
 * 1. It starts with FIRST_INTERVAL.
 * 2. If a rejection costs nothing but the request, the rate is increased in
 *	  large steps, one per round trip: the next step waits until a request that
 *	  was sent at the current interval has succeeded, so that no more than one
 *	  round trip's worth is sent too fast.  The first rejection ends the search
 *	  and undoes the last step.
 * 3. From then on, or from the start if the API asks for a pause with each
 *	  rejection (one second is worth twenty requests at 20/s), the interval
 *	  shrinks gently, but faster the longer nothing is rejected.  A rejection
 *	  increases it a little, or by a step if next to nothing got through.
 *
 * Requests that were in flight together are rejected together, so rejections
 * are counted in waves: all requests sent before the first rejection was
 * known.  A wave is barren if nothing has arrived before it, or not for as
 * long as the longest backoff.  Then we wait as after a failed attempt
 * (longer if the API says so), but only until something gets through: a
 * limiter in front of the API rejects 95 requests long before the first
 * accepted one is answered.
 *
 * An API that is merely overloaded (503, a connection that is refused or
 * reset) often limits the number of concurrent requests, and such a rejection
 * costs next to nothing.  There the first wave is an experiment: as many
 * requests as were accepted may be in flight, and as many may be started per
 * round trip.  If the next wave shows that this was wrong, the search begins
 * as above.
 *
 * The constants below were chosen using the simulated limiters of
 * test/unit/throttle_test.c, which shows what they achieve: leaky and token
 * buckets and queues of 2 to 200 requests/s, 3 to 30 concurrent requests,
 * round trips of 0 to 500 ms.
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>

#include "throttle.h"

#include "datatype/timestamp.h"


/*
 * The rate after the first rejection: 18.5 starts per second, just below the
 * common 20/s.  A higher rate would cause a second pause with such a limit,
 * and lower limits are found in a few steps.
 */
#define FIRST_INTERVAL 54000.0

/*
 * A step of the search.  With smaller steps, 200/s are not reached in time;
 * with larger ones, more than a tenth of the requests are rejected at 500 ms
 * per round trip.
 */
#define SEARCH_STEP 0.8

/*
 * Gentle approach: the n-th success in a row shortens the interval by n times
 * this fraction.  That is 2 % after 95 successes, which saves small syncs a
 * second pause, a tenth after 200, and half after 530.
 */
#define GENTLE 5e-6
#define MAX_GENTLE 0.05

/*
 * The API's token bucket allows as many requests in excess of its rate as the
 * API accepted at once before it rejected one: use them if pauses are costly.
 */
#define BURST_STEP 0.99
#define MAX_BURST 20

/*
 * Factor for the interval after a rejection if FEW or more got through before
 */
#define STEP_BACK 1.1
#define FEW 2

/*
 * After a rejection, never start more than a thousand requests per second:
 * without any interval, the next wave would be as large as the window.  Nor
 * fewer than one per second: a limit that is used up by others rejects us at
 * any rate, and slowing down further would not help.
 */
#define MIN_INTERVAL 1000.0
#define MAX_INTERVAL 1000000.0

/* Maximum wait: ten years */
#define LONGEST_WAIT (3650.0 * 86400)

void
throttle_init(Throttle *throttle, int max_in_flight, int64 delay, double factor,
			  int64 max_delay, uint64 seed)
{
	memset(throttle, 0, sizeof(Throttle));
	throttle->max_in_flight = max_in_flight;
	throttle->delay = delay;
	throttle->factor = factor;
	throttle->max_delay = max_delay;
	throttle->window = max_in_flight;
	throttle->last_start = throttle->last_success = PG_INT64_MIN;
	throttle->hold_until = throttle->own_hold = throttle->wave_end = PG_INT64_MIN;
	throttle->paced_since = THROTTLE_NEVER;
	pg_prng_seed(&throttle->random, seed);
}

/* The delay after this many failures, without jitter. */
static int64
delay_after(const Throttle *throttle, int failures)
{
	double		delay = throttle->delay * pow(throttle->factor, failures - 1);

	return delay < throttle->max_delay ? (int64) delay : throttle->max_delay;
}

int64
throttle_backoff(Throttle *throttle, int attempt)
{
	return (int64) (pg_prng_double(&throttle->random) *
					delay_after(throttle, attempt));
}

int64
throttle_next_start(const Throttle *throttle, int in_flight)
{
	int64		next = Max(throttle->hold_until, throttle->own_hold);

	if (in_flight >= throttle->window)
		return THROTTLE_NEVER;
	if (throttle->interval > 0 && throttle->last_start != PG_INT64_MIN)
		next = Max(next, throttle->last_start + (int64) throttle->interval);
	return next;
}

void
throttle_started(Throttle *throttle, int64 now)
{
	throttle->last_start = now;
	if (throttle->interval > 0 && throttle->paced_since == THROTTLE_NEVER)
		throttle->paced_since = throttle->round_start = now;
}

/* Give each interval one round trip, then try the next. */
static void
search_on(Throttle *throttle, int64 sent_at)
{
	if (sent_at < throttle->round_start)
		return;
	throttle->last_round = throttle->interval;
	throttle->interval *= SEARCH_STEP;
	throttle->round_start = throttle->last_start + 1;
}

/* A success at the current rate: try a shorter interval. */
static void
speed_up(Throttle *throttle, int64 sent_at)
{
	throttle->accepted++;
	if (!throttle->limit_met && !throttle->costly)
		search_on(throttle, sent_at);
	else if (!throttle->limit_met && throttle->accepted <= throttle->burst)
		throttle->interval *= BURST_STEP;
	else
		throttle->interval *= 1 - Min(throttle->accepted * GENTLE, MAX_GENTLE);
	throttle->interval = Max(throttle->interval, MIN_INTERVAL);
}

/*
 * One of the requests that were in flight at the first rejection has been
 * answered.  Those still in flight may be rejected as well, so each response
 * improves the estimate.
 */
static void
learn_from_first_wave(Throttle *throttle, int in_flight)
{
	int			let_in = Max(in_flight + throttle->first_accepted, 1);

	if (throttle->round_trip > 0)
	{
		double		interval = (double) throttle->round_trip / let_in;

		throttle->interval = Max(Min(interval, FIRST_INTERVAL), MIN_INTERVAL);
		let_in = Max(let_in, (int) (throttle->round_trip / throttle->interval));
	}
	throttle->window = Min(let_in, throttle->max_in_flight);
}

static bool
is_of_first_wave(const Throttle *throttle, int64 sent_at)
{
	return throttle->waves == 0 ||
		(throttle->waves == 1 && sent_at <= throttle->wave_end);
}

void
throttle_succeeded(Throttle *throttle, int64 now, int64 sent_at, int in_flight)
{
	if (throttle->round_trip == 0)
		throttle->round_trip = Max(now - sent_at, 1);
	if (is_of_first_wave(throttle, sent_at))
		throttle->first_accepted++;
	if (throttle->learning && is_of_first_wave(throttle, sent_at))
		learn_from_first_wave(throttle, in_flight);
	throttle->last_success = Max(throttle->last_success, sent_at);
	throttle->barren_waves = 0;
	throttle->own_hold = PG_INT64_MIN;
	throttle->window = Min(throttle->window + 1, throttle->max_in_flight);
	if (sent_at >= throttle->paced_since)
		speed_up(throttle, sent_at);
	else if (!throttle->limit_met)
		throttle->burst = Min(throttle->burst + 1, MAX_BURST);
}

void
throttle_limit(Throttle *throttle, int max_in_flight)
{
	throttle->max_in_flight = Max(max_in_flight, 1);
	throttle->window = Min(throttle->window, throttle->max_in_flight);
}

void
throttle_lift(Throttle *throttle)
{
	throttle->window = throttle->max_in_flight;
	throttle->interval = MIN_INTERVAL;
	throttle->own_hold = PG_INT64_MIN;
}

static void
start_pace(Throttle *throttle, bool costly)
{
	throttle->interval = FIRST_INTERVAL;
	throttle->costly = costly;
}

/*
 * How many of the requests sent at this rate got through: if the API rejects
 * immediately, this includes those in flight.
 */
static int
count_accepted(const Throttle *throttle, int in_flight, bool overload)
{
	return throttle->accepted + (overload ? in_flight : 0);
}

static void
slow_down(Throttle *throttle, int64 sent_at, int accepted)
{
	bool		in_search = !throttle->limit_met && !throttle->costly;

	/* Judge the interval at which the rejected request was sent */
	if (sent_at < throttle->round_start)
		throttle->interval = throttle->last_round;
	if (throttle->learning && accepted < FEW)
	{
		/* It was not a limit on concurrent requests: begin the search */
		throttle->interval = FIRST_INTERVAL;
		return;
	}
	if (in_search || accepted < FEW)
		throttle->interval /= SEARCH_STEP;
	else
		throttle->interval *= STEP_BACK;
	throttle->interval = Min(throttle->interval, MAX_INTERVAL);
	throttle->limit_met = true;
}

void
throttle_hold(Throttle *throttle, int64 until)
{
	/* Only once for responses that ask for it together */
	if (throttle->last_start >= throttle->hold_until)
	{
		throttle->window = Max(throttle->window / 2, 1);
		if (throttle->interval == 0)
			start_pace(throttle, false);
	}
	throttle->hold_until = Max(throttle->hold_until, until);
}

/*
 * Our own delay: as after a failed attempt while nothing gets through,
 * otherwise no longer than the interval.
 */
static int64
own_hold(Throttle *throttle)
{
	if (throttle->barren_waves == 0)
		return (int64) throttle->interval;
	return (int64) ((0.5 + pg_prng_double(&throttle->random) / 2) *
					delay_after(throttle, throttle->barren_waves));
}

/*
 * A wave without success is not sufficient: if others use the same limit, a
 * wave is often a single request, and several in a row may be rejected by
 * chance.
 */
static bool
nothing_arrives(const Throttle *throttle, int64 now)
{
	return throttle->last_success == PG_INT64_MIN ||
		now - throttle->last_success > throttle->max_delay;
}

/* The first rejection of a wave. */
static void
begin_wave(Throttle *throttle, int64 now, int64 sent_at, int in_flight,
		   bool costly, bool overload)
{
	throttle->wave_end = now;
	if (nothing_arrives(throttle, now))
		throttle->barren_waves++;
	throttle->window = Max(Min(throttle->window, in_flight) / (overload ? 1 : 2), 1);
	if (throttle->interval == 0)
		start_pace(throttle, costly);
	else
		slow_down(throttle, sent_at,
				  count_accepted(throttle, in_flight, overload));
	throttle->learning = overload && !costly && throttle->waves == 0;
	throttle->waves++;
	throttle->paced_since = THROTTLE_NEVER;
	throttle->accepted = 0;
	throttle->own_hold = now + own_hold(throttle);
}

int
throttle_refused(Throttle *throttle, int64 now, int64 sent_at, int in_flight,
				 int64 retry_after, bool overload)
{
	if (sent_at > throttle->wave_end)
		begin_wave(throttle, now, sent_at, in_flight, retry_after > 0, overload);
	if (throttle->learning)
		learn_from_first_wave(throttle, in_flight);
	if (retry_after > 0)
		throttle->hold_until = Max(throttle->hold_until, now + retry_after);
	return throttle->barren_waves;
}

static const char *
skip_blanks(const char *text)
{
	return text +strspn(text, " \t");
}

/*
 * Decimal seconds with an optional fraction, or -1.  The RFC does not allow a
 * fraction, but some servers send one.  strtod() would also accept "inf",
 * "0x10" and "1e3".
 */
static double
parse_seconds(const char *text)
{
	double		seconds = 0;
	double		unit = 1;

	if (!isdigit((unsigned char) *text))
		return -1;
	for (; isdigit((unsigned char) *text); text ++)
		seconds = Min(seconds * 10 + (*text -'0'), LONGEST_WAIT);
	if (*text == '.')
		for (text ++; isdigit((unsigned char) *text); text ++)
			seconds += (*text -'0') *(unit /= 10);
	return *skip_blanks(text) == '\0' ? seconds : -1;
}

/*
 * Parses an HTTP date.  Names of days and months depend on LC_TIME, which is
 * "C" in a backend: lc_time is only in effect while the names for to_char()
 * are being fetched (see the header comment of PostgreSQL's pg_locale.c).
 */
static bool
parse_date(const char *date, time_t *when)
{
	static const char *const formats[] = {
		"%a, %d %b %Y %H:%M:%S GMT",	/* IMF-fixdate */
		"%A, %d-%b-%y %H:%M:%S GMT",	/* RFC 850 */
		"%a %b %e %H:%M:%S %Y", /* asctime */
	};

	for (size_t i = 0; i < lengthof(formats); i++)
	{
		struct tm	parts = {0};
		const char *end = strptime(date, formats[i], &parts);

		if (end != NULL && *skip_blanks(end) == '\0')
		{
			*when = timegm(&parts);
			return true;
		}
	}
	return false;
}

int64
parse_retry_after(const char *value, const char *date, time_t now)
{
	double		seconds;
	int64		wait;
	time_t		until;

	if (value == NULL)
		return -1;
	value = skip_blanks(value);
	seconds = parse_seconds(value);
	if (seconds < 0 && parse_date(value, &until))
	{
		if (date != NULL)
			(void) parse_date(skip_blanks(date), &now);
		seconds = difftime(until, now);
	}
	wait = (int64) (Min(seconds, LONGEST_WAIT) * USECS_PER_SEC);
	return wait > 0 ? wait : -1;
}
