/*
 * throttle_test.c
 *	  Unit tests of throttle.c, and simulated syncs from APIs with limits.
 *
 * The simulation has a clock of its own, a client that behaves like the
 * paginator (at most 16 starts per turn, timers that fire up to 1 ms late), a
 * network with jitter, and APIs that limit in each of the ways that throttle.c
 * describes.  It is reproducible: all randomness is derived from a seed.
 */
#include "postgres.h"

#include <math.h>

#include "datatype/timestamp.h"

#include "throttle.h"
#include "tap.h"

#define MS INT64CONST(1000)
#define SECOND (1000 * MS)
#define START (1000 * SECOND)
#define MAX_PAGES 2000
#define STARTS_PER_TURN 16
#define RUNS 100

#define foreach_page(page, run) \
	for (SimPage *page = (run)->pages; page <= (run)->pages + (run)->npages; page++)

static const Account defaults = {
	.concurrency = 100,.timeout = 30000,.attempts = 3,.retry_delay = 1000,
	.retry_factor = 2,.retry_max_delay = 10000,.max_retry_after = 120000,
};

/* ---- the API ---- */

typedef enum ApiKind
{
	BUCKET,						/* tokens, some of which are used by others */
	PERIODS,					/* so many requests in each period */
	AT_A_TIME,					/* so many concurrent requests */
	QUEUE,						/* one by one, even if the client has gone */
	THREADS,					/* one per connection until that is closed;
								 * other connections wait */
	UNLIMITED
} ApiKind;

typedef struct SimApi
{
	/* Settings */
	const char *name;
	ApiKind		kind;
	int			pages;
	double		rate;			/* requests per second */
	double		others;			/* the same, by others */
	int			burst;			/* requests, or threads, at a time */
	int64		period;
	FetchErrorKind refusal;
	int64		wait;			/* requested by each rejection, or 0 */
	int64		latency;		/* of a response */
	bool		near;			/* rejections only take 1 ms each way */
	bool		first;			/* a first sync: the total comes with page 0 */

	/* State */
	double		level;
	int64		level_at;
	int64		next_other;
	int			serving;		/* requests */
	int			held;			/* threads by connections ... */
	int			idle;			/* ... that serve no request */
	pg_prng_state random;
} SimApi;

static int64
jitter(SimApi *api, int64 most)
{
	return (int64) (pg_prng_double(&api->random) * most);
}

static bool
take_token(SimApi *api, int64 now)
{
	bool		taken;

	api->level = Min(api->level + (now - api->level_at) * api->rate / SECOND, api->burst);
	api->level_at = now;
	taken = api->level >= 1;
	api->level -= taken;
	return taken;
}

static bool
accepts(SimApi *api, int64 now)
{
	switch (api->kind)
	{
		case BUCKET:
			for (; api->others > 0 && api->next_other <= now;
				 api->next_other += -log(1 - pg_prng_double(&api->random)) * SECOND / api->others)
				take_token(api, api->next_other);
			return take_token(api, now);
		case PERIODS:
			if (now - api->level_at >= api->period)
			{
				api->level = 0;
				api->level_at = now;
			}
			return ++api->level <= api->burst;
		case AT_A_TIME:
			return api->serving < api->burst;
		default:
			return true;
	}
}

/* From the client to the limiter, and back with a rejection. */
static int64
way(SimApi *api)
{
	return (api->near ? Min(api->latency / 2, MS) : api->latency / 2) +
		jitter(api, Min(Max(api->latency / 50, MS / 5), 2 * MS));
}

/* ---- a sync ---- */

typedef enum PageState
{
	NONE, WAITING, SENT, ARRIVED, DONE
} PageState;

typedef struct SimPage
{
	PageState	state;
	int64		next_at;		/* when it may be sent, or what happens next */
	Tries		tries;
	bool		refused;
	bool		timed_out;
	bool		connected;		/* to a thread */
} SimPage;

