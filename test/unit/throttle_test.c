/*
 * throttle_test.c
 *	  Unit tests of throttle.c, and a simulation of its effect on real
 *	  limiters.
 *
 * The simulation uses a virtual clock, a client that behaves like the fetch
 * (at most 16 starts per iteration, timers that fire up to 1 ms late), a
 * network with jitter, and an API behind a limiter.  It is reproducible,
 * because all randomness is derived from a seed.
 */
#include "postgres.h"

#include <limits.h>
#include <locale.h>
#include <math.h>

#include "throttle.h"
#include "tap.h"

#define MS INT64CONST(1000)
#define SECOND (1000 * MS)
#define START (1000 * SECOND)
#define SEEDS 20
#define ATTEMPTS 3
#define STARTS_PER_TURN 16
#define MAX_IN_FLIGHT 100

typedef enum Limit
{
	LEAKY,						/* nginx limit_req with nodelay */
	QUEUE,						/* without nodelay: accepted requests are
								 * queued */
	BUCKET,						/* tokens, some of which are used by others */
	IN_FLIGHT,					/* a limit on concurrent requests */
	NO_LIMIT
}			Limit;

typedef struct Api
{
	/* Settings */
	Limit		limit;
	double		rate;			/* requests per second */
	double		burst;			/* tokens, or concurrent requests */
	int64		retry_after;	/* sent with each rejection, or -1 */
	bool		overload;		/* rejects with 503 or a reset, not with 429 */
	int64		latency;		/* of a response */
	bool		near;			/* rejections only take 1 ms each way */
	double		others;			/* requests per second by others */

	/* State */
	double		level;
	int64		level_at;
	int64		next_other;
	int			serving;
	pg_prng_state random;
} Api;

typedef struct Request
{
	int64		sent_at;
	int64		next_at;		/* when it arrives, then when its response
								 * does */
	bool		arrived;
	bool		refused;
} Request;

typedef struct Run
{
	Api			api;
	Throttle	retry;
	int64		now;
	Request		requests[MAX_IN_FLIGHT];
	int			in_flight;
	int			waiting;
	int			done;

	/* The result */
	int			salvo;			/* rejected before the first rejection was
								 * known */
	int			later;			/* rejected afterwards */
	int			barren;			/* most consecutive barren waves */
	int			most_in_flight;
	int			too_early;		/* starts during a pause that the API asked
								 * for */
	int64		first_refusal;
	int64		pause_until;
	bool		failed;
} Run;

static int64
jitter(Api *api, int64 most)
{
	return (int64) (pg_prng_double(&api->random) * most);
}

/* Counts like nginx, with a clock of whole milliseconds. */
static bool
leaky_accepts(Api *api, int64 now)
{
	double		excess = 0;

	if (api->level_at >= 0)
		excess = Max(0, api->level + 1 -
					 (now / MS - api->level_at / MS) * api->rate / 1000);
	if (excess > api->burst)
		return false;
	api->level = excess;
	api->level_at = now;
	return true;
}

static bool
take_token(Api *api, int64 now)
{
	api->level += (now - api->level_at) * api->rate / SECOND;
	api->level = Min(api->level, api->burst);
	api->level_at = now;
	if (api->level < 1)
		return false;
	api->level -= 1;
	return true;
}

static bool
bucket_accepts(Api *api, int64 now)
{
	while (api->others > 0 && api->next_other <= now)
	{
		take_token(api, api->next_other);
		api->next_other += (int64)
			(-log(1 - pg_prng_double(&api->random)) * SECOND / api->others);
	}
	return take_token(api, now);
}

static bool
api_accepts(Api *api, int64 now)
{
	switch (api->limit)
	{
		case LEAKY:
		case QUEUE:
			return leaky_accepts(api, now);
		case BUCKET:
			return bucket_accepts(api, now);
		case IN_FLIGHT:
			return api->serving < api->burst;
		case NO_LIMIT:
			break;
	}
	return true;
}

/* From the client to the limiter, and back with a rejection. */
static int64
way_to_limiter(Api *api)
{
	int64		way = api->near ? Min(api->latency / 2, MS) : api->latency / 2;
	int64		most = Min(Max(api->latency / 50, MS / 5), 2 * MS);

	return way + jitter(api, most);
}

