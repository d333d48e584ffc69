/*
 * listing_test.c
 *	  Unit tests of listing.c and fetch.c: which requests are made for a
 *	  listing, and what they prove.
 *
 * The paginator, the rows and the API are simulated.  In addition to the cases
 * there is an oracle: random APIs with habits of their own, which answer in
 * any order; half of them change their listing between two answers.  Each is
 * synced several times.  No program that is listed all the time is ever
 * deleted, and a sync without doubt has stored all of them.
 */
#include "postgres.h"

#include <setjmp.h>
#include <unistd.h>

#include "common/pg_prng.h"

#include "fetch.h"
#include "listing.h"
#include "tap.h"

#define MAX_LISTED 420
#define MAX_IDS 4096
#define MAX_REQUESTS 4000		/* of a reading */
#define WATCHDOG_S 300

/* The total that the API reports */
typedef enum TotalKind
{
	TOTAL_EXACT,
	TOTAL_OFF,					/* too large or too small by a number */
	TOTAL_CAPPED,
	TOTAL_CACHED,				/* from the beginning of the sync before */
	TOTAL_RANDOM,				/* another one with each page */
	TOTAL_CONSTANT,
	TOTAL_KINDS
} TotalKind;

/* The response to a request past the last program */
typedef enum Beyond
{
	BEYOND_EMPTY,
	BEYOND_NO_CONTENT,			/* 204: without a total */
	BEYOND_REFUSED,				/* 400, 422 */
	BEYOND_NOT_FOUND,			/* any other error */
	BEYOND_HANGS,				/* until everything else has been answered */
	BEYOND_LAST_PAGE,
	BEYOND_FIRST_PAGE,
	BEYOND_KINDS
} Beyond;

/* What becomes of requests past a result window */
typedef enum WindowKind
{
	WINDOW_OFFSET,				/* refused if they begin there */
	WINDOW_SUM,					/* refused if they end there */
	WINDOW_CUT,					/* the listing seems to end there */
	WINDOW_KINDS
} WindowKind;

typedef struct Api
{
	pg_prng_state random;
	int			listed[MAX_LISTED];
	int			count;
	int			next_id;

	TotalKind	total_kind;
	int			total;			/* the number that belongs to it */
	int			clamp;			/* maximum number of programs per page ... */
	int			clamp_from;		/* ... from this offset on ... */
	int			clamp_to;		/* ... up to this one */
	Beyond		beyond;
	int			window;			/* 0: none */
	WindowKind	window_kind;
	int			broken;			/* this position cannot be fetched; or -1 */
	bool		ignores_offset;
	bool		ignores_limit;
	int			moves;			/* changes after so many of 100 answers */
	bool		only_wave;		/* answers a wave of requests at once, in order */
} Api;

typedef struct Answer
{
	bool		hangs;
	bool		failed;
	bool		refused;
	int			total;
	int			from;			/* positions on the page */
	int			to;
} Answer;

typedef struct Request
{
	ListingRequest request;
	bool		refused;
} Request;

/* An account, its rows and the sync that is running */
static struct
{
	Api		   *api;
	Account		account;
	bool		stored[MAX_IDS];
	bool		always[MAX_IDS];	/* listed since the sync began */
	bool		seen[MAX_IDS];	/* in this reading */
	bool		seen_ever[MAX_IDS]; /* in any */
	int64		listed_last;	/* by the sync before, or -1 */
	int64		surplus;
	int			requests;
	int			waves;
	int			readings;
	int			hung;			/* readings that waited for one that hangs */
	const char *fault;
	jmp_buf		failure;
} world;

static int
roll(Api *api, int n)
{
	return (int) pg_prng_uint64_range(&api->random, 0, n - 1);
}

/* ---- the API ---- */

static void
insert_program(Api *api, int id, int position)
{
	memmove(&api->listed[position + 1], &api->listed[position],
			(api->count++ - position) * sizeof(int));
	api->listed[position] = id;
}

