/*
 * fetch.c
 *	  All pages of an account, as rows.
 *
 * A pass asks for the whole listing once.  As many pages as are expected go
 * out together, page 0 among them; each page tells the total, and what that
 * adds is asked for as well, while what lies beyond it is given up.  Each page
 * is read as soon as it has come, its programs go to a tuplestore, and its text
 * is freed.
 *
 * The listing can move while it is read: it has no cursor.  A pass proves what
 * it shows when every page came, all told the same total, and as many distinct
 * programs came as that.  A pass that does not is followed by a second one.
 * When the two brought the same programs, and as many as were told of, they are
 * believed; else the rows of both are used, and what is in neither is not taken
 * for gone.
 *
 * Even a proof can err: when one program vanishes and another appears while
 * the pages in between are read, the total stays, and the program that slipped
 * to an earlier page is missed.  So before anything is deleted the caller has
 * the listing fetched once more, unless it was already (fetch_confirm).
 *
 * A page occupies a slot from its first attempt to its last.  A failed attempt
 * that may be repeated waits in its slot, for its own backoff and for whatever
 * holds back all requests (retry.c).
 */
#include "postgres.h"

#include "fetch.h"

#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "clock.h"
#include "failure.h"
#include "http.h"
#include "listing.h"
#include "page.h"
#include "retry.h"

/*
 * Requests started between two looks at what has come, so that an API which
 * refuses them can be heard before all have gone out.
 */
#define STARTS_PER_TURN 16

typedef enum SlotState
{
	SLOT_IDLE = 0,
	SLOT_IN_FLIGHT,
	SLOT_WAITING				/* for its next attempt */
} SlotState;

typedef struct Slot
{
	SlotState	state;
	int64		offset;
	int			limit;
	int			attempt;		/* 1 for the first */
	int64		not_before;		/* RETRY_NEVER: until the total is known */
	int64		sent_at;
} Slot;

struct Fetch
{
	/* What to fetch */
	const Account *account;
	HttpSettings settings;
	Progress   *progress;

	/* Which page is asked for when */
	Listing		listing;
	Retry		retry;
	Slot	   *slots;
	int			nslots;
	int			in_flight;
	bool		total_told;

	/* What came */
	HttpClient *http;
	Fetched		fetched;
	int64		started;
	MemoryContext page_context;
};

/* ---- asking ---- */

static char *
page_url(const Fetch *fetch, const Slot *slot)
{
	return psprintf("%s?offset=" INT64_FORMAT "&limit=%d&program_status=%s",
					fetch->account->endpoint, slot->offset, slot->limit,
					fetch->account->program_status);
}

static void
send_attempt(Fetch *fetch, Slot *slot, int64 now)
{
	char	   *url = page_url(fetch, slot);

	http_start(fetch->http, slot - fetch->slots, url);
	pfree(url);
	retry_started(&fetch->retry, now);
	slot->state = SLOT_IN_FLIGHT;
	slot->sent_at = now;
	fetch->in_flight++;
	fetch->fetched.requests++;
}

static Slot *
find_slot(Fetch *fetch, SlotState state, int64 now)
{
	for (int i = 0; i < fetch->nslots; i++)
	{
		Slot	   *slot = &fetch->slots[i];

		if (slot->state == state && slot->not_before <= now)
			return slot;
	}
	return NULL;
}

/* A slot with a page that may be sent now, or NULL: first what was held back. */
static Slot *
next_page(Fetch *fetch, int64 now)
{
	Slot	   *slot = find_slot(fetch, SLOT_WAITING, now);

	if (slot)
		return slot;
	slot = find_slot(fetch, SLOT_IDLE, now);
	if (slot == NULL || !listing_next(&fetch->listing, &slot->offset, &slot->limit))
		return NULL;
	slot->attempt = 1;
	return slot;
}

/* Sends what may be sent; true when there is more that may. */
static bool
send_pages(Fetch *fetch, int64 now)
{
	for (int i = 0; i < STARTS_PER_TURN; i++)
	{
		Slot	   *slot;

		if (retry_next_start(&fetch->retry, fetch->in_flight) > now)
			return false;
		slot = next_page(fetch, now);
		if (slot == NULL)
			return false;
		send_attempt(fetch, slot, now);
	}
	return true;
}

static void
wait_until(Slot *slot, int64 when)
{
	slot->state = SLOT_WAITING;
	slot->not_before = when;
}

