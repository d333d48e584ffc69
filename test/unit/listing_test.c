/*
 * listing_test.c
 *	  Unit tests of listing.c, and a simulated API that serves pages as it
 *	  pleases.
 *
 * What counts is what was asked for: however the pages turn out, each position
 * below the total must have been asked for when nothing is left to ask, and
 * that must come to pass.  All randomness comes from a seed.
 */
#include "postgres.h"

#include <limits.h>

#include "common/pg_prng.h"

#include "listing.h"
#include "tap.h"

#define SEEDS 20000
#define MAX_PROGRAMS 500
#define MAX_IN_FLIGHT 8

/*
 * The server's memory functions, as far as listing.c calls them.
 */

void	   *
palloc(Size size)
{
	void	   *memory = malloc(size);

	if (memory == NULL)
		abort();
	return memory;
}

void	   *
repalloc(void *pointer, Size size)
{
	void	   *memory = realloc(pointer, size);

	if (memory == NULL)
		abort();
	return memory;
}

/* ---- helpers ---- */

static Listing
begin(int page_size, int64 expected)
{
	Listing		listing;

	listing_init(&listing, page_size, expected);
	return listing;
}

/* The next page is asked for from here, and is so long. */
static void
asks(Listing *listing, int64 offset, int limit, const char *when)
{
	int64		got_offset = -1;
	int			got_limit = -1;

	if (!tap_ok(listing_next(listing, &got_offset, &got_limit),
				"%s: there is a page to ask for", when))
		return;
	tap_is_int(got_offset, offset, "%s: the offset", when);
	tap_is_int(got_limit, limit, "%s: the limit", when);
}

static void
asks_nothing(Listing *listing, const char *when)
{
	int64		offset;
	int			limit;

	tap_ok(!listing_next(listing, &offset, &limit),
		   "%s: there is no page to ask for", when);
	tap_is_int(listing_pages_left(listing), 0, "%s: no pages are left", when);
}

/* How many pages it takes until there is none to ask for. */
static int
ask_all(Listing *listing)
{
	int			pages = 0;
	int64		offset;
	int			limit;

	while (pages < 10000 && listing_next(listing, &offset, &limit))
		pages++;
	return pages;
}

static void
comes(Listing *listing, int64 offset, int asked, int count, int64 total,
	  int64 limit)
{
	ListingPage page = {
		.offset = offset,
		.asked = asked,
		.count = count,
		.total = total,
		.limit = limit,
	};

	listing_add_page(listing, &page);
}

/* ---- guesses at the number of programs ---- */

static void
test_no_guess(void)
{
	Listing		listing = begin(20, 0);

	tap_is_int(listing_pages_left(&listing), 1, "no guess: one page is planned");
	asks(&listing, 0, 20, "no guess");
	asks_nothing(&listing, "no guess, first page out");
	comes(&listing, 0, 20, 20, 45, 20);
	tap_is_int(listing_pages_left(&listing), 2, "no guess: the total adds two pages");
	asks(&listing, 20, 20, "no guess, total told");
	asks(&listing, 40, 20, "no guess, total told: the last page at full length");
	asks_nothing(&listing, "no guess, all out");
	comes(&listing, 40, 20, 5, 45, 20);
	comes(&listing, 20, 20, 20, 45, 20);
	asks_nothing(&listing, "no guess, all in");
	tap_ok(listing_is_whole(&listing), "no guess: the listing is whole");
	tap_is_int(listing.pages, 3, "no guess: pages");
	tap_is_int(listing.rows, 45, "no guess: rows");
}

static void
test_right_guess(void)
{
	Listing		listing = begin(20, 60);

	tap_is_int(ask_all(&listing), 3, "right guess: all pages at once");
	for (int offset = 0; offset < 60; offset += 20)
		comes(&listing, offset, 20, 20, 60, 20);
	asks_nothing(&listing, "right guess, all in");
	tap_ok(listing_is_whole(&listing), "right guess: the listing is whole");
}

static void
test_small_guess(void)
{
	Listing		listing = begin(20, 21);

	tap_is_int(ask_all(&listing), 2, "small guess: two pages at once");
	comes(&listing, 20, 20, 20, 70, 20);
	asks(&listing, 40, 20, "small guess, total told");
	asks(&listing, 60, 20, "small guess, total told");
	asks_nothing(&listing, "small guess, all out");
	comes(&listing, 0, 20, 20, 70, 20);
	comes(&listing, 60, 20, 10, 70, 20);
	comes(&listing, 40, 20, 20, 70, 20);
	tap_ok(listing_is_whole(&listing), "small guess: the listing is whole");
}