static int
remove_program(Api *api, int position)
{
	int			id = api->listed[position];

	memmove(&api->listed[position], &api->listed[position + 1],
			(--api->count - position) * sizeof(int));
	return id;
}

static int
any_place(Api *api)
{
	int			places[] = {0, api->count, roll(api, api->count + 1)};

	return places[roll(api, 3)];
}

/* A program goes, comes or changes its place. */
static void
change(Api *api)
{
	int			kind = roll(api, 5);

	if (kind < 3 && api->count > 0)
	{
		int			id = remove_program(api, kind == 0 ? 0 : roll(api, api->count));

		if (kind == 2)
			insert_program(api, id, any_place(api));
		else
			world.always[id] = false;
	}
	else if (kind >= 3 && api->count < MAX_LISTED - 1 && api->next_id < MAX_IDS)
		insert_program(api, api->next_id++, any_place(api));
}

static int
reported_total(Api *api)
{
	switch (api->total_kind)
	{
		case TOTAL_OFF:
			return Max(api->count + api->total, 0);
		case TOTAL_CAPPED:
			return Min(api->count, api->total);
		case TOTAL_CACHED:
		case TOTAL_CONSTANT:
			return api->total;
		case TOTAL_RANDOM:
			return Max(api->count - 5 + roll(api, 11), 0);
		default:
			return api->count;
	}
}

static Answer
ask(Api *api, const ListingRequest *request)
{
	int			offset = api->ignores_offset ? 0 : (int) request->offset;
	int			limit = api->ignores_limit ? 20 : request->limit;
	int			count = api->count;
	Answer		answer = {.total = reported_total(api)};

	if (api->window > 0 &&
		(api->window_kind == WINDOW_SUM ? offset + limit > api->window : offset >= api->window))
	{
		answer.failed = answer.refused = true;
		return answer;
	}
	if (api->window > 0 && api->window_kind == WINDOW_CUT)
	{
		count = Min(count, api->window);
		answer.total = Min(answer.total, api->window);
	}
	if (api->clamp > 0 && offset >= api->clamp_from && offset < api->clamp_to)
		limit = Min(limit, api->clamp);
	if (offset >= count && offset > 0)
	{
		answer.hangs = api->beyond == BEYOND_HANGS;
		answer.refused = api->beyond == BEYOND_REFUSED;
		answer.failed = answer.refused || answer.hangs || api->beyond == BEYOND_NOT_FOUND;
		if (api->beyond == BEYOND_NO_CONTENT)
			answer.total = -1;
		if (api->beyond == BEYOND_LAST_PAGE)
			offset = Max(count - 1, 0) / limit * limit;
		else if (api->beyond == BEYOND_FIRST_PAGE)
			offset = 0;
	}
	else if (count == 0 && api->beyond == BEYOND_NO_CONTENT)
		answer.total = -1;
	answer.from = Min(offset, count);
	answer.to = Min(offset + limit, count);
	if (api->broken >= answer.from && api->broken < answer.to)
		answer.failed = true;
	return answer;
}

/* ---- a simplified paginator ---- */

static void
raise(const char *why)
{
	world.fault = why;
	longjmp(world.failure, 1);
}

static uint64
id_hash(int id)
{
	uint64		hash = (uint64) (id + 1) * UINT64CONST(0x9E3779B97F4A7C15);

	return (hash ^ (hash >> 29)) * UINT64CONST(0xBF58476D1CE4E5B9);
}

static void
add_programs(const Answer *answer, Programs *programs, ListingPage *page)
{
	for (int i = answer->from; i < answer->to; i++)
	{
		int			id = world.api->listed[i];

		page->fresh += !world.seen[id];
		if (!world.seen[id])
		{
			programs->common += world.stored[id];
			programs->listed.count++;
			programs->listed.digest ^= id_hash(id);
		}
		world.seen[id] = world.seen_ever[id] = true;
	}
	page->count = answer->to - answer->from;
	page->first_id = page->count ? world.api->listed[answer->from] + 1 : 0;
	page->last_id = page->count ? world.api->listed[answer->to - 1] + 1 : 0;
}