static int64
way_to_answer(Api *api)
{
	int64		way = way_to_limiter(api);

	return api->near ? Max(api->latency - MS, way) : way;
}

static void
run_init(Run *run, const Api *api, int pages, int seed)
{
	memset(run, 0, sizeof(Run));
	run->api = *api;
	run->api.level = api->limit == BUCKET ? api->burst : 0;
	run->api.level_at = api->limit == BUCKET ? START : -1;
	run->api.next_other = START;
	run->now = START;
	run->waiting = pages;
	run->first_refusal = THROTTLE_NEVER;
	pg_prng_seed(&run->api.random, seed);
	throttle_init(&run->retry, MAX_IN_FLIGHT, SECOND, 2.0, 10 * SECOND, seed);
}

static void
start_request(Run *run)
{
	Request    *request = &run->requests[run->in_flight++];

	request->sent_at = run->now;
	request->next_at = run->now + way_to_limiter(&run->api);
	request->arrived = false;
	request->refused = false;
	run->waiting--;
	run->most_in_flight = Max(run->most_in_flight, run->in_flight);
	if (run->now < run->pause_until)
		run->too_early++;
	throttle_started(&run->retry, run->now);
}

/* One iteration of the client's loop; returns when it wants to wake up. */
static int64
start_requests(Run *run)
{
	int64		next = THROTTLE_NEVER;

	for (int i = 0; run->waiting > 0; i++)
	{
		next = throttle_next_start(&run->retry, run->in_flight);
		if (next > run->now)
			return next == THROTTLE_NEVER ? next : next + jitter(&run->api, MS);
		if (i == STARTS_PER_TURN)
			return run->now + MS / 10;
		start_request(run);
	}
	return THROTTLE_NEVER;
}

/* How long the last accepted request must wait. */
static int64
queueing(const Api *api)
{
	return api->limit == QUEUE ? (int64) (api->level * SECOND / api->rate) : 0;
}

static void
request_arrives(Run *run, Request *request)
{
	Api		   *api = &run->api;

	request->arrived = true;
	request->refused = !api_accepts(api, request->next_at);
	if (!request->refused)
		api->serving++;
	request->next_at += request->refused ? way_to_limiter(api) :
		way_to_answer(api) + queueing(api);
}

static void
answer_arrives(Run *run, Request request)
{
	int			barren;

	if (!request.refused)
	{
		run->api.serving--;
		run->done++;
		throttle_succeeded(&run->retry, run->now, request.sent_at, run->in_flight);
		return;
	}
	run->waiting++;
	run->first_refusal = Min(run->first_refusal, run->now);
	if (request.sent_at <= run->first_refusal)
		run->salvo++;
	else
		run->later++;
	barren = throttle_refused(&run->retry, run->now, request.sent_at,
							  run->in_flight, run->api.retry_after,
							  run->api.overload);
	run->barren = Max(run->barren, barren);
	run->failed = run->failed || barren >= ATTEMPTS;
	if (run->api.retry_after > 0)
		run->pause_until = Max(run->pause_until,
							   run->now + run->api.retry_after);
}

/* Advances the clock until the client has something to do. */
static void
wait_until(Run *run, int64 wake)
{
	for (;;)
	{
		int			first = -1;

		for (int i = 0; i < run->in_flight; i++)
			if (first < 0 ||
				run->requests[i].next_at < run->requests[first].next_at)
				first = i;
		if (first < 0 || run->requests[first].next_at > wake)
		{
			run->now = wake;
			return;
		}
		if (run->requests[first].arrived)
		{
			Request		request = run->requests[first];

			run->requests[first] = run->requests[--run->in_flight];
			run->now = Max(run->now, request.next_at);
			answer_arrives(run, request);
			return;
		}
		request_arrives(run, &run->requests[first]);
	}
}

static void
simulate(Run *run, const Api *api, int pages, int seed)
{
	run_init(run, api, pages, seed);
	while (run->done < pages && !run->failed)
		wait_until(run, start_requests(run));
}

static double
seconds(const Run *run)
{
	return (double) (run->now - START) / SECOND;
}

/* The worst of several runs that only differ in their seeds. */
typedef struct Worst
{
	double		seconds;
	int			salvo;
	int			later;
	double		share;			/* share of the later rejections in all
								 * responses */
	int			failed;
	int			too_early;
}			Worst;