static void
test_large_guess(void)
{
	Listing		listing = begin(20, 1000);

	asks(&listing, 0, 20, "large guess");
	asks(&listing, 20, 20, "large guess");
	asks(&listing, 40, 20, "large guess");
	comes(&listing, 40, 20, 0, 30, 20);
	tap_is_int(listing.pages, 0, "large guess: an empty page beyond the end is none");
	tap_ok(listing_is_beyond(&listing, 40), "large guess: 40 is beyond 30");
	asks_nothing(&listing, "large guess, total told");
	comes(&listing, 0, 20, 20, 30, 20);
	comes(&listing, 20, 20, 10, 30, 20);
	tap_ok(listing_is_beyond(&listing, 30), "large guess: 30 is beyond 30");
	tap_ok(!listing_is_beyond(&listing, 29), "large guess: 29 is not");
	asks_nothing(&listing, "large guess, all in");
	tap_ok(listing_is_whole(&listing), "large guess: the listing is whole");
	tap_is_int(listing.rows, 30, "large guess: rows");
}

static void
test_empty(void)
{
	Listing		listing = begin(20, 100);

	asks(&listing, 0, 20, "empty listing");
	comes(&listing, 0, 20, 0, 0, 20);
	asks_nothing(&listing, "empty listing");
	tap_ok(listing_is_whole(&listing), "an empty listing is whole");
	tap_ok(!listing_is_beyond(&listing, 0), "the first page is never beyond the end");
	tap_is_int(listing.pages, 1, "empty listing: its page counts");
}

/* ---- totals that change ---- */

static void
test_total_grows(void)
{
	Listing		listing = begin(20, 40);

	ask_all(&listing);
	comes(&listing, 0, 20, 20, 40, 20);
	tap_ok(listing_is_whole(&listing), "total grows: not yet");
	comes(&listing, 20, 20, 20, 61, 20);
	tap_ok(!listing_is_whole(&listing), "total grows: not whole");
	tap_is_int(listing.total, 61, "total grows: the larger one is followed");
	asks(&listing, 40, 20, "total grows");
	asks(&listing, 60, 20, "total grows");
	asks_nothing(&listing, "total grows, all out");
}

static void
test_total_shrinks(void)
{
	Listing		listing = begin(20, 40);

	ask_all(&listing);
	comes(&listing, 0, 20, 20, 40, 20);
	comes(&listing, 20, 20, 19, 39, 20);
	tap_ok(!listing_is_whole(&listing), "total shrinks: not whole");
	tap_is_int(listing.total, 40, "total shrinks: the larger one is believed");
	asks(&listing, 39, 20, "total shrinks: what is missing of it");
	comes(&listing, 39, 20, 0, 39, 20);
	asks_nothing(&listing, "total shrinks: asked for once");
}

/* What was given up as beyond the total is asked for when it is not after all. */
static void
test_total_returns(void)
{
	Listing		listing = begin(20, 100);

	asks(&listing, 0, 20, "total returns");
	asks(&listing, 20, 20, "total returns");
	comes(&listing, 0, 20, 20, 40, 20);
	asks(&listing, 40, 20, "total returns: the page behind it, as more were expected");
	asks_nothing(&listing, "total returns: small at first");
	comes(&listing, 20, 20, 20, 100, 20);
	tap_is_int(ask_all(&listing), 2, "total returns: the pages that were given up");
}

/* The same of pages that were on their way. */
static void
test_abandoned(void)
{
	Listing		listing = begin(20, 100);

	ask_all(&listing);
	comes(&listing, 0, 20, 20, 40, 20);
	tap_ok(listing_is_beyond(&listing, 60), "abandoned: 60 is beyond 40");
	listing_abandon(&listing, 60, 20);
	listing_abandon(&listing, 80, 20);
	asks_nothing(&listing, "abandoned");
	comes(&listing, 20, 20, 20, 75, 20);
	asks(&listing, 60, 20, "abandoned, the total grows");
	asks_nothing(&listing, "abandoned, all out");
}

/* Where more were expected than are told of, one page more proves the end. */
static void
test_probe(void)
{
	Listing		listing = begin(20, 100);

	asks(&listing, 0, 20, "probe");
	comes(&listing, 0, 20, 20, 40, 20);
	asks(&listing, 20, 20, "probe");
	asks(&listing, 40, 20, "probe: the page behind the end");
	asks_nothing(&listing, "probe: and no other");
	comes(&listing, 20, 20, 20, 40, 20);
	comes(&listing, 40, 20, 0, 40, 20);
	asks_nothing(&listing, "probe: it is empty");
	tap_ok(listing_is_whole(&listing), "probe: the listing is whole");
}