typedef struct SimRun
{
	SimApi		api;
	Throttle	throttle;
	int64		now;
	SimPage		pages[MAX_PAGES + 1];	/* the first is for probes */
	SimPage    *probed;
	int			npages;
	int			in_flight;
	int			done;

	/* The result */
	int			requests;
	int			refusals;		/* of requests sent after the first one */
	int64		first_refusal;
	int64		hold_until;
	bool		too_early;		/* a start before that */
	bool		failed;
} SimRun;

static bool
is_sent(const SimPage *page)
{
	return page->state == SENT || page->state == ARRIVED;
}

/* The page in this state, or SENT for both, with the earliest time; or NULL. */
static SimPage *
first_page(SimRun *run, PageState state)
{
	SimPage    *first = NULL;

	foreach_page(page, run)
	{
		if ((state == SENT ? is_sent(page) : page->state == state) &&
			(first == NULL || page->next_at < first->next_at))
			first = page;
	}
	return first;
}

static void
send_page(SimRun *run, SimPage *page)
{
	bool		kept = !page->tries.fresh && run->api.idle > 0;

	page->tries.sent_at = run->now;
	page->state = SENT;
	page->connected = kept;
	page->next_at = run->now + way(&run->api);
	run->api.idle -= kept;
	run->in_flight++;
	run->requests++;
	run->too_early |= run->now < run->hold_until;
	throttle_started(&run->throttle, run->now);
}

/* The API answers a page that it has accepted, unless the client gives up before. */
static void
serve(SimRun *run, SimPage *page, int64 answer_at)
{
	int64		timeout = page->tries.sent_at + defaults.timeout * MS;

	if (run->api.kind == THREADS && !page->connected && run->api.held < run->api.burst)
	{
		page->connected = true;
		run->api.held++;
	}
	if (run->api.kind == THREADS && !page->connected)
		answer_at = THROTTLE_NEVER;
	page->timed_out = answer_at > timeout;
	page->next_at = Min(answer_at, timeout);
}

static void
request_arrives(SimRun *run, SimPage *page)
{
	SimApi	   *api = &run->api;
	int64		now = page->next_at;

	run->now = Max(run->now, now);
	page->state = ARRIVED;
	page->refused = !accepts(api, now);
	page->timed_out = false;
	page->next_at += way(api);
	if (page->refused)
		return;
	api->serving++;
	page->next_at = Max(page->next_at, now + api->latency - (api->near ? MS : api->latency / 2));
	if (api->kind == QUEUE)
		page->next_at = api->level_at = Max(api->level_at, now) + (int64) (SECOND / api->rate);
	serve(run, page, page->next_at);
}

/* A free thread takes the connection that has waited longest. */
static void
end_request(SimRun *run, SimPage *page, bool keep)
{
	SimApi	   *api = &run->api;
	SimPage    *waiting = NULL;

	run->in_flight--;
	api->serving -= page->state == ARRIVED && !page->refused;
	page->state = NONE;
	if (!page->connected)
		return;
	api->idle += keep;
	api->held -= !keep;
	foreach_page(other, run)
	{
		if (other->state == ARRIVED && !other->connected &&
			(waiting == NULL || other->tries.sent_at < waiting->tries.sent_at))
			waiting = other;
	}
	if (waiting && !keep)
		serve(run, waiting, run->now + api->latency + jitter(api, 2 * MS));
}

/* Requests a page that hangs a second time; returns when there will be one. */
static int64
send_probe(SimRun *run)
{
	SimPage    *oldest = NULL;
	int64		when;

	foreach_page(page, run)
	{
		if (is_sent(page) && (oldest == NULL || page->tries.sent_at < oldest->tries.sent_at))
			oldest = page;
	}
	if (run->probed || run->in_flight == defaults.concurrency || oldest == NULL)
		return THROTTLE_NEVER;
	when = throttle_next_probe(&run->throttle, oldest->tries.sent_at);
	if (when > run->now)
		return when;
	run->probed = oldest;
	memset(&run->pages[0].tries, 0, sizeof(Tries));
	send_page(run, &run->pages[0]);
	throttle_probed(&run->throttle, false);
	return THROTTLE_NEVER;
}