/* Judges the failures; true if this leaves something to request. */
static bool
judge(Listing *listing, Reading *reading, Request *failures, int nfailures)
{
	bool		skipped = false;

	for (int done = 0; done < nfailures; done++)
	{
		int			first = 0;

		for (int i = 1; i < nfailures; i++)
		{
			if (failures[i].request.offset < failures[first].request.offset)
				first = i;
		}
		switch (listing_judge(listing, &failures[first].request, failures[first].refused))
		{
			case LISTING_MISSING:
				if (!world.account.partial || failures[first].request.offset == 0)
					raise("a page cannot be fetched");
				listing_skip_page(listing, &failures[first].request);
				reading->failed_pages++;
				skipped = true;
				break;
			case LISTING_REFUSED:
				reading->refused = true;
				break;
			case LISTING_PAST_END:
				if (!listing_end_is_seen(listing))
					reading->failure = "failed";
				break;
		}
		failures[first].request.offset = PG_INT64_MAX;
	}
	return skipped && !listing_end_is_seen(listing);
}

#pragma GCC diagnostic ignored "-Wunused-parameter"

struct Paginator
{
	Programs   *programs;
};

Paginator *
paginator_create(pg_attribute_unused() const Account *account, Programs *programs,
				 pg_attribute_unused() Progress *progress)
{
	static Paginator paginator;

	paginator.programs = programs;
	return &paginator;
}

PaginatorCounts
paginator_counts(pg_attribute_unused() const Paginator *paginator)
{
	return (PaginatorCounts)
	{
		.requests = world.requests
	};
}

/* Takes the answer to a request; false if that hangs. */
static bool
take(Listing *listing, Programs *programs, const Request *request, bool may_hang,
	 Request *failures, int *nfailures)
{
	Answer		answer = ask(world.api, &request->request);
	ListingPage page = {.total = answer.total};

	if (answer.hangs && may_hang)
		return false;
	if (answer.failed)
	{
		listing_fail_page(listing, &request->request);
		failures[*nfailures] = *request;
		failures[(*nfailures)++].refused = answer.refused;
	}
	else
	{
		add_programs(&answer, programs, &page);
		listing_add_page(listing, &request->request, &page);
	}
	if (roll(world.api, 100) < world.api->moves)
		change(world.api);
	return true;
}

static void
read_pages(Listing *listing, Programs *programs, Request *failures, int *nfailures)
{
	Api		   *api = world.api;
	static Request requests[MAX_REQUESTS];
	int			nrequests = 0;
	int			nhung = 0;		/* the first ones */
	int			sent = 0;
	int			most = api->only_wave ? MAX_REQUESTS : 1 + roll(api, 2) * roll(api, 60);

	while (!listing_end_is_seen(listing))
	{
		bool		all_hang;
		int			chosen;

		if (nrequests == nhung || !api->only_wave)
		{
			int			before = nrequests;

			while (nrequests < most && sent < MAX_REQUESTS &&
				   listing_next(listing, &requests[nrequests].request))
			{
				nrequests++;
				sent++;
			}
			world.waves += nrequests > before;
		}
		if (sent == MAX_REQUESTS)
			raise("too many requests");
		if (nrequests == 0)
			break;
		all_hang = nrequests == nhung;
		world.hung += all_hang && nhung > 0;
		chosen = api->only_wave ? (all_hang ? 0 : nhung) :
			all_hang ? 0 : nhung + roll(api, nrequests - nhung);
		if (!take(listing, programs, &requests[chosen], !all_hang, failures, nfailures))
		{
			Request		hung = requests[chosen];

			requests[chosen] = requests[nhung];
			requests[nhung++] = hung;
			continue;
		}
		nhung -= all_hang;
		nrequests--;
		memmove(&requests[chosen], &requests[chosen + 1],
				(nrequests - chosen) * sizeof(Request));
	}
	world.requests += sent;
}