static void
free_slot(Slot *slot)
{
	slot->state = SLOT_IDLE;
	slot->not_before = 0;
}

static bool
has_waiting(const Fetch *fetch)
{
	for (int i = 0; i < fetch->nslots; i++)
	{
		if (fetch->slots[i].state == SLOT_WAITING)
			return true;
	}
	return false;
}

static bool
is_done(const Fetch *fetch)
{
	return fetch->in_flight == 0 && !has_waiting(fetch) &&
		listing_pages_left(&fetch->listing) == 0;
}

/* When there will be something to do even if nothing comes. */
static int64
next_deadline(const Fetch *fetch)
{
	int64		deadline = progress_due(fetch->progress);
	int64		next_start = retry_next_start(&fetch->retry, fetch->in_flight);
	bool		can_start = listing_pages_left(&fetch->listing) > 0;

	for (int i = 0; i < fetch->nslots; i++)
	{
		const Slot *slot = &fetch->slots[i];

		if (slot->state == SLOT_WAITING)
			deadline = Min(deadline, Max(slot->not_before, next_start));
	}
	if (can_start && fetch->in_flight < fetch->nslots)
		deadline = Min(deadline, next_start);
	return deadline;
}

/* ---- answers ---- */

static void
abandon_page(Fetch *fetch, Slot *slot)
{
	listing_abandon(&fetch->listing, slot->offset, slot->limit);
	free_slot(slot);
}

/*
 * The pages beyond the end need not come, but for the first of them: it may
 * show that the total is not to be believed.  Those that were refused before
 * the total was known are worth another attempt after all.
 */
static void
follow_total(Fetch *fetch)
{
	for (int i = 0; i < fetch->nslots; i++)
	{
		Slot	   *slot = &fetch->slots[i];

		if (slot->state == SLOT_IDLE)
			continue;
		if (slot->state == SLOT_IN_FLIGHT &&
			listing_is_beyond(&fetch->listing, slot->offset - slot->limit))
		{
			http_abandon(fetch->http, i);
			fetch->in_flight--;
			abandon_page(fetch, slot);
		}
		else if (slot->not_before == RETRY_NEVER)
		{
			if (listing_is_beyond(&fetch->listing, slot->offset))
				abandon_page(fetch, slot);
			else
				wait_until(slot, 0);
		}
	}
}

static int64
count_open_pages(const Fetch *fetch)
{
	int64		pages = listing_pages_left(&fetch->listing);

	for (int i = 0; i < fetch->nslots; i++)
		pages += fetch->slots[i].state != SLOT_IDLE;
	return pages;
}

static void
tell_total(Fetch *fetch)
{
	if (fetch->total_told)
		return;
	fetch->total_told = true;
	progress_total(fetch->progress, fetch->listing.total,
				   fetch->listing.pages + count_open_pages(fetch),
				   fetch->listing.stride);
}

static void
take_page(Fetch *fetch, Slot *slot, const ProgramPage *page)
{
	ListingPage seen = {
		.offset = slot->offset,
		.asked = slot->limit,
		.count = page->count,
		.total = page->total,
		.limit = page->limit,
	};

	rows_add_page(&fetch->fetched.rows, page, slot->offset,
				  fetch->account->username);
	free_slot(slot);
	listing_add_page(&fetch->listing, &seen);
	follow_total(fetch);
	retry_succeeded(&fetch->retry, slot->sent_at);
	tell_total(fetch);
}

static FailurePlace
place_of(const Fetch *fetch, const Slot *slot)
{
	FailurePlace place = {
		.username = fetch->account->username,
		.offset = slot->offset,
		.attempt = slot->attempt,
		.attempts = fetch->account->attempts,
	};

	return place;
}

/* Without its first page a listing has no known end, so that is never skipped. */
static void
give_up_page(Fetch *fetch, Slot *slot, const Failure *failure)
{
	FailurePlace place = place_of(fetch, slot);

	if (!fetch->account->partial || slot->offset == 0 ||
		failure->kind == FAILURE_FATAL)
		failure_raise(failure, &place);
	progress_warning(failure->sqlstate, failure_message(failure, &place),
					 failure->detail,
					 "The page is skipped, and nothing is deleted, because of the server's option partial.");
	fetch->listing.failed++;
	free_slot(slot);
}

