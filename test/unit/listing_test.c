/*
 * listing_test.c
 *	  Unit tests of listing.c.
 *
 * In addition to the cases there is an oracle: random APIs, none of which
 * changes while being read, whatever it reports.  They are read as the
 * paginator does, with responses in any order.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "listing.h"
#include "tap.h"

#define MAX_PROGRAMS 400
#define MAX_IN_FLIGHT 30

/* The API's response past its last program */
typedef enum Beyond
{
	BEYOND_EMPTY,
	BEYOND_REFUSED,				/* 400, 404, 416 or 422 */
	BEYOND_LAST_PAGE,
	BEYOND_FIRST_PAGE,
	BEYOND_BROKEN				/* 5xx or a timeout */
} Beyond;

/* The page size that it reports */
typedef enum LimitEcho
{
	LIMIT_SERVED,				/* as served */
	LIMIT_SILENT,
	LIMIT_ASKED					/* as requested */
} LimitEcho;

typedef struct Api
{
	pg_prng_state random;
	int			count;			/* number of programs listed */
	int			total;			/* total that it reports */
	int			largest;		/* maximum page size */
	int			from;			/* ... from this offset on */
	LimitEcho	echo;
	Beyond		beyond;
	int			broken_at;		/* pages that begin here fail, or -1 */
	int			again_at;		/* here the first programs are listed again */
	int			again;			/* this many of them */
} Api;

typedef struct Request
{
	int64		offset;
	int			limit;
	bool		postponed;
} Request;

/* A reading */
typedef struct Run
{
	Api		   *api;
	Listing    *listing;
	Request		requests[MAX_IN_FLIGHT * 8];
	int			nrequests;
	int			sent;
	int			stalls;			/* number of times when there was nothing to
								 * wait for */
	bool		seen[MAX_PROGRAMS];
	int			nseen;
} Run;

static int
roll(Api *api, int n)
{
	return (int) pg_prng_uint64_range(&api->random, 0, n - 1);
}

/* ---- a simplified paginator ---- */

static int
count_in_flight(const Run *run)
{
	int			count = 0;

	for (int i = 0; i < run->nrequests; i++)
		count += !run->requests[i].postponed;
	return count;
}

static void
send_some(Run *run)
{
	Request    *request = &run->requests[run->nrequests];

	while (count_in_flight(run) < MAX_IN_FLIGHT &&
		   run->nrequests < (int) lengthof(run->requests) &&
		   listing_next(run->listing, &request->offset, &request->limit))
	{
		request->postponed = false;
		run->sent++;
		request = &run->requests[++run->nrequests];
	}
}

static void
drop(Run *run, int i)
{
	run->requests[i] = run->requests[--run->nrequests];
}

static void
abandon_behind_end(Run *run)
{
	for (int i = 0; i < run->nrequests;)
	{
		Request    *request = &run->requests[i];

		if (!request->postponed &&
			listing_is_behind_end(run->listing, request->offset))
		{
			listing_abandon_page(run->listing, request->offset, request->limit);
			drop(run, i);
		}
		else
			i++;
	}
}

static int
program_at(const Api *api, int position)
{
	return position >= api->again_at && position < api->again_at + api->again ?
		position - api->again_at : position;
}

/* Adds the programs from .. to - 1; returns how many of them are new. */
static int
show(Run *run, int from, int to)
{
	int			fresh = 0;

	for (int i = from; i < to; i++)
	{
		int			program = program_at(run->api, i);

		fresh += !run->seen[program];
		run->seen[program] = true;
	}
	run->nseen += fresh;
	return fresh;
}

static void
answer(Run *run, int i)
{
	Api		   *api = run->api;
	Request		request = run->requests[i];
	int			size = request.offset < api->from ? request.limit :
		Min(request.limit, api->largest);
	int			from = (int) Min(request.offset, api->count);
	int			to = Min(from + size, api->count);
	ListingPage page = {
		.offset = request.offset,
		.asked = request.limit,
		.total = api->total,
		.limit = api->echo == LIMIT_SERVED ? size :
		api->echo == LIMIT_ASKED ? request.limit : -1,
	};

	if (request.offset == api->broken_at)
	{
		listing_postpone_page(run->listing, request.offset);
		run->requests[i].postponed = true;
		return;
	}
	if (from == to && request.offset > 0)
	{
		if (api->beyond == BEYOND_REFUSED || api->beyond == BEYOND_BROKEN)
		{
			listing_postpone_page(run->listing, request.offset);
			run->requests[i].postponed = true;
			return;
		}
		if (api->beyond == BEYOND_LAST_PAGE)
			from = Max(api->count - 1, 0) / size * size;
		else if (api->beyond == BEYOND_FIRST_PAGE)
		{
			from = 0;
			to = Min(size, api->count);
		}
	}
	page.count = to - from;
	page.fresh = show(run, from, to);
	drop(run, i);
	listing_add_page(run->listing, &page);
	abandon_behind_end(run);
}

