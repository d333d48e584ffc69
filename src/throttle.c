/*
 * throttle.c
 *	  When a request may go out, and when it may be tried again.
 *
 * Nothing holds the first requests back: a repeat sync sends all its pages at
 * once, and an API without a limit answers them in one round trip.  Two brakes
 * work together once the API has refused a request for its rate.  The window
 * bounds the requests in flight; it is halved by a refusal and grows with each
 * success.  The interval spaces the starts, and finds the API's pace:
 *
 * 1. It begins with FIRST_INTERVAL.
 * 2. Where a refusal costs nothing but the request, the pace is searched for
 *	  in large steps, one a round trip: the next step waits until a request
 *	  that was sent at the present interval has succeeded, so that no more is
 *	  sent too fast than one round trip's worth.  The first refusal ends the
 *	  search and takes back the step that was too much.
 * 3. From then on, and from the beginning where the API asks for a pause with
 *	  each refusal (a second of pause is worth twenty requests at 20/s), the
 *	  interval shrinks gently, but the faster the longer nothing is refused.  A
 *	  refusal sets it back a little, or a step if next to nothing got through.
 *
 * Requests that were on their way together are refused together, so refusals
 * are counted in waves: all requests that were sent before the first of them
 * was known.  A wave is barren when nothing has arrived before it, or not for
 * as long as the longest backoff.  Then we wait as after a failed attempt
 * (longer where the API says so), but only until something gets through after
 * all: a limiter at the API's door refuses 95 requests long before the first
 * one that it let in is answered.
 *
 * An API that is merely overloaded (a 503, a connection that is refused or
 * reset) has often a limit on the requests at a time, and such a refusal costs
 * next to nothing.  There the first wave is an experiment: as many requests as
 * it let in may be in flight, and as many may be started in each round trip.
 * Should the next wave show that this was wrong, the pace begins as above.
 *
 * The figures below were chosen with the simulated limiters of
 * test/unit/throttle_test.c, which shows what they achieve: leaky and token
 * buckets and queues of 2 to 200 requests/s, 3 to 30 requests at a time, round
 * trips of 0 to 500 ms.
 */
#include "postgres.h"

#include <ctype.h>
#include <math.h>

#include "throttle.h"

#include "datatype/timestamp.h"


/*
 * The pace after the first refusal: 18.5 starts a second, just below the 20/s
 * that are common.  Faster would mean a second pause under such a limit, and
 * slower limits are found in a few steps.
 */
#define FIRST_INTERVAL 54000.0

/*
 * A step of the search.  Smaller ones do not reach 200/s in time, larger ones
 * have more than a tenth of the requests refused at 500 ms a round trip.
 */
#define SEARCH_STEP 0.8

/*
 * Gentle approach: the n-th success in a row shortens the interval by n times
 * this part.  That is 2 % after 95 successes, which spares small syncs a
 * second pause, a tenth after 200, and half after 530.
 */
#define GENTLE 5e-6
#define MAX_GENTLE 0.05

/*
 * As many successes as the API accepted at once before it refused, its bucket
 * will give on top of its pace: use them, where pauses are costly.
 */
#define BURST_STEP 0.99
#define MAX_BURST 20

/* What a refusal does to the interval when FEW or more got through before */
#define STEP_BACK 1.1
#define FEW 2

/*
 * Having been refused, we never start more than a thousand requests a second:
 * without any interval the next wave would be as large as the window.  Nor
 * fewer than one a second: a limit that others use up refuses us at any pace,
 * and going ever slower would not help.
 */
#define MIN_INTERVAL 1000.0
#define MAX_INTERVAL 1000000.0

/* The longest wait that is understood: ten years */
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

/* The delay after so many failures, without jitter. */
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

/* A success at the present pace: dare a shorter interval. */
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
 * An answer to one of the requests that were on their way when the first one
 * was refused.  Those that are still in flight may be refused as well, so each
 * answer makes the estimate better.
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
 * How many of the requests sent at a pace got through: of an API that refuses
 * at once, those still in flight did.
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

	/* Judge the interval that the refused request was sent at */
	if (sent_at < throttle->round_start)
		throttle->interval = throttle->last_round;
	if (throttle->learning && accepted < FEW)
	{
		/* It was no limit on the requests at a time: begin the search */
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
	/* Once for all answers that ask for it together */
	if (throttle->last_start >= throttle->hold_until)
	{
		throttle->window = Max(throttle->window / 2, 1);
		if (throttle->interval == 0)
			start_pace(throttle, false);
	}
	throttle->hold_until = Max(throttle->hold_until, until);
}

/*
 * How long to hold back of our own accord: as a failed attempt would wait
 * while nothing gets through, else no longer than a start is worth.
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
 * Not a wave without success alone: where others use the same limit, a wave is
 * often a single request, and several in a row are refused by mere chance.
 */
static bool
nothing_arrives(const Throttle *throttle, int64 now)
{
	return throttle->last_success == PG_INT64_MIN ||
		now - throttle->last_success > throttle->max_delay;
}

/* The first refusal of a wave. */
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
 * Seconds in digits, with or without a fraction, or -1.  The RFC allows no
 * fraction, but some servers send one.  strtod() would take "inf", "0x10" and
 * "1e3" as well.
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
 * An HTTP date.  The names of days and months are read as LC_TIME says, which a
 * backend keeps at "C": lc_time is in force only while the names for to_char()
 * are fetched (see the head of PostgreSQL's pg_locale.c).
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