/* While the total is unknown, a page that fails may be one beyond the end. */
static void
fail_page(Fetch *fetch, Slot *slot, const Failure *failure)
{
	if (failure->kind != FAILURE_FATAL && slot->offset > 0 &&
		!fetch->listing.total_known)
		wait_until(slot, RETRY_NEVER);
	else
		give_up_page(fetch, slot, failure);
}

static void
try_again(Fetch *fetch, Slot *slot, const Failure *failure, int64 wait)
{
	int64		now = clock_us();

	if (slot->attempt >= fetch->account->attempts)
	{
		fail_page(fetch, slot, failure);
		return;
	}
	if (wait >= 0)
		retry_hold(&fetch->retry, now + wait);
	wait_until(slot, now + retry_backoff(&fetch->retry, slot->attempt));
	slot->attempt++;
	fetch->fetched.retries++;
}

/* Refused for the rate: no attempt is used up while any page gets through. */
static void
slow_down(Fetch *fetch, Slot *slot, Failure *failure, int64 wait)
{
	int			refused = retry_refused(&fetch->retry, clock_us(), slot->sent_at,
										fetch->in_flight, wait);

	if (refused >= fetch->account->attempts)
	{
		slot->attempt = refused;
		failure->kind = FAILURE_FATAL;
		fail_page(fetch, slot, failure);
	}
	wait_until(slot, 0);
	fetch->fetched.retries++;
}

/* Without a socket fewer requests are in flight; with none at all it is an error. */
static void
use_fewer_sockets(Fetch *fetch, Slot *slot, const Failure *failure)
{
	FailurePlace place = place_of(fetch, slot);

	if (fetch->in_flight == 0)
		failure_raise(failure, &place);
	retry_limit(&fetch->retry, fetch->in_flight);
	wait_until(slot, 0);
	fetch->fetched.requests--;
}

static void
take_failure(Fetch *fetch, Slot *slot, Failure *failure, const HttpResponse *response)
{
	int64		wait = retry_after(response->retry_after, time(NULL));
	int64		max_wait = fetch->account->max_retry_after;

	if (listing_is_beyond(&fetch->listing, slot->offset))
	{
		abandon_page(fetch, slot);
		return;
	}
	if ((failure->kind == FAILURE_RETRY || failure->kind == FAILURE_RATE) &&
		wait > max_wait * USECS_PER_MSEC)
		failure_of_wait(failure, wait / USECS_PER_MSEC, max_wait);

	switch (failure->kind)
	{
		case FAILURE_RETRY:
			try_again(fetch, slot, failure, wait);
			break;
		case FAILURE_RATE:
			slow_down(fetch, slot, failure, wait);
			break;
		case FAILURE_NO_SOCKET:
			use_fewer_sockets(fetch, slot, failure);
			break;
		case FAILURE_FINAL:
		case FAILURE_FATAL:
			fail_page(fetch, slot, failure);
			break;
	}
}

static void
take_response(Fetch *fetch, const HttpResponse *response)
{
	Slot	   *slot = &fetch->slots[response->slot];
	MemoryContext caller = MemoryContextSwitchTo(fetch->page_context);
	ProgramPage page;
	PageProblem problem;
	Failure		failure;

	fetch->in_flight--;
	if (failure_of_response(&failure, response))
		take_failure(fetch, slot, &failure, response);
	else if (page_read(&page, response->body, response->length, &problem))
		take_page(fetch, slot, &page);
	else
	{
		failure_of_page(&failure, &problem, response);
		take_failure(fetch, slot, &failure, response);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(fetch->page_context);
}

/* ---- a pass, and as many as it takes ---- */

static void
tell_progress(Fetch *fetch)
{
	Listing    *listing = &fetch->listing;
	int64		pages = listing->pages + listing->failed;

	progress_fetched(fetch->progress, pages,
					 listing->total_known ? pages + count_open_pages(fetch) : 0,
					 listing->rows);
}

static void
fetch_pages(Fetch *fetch)
{
	HttpResponse response;

	while (!is_done(fetch))
	{
		int64		now = clock_us();

		http_wait(fetch->http, send_pages(fetch, now) ? now : next_deadline(fetch));
		while (http_next(fetch->http, &response))
			take_response(fetch, &response);
		tell_progress(fetch);
	}
}

/* Fetches the whole listing once; returns the programs that it showed. */
static ProgramSet
fetch_pass(Fetch *fetch, int64 expected)
{
	rows_begin_pass(&fetch->fetched.rows);
	listing_init(&fetch->listing, fetch->account->page_size, expected);
	fetch_pages(fetch);
	fetch->fetched.pages += fetch->listing.pages;
	fetch->fetched.failed_pages += fetch->listing.failed;
	return rows_end_pass(&fetch->fetched.rows);
}

static bool
is_proven(const Fetch *fetch, ProgramSet programs)
{
	return listing_is_whole(&fetch->listing) &&
		programs.count == fetch->listing.total;
}

/*
 * Do two passes that brought the same programs prove that there are no others?
 * Not if a page stayed away or empty, or if fewer came than the total.
 */
static bool
is_confirmed(const Fetch *fetch, ProgramSet first, ProgramSet second)
{
	const Listing *listing = &fetch->listing;

	return rows_same_set(first, second) &&
		listing->failed == 0 && listing->holes == 0 &&
		second.count >= listing->total;
}

/* Notes what a pass brought; the rows of those before it may count as well. */
static void
note_pass(Fetch *fetch, ProgramSet programs, int first_pass, bool proven)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->first_pass = first_pass;
	fetched->repeats = first_pass < fetched->rows.pass ||
		fetch->listing.rows > programs.count;
	fetched->programs = programs;
	fetched->total = fetch->listing.total;
	fetched->proven = proven;
}