static void
give_up_hanging(SimRun *run)
{
	int			count = 0;

	throttle_probed(&run->throttle, true);
	foreach_page(page, run)
	{
		if (!is_sent(page) || throttle_next_probe(&run->throttle, page->tries.sent_at) > run->now)
			continue;
		end_request(run, page, false);
		page->state = page == run->probed ? DONE : WAITING;
		page->next_at = run->now;
		count++;
	}
	throttle_gave_up(&run->throttle, count);
}

static void
page_failed(SimRun *run, SimPage *page)
{
	FetchError	loss = {.kind = run->api.refusal,.wait = run->api.wait};

	if (page->timed_out)
	{
		loss.kind = FETCH_ERROR_TIMED_OUT;
		loss.wait = 0;
	}
	run->first_refusal = Min(run->first_refusal, run->now);
	run->refusals += page->tries.sent_at > run->first_refusal;
	run->hold_until = Max(run->hold_until, run->now + loss.wait);
	page->state = WAITING;
	run->failed |= throttle_failed(&run->throttle, &page->tries, &loss, run->in_flight,
								   run->now, &page->next_at) != FETCH_ERROR_RETRY;
}

static void
answer_arrives(SimRun *run, SimPage *page)
{
	bool		is_probe = page == run->pages;

	run->now = Max(run->now, page->next_at);
	end_request(run, page, !page->timed_out);
	if (page == run->probed)
		end_request(run, run->pages, false);
	if (!page->refused && !page->timed_out)
	{
		run->done++;
		page->state = is_probe ? NONE : DONE;
		throttle_succeeded(&run->throttle, run->now, page->tries.sent_at, run->in_flight);
		if (is_probe)
			give_up_hanging(run);
	}
	else if (!is_probe)
		page_failed(run, page);
	if (is_probe || page == run->probed)
		run->probed = NULL;
}

/* One turn of the client; returns when it wants to wake up. */
static int64
send_pages(SimRun *run)
{
	int64		probe = send_probe(run);
	int			known = run->api.first && run->done == 0 ? 1 : run->api.pages;

	for (int i = 0; i < STARTS_PER_TURN; i++)
	{
		int64		next = throttle_next_start(&run->throttle, run->in_flight);
		SimPage    *page = first_page(run, WAITING);

		if (run->npages < known && (page == NULL || page->next_at > run->now))
			page = &run->pages[run->npages + 1];
		if (page == NULL || next == THROTTLE_NEVER)
			return probe;
		next = Max(next, page->next_at);
		if (next > run->now)
			return Min(probe, next + jitter(&run->api, MS));
		if (page->state == NONE)
		{
			page->tries.attempt = 1;
			run->npages++;
		}
		send_page(run, page);
	}
	return run->now + MS / 10;
}

/* Advances the clock to what happens next, or until the client wakes up. */
static void
advance(SimRun *run, int64 wake)
{
	SimPage    *page = first_page(run, SENT);

	if (page == NULL || page->next_at > wake)
		run->now = Max(run->now, wake);
	else if (page->state == ARRIVED)
		answer_arrives(run, page);
	else
	{
		request_arrives(run, page);
		advance(run, wake);
	}
}

/* Returns how many seconds a sync takes. */
static double
simulate(SimRun *run, const SimApi *api, int seed)
{
	memset(run, 0, sizeof(SimRun));
	run->api = *api;
	run->api.level = api->kind == BUCKET ? api->burst : 0;
	run->api.level_at = api->kind == BUCKET ? START : 0;
	run->api.next_other = run->now = START;
	run->first_refusal = THROTTLE_NEVER;
	pg_prng_seed(&run->api.random, seed);
	throttle_init(&run->throttle, &defaults, seed);
	while (run->done < api->pages && !run->failed && run->now < START + USECS_PER_DAY)
		advance(run, send_pages(run));
	run->failed |= run->done < api->pages || run->too_early;
	return (double) (run->now - START) / SECOND;
}