/* The same rule as in the paginator. */
static void
settle(Run *run)
{
	Listing    *listing = run->listing;

	listing_settle(listing);
	while (run->nrequests > 0)
	{
		int			first = 0;
		int64		offset;

		for (int i = 1; i < run->nrequests; i++)
		{
			if (run->requests[i].offset < run->requests[first].offset)
				first = i;
		}
		offset = run->requests[first].offset;
		drop(run, first);
		if (!listing_is_tail(listing, offset))
			listing_fail_page(listing);
		else if (listing_state(listing)->end_unknown || listing_ends_before(listing, offset))
			continue;
		else if (offset < run->api->count)
			listing_fail_page(listing);
		else if (run->api->beyond == BEYOND_REFUSED)
			listing_refuse_page(listing, offset);
		else
			listing_lose_end(listing);
	}
}

static void
read_listing(Run *run, Api *api, int page_size, int64 expected, bool strict)
{
	memset(run, 0, sizeof(Run));
	run->api = api;
	run->listing = listing_create(page_size, expected, strict);
	for (;;)
	{
		int			chosen;

		send_some(run);
		if (count_in_flight(run) == 0)
		{
			settle(run);
			if (listing_pages_left(run->listing) == 0)
				break;
			send_some(run);
			if (run->nrequests == 0)
			{
				run->stalls++;
				break;
			}
		}
		do
			chosen = roll(api, run->nrequests);
		while (run->requests[chosen].postponed);
		answer(run, chosen);
	}
}

/* ---- cases ---- */

static void
test_case(const char *name, Api api, int64 expected, int requests, bool end_seen)
{
	Run			run;

	pg_prng_seed(&api.random, 1);
	api.broken_at = -1;
	if (api.largest == 0)
		api.largest = MAX_PROGRAMS;
	read_listing(&run, &api, 20, expected, false);
	tap_is_int(run.nseen, api.count, "%s: all that is listed", name);
	tap_is_int(run.sent, requests, "%s: requests", name);
	tap_is_int(listing_end_is_seen(run.listing), end_seen, "%s: the end", name);
	tap_is_int(listing_gap(run.listing), -1, "%s: no gap", name);
}

static void
test_cases(void)
{
	test_case("nothing", (Api)
			  {
		0
	}, 0, 1, true);
	test_case("a first sync", (Api)
			  {
		.count = 93,.total = 93
	}, 0, 5, true);
	test_case("a repeat sync", (Api)
			  {
		.count = 93,.total = 93
	}, 93, 5, true);
	test_case("full pages", (Api)
			  {
		.count = 40,.total = 40
	}, 0, 3, true);
	test_case("full pages again", (Api)
			  {
		.count = 40,.total = 40
	}, 40, 3, true);
	test_case("one short page", (Api)
			  {
		.count = 13,.total = 13
	}, 0, 2, true);
	test_case("one short page again", (Api)
			  {
		.count = 13,.total = 13
	}, 13, 2, true);
	test_case("a cached total", (Api)
			  {
		.count = 43,.total = 40
	}, 40, 4, true);
	test_case("a capped total", (Api)
			  {
		.count = 393,.total = 60
	}, 0, 36, true);
	test_case("a capped total again", (Api)
			  {
		.count = 393,.total = 60
	}, 393, 21, true);
	test_case("shorter than expected", (Api)
			  {
		.count = 40,.total = 40
	}, 60, 4, true);
	test_case("no such page", (Api)
			  {
		.count = 40,.total = 60,.beyond = BEYOND_REFUSED
	}, 60, 4, true);
	test_case("the last page again", (Api)
			  {
		.count = 45,.total = 45,.beyond = BEYOND_LAST_PAGE
	}, 45, 3, true);
	test_case("broken behind the end", (Api)
			  {
		.count = 40,.total = 40,.beyond = BEYOND_BROKEN
	}, 40, 3, false);
	test_case("smaller pages behind a capped total",
			  (Api) {.count = 120,.total = 40,.largest = 8,.from = 60}, 0, 15, true);
	test_case("no word of the size of pages", (Api)
			  {
		.count = 93,.total = 93,.echo = LIMIT_SILENT
	}, 0, 6, true);
	test_case("no word of the size of pages again", (Api)
			  {
		.count = 93,.total = 93,.echo = LIMIT_SILENT
	}, 93, 5, true);
	test_case("no word of the size of pages, and a program more", (Api)
			  {
		.count = 94,.total = 94,.echo = LIMIT_SILENT
	}, 93, 6, true);
	test_case("smaller pages up to the total", (Api)
			  {
		.count = 120,.total = 68,.largest = 8,.from = 60
	}, 0, 18, true);
	test_case("smaller pages", (Api)
			  {
		.count = 50,.total = 50,.largest = 10
	}, 0, 6, true);
}

/* An empty page is followed by others. */
static void
test_gap(void)
{
	Listing    *listing = listing_create(20, 60, false);
	int64		offset;
	int			limit;

	while (listing_next(listing, &offset, &limit))
	{
		ListingPage page = {
			.offset = offset,.asked = limit,.total = 60,.limit = -1,
			.count = offset == 0 || offset == 40 ? 20 : 0,
			.fresh = offset == 0 || offset == 40 ? 20 : 0,
		};

		listing_add_page(listing, &page);
	}
	tap_is_int(listing_gap(listing), 20, "an empty page before others is a gap");
	tap_ok(listing_end_is_seen(listing), "and the end is seen all the same");
}