static Worst
simulate_all(const Api *api, int pages)
{
	Worst		worst = {0};

	for (int seed = 1; seed <= SEEDS; seed++)
	{
		Run			run;

		simulate(&run, api, pages, seed);
		worst.seconds = Max(worst.seconds, seconds(&run));
		worst.salvo = Max(worst.salvo, run.salvo);
		worst.later = Max(worst.later, run.later);
		worst.share = Max(worst.share, (double) run.later /
						  (run.done + run.salvo + run.later));
		worst.failed += run.failed;
		worst.too_early += run.too_early;
	}
	return worst;
}

/* The limits for each group of limiters. */
typedef struct Bound
{
	double		ratio;			/* relative to the limiter's own minimum */
	int			round_trips;	/* in addition */
	double		share;
} Bound;

static const int latencies[] = {0, 20, 100, 300, 500};

static const char *
name_of(const Api *api)
{
	static char name[100];
	static const char *const kinds[] = {"leaky", "queue", "bucket", "in flight", "none"};

	snprintf(name, sizeof(name), "%s%s %g/s burst %g%s%s",
			 api->overload ? "overload: " : "",
			 kinds[api->limit], api->rate, api->burst,
			 api->retry_after > 0 ? ", Retry-After" : "",
			 api->near ? ", limiter near" : "");
	return name;
}

static void
check_limiter(Api api, int pages, Bound bound)
{
	double		least = (pages - Max(api.burst, 1)) / api.rate;

	for (int near = 0; near < 2; near++)
		for (size_t i = 0; i < lengthof(latencies); i++)
		{
			Worst		worst;
			double		most;

			api.latency = latencies[i] * MS;
			api.near = near;
			worst = simulate_all(&api, pages);
			most = bound.ratio * least +
				bound.round_trips * latencies[i] / 1000.0;
			tap_ok(worst.failed == 0 && worst.too_early == 0 &&
				   worst.seconds <= most && worst.share <= bound.share,
				   "%s, %d pages, %d ms", name_of(&api), pages, latencies[i]);
			printf("# %.2f s = %.2f x minimum, %d refused at once, "
				   "%d later (%.1f %%)\n",
				   worst.seconds, worst.seconds / least,
				   worst.salvo, worst.later, worst.share * 100);
		}
}

static void
test_twenty_per_second(void)
{
	static const double bursts[] = {1, 5, 20};
	Bound		bound = {1.5, 0, 0.1};

	for (int told = 0; told < 2; told++)
	{
		Api			api = {.limit = LEAKY,.rate = 20};

		api.retry_after = told ? SECOND : -1;
		check_limiter(api, 96, bound);
		api.limit = BUCKET;
		for (size_t i = 0; i < lengthof(bursts); i++)
		{
			api.burst = bursts[i];
			check_limiter(api, 96, bound);
		}
	}
}

/*
 * The same limits in overloaded APIs (503, or a reset): a rejection costs
 * nothing, so many are acceptable.
 */
static void
test_overload(void)
{
	static const double bursts[] = {1, 5, 20};
	Bound		bound = {1.5, 0, 0.8};

	for (size_t i = 0; i < lengthof(bursts); i++)
	{
		Api			api = {.rate = 20,.retry_after = -1,.overload = true};

		api.burst = bursts[i];
		api.limit = LEAKY;
		check_limiter(api, 96, bound);
		api.limit = QUEUE;
		check_limiter(api, 96, bound);
		api.limit = BUCKET;
		check_limiter(api, 96, bound);
	}
}

/*
 * A limit on concurrent requests, others are rejected with 503 or reset: as
 * fast as the latency allows.
 */
static void
test_overload_in_flight(void)
{
	static const int limits[] = {3, 10, 30};

	for (size_t k = 0; k < lengthof(limits); k++)
		for (int near = 0; near < 2; near++)
			for (size_t i = 1; i < lengthof(latencies); i++)
			{
				Api			api = {.limit = IN_FLIGHT,.retry_after = -1};
				double		round_trip = latencies[i] / 1000.0;
				double		least = ceil(96.0 / limits[k]) * round_trip;
				Worst		worst;

				api.burst = limits[k];
				api.overload = true;
				api.latency = latencies[i] * MS;
				api.near = near;
				worst = simulate_all(&api, 96);
				tap_ok(worst.failed == 0 &&
					   worst.seconds <= 1.5 * least + round_trip,
					   "overload: %d in flight, %d ms%s", limits[k], latencies[i],
					   near ? ", limiter near" : "");
				printf("# %.2f s = %.2f x minimum, %d refused at once, %d later\n",
					   worst.seconds, worst.seconds / least, worst.salvo,
					   worst.later);
			}
}