/* The least time that an API with this limit allows, in seconds. */
static double
least_seconds(const SimApi *api)
{
	double		latency = (double) api->latency / SECOND;

	switch (api->kind)
	{
		case BUCKET:
			return Max(api->wait, 0) / 1e6 + latency +
				Max(api->pages - api->burst, 0) / (api->rate - api->others);
		case PERIODS:
			return (api->pages - 1) / api->burst * ((double) api->period / SECOND) + latency;
		case QUEUE:
			return api->pages / api->rate;
		case AT_A_TIME:
		case THREADS:
			return ceil((double) api->pages / api->burst) * latency;
		case UNLIMITED:
			break;
	}
	return (api->first + ceil((double) (api->pages - api->first) / defaults.concurrency)) * latency;
}

/* Syncs from each API; their time is compared with the least one. */
static void
check_api(const SimApi *api, double max_mean, double max_share)
{
	static SimRun run;
	static const int latencies[] = {20, 50, 100, 250, 500, 2000, 8000};
	double		sum = 0,
				least = 0,
				worst = 0,
				share = 0;
	int			failed = 0;

	for (int seed = 0; seed < RUNS; seed++)
	{
		SimApi		varied = *api;
		double		seconds;

		varied.near = seed % 2;
		varied.latency = latencies[seed / 2 % (api->kind == UNLIMITED ? 7 : 5)] * MS;
		seconds = simulate(&run, &varied, seed);
		sum += seconds;
		least += least_seconds(&varied);
		worst = Max(worst, seconds / least_seconds(&varied));
		share += (double) run.refusals / run.requests / RUNS;
		failed += run.failed;
	}
	tap_is_int(failed, 0, "%s: all syncs succeed", api->name);
	tap_ok(sum / least <= max_mean && worst <= Max(1.5, 1.35 * max_mean), "%s: in time", api->name);
	tap_ok(share <= max_share, "%s: few rejections", api->name);
	printf("# %.0f s = %.2f x the least time, at most %.2f x, %.1f %% rejected\n",
		   sum, sum / least, worst, share * 100);
}

#define RATE FETCH_ERROR_RATE
#define OVER FETCH_ERROR_OVERLOAD