Reading
paginator_fetch(Paginator *paginator, int64 expected)
{
	static Request failures[MAX_REQUESTS];
	int			nfailures;
	Reading		reading = {0};
	Listing    *listing = listing_create(world.account.page_size, expected,
										 world.account.trust_total);

	memset(world.seen, 0, sizeof(world.seen));
	world.readings++;
	do
	{
		nfailures = 0;
		read_pages(listing, paginator->programs, failures, &nfailures);
	} while (judge(listing, &reading, failures, nfailures));
	reading.total = Max(listing_state(listing)->total, 0);
	reading.positions = listing_state(listing)->last;
	reading.end_seen = listing_end_is_seen(listing);
	reading.total_moved = listing_state(listing)->total_moved;
	reading.gap = listing_gap(listing);
	listing_free(listing);
	return reading;
}

/* ---- what fetch.c needs ---- */

static int64
count_stored(void)
{
	int64		count = 0;

	for (int i = 0; i < MAX_IDS; i++)
		count += world.stored[i];
	return count;
}

void
programs_begin_reading(Programs *programs)
{
	programs->reading++;
	programs->common = 0;
	memset(&programs->listed, 0, sizeof(ProgramSet));
}

int64
programs_count_unlisted(const Programs *programs)
{
	return programs->stored - programs->common;
}

void
progress_again(pg_attribute_unused() Progress *progress,
			   pg_attribute_unused() const char *why)
{
}

void
progress_fetch_done(pg_attribute_unused() Progress *progress,
					pg_attribute_unused() const ProgressPages *pages,
					pg_attribute_unused() int64 elapsed_us)
{
}

/* ---- a sync ---- */

typedef struct Outcome
{
	bool		failed;
	bool		synced;
	FetchDoubt	doubt;
	int			deleted;
	int			deleted_listed; /* of programs listed all the time */
	int			lacks;			/* listed all the time, and not stored */
	int			stale;			/* stored, and not listed */
} Outcome;

static void
store(const Fetched *fetched, Outcome *outcome)
{
	bool	   *arrived = fetched->confirmed ? world.seen : world.seen_ever;

	for (int i = 0; i < MAX_IDS; i++)
	{
		bool		gone = world.stored[i] && !world.seen[i];

		if (gone && fetched->doubt == DOUBT_NONE && fetched->confirmed)
		{
			world.stored[i] = false;
			outcome->deleted++;
			outcome->deleted_listed += world.always[i];
		}
		world.stored[i] |= arrived[i];
	}
}

static Outcome
sync_account(Api *api)
{
	Outcome		outcome = {0};
	Programs	programs = {.stored = count_stored()};
	bool		listed[MAX_IDS] = {false};

	world.api = api;
	world.requests = world.waves = world.readings = world.hung = 0;
	world.fault = NULL;
	memset(world.seen_ever, 0, sizeof(world.seen_ever));
	memset(world.always, 0, sizeof(world.always));
	for (int i = 0; i < api->count; i++)
		world.always[api->listed[i]] = true;
	if (setjmp(world.failure) == 0)
	{
		FetchExpected expected = {
			.programs = world.listed_last < 0 ? count_stored() : world.listed_last,
			.surplus = world.surplus,
		};
		Fetched    *fetched = fetch_programs(&world.account, &programs, NULL, expected);

		store(fetched, &outcome);
		outcome.doubt = fetched->doubt;
		outcome.synced = fetched->doubt == DOUBT_NONE;
		world.listed_last = programs.listed.count;
		world.surplus = outcome.synced || world.account.trust_total ?
			fetched->reading.total - programs.listed.count : 0;
		pfree(fetched);
	}
	else
		outcome.failed = true;
	for (int i = 0; i < api->count; i++)
		listed[api->listed[i]] = true;
	for (int i = 0; i < MAX_IDS; i++)
	{
		outcome.lacks += world.always[i] && !world.stored[i];
		outcome.stale += world.stored[i] && !listed[i];
	}
	return outcome;
}