/*
 * Finding a rate far from the first one takes some round trips and
 * rejections.  If each rejection costs a second, the rate is increased
 * slowly: a fast API then takes no longer than one that allows 20/s.
 */
static void
test_other_rates(void)
{
	static const struct
	{
		double		rate;
		Bound		bound;
		Bound		told;		/* with Retry-After */
	}			cases[] = {
		{2, {2, 0, 0.2}, {2, 0, 0.2}},
		{5, {2, 0, 0.15}, {2, 0, 0.15}},
		{10, {2, 0, 0.1}, {2, 0, 0.1}},
		{50, {2, 2, 0.1}, {3.5, 2, 0.1}},
		{200, {2, 8, 0.1}, {14, 8, 0.1}},
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Api			api = {.limit = BUCKET,.burst = 1};

		api.rate = cases[i].rate;
		api.retry_after = -1;
		check_limiter(api, 96, cases[i].bound);
		api.retry_after = SECOND;
		check_limiter(api, 96, cases[i].told);
	}
}

static void
test_long_listing(void)
{
	Api			api = {.limit = LEAKY,.rate = 20,.retry_after = -1};
	Bound		bound = {1.25, 0, 0.03};

	check_limiter(api, 2000, bound);
	api.limit = BUCKET;
	api.burst = 5;
	check_limiter(api, 2000, bound);
	api.retry_after = SECOND;
	check_limiter(api, 2000, bound);
}

/*
 * Ten concurrent requests: as fast as the latency allows, with few
 * rejections.
 */
static void
test_in_flight_limit(void)
{
	for (int variant = 0; variant < 4; variant++)
		for (size_t i = 1; i < lengthof(latencies); i++)
		{
			bool		told = variant / 2;
			Api			api = {.limit = IN_FLIGHT,.burst = 10};
			double		least = 50 * latencies[i] / 1000.0;
			Worst		worst;

			api.latency = latencies[i] * MS;
			api.retry_after = told ? SECOND : -1;
			api.near = variant % 2;
			worst = simulate_all(&api, 500);
			tap_ok(worst.failed == 0 && worst.share <= 0.05 &&
				   worst.seconds <= (told ? 2 * least + 20 : 1.5 * least + 1),
				   "10 in flight, 500 pages, %d ms%s%s", latencies[i],
				   told ? ", Retry-After" : "",
				   api.near ? ", limiter near" : "");
			printf("# %.2f s, least %.2f s, %d refused at once, %d later\n",
				   worst.seconds, least, worst.salvo, worst.later);
		}
}

/* Others use half of the tokens, or all of them. */
static void
test_shared_limit(void)
{
	for (int others = 10; others <= 20; others += 10)
		for (int told = 0; told < 2; told++)
			for (size_t i = 0; i < lengthof(latencies); i++)
			{
				Api			api = {.limit = BUCKET,.rate = 20,.burst = 5};
				Worst		worst;

				api.others = others;
				api.latency = latencies[i] * MS;
				api.retry_after = told ? SECOND : -1;
				worst = simulate_all(&api, 96);
				tap_ok(worst.failed == 0 && worst.too_early == 0,
					   "others take %d of 20/s, %d ms%s", others, latencies[i],
					   told ? ", Retry-After" : "");
				printf("# at most %.1f s, %d refused at once, %d later\n",
					   worst.seconds, worst.salvo, worst.later);
			}
}

static void
test_no_limit(void)
{
	Api			api = {.limit = NO_LIMIT,.retry_after = -1};
	Run			run;

	api.latency = 500 * MS;
	simulate(&run, &api, 96, 1);
	tap_ok(seconds(&run) < 0.51, "without a limit, 96 pages take a round trip");
	simulate(&run, &api, 1000, 1);
	tap_is_int(run.most_in_flight, MAX_IN_FLIGHT, "the window is kept");
	tap_ok(seconds(&run) < 5.2, "and kept full");
}