/* An API whose total is a million too large, and that answers all requests. */
static void
test_pointless(void)
{
	Api			api = {.count = 30,.total = 1000000,.largest = 20,.broken_at = -1};
	Run			run;

	pg_prng_seed(&api.random, 1);
	read_listing(&run, &api, 20, 0, false);
	tap_ok(run.sent < 250, "%d requests for a total that is far too large", run.sent);
	tap_is_int(run.nseen, 30, "all that is listed");
}

/* ---- oracle ---- */

static Api
random_api(uint64 seed)
{
	Api			api;

	memset(&api, 0, sizeof(Api));
	pg_prng_seed(&api.random, seed);
	api.count = roll(&api, 3) == 0 ? roll(&api, 8) * 20 : roll(&api, MAX_PROGRAMS);
	api.largest = roll(&api, 3) == 0 ? 1 + roll(&api, 25) : MAX_PROGRAMS;
	api.from = roll(&api, 2) ? 0 : roll(&api, MAX_PROGRAMS);
	api.echo = (LimitEcho) roll(&api, LIMIT_ASKED + 1);
	api.beyond = (Beyond) roll(&api, BEYOND_BROKEN + 1);
	api.total = api.count;
	api.broken_at = roll(&api, 4) == 0 ? (1 + roll(&api, 12)) * 20 : -1;
	switch (roll(&api, 7))
	{
		case 0:
			api.total = Max(api.count - 1 - roll(&api, 40), 0);
			break;
		case 1:
			api.total = api.count + 1 + roll(&api, 40);
			break;
		case 2:
			api.total = Min(api.count, 60);
			break;
		case 3:
			api.total = roll(&api, 2 * MAX_PROGRAMS);
			break;
		case 4:
			api.total = Min(api.from + api.largest, api.count);
			break;
	}
	return api;
}

/* Programs that are listed twice do not fill two consecutive pages. */
static void
list_again(Api *api, int page_size)
{
	int			most = Min(page_size, api->largest);

	if (roll(api, 3) > 0)
		return;
	api->again = Min(1 + roll(api, most), api->count / 2);
	api->again_at = api->again + roll(api, api->count - 2 * api->again + 1);
}

/* What went wrong with an API: nothing should. */
static const char *
judge(const Run *run, const Api *api, int page_size)
{
	int			size = Min(page_size, api->largest);
	bool		complete = listing_state(run->listing)->failed == 0 &&
		listing_end_is_seen(run->listing);
	int			limit = 300 + 4 * (Max(api->count, api->total) / size + 2);
	int			programs = api->count - api->again;

	/*
	 * A page of one program that is repeated causes a look past it each time
	 */
	if (api->beyond == BEYOND_LAST_PAGE || api->beyond == BEYOND_FIRST_PAGE)
		limit += MAX_PROGRAMS;
	if (run->stalls > 0)
		return "it waits for nothing";
	if (complete && run->nseen < programs)
		return "complete, but not all there";
	if (api->broken_at >= 0)
		return NULL;
	if (listing_state(run->listing)->failed > 0)
		return "a page counts as failed";
	if (listing_gap(run->listing) >= 0)
		return "a gap where there is none";
	if (listing_end_is_seen(run->listing) && run->nseen < programs)
		return "the end is seen before the last program";
	if (api->beyond != BEYOND_BROKEN && run->nseen < programs)
		return "programs are missing";
	if (api->beyond != BEYOND_BROKEN && !listing_end_is_seen(run->listing))
		return "the end is not seen";
	if (run->sent > limit)
		return "too many requests";
	return NULL;
}

static void
test_oracle(int rounds)
{
	int			wrong = 0;

	for (int round = 0; round < rounds; round++)
	{
		Api			api = random_api(round);
		int			page_size = roll(&api, 2) ? 20 : 1 + roll(&api, 40);
		int			expected = roll(&api, 3) ? api.count : roll(&api, MAX_PROGRAMS);
		bool		strict = roll(&api, 2) == 0;
		Run			run;
		const char *why;

		/*
		 * If pages get smaller but the API denies it, a strict reading is
		 * required
		 */
		if (!strict && api.echo == LIMIT_ASKED)
			api.from = 0;
		/* The expected number is where the end was seen last time */
		if (expected == api.total && expected < api.count)
			expected = 0;
		list_again(&api, page_size);
		read_listing(&run, &api, page_size, roll(&api, 4) ? expected : 0, strict);
		why = judge(&run, &api, page_size);
		if (why && wrong++ < 10)
			printf("# API %d: %s: %d programs, total %d, pages of %d, at most %d, beyond %d: %d seen, %d requests\n",
				   round, why, api.count, api.total, page_size, api.largest,
				   api.beyond, run.nseen, run.sent);
		listing_free(run.listing);
	}
	tap_is_int(wrong, 0, "%d random APIs are read to their end", rounds);
}

int
main(void)
{
	test_cases();
	test_gap();
	test_pointless();
	test_oracle(100000);
	return tap_done();
}