#define API(api_name, api_kind, api_pages, ...) \
	{.name = api_name,.kind = api_kind,.pages = api_pages, ##__VA_ARGS__}

static const struct
{
	SimApi		api;
	double		max_mean;		/* times the least time */
	double		max_share;		/* of rejections */
}			cases[] = {
	{API("20/s, 429", BUCKET, 96,.rate = 20,.burst = 1,.refusal = RATE), 1.25, 0.05},
	{API("20/s, burst of 20, 429", BUCKET, 96,.rate = 20,.burst = 20,.refusal = RATE), 1.1, 0.05},
	{API("20/s, 503", BUCKET, 96,.rate = 20,.burst = 1,.refusal = OVER), 1.25, 0.05},
	{API("20/s, burst of 20, 503", BUCKET, 96,.rate = 20,.burst = 20,.refusal = OVER), 1.1, 0.3},
	{API("20/s, Retry-After", BUCKET, 96,.rate = 20,.burst = 1,.refusal = RATE,.wait = SECOND), 1.1, 0.01},
	{API("20/s, 1000 pages, Retry-After", BUCKET, 1000,.rate = 20,.burst = 5,.refusal = RATE,.wait = SECOND), 1.1, 0.01},
	{API("2/s, 429", BUCKET, 96,.rate = 2,.burst = 1,.refusal = RATE), 1.2, 0.13},
	{API("2/s, Retry-After", BUCKET, 96,.rate = 2,.burst = 1,.refusal = RATE,.wait = SECOND), 1.3, 0.08},
	{API("50/s, 429", BUCKET, 96,.rate = 50,.burst = 1,.refusal = RATE), 1.5, 0.05},
	{API("50/s, 1000 pages, Retry-After", BUCKET, 1000,.rate = 50,.burst = 1,.refusal = RATE,.wait = SECOND), 1.8, 0.01},
	{API("20/s, burst of 5, 503, Retry-After", BUCKET, 96,.rate = 20,.burst = 5,.refusal = OVER,.wait = SECOND), 1.1, 0.01},
	{API("200/s, Retry-After", BUCKET, 96,.rate = 200,.burst = 1,.refusal = RATE,.wait = SECOND), 4, 0.01},
	{API("others take 10 of 20/s", BUCKET, 96,.rate = 20,.others = 10,.burst = 5,.refusal = RATE), 1.1, 0.1},
	{API("10 at a time", AT_A_TIME, 96,.burst = 10,.refusal = OVER), 1.1, 0.05},
	{API("30 at a time", AT_A_TIME, 96,.burst = 30,.refusal = OVER), 1.2, 0.05},
	{API("10 at a time, 429", AT_A_TIME, 500,.burst = 10,.refusal = RATE), 1.1, 0.05},
	{API("30 per second", PERIODS, 296,.burst = 30,.period = SECOND,.refusal = OVER), 1.35, 0.3},
	{API("30 per 20 s", PERIODS, 96,.burst = 30,.period = 20 * SECOND,.refusal = RATE), 1.3, 0.2},
	{API("30 per minute", PERIODS, 96,.burst = 30,.period = 60 * SECOND,.refusal = OVER), 1.1, 0.4},
	{API("a queue at 3/s", QUEUE, 200,.rate = 3), 1.1, 0},
	{API("a queue at 1/s", QUEUE, 100,.rate = 1), 2, 0.1},
	{API("10 threads", THREADS, 200,.burst = 10,.period = 60 * SECOND), 1.1, 0},
	{API("10 threads, first sync", THREADS, 200,.burst = 10,.period = 60 * SECOND,.first = true), 1.1, 0},
	{API("10 threads, 96 pages", THREADS, 96,.burst = 10,.period = 60 * SECOND), 1.5, 0},
	{API("10 threads, 50 pages", THREADS, 50,.burst = 10,.period = 60 * SECOND), 1.75, 0},
	{API("no limit", UNLIMITED, 96), 1.05, 0},
	{API("no limit, first sync", UNLIMITED, 1001,.first = true), 1.05, 0},
};

static void
check_any_api(void)
{
	static const int64 waits[] = {0, SECOND, 10 * SECOND};
	static SimRun run;
	pg_prng_state random;
	double		sum = 0;
	int			failed = 0;

	pg_prng_seed(&random, 1);
	for (int i = 0; i < 20 * RUNS; i++)
	{
		SimApi		api = {
			.kind = i % UNLIMITED,.pages = pg_prng_uint64_range(&random, 2, 400),
			.rate = exp(pg_prng_double(&random) * log(300)),
			.burst = exp(pg_prng_double(&random) * log(50)),
			.period = exp(pg_prng_double(&random) * log(100)) * SECOND,
			.refusal = i % 5 < 3 ? RATE : OVER,.wait = waits[pg_prng_uint64_range(&random, 0, 2)],
			.latency = exp(pg_prng_double(&random) * log(1000)) * MS,
			.near = i % 7 < 3,.first = i % 11 < 4,
		};

		sum += simulate(&run, &api, i);
		failed += run.failed;
	}
	tap_is_int(failed, 0, "syncs from any API with limits succeed");
	printf("# %.0f s\n", sum);
}

/* ---- single decisions ---- */

static Throttle throttle;
static int64 not_before;

#define FAIL_AT(now, others, tries, failure, ...) \
	throttle_failed(&throttle, &(tries), &(FetchError) {.kind = failure, ##__VA_ARGS__}, others, now, \
					&not_before)
#define FAIL_AMONG(others, tries, ...) FAIL_AT(START, others, tries, __VA_ARGS__)
#define FAIL(tries, ...) FAIL_AMONG(0, tries, __VA_ARGS__)

/* Failed attempts, each after a success or not */
static void
test_verdicts(void)
{
	Tries		first = {.attempt = 1,.sent_at = START};
	int64		soonest = THROTTLE_NEVER;
	int64		latest[4] = {0};	/* delay: 1, 2 and 3 s */

	for (int seed = 0; seed < 100; seed++)
	{
		Account		account = defaults;
		Tries		tries = {.attempt = 1,.sent_at = START};

		account.attempts = 4;
		account.retry_max_delay = 3000;
		throttle_init(&throttle, &account, seed);
		for (int attempt = 1; attempt < 4; attempt++)
		{
			tries.fresh = false;
			tap_ok(FAIL(tries, FETCH_ERROR_RETRY) == FETCH_ERROR_RETRY && tries.fresh &&
				   tries.attempt == attempt + 1, "retried on a new connection");
			latest[attempt] = Max(latest[attempt], not_before - START);
			soonest = Min(soonest, not_before - START);
		}
		tap_is_int(FAIL(tries, FETCH_ERROR_RETRY), FETCH_ERROR_FINAL, "and no more");
	}
	for (int attempt = 1; attempt < 4; attempt++)
		tap_ok(latest[attempt] > attempt * SECOND * 9 / 10 && latest[attempt] <= attempt * SECOND,
			   "after at most %g s", latest[attempt] / 1e6);
	tap_ok(soonest < SECOND / 10, "with full jitter");

	throttle_init(&throttle, &defaults, 1);
	throttle_started(&throttle, START - MS);
	throttle_succeeded(&throttle, START, START - MS, 9);
	tap_is_int(throttle_next_probe(&throttle, START), START + 100 * MS, "a request hangs");
	throttle_probed(&throttle, false);
	tap_is_int(throttle_next_probe(&throttle, START), START + 200 * MS, "or perhaps not");
	for (int i = 0; i < 61; i++)
		throttle_probed(&throttle, false);
	tap_ok(throttle_next_probe(&throttle, START) > START + SECOND, "no matter how often");
	FAIL_AMONG(9, first, FETCH_ERROR_RETRY,.wait = SECOND);
	tap_ok(throttle_next_start(&throttle, 4) == THROTTLE_NEVER &&
		   throttle_next_start(&throttle, 3) == START + SECOND, "a loss halves the window");
	throttle_started(&throttle, START + SECOND);
	tap_ok(throttle_next_start(&throttle, 1) > START + SECOND, "and spaces the starts");
	throttle_succeeded(&throttle, START + 2 * SECOND, START + SECOND, 9);
	throttle_succeeded(&throttle, START + 2 * SECOND, START + 2 * SECOND - MS, 9);
	throttle_probed(&throttle, true);
	tap_is_int(throttle_next_probe(&throttle, START), START + 3 * SECOND, "the slowest response counts");
	throttle_gave_up(&throttle, 1000);
	tap_ok(throttle_next_start(&throttle, 0) < THROTTLE_NEVER, "one connection is left");

	for (int arrived = 0; arrived < 2; arrived++)
	{
		Tries		tries = {.attempt = 1,.sent_at = START};
		int			number = 0;

		throttle_init(&throttle, &defaults, 1);
		if (arrived)
			throttle_succeeded(&throttle, START, START - SECOND, 1);
		FAIL(tries, FETCH_ERROR_TIMED_OUT);
		tap_is_int(tries.fresh, !arrived, "after a timeout, a kept connection that works");
		FAIL(tries, FETCH_ERROR_TIMED_OUT);
		tap_ok(tries.fresh, "but not twice");
		tap_is_int(tries.attempt, 1, "which uses up no attempt");
		tap_is_int(FAIL(tries, FETCH_ERROR_FINAL), FETCH_ERROR_FINAL, "no attempt can help");
		tap_is_int(FAIL(tries, FETCH_ERROR_FATAL), FETCH_ERROR_FATAL, "nor any other page");
		tap_is_int(FAIL(tries, FETCH_ERROR_DENIED), FETCH_ERROR_FATAL, "wrong credentials");
		tap_is_int(FAIL(tries, FETCH_ERROR_NO_SOCKET), FETCH_ERROR_FATAL, "not a single socket");
		tries.attempt = 1;
		tap_is_int(FAIL_AMONG(1, tries, FETCH_ERROR_DENIED), FETCH_ERROR_RETRY, "or perhaps not");
		tries.fresh = false;
		tap_ok(FAIL(tries, FETCH_ERROR_LOST) == FETCH_ERROR_RETRY && tries.fresh &&
			   tries.attempt == 1, "a stale connection");
		FAIL(tries, FETCH_ERROR_LOST);
		tap_is_int(tries.attempt, 2, "but only once");
		tries.stale = false;
		FAIL(tries, FETCH_ERROR_LOST);
		tap_is_int(tries.attempt, 3, "and at first");
		tap_is_int(throttle_next_start(&throttle, 0) > START, !arrived, "our own delay, until pages arrive");
		tries.sent_at = START + 1;
		FAIL_AMONG(9, tries, FETCH_ERROR_RETRY,.wait = 7 * SECOND);
		FAIL_AMONG(9, tries, FETCH_ERROR_RETRY,.wait = 6 * SECOND);
		throttle_succeeded(&throttle, START, START - SECOND, 1);
		tap_is_int(throttle_next_start(&throttle, 0), START + 7 * SECOND,
				   "a requested wait holds back all pages, whatever arrives");
		tap_is_int(FAIL_AMONG(5, tries, FETCH_ERROR_NO_SOCKET), FETCH_ERROR_NO_SOCKET, "no more sockets");
		throttle_succeeded(&throttle, START, START - SECOND, 1);
		tap_ok(throttle_next_start(&throttle, 5) == THROTTLE_NEVER &&
			   throttle_next_start(&throttle, 4) < THROTTLE_NEVER, "than are open");

		/* Nothing gets through, by 503 or 429 */
		for (int kind = FETCH_ERROR_RATE; kind <= FETCH_ERROR_OVERLOAD; kind++)
		{
			Account		hasty = defaults;
			int64		now = START;

			hasty.retry_delay = hasty.retry_max_delay = 1;
			throttle_init(&throttle, &hasty, 1);
			if (arrived)
				throttle_succeeded(&throttle, START, START - SECOND, 0);
			tries.attempt = 1;
			tries.sent_at = START;
			for (number = 1; FAIL_AT(now, 0, tries, kind) == FETCH_ERROR_RETRY; number++)
				tries.sent_at = now = throttle_next_start(&throttle, 0) + MS;
			tap_ok(kind == RATE || arrived ? now >= START + 120 * SECOND && number < 120 : number == 3,
				   "gives up after %g s and %d requests", (now - START) / 1e6, number);
			throttle_started(&throttle, now);
			tap_ok(throttle_next_start(&throttle, 99) <= now + MS, "other pages need not wait");
			tap_is_int(FAIL_AMONG(1, tries, kind), kind == RATE ? FETCH_ERROR_FATAL : FETCH_ERROR_FINAL,
					   "and fail at once");
			tap_is_int(FAIL(tries, kind), kind == RATE || !arrived ? FETCH_ERROR_FATAL : FETCH_ERROR_FINAL,
					   "the last one, too");
			throttle_succeeded(&throttle, now, now, 0);
			tap_is_int(FAIL(tries, kind), FETCH_ERROR_RETRY, "until something gets through");
		}
	}
}

/* If every other request is rejected at any rate, and then none */
static void
test_pace(void)
{
	Tries		tries = {.attempt = 1};
	int64		now = START;

	throttle_init(&throttle, &defaults, 1);
	for (int i = 0; i < 100; i++, now += 5 * SECOND)
	{
		throttle_started(&throttle, now);
		throttle_succeeded(&throttle, now, now, 0);
		throttle_started(&throttle, tries.sent_at = now + SECOND);
		FAIL_AT(now + SECOND, 0, tries, RATE);
	}
	tap_ok(throttle_next_start(&throttle, 0) <= now - 3 * SECOND, "never less than a start a second");
	for (int i = 0; i < 20000; i++, now += SECOND)
		throttle_succeeded(&throttle, now, now, 0);
	tap_is_int(throttle_next_start(&throttle, 0), throttle.last_start + MS, "nor more than a thousand");
}

int
main(void)
{
	test_verdicts();
	test_pace();
	for (size_t i = 0; i < lengthof(cases); i++)
		check_api(&cases[i].api, cases[i].max_mean, cases[i].max_share);
	check_any_api();
	return tap_done();
}