static void
list_programs(Api *api, int count)
{
	api->count = count;
	for (int i = 0; i < count; i++)
		api->listed[i] = i;
	api->next_id = count;
}

/* An account that has not been synced yet */
static void
begin_account(int page_size, bool trust_total)
{
	memset(&world, 0, sizeof(world));
	world.account.page_size = page_size;
	world.account.trust_total = trust_total;
	world.account.program_status = PROGRAM_STATUS_ALL;
	world.listed_last = -1;
}

/* ---- oracle ---- */

static Api
random_api(uint64 seed, bool moving)
{
	Api			api;
	int			counts[] = {0, 1, 2, 19, 20, 21, 40, 41, 60, 100};

	memset(&api, 0, sizeof(Api));
	pg_prng_seed(&api.random, seed);
	list_programs(&api, roll(&api, 2) ? counts[roll(&api, lengthof(counts))] : roll(&api, 130));
	api.total_kind = roll(&api, 2) ? TOTAL_EXACT : (TotalKind) roll(&api, TOTAL_KINDS);
	api.total = api.total_kind == TOTAL_OFF ? 40 - roll(&api, 81) :
		roll(&api, 2) ? 20 * roll(&api, 6) : roll(&api, 130);
	if (roll(&api, 3) == 0)
		api.clamp = 1 + roll(&api, 24);
	api.clamp_from = roll(&api, 2) ? 0 : roll(&api, 130);
	api.clamp_to = roll(&api, 3) ? MAX_LISTED : api.clamp_from + roll(&api, 60);
	api.beyond = (Beyond) roll(&api, BEYOND_KINDS);
	api.window_kind = (WindowKind) roll(&api, WINDOW_KINDS);
	api.broken = roll(&api, 6) == 0 ? roll(&api, 130) : -1;
	api.ignores_offset = roll(&api, 100) == 0 && api.clamp != 1;
	api.ignores_limit = roll(&api, 50) == 0;
	api.moves = moving ? 1 + roll(&api, 30) : 0;
	return api;
}

/* Requests and round trips of syncs, each after a change of the count. */
static void
test_requests(void)
{
	static const struct
	{
		int			count;
		int			page_size;
		int			changes[4];
		int			requests[4];
		int			waves[4];
	}			cases[] = {
		{400, 20, {0, 0, -1, 1}, {22, 22, 43, 22}, {2, 1, 2, 2}},
		{413, 40, {0, 0, -1, 1}, {12, 12, 24, 12}, {2, 1, 2, 1}},
		{393, 20, {0, 0, -30, 20}, {21, 21, 42, 22}, {2, 1, 3, 2}},
		{381, 20, {0, 0, -1, 2}, {21, 21, 43, 22}, {2, 1, 3, 2}},
		{20, 20, {0, 0, -1, 2}, {3, 3, 5, 3}, {2, 1, 2, 2}},
		{13, 20, {0, 0, -1, 1}, {2, 2, 4, 2}, {2, 1, 2, 1}},
		{1, 20, {0, 0, 1, -1}, {2, 2, 2, 4}, {2, 1, 1, 2}},
		{0, 20, {0, 0, 1, -1}, {1, 1, 2, 3}, {1, 1, 2, 2}},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		Api			api = {.broken = -1,.only_wave = true};

		begin_account(cases[i].page_size, true);
		list_programs(&api, cases[i].count);
		for (int sync = 0; sync < 4; sync++)
		{
			int			change = cases[i].changes[sync];
			Outcome		outcome;

			for (; change > 0; change--)
				insert_program(&api, api.next_id++, api.count);
			for (; change < 0; change++)
				remove_program(&api, api.count / 2);
			outcome = sync_account(&api);
			tap_ok(outcome.synced && outcome.lacks + outcome.stale == 0,
				   "%d programs, %d a page, sync %d: all right",
				   cases[i].count, cases[i].page_size, sync + 1);
			tap_is_int(world.requests, cases[i].requests[sync], "... requests");
			tap_is_int(world.waves, cases[i].waves[sync], "... round trips");
		}
	}
}