static void
test_probe_finds(void)
{
	Listing		listing = begin(20, 100);

	ask_all(&listing);
	comes(&listing, 0, 20, 20, 40, 20);
	comes(&listing, 20, 20, 20, 40, 20);
	listing_abandon(&listing, 60, 20);
	listing_abandon(&listing, 80, 20);
	comes(&listing, 40, 20, 20, 40, 20);
	tap_ok(!listing_is_whole(&listing), "probe finds programs: not whole");
	asks(&listing, 60, 20, "probe finds programs: and what follows");
	asks_nothing(&listing, "probe finds programs: one page at a time");
}

/* A total that is far too large: the pages behind the last program are given up. */
static void
test_vain(void)
{
	Listing		listing = begin(10, 0);
	int			requests = 0;
	int64		offset;
	int			limit;

	while (requests < 1000 && listing_next(&listing, &offset, &limit))
	{
		requests++;
		comes(&listing, offset, limit, offset < 50 ? 10 : 0, 1000000, 10);
	}
	tap_ok(requests < 200, "vain: few empty pages are asked for: %d requests", requests);
	tap_ok(listing_is_vain(&listing), "vain: and that is known");
	tap_ok(!listing_is_whole(&listing), "vain: not whole");
	tap_is_int(listing.rows, 50, "vain: all programs came");
	asks_nothing(&listing, "vain");
}

/* A page that ended where its total said, which was not the last word. */
static void
test_end_moves(void)
{
	Listing		listing = begin(20, 40);

	ask_all(&listing);
	comes(&listing, 20, 20, 10, 30, 20);
	asks_nothing(&listing, "end moves: not yet");
	comes(&listing, 0, 20, 20, 45, 20);
	tap_is_int(ask_all(&listing), 2, "end moves: what is behind the old end, and a new page");
}

/* ---- pages of other sizes ---- */

static void
test_short_page(void)
{
	Listing		listing = begin(20, 100);

	ask_all(&listing);
	comes(&listing, 40, 20, 12, 100, 20);
	asks(&listing, 52, 8, "short page: the rest of it, at its own length");
	asks_nothing(&listing, "short page, rest out");
	comes(&listing, 52, 8, 8, 100, 8);
	asks_nothing(&listing, "short page, rest in");
	tap_is_int(listing.stride, 20, "one short page does not change the stride");
	tap_ok(listing_is_whole(&listing), "a short page does not make the listing less whole");
}

static void
test_stride_told(void)
{
	Listing		listing = begin(20, 0);

	asks(&listing, 0, 20, "stride told");
	comes(&listing, 0, 20, 7, 50, 7);
	tap_is_int(listing.stride, 7, "a page that tells its size sets the stride");
	tap_is_int(ask_all(&listing), 7, "stride told: pages of 7 and what is left of the first");
}

static void
test_stride_seen(void)
{
	Listing		listing = begin(20, 100);

	ask_all(&listing);
	comes(&listing, 0, 20, 10, 100, 20);
	tap_is_int(listing.stride, 20, "one short page: perhaps by chance");
	comes(&listing, 20, 20, 10, 100, -1);
	tap_is_int(listing.stride, 10, "two of the same size: the API's way");
	asks(&listing, 10, 10, "stride seen");
	asks(&listing, 30, 10, "stride seen");
	asks_nothing(&listing, "stride seen");
}

static void
test_long_page(void)
{
	Listing		listing = begin(20, 0);

	asks(&listing, 0, 20, "long page");
	comes(&listing, 0, 20, 50, 100, 20);
	tap_is_int(listing.stride, 20, "a long page does not change the stride");
	asks(&listing, 50, 20, "long page: what it brought is left out");
	asks(&listing, 70, 20, "long page");
	asks(&listing, 90, 20, "long page");
	asks_nothing(&listing, "long page, all out");
	comes(&listing, 90, 20, 10, 100, 20);
	tap_ok(listing_is_whole(&listing), "a long page does not make the listing less whole");
}

/* It covers the middle of what is still to be asked for. */
static void
test_long_page_within(void)
{
	Listing		listing = begin(20, 0);
	int64		offset;
	int			limit;
	int64		sum = 0;

	listing_next(&listing, &offset, &limit);
	comes(&listing, 0, 20, 4, 200, 20); /* 4 to 20 are to be asked for again */
	listing_next(&listing, &offset, &limit);
	comes(&listing, offset, limit, 60, 200, 20);
	while (listing_next(&listing, &offset, &limit))
	{
		tap_ok(offset >= 60, "long page within: %d is not asked for again", (int) offset);
		sum += Min(limit, 200 - offset);
	}
	tap_ok(sum >= 120, "long page within: nothing is left out, %d come", (int) sum);
}