/* An API that rejects everything, immediately or after some pages. */
static void
test_all_refused(void)
{
	Api			api = {.limit = BUCKET,.rate = 0,.burst = 0};
	Run			run;

	api.latency = 100 * MS;
	api.retry_after = -1;
	simulate(&run, &api, 96, 1);
	tap_ok(run.failed && seconds(&run) > 1.5 && seconds(&run) < 3.5,
		   "all refused: fails after two backoffs (%.2f s)", seconds(&run));
	tap_ok(run.later < 10, "and asks little meanwhile (%d)", run.later);

	api.retry_after = 7 * SECOND;
	simulate(&run, &api, 96, 1);
	tap_ok(run.failed && seconds(&run) > 14 && seconds(&run) < 15,
		   "all refused: waits as it is told (%.2f s)", seconds(&run));
	tap_is_int(run.too_early, 0, "all of it");

	api.retry_after = -1;
	api.overload = true;
	simulate(&run, &api, 96, 1);
	tap_ok(run.failed && seconds(&run) > 1.5 && seconds(&run) < 3.5,
		   "an API that is down: fails after two backoffs (%.2f s)", seconds(&run));
	tap_ok(run.later < 10, "and is asked little meanwhile (%d)", run.later);
	api.overload = false;

	api.burst = 5;
	simulate(&run, &api, 96, 1);
	tap_ok(run.failed && seconds(&run) > 10 && seconds(&run) < 20,
		   "refused for good after five pages (%.2f s)", seconds(&run));
	tap_ok(run.later < 40, "and asks little meanwhile (%d)", run.later);
}

static void
test_backoff(void)
{
	Throttle	retry;
	int64		least = THROTTLE_NEVER;
	int64		most = 0;
	bool		in_bounds = true;

	throttle_init(&retry, 10, SECOND, 2.0, 10 * SECOND, 42);
	for (int attempt = 1; attempt <= 10; attempt++)
	{
		int64		bound = Min(SECOND << (attempt - 1), 10 * SECOND);

		for (int i = 0; i < 1000; i++)
		{
			int64		wait = throttle_backoff(&retry, attempt);

			in_bounds = in_bounds && wait >= 0 && wait <= bound;
			if (attempt == 10)
			{
				least = Min(least, wait);
				most = Max(most, wait);
			}
		}
	}
	tap_ok(in_bounds, "backoff stays between nothing and its bound");
	tap_ok(least < SECOND / 2 && most > 9 * SECOND, "with full jitter");

	throttle_init(&retry, 10, 3600 * SECOND, 100.0, 7200 * SECOND, 42);
	in_bounds = true;
	for (int i = 0; i < 1000; i++)
	{
		int64		wait = throttle_backoff(&retry, 10);

		in_bounds = in_bounds && wait >= 0 && wait <= 7200 * SECOND;
	}
	tap_ok(in_bounds, "a large factor does not overflow");

	throttle_init(&retry, 10, 0, 100.0, 10 * SECOND, 42);
	tap_is_int(throttle_backoff(&retry, 10), 0, "no delay stays none");
	throttle_init(&retry, 10, 5 * SECOND, 2.0, SECOND, 42);
	tap_ok(throttle_backoff(&retry, 1) <= SECOND, "the cap holds for the first");
}