Fetched *
fetch_programs(Fetch *fetch, int64 expected)
{
	ProgramSet	first = fetch_pass(fetch, expected);
	ProgramSet	second;
	bool		proven = is_proven(fetch, first);

	note_pass(fetch, first, 1, proven);
	if (proven || fetch->listing.failed > 0)
		return &fetch->fetched;

	progress_again("it does not show as many programs as it tells of");
	second = fetch_pass(fetch, fetch->listing.total);
	proven = is_proven(fetch, second) || is_confirmed(fetch, first, second);
	note_pass(fetch, second, proven ? 2 : 1, proven);
	return &fetch->fetched;
}

void
fetch_confirm(Fetch *fetch)
{
	ProgramSet	first = fetch->fetched.programs;
	ProgramSet	second;
	bool		proven;

	if (fetch->fetched.rows.pass > 1)
		return;
	progress_again("programs seem to be gone");
	second = fetch_pass(fetch, fetch->listing.total);
	proven = rows_same_set(first, second) && is_proven(fetch, second);
	note_pass(fetch, second, proven ? 2 : 1, proven);
}

/* ---- one sync's fetch ---- */

static char *
to_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

static HttpSettings
http_settings(const Account *account)
{
	HttpSettings settings = {
		.endpoint = account->endpoint,
		.username = to_utf8(account->username),
		.password = to_utf8(account->password),
		.ca_file = account->ca_file,
		.proxy = account->proxy,
		.http2 = strcmp(account->http_version, "2") == 0,
		.concurrency = account->concurrency,
		.connect_timeout = account->connect_timeout,
		.timeout = account->timeout,
		.max_body = account->max_page_bytes,
	};

	return settings;
}

Fetch *
fetch_open(const Account *account, Progress *progress)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->account = account;
	fetch->progress = progress;
	fetch->started = clock_us();
	fetch->settings = http_settings(account);
	fetch->nslots = account->concurrency;
	fetch->slots = palloc0(fetch->nslots * sizeof(Slot));
	retry_init(&fetch->retry, account->concurrency,
			   account->retry_delay * USECS_PER_MSEC, account->retry_factor,
			   account->retry_max_delay * USECS_PER_MSEC,
			   pg_prng_uint64(&pg_global_prng_state));
	fetch->page_context = AllocSetContextCreate(CurrentMemoryContext,
												"yelp_sync page",
												ALLOCSET_DEFAULT_SIZES);
	rows_init(&fetch->fetched.rows);
	fetch->http = http_open(&fetch->settings);
	return fetch;
}

void
fetch_close(Fetch *fetch)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->received_bytes = http_received_bytes(fetch->http);
	http_close(fetch->http);
	MemoryContextDelete(fetch->page_context);
	fetched->elapsed = clock_us() - fetch->started;
	progress_fetch_done(fetch->progress, fetched->pages,
						fetched->programs.count, fetched->retries,
						fetched->elapsed);
}