/* APIs that deceived earlier rules: a first sync, and one after a removal. */
static void
test_cases(void)
{
	static const struct
	{
		const char *name;
		int			page_size;
		bool		synced;
		Api			api;
	}			cases[] = {
		{"one program, and what follows is refused", 20, true,
		{.count = 1,.beyond = BEYOND_REFUSED}},
		{"one program per page, and a total of 1", 20, false,
		{.count = 40,.total_kind = TOTAL_CONSTANT,.total = 1,.clamp = 1}},
		{"one program per page from 20 on, and a capped total", 10, false,
		{.count = 41,.total_kind = TOTAL_CAPPED,.total = 10,.clamp = 1,.clamp_from = 20,.beyond = BEYOND_FIRST_PAGE}},
		{"one program per page from the total on", 20, false,
		{.count = 237,.total_kind = TOTAL_CONSTANT,.total = 176,.clamp = 1,.clamp_from = 175}},
		{"a single full page, and what follows is refused", 100, true,
		{.count = 100,.beyond = BEYOND_REFUSED}},
		{"the last page again past a capped total", 20, true,
		{.count = 100,.total_kind = TOTAL_CAPPED,.total = 60,.beyond = BEYOND_LAST_PAGE}},
		{"a total that is far too large", 20, true,
		{.count = 2,.total_kind = TOTAL_CONSTANT,.total = 1000000}},
		{"pages of 3 of the 20 requested", 20, true, {.count = 100,.clamp = 3}},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		Api			api = cases[i].api;
		Outcome		outcome;

		api.broken = -1;
		api.clamp_to = MAX_LISTED;
		pg_prng_seed(&api.random, i);
		begin_account(cases[i].page_size, api.total_kind != TOTAL_CONSTANT);
		list_programs(&api, api.count);
		outcome = sync_account(&api);
		tap_is_int(outcome.synced, cases[i].synced, "%s: synced", cases[i].name);
		tap_ok(outcome.lacks == 0 || !outcome.synced, "... all is stored, or it is not synced");
		remove_program(&api, api.count - 1);
		outcome = sync_account(&api);
		tap_is_int(outcome.deleted, cases[i].synced, "... deletes what is gone");
		tap_is_int(outcome.deleted_listed, 0, "... and nothing else");
		tap_ok(world.requests < 600, "%d requests", world.requests);
	}
}

/*
 * Is it certain which total belongs to the listing?  Then not even a listing
 * that moves can deceive a sync.
 */
static bool
has_good_total(const Api *api)
{
	return world.account.trust_total && !api->ignores_limit &&
		(api->total_kind == TOTAL_EXACT || (api->total_kind == TOTAL_OFF && api->total >= 0));
}

static struct
{
	int			syncs;
	int			synced;
	int			failed;
	int			deceived;		/* synced, but without a program */
	int			deleted;		/* a listed program */
}			totals[2];

static const char *
judge_sync(const Api *api, const Outcome *outcome)
{
	bool		moving = api->moves > 0;

	totals[moving].syncs++;
	totals[moving].synced += outcome->synced;
	totals[moving].failed += outcome->failed;
	totals[moving].deceived += outcome->synced && outcome->lacks > 0;
	totals[moving].deleted += outcome->deleted_listed > 0;
	if (world.fault && strcmp(world.fault, "too many requests") == 0)
		return world.fault;
	if (outcome->deleted_listed > 0 && (!moving || has_good_total(api)))
		return "a listed program was deleted";
	if (outcome->synced && outcome->lacks > 0 && !moving)
		return "synced, and a listed program is not stored";
	if (outcome->failed && !moving && api->broken < 0 && api->window == 0)
		return "it failed";
	return NULL;
}