static void
test_window(void)
{
	Throttle	retry;

	throttle_init(&retry, 8, SECOND, 2.0, 10 * SECOND, 1);
	tap_ok(throttle_next_start(&retry, 7) <= 0, "a start below the window");
	tap_ok(throttle_next_start(&retry, 8) == THROTTLE_NEVER, "none above it");

	for (int i = 0; i < 8; i++)
		throttle_started(&retry, START);
	tap_is_int(throttle_refused(&retry, START + MS, START, 7, -1, false), 1,
			   "a wave without success is barren");
	tap_ok(throttle_next_start(&retry, 2) < THROTTLE_NEVER &&
		   throttle_next_start(&retry, 3) == THROTTLE_NEVER, "the window is halved");
	for (int i = 6; i > 0; i--)
		throttle_refused(&retry, START + 2 * MS, START, i, -1, false);
	tap_ok(throttle_next_start(&retry, 2) < THROTTLE_NEVER, "once for a wave");
	tap_ok(throttle_next_start(&retry, 0) >= START + SECOND / 2,
		   "nothing starts before the backoff is over");
	tap_is_int(throttle_refused(&retry, START + 2 * SECOND, START + SECOND, 0, -1, false),
			   2, "the next wave");

	throttle_succeeded(&retry, START, START, 0);
	tap_ok(throttle_next_start(&retry, 0) <= START + 2 * SECOND,
		   "a success ends our own backoff");
	tap_is_int(throttle_refused(&retry, START + 4 * SECOND, START + 3 * SECOND,
								0, -1, false), 0, "and starts the count again");
	for (int i = 0; i < 20; i++)
		throttle_succeeded(&retry, START + 4 * SECOND, START + 4 * SECOND, 0);
	tap_ok(throttle_next_start(&retry, 7) < THROTTLE_NEVER &&
		   throttle_next_start(&retry, 8) == THROTTLE_NEVER,
		   "successes open the window again, no further than before");
	tap_is_int(throttle_refused(&retry, START + 60 * SECOND, START + 59 * SECOND,
								0, -1, false), 1, "a success long ago does not count");
}

static void
test_paces(void)
{
	Throttle	retry;
	int64		now = START;

	/*
	 * If every other request is rejected at any rate, there is a minimum rate
	 */
	throttle_init(&retry, 100, SECOND, 2.0, 10 * SECOND, 1);
	for (int i = 0; i < 100; i++, now += 5 * SECOND)
	{
		throttle_started(&retry, now);
		throttle_succeeded(&retry, now, now, 0);
		throttle_started(&retry, now + SECOND);
		throttle_refused(&retry, now + SECOND + MS, now + SECOND, 0, -1, false);
	}
	tap_ok(throttle_next_start(&retry, 0) <= now - 3 * SECOND + MS,
		   "never less than a start a second");

	for (int i = 0; i < 10000; i++, now += SECOND)
	{
		throttle_started(&retry, now);
		throttle_succeeded(&retry, now, now, 0);
	}
	tap_is_int(throttle_next_start(&retry, 0), now - SECOND + MS,
			   "nor, after a refusal, more than a thousand");
}

static void
test_limit(void)
{
	Throttle	retry;

	throttle_init(&retry, 100, SECOND, 2.0, 10 * SECOND, 1);
	throttle_limit(&retry, 5);
	tap_ok(throttle_next_start(&retry, 4) <= 0 &&
		   throttle_next_start(&retry, 5) == THROTTLE_NEVER, "fewer sockets");
	for (int i = 0; i < 10; i++)
		throttle_succeeded(&retry, START, START, 0);
	tap_ok(throttle_next_start(&retry, 5) == THROTTLE_NEVER,
		   "successes do not bring more");
	throttle_limit(&retry, 0);
	tap_ok(throttle_next_start(&retry, 0) <= 0, "one is always left");
}

static void
test_hold(void)
{
	Throttle	retry;
	int64		until = START + 5 * SECOND;

	throttle_init(&retry, 100, SECOND, 2.0, 10 * SECOND, 1);
	throttle_started(&retry, START);
	throttle_hold(&retry, until);
	tap_is_int(throttle_next_start(&retry, 0), until, "a pause is kept");
	tap_ok(throttle_next_start(&retry, 49) == until &&
		   throttle_next_start(&retry, 50) == THROTTLE_NEVER, "the window is halved");
	throttle_hold(&retry, until - SECOND);
	tap_is_int(throttle_next_start(&retry, 0), until, "a shorter one ends no other");
	throttle_hold(&retry, until + SECOND);
	tap_is_int(throttle_next_start(&retry, 49), until + SECOND,
			   "a longer one counts, and halves nothing again");
	throttle_succeeded(&retry, START, START, 0);
	tap_is_int(throttle_next_start(&retry, 0), until + SECOND,
			   "a success does not end what the API asked for");
	throttle_started(&retry, until + SECOND);
	tap_ok(throttle_next_start(&retry, 1) > until + SECOND,
		   "held-back pages do not start at once");

	throttle_init(&retry, 100, SECOND, 2.0, 10 * SECOND, 1);
	throttle_started(&retry, START);
	throttle_refused(&retry, START + MS, START, 0, 3 * SECOND, false);
	throttle_succeeded(&retry, START, START, 0);
	tap_is_int(throttle_next_start(&retry, 0), START + MS + 3 * SECOND,
			   "a refusal's Retry-After holds back everything");
}