/* A full page behind the end: there may be others. */
static void
test_longer_than_total(void)
{
	Listing		listing = begin(20, 0);

	asks(&listing, 0, 20, "longer than the total");
	comes(&listing, 0, 20, 20, 15, 20);
	tap_ok(!listing_is_whole(&listing), "more programs than the total: not whole");
	asks(&listing, 20, 20, "longer than the total: what follows");
	asks_nothing(&listing, "longer than the total");
	comes(&listing, 20, 20, 20, 15, 20);
	asks(&listing, 40, 20, "longer than the total: what follows that");
	comes(&listing, 40, 20, 0, 15, 20);
	asks_nothing(&listing, "longer than the total: an empty page is the end");
	tap_is_int(listing.holes, 0, "... and no hole");
}

static void
test_a_little_longer(void)
{
	Listing		listing = begin(20, 0);

	asks(&listing, 0, 20, "a little longer");
	comes(&listing, 0, 20, 17, 15, 20);
	asks_nothing(&listing, "a page that is not full is the end");
	tap_ok(!listing_is_whole(&listing), "... of a listing that is not whole");
}

/* Asking again from the same place would not end. */
static void
test_hole(void)
{
	Listing		listing = begin(20, 60);

	ask_all(&listing);
	comes(&listing, 20, 20, 0, 60, 20);
	asks_nothing(&listing, "hole");
	tap_is_int(listing.holes, 1, "an empty page amid the listing is a hole");
	tap_ok(!listing_is_whole(&listing), "a hole: not whole");
}

static void
test_first_page_empty(void)
{
	Listing		listing = begin(20, 0);

	asks(&listing, 0, 20, "first page empty");
	comes(&listing, 0, 20, 0, 30, 20);
	tap_is_int(listing.holes, 1, "an empty first page with a total is a hole");
	asks(&listing, 20, 20, "first page empty");
	asks_nothing(&listing, "first page empty");
	tap_ok(!listing_is_whole(&listing), "first page empty: not whole");
}

static void
test_failed(void)
{
	Listing		listing = begin(20, 20);

	ask_all(&listing);
	comes(&listing, 0, 20, 20, 20, 20);
	listing.failed++;
	tap_ok(!listing_is_whole(&listing), "a page that failed: not whole");
}

/* One program a page, and as many ranges as there are pages. */
static void
test_many_ranges(void)
{
	Listing		listing = begin(100, 10000);
	int			pages = ask_all(&listing);

	tap_is_int(pages, 100, "many ranges: pages at first");
	for (int page = 0; page < pages; page++)
		comes(&listing, page * 100, 100, page % 2 ? 100 : 50 + page % 7, 10000, 100);
	tap_is_int(ask_all(&listing), 50, "many ranges: the rest of each short page");
	asks_nothing(&listing, "many ranges, all out");
}

/* ---- whatever an API does ---- */

/* How it deviates from what is documented; each may be 0 */
typedef struct Api
{
	pg_prng_state random;
	int			total;
	int			largest;		/* page that is served */
	int			from;			/* offset from which on that holds */
	int			extra;			/* programs more than asked for */
	int			ragged;			/* percentage of pages that are cut short */
	int			wavering;		/* percentage of pages that tell another total */
	int			lag;			/* by how much that is smaller, at most */
	bool		honest;			/* tells the size it serves */
} Api;

typedef struct Asked
{
	int64		offset;
	int			limit;
} Asked;

/* A run: what was asked for, and what came */
typedef struct Run
{
	Api			api;
	Listing		listing;
	Asked		in_flight[MAX_IN_FLIGHT];
	int			nin_flight;
	int			came[MAX_PROGRAMS + 1];
	int			requests;
} Run;

static int
roll(Api *api, int sides)
{
	return (int) pg_prng_uint64_range(&api->random, 0, sides - 1);
}

static Api
random_api(int seed)
{
	Api			api = {.honest = true};

	pg_prng_seed(&api.random, seed);
	api.total = roll(&api, MAX_PROGRAMS) + 1;
	api.largest = roll(&api, 2) ? roll(&api, 40) + 1 : INT_MAX;
	api.from = roll(&api, 2) ? roll(&api, api.total) : 0;
	api.extra = roll(&api, 4) ? 0 : roll(&api, 30);
	api.ragged = roll(&api, 3) ? 0 : roll(&api, 101);
	api.honest = roll(&api, 2);
	return api;
}