/* Can it be proved what such an API lists, within two syncs? */
static bool
can_be_proved(const Api *api)
{
	return !api->ignores_offset && !api->ignores_limit && api->broken < 0 &&
		(api->clamp != 1 || api->clamp_from > 0 || api->count <= 1) &&
		!(api->clamp == 1 && api->clamp_from < api->count) &&
		(api->clamp == 0 || api->clamp_from % world.account.page_size == 0) && api->clamp_to == MAX_LISTED &&
		(api->total_kind == TOTAL_EXACT ||
		 (api->total_kind == TOTAL_CAPPED && api->count > 0) ||
		 (api->total_kind == TOTAL_OFF && api->total < 0));
}

static const char *
judge_still(Api *api)
{
	Outcome		outcome;
	int			page_size = world.account.page_size;
	int			pages = Max((api->count + page_size - 1) / page_size, 1);
	int			looks = api->count == 0 ? 0 : api->count % page_size == 0 ? 2 : 1;

	sync_account(api);
	outcome = sync_account(api);
	if (!outcome.synced || outcome.lacks + outcome.stale > 0)
		return "not synced after two syncs";
	outcome = sync_account(api);
	if (world.hung > 0 && api->count != 1)
		return "it waits for a request that hangs";
	/* A page that is repeated may overtake the only one */
	if (api->clamp == 0 && api->total_kind == TOTAL_EXACT && api->count != 1 &&
		world.requests != pages + looks)
		return "too many requests for an unchanged listing";
	return NULL;
}

static const char *
run_api(int seed)
{
	bool		moving = seed % 2;
	Api			api = random_api(seed, moving);
	const char *why = NULL;

	begin_account(roll(&api, 2) ? 20 : 2 + roll(&api, 39), roll(&api, 3) > 0);
	world.account.partial = roll(&api, 4) == 0;
	for (int sync = 0; sync < 4 && why == NULL; sync++)
	{
		Outcome		outcome;

		if (sync > 0)
		{
			for (int i = roll(&api, 4) ? roll(&api, 5) : roll(&api, 60); i > 0; i--)
				change(&api);
		}
		if (api.total_kind == TOTAL_CACHED && roll(&api, 2))
			api.total = api.count;
		outcome = sync_account(&api);
		why = judge_sync(&api, &outcome);
	}
	api.moves = 0;
	if (why == NULL && can_be_proved(&api))
		why = judge_still(&api);
	if (why)
		printf("# API %d: %s: %d programs, total %d/%d, pages of %d, clamp %d from %d, beyond %d, broken %d, moves %d, trust %d, ignores %d %d\n",
			   seed, why, api.count, api.total_kind, api.total, world.account.page_size,
			   api.clamp, api.clamp_from, api.beyond, api.broken, moving,
			   world.account.trust_total, api.ignores_offset, api.ignores_limit);
	return why;
}

static void
test_oracle(int apis)
{
	int			wrong = 0;

	for (int seed = 0; seed < apis && wrong < 20; seed++)
		wrong += run_api(seed) != NULL;
	tap_is_int(wrong, 0, "%d random APIs", apis);
	for (int moving = 0; moving < 2; moving++)
		printf("# %s: %d syncs, %d synced, %d failed; %d synced without a listed program, %d deleted one\n",
			   moving ? "moving" : "still", totals[moving].syncs, totals[moving].synced,
			   totals[moving].failed, totals[moving].deceived, totals[moving].deleted);
	/* Listings that move, with totals that are wrong or not trusted */
	tap_ok(totals[1].deleted < totals[1].syncs / 10000, "hardly any listing deceives two readings");
	tap_ok(totals[1].deceived < totals[1].syncs / 500, "few deceive one");
}

int
main(void)
{
	alarm(WATCHDOG_S);
	test_requests();
	test_cases();
	test_oracle(100000);
	return tap_done();
}