/* One minute before Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example. */
#define NOW ((time_t) (784111777 - 60))

static void
test_retry_after(void)
{
	static const struct
	{
		const char *value;
		int64		wait;
	}			cases[] = {
		{NULL, -1},
		{"", -1},
		{"  ", -1},
		{"1", SECOND},
		{"120", 120 * SECOND},
		{"007", 7 * SECOND},
		{" \t30 \t", 30 * SECOND},
		{"1.5", 1500 * MS},
		{"2.", 2 * SECOND},
		{".5", -1},
		{"1.2.3", -1},
		{"0", -1},
		{"0.0", -1},
		{"0.0000001", -1},
		{"-1", -1},
		{"-0", -1},
		{"+1", -1},
		{"nan", -1},
		{"inf", -1},
		{"infinity", -1},
		{"0x10", -1},
		{"1e3", -1},
		{"1,5", -1},
		{"1 2", -1},
		{"10s", -1},
		{"soon", -1},
		{"99999999999999999999999999", INT64CONST(315360000) * SECOND},
		{"315360001", INT64CONST(315360000) * SECOND},
		{"Sun, 06 Nov 1994 08:49:37 GMT", 60 * SECOND},
		{"Sunday, 06-Nov-94 08:49:37 GMT", 60 * SECOND},
		{"Sun Nov  6 08:49:37 1994", 60 * SECOND},
		{" Sun, 06 Nov 1994 08:49:37 GMT ", 60 * SECOND},
		{"Sun, 06 Nov 1994 08:48:37 GMT", -1},
		{"Sun, 06 Nov 1994 08:48:36 GMT", -1},
		{"Thu, 01 Jan 1970 00:00:00 GMT", -1},
		{"Fri, 31 Dec 9999 23:59:59 GMT", INT64CONST(315360000) * SECOND},
		{"Sun, 06 Nov 1994 08:49:37", -1},
		{"Sun, 06 Nov 1994 08:49:37 CET", -1},
		{"Sun, 06 Nov 1994 08:49:37 GMT junk", -1},
		{"Sun, 06 Nov 1994", -1},
		{"Sun, 99 Nov 1994 08:49:37 GMT", -1},
		{"1994-11-06T08:49:37Z", -1},
	};
	char		digits[10001];

	for (size_t i = 0; i < lengthof(cases); i++)
		tap_is_int(parse_retry_after(cases[i].value, NULL, NOW), cases[i].wait,
				   "Retry-After: %s",
				   cases[i].value ? cases[i].value : "(none)");

	/* The API's clock is ten minutes fast */
	tap_is_int(parse_retry_after("Sun, 06 Nov 1994 08:59:37 GMT",
								 "Sun, 06 Nov 1994 08:58:37 GMT", NOW), 60 * SECOND,
			   "a date is counted from the answer's own");
	tap_is_int(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", "now", NOW),
			   60 * SECOND, "from our own clock where that is unreadable");
	tap_is_int(parse_retry_after("30", "Sun, 06 Nov 1994 08:58:37 GMT", NOW),
			   30 * SECOND, "seconds need no clock");

	memset(digits, '9', sizeof(digits) - 1);
	digits[sizeof(digits) - 1] = '\0';
	tap_is_int(parse_retry_after(digits, NULL, NOW), INT64CONST(315360000) * SECOND,
			   "10,000 digits");

	/* A decimal comma must not matter, in case LC_NUMERIC is ever not "C" */
	if (setlocale(LC_NUMERIC, "de_DE.UTF-8") != NULL)
		tap_is_int(parse_retry_after("1.5", NULL, NOW), 1500 * MS, "under LC_NUMERIC de_DE");
	setlocale(LC_NUMERIC, "C");
}

int
main(void)
{
	test_backoff();
	test_retry_after();
	test_window();
	test_paces();
	test_limit();
	test_hold();
	test_no_limit();
	test_all_refused();
	test_twenty_per_second();
	test_overload();
	test_overload_in_flight();
	test_other_rates();
	test_long_listing();
	test_in_flight_limit();
	test_shared_limit();
	return tap_done();
}