static Api
wavering_api(int seed)
{
	Api			api = random_api(seed);

	api.wavering = 1 + roll(&api, 50);
	api.lag = 1 + roll(&api, api.total);
	return api;
}

/* At least one program wherever there is one: else the place is a hole. */
static ListingPage
serve(Api *api, Asked asked)
{
	int			left = (int) Max(api->total - asked.offset, 0);
	int			size = asked.limit + api->extra;
	ListingPage page = {.offset = asked.offset,.asked = asked.limit,.limit = asked.limit};

	if (asked.offset >= api->from)
		size = Min(size, api->largest);
	if (roll(api, 100) < api->ragged)
		size = roll(api, size) + 1;
	page.count = Min(size, left);
	page.total = api->total;
	if (roll(api, 100) < api->wavering)
		page.total = Max(page.total - roll(api, api->lag + 1), 0);
	if (api->honest)
		page.limit = size;
	else if (roll(api, 2))
		page.limit = -1;
	return page;
}

/* As the fetch does: what is on its way and lies beyond the end is given up. */
static void
give_up_beyond(Run *run)
{
	int			kept = 0;

	for (int i = 0; i < run->nin_flight; i++)
	{
		Asked	   *asked = &run->in_flight[i];

		if (listing_is_beyond(&run->listing, asked->offset))
			listing_abandon(&run->listing, asked->offset, asked->limit);
		else
			run->in_flight[kept++] = *asked;
	}
	run->nin_flight = kept;
}

static void
send_some(Run *run)
{
	Asked	   *asked = &run->in_flight[run->nin_flight];

	while (run->nin_flight < MAX_IN_FLIGHT &&
		   listing_next(&run->listing, &asked->offset, &asked->limit))
	{
		run->requests++;
		asked = &run->in_flight[++run->nin_flight];
	}
}

/* An answer to any of the requests on their way. */
static void
receive_one(Run *run)
{
	int			chosen = roll(&run->api, run->nin_flight);
	ListingPage page = serve(&run->api, run->in_flight[chosen]);

	run->in_flight[chosen] = run->in_flight[--run->nin_flight];
	for (int i = 0; i < page.count; i++)
		run->came[page.offset + i]++;
	listing_add_page(&run->listing, &page);
	give_up_beyond(run);
}

/* Every program once at least, and an end, within so many requests. */
static bool
runs_well(Api api, int64 expected, int page_size)
{
	Run			run = {.api = api};
	int			most = 2 * (api.total + (int) expected) + 20;
	bool		complete = true;

	listing_init(&run.listing, page_size, expected);
	for (send_some(&run); run.nin_flight > 0 && run.requests <= most; send_some(&run))
		receive_one(&run);
	/* What counts is the largest total that was told */
	for (int i = 0; i < Min(api.total, run.listing.total); i++)
		complete = complete && run.came[i] > 0;
	complete = complete && run.requests <= most &&
		listing_pages_left(&run.listing) == 0;
	if (!complete)
		printf("# total %d, told %d, expected %d, page_size %d, largest %d from %d, extra %d, "
			   "ragged %d%%, wavering %d%% by %d, %d requests\n",
			   api.total, (int) run.listing.total, (int) expected, page_size, api.largest,
			   api.from, api.extra, api.ragged, api.wavering, api.lag, run.requests);
	free(run.listing.ranges);
	return complete;
}

static void
test_random(Api (*make_api) (int seed), const char *what)
{
	int			failures = 0;

	for (int seed = 0; seed < SEEDS && failures < 3; seed++)
	{
		Api			api = make_api(seed);
		int64		expected = roll(&api, 3) ? roll(&api, 2 * MAX_PROGRAMS) : 0;

		if (!runs_well(api, expected, roll(&api, 100) + 1))
		{
			printf("# seed %d\n", seed);
			failures++;
		}
	}
	tap_is_int(failures, 0, "%s, %d of them: each program comes, and there is an end",
			   what, SEEDS);
}

int
main(void)
{
	test_no_guess();
	test_right_guess();
	test_small_guess();
	test_large_guess();
	test_empty();
	test_total_grows();
	test_total_shrinks();
	test_total_returns();
	test_abandoned();
	test_probe();
	test_probe_finds();
	test_vain();
	test_end_moves();
	test_short_page();
	test_stride_told();
	test_stride_seen();
	test_long_page();
	test_long_page_within();
	test_longer_than_total();
	test_a_little_longer();
	test_hole();
	test_first_page_empty();
	test_failed();
	test_many_ranges();
	test_random(random_api, "APIs with pages of any size");
	test_random(wavering_api, "APIs whose total wavers, too");
	return tap_done();
}
