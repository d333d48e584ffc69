/*
 * pages.c
 *	  All pages of an account's listing, once.
 *
 * As many pages as are expected go out together, page 0 among them; each page
 * tells the total, and what that adds is asked for as well, while what lies
 * beyond it is given up.  Each page is read as soon as it has come, its programs
 * are added to the rows, and its text is freed.
 *
 * A page occupies a slot from its first attempt to its last.  A failed attempt
 * that may be repeated waits in its slot, for its own backoff and for whatever
 * holds back all requests (retry.c).
 */
#include "postgres.h"

#include "pages.h"

#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "clock.h"
#include "failure.h"
#include "http.h"
#include "page.h"
#include "retry.h"
#include "shorten.h"

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

struct Pages
{
	/* What to fetch */
	const Account *account;
	const Stored *stored;
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
	Rows	   *rows;
	PagesCounts counts;
	MemoryContext page_context;
};

/* ---- asking ---- */

static char *
page_url(const Pages *pages, const Slot *slot)
{
	return psprintf("%s?offset=" INT64_FORMAT "&limit=%d&program_status=%s",
					pages->account->endpoint, slot->offset, slot->limit,
					pages->account->program_status);
}

static void
send_attempt(Pages *pages, Slot *slot, int64 now)
{
	char	   *url = page_url(pages, slot);

	http_start(pages->http, slot - pages->slots, url);
	pfree(url);
	retry_started(&pages->retry, now);
	slot->state = SLOT_IN_FLIGHT;
	slot->sent_at = now;
	pages->in_flight++;
	pages->counts.requests++;
}

static Slot *
find_slot(Pages *pages, SlotState state, int64 now)
{
	for (int i = 0; i < pages->nslots; i++)
	{
		Slot	   *slot = &pages->slots[i];

		if (slot->state == state && slot->not_before <= now)
			return slot;
	}
	return NULL;
}

/* A slot with a page that may be sent now, or NULL: first what was held back. */
static Slot *
next_page(Pages *pages, int64 now)
{
	Slot	   *slot = find_slot(pages, SLOT_WAITING, now);

	if (slot)
		return slot;
	slot = find_slot(pages, SLOT_IDLE, now);
	if (slot == NULL || !listing_next(&pages->listing, &slot->offset, &slot->limit))
		return NULL;
	slot->attempt = 1;
	return slot;
}

/* Sends what may be sent; true when there is more that may. */
static bool
send_pages(Pages *pages, int64 now)
{
	for (int i = 0; i < STARTS_PER_TURN; i++)
	{
		Slot	   *slot;

		if (retry_next_start(&pages->retry, pages->in_flight) > now)
			return false;
		slot = next_page(pages, now);
		if (slot == NULL)
			return false;
		send_attempt(pages, slot, now);
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
has_waiting(const Pages *pages)
{
	for (int i = 0; i < pages->nslots; i++)
	{
		if (pages->slots[i].state == SLOT_WAITING)
			return true;
	}
	return false;
}

static bool
is_done(const Pages *pages)
{
	return pages->in_flight == 0 && !has_waiting(pages) &&
		listing_pages_left(&pages->listing) == 0;
}

/* When there will be something to do even if nothing comes. */
static int64
next_deadline(const Pages *pages)
{
	int64		deadline = progress_due(pages->progress);
	int64		next_start = retry_next_start(&pages->retry, pages->in_flight);
	bool		can_start = listing_pages_left(&pages->listing) > 0;

	for (int i = 0; i < pages->nslots; i++)
	{
		const Slot *slot = &pages->slots[i];

		if (slot->state == SLOT_WAITING)
			deadline = Min(deadline, Max(slot->not_before, next_start));
	}
	if (can_start && pages->in_flight < pages->nslots)
		deadline = Min(deadline, next_start);
	return deadline;
}

/* ---- answers ---- */

static void
abandon_page(Pages *pages, Slot *slot)
{
	listing_abandon(&pages->listing, slot->offset, slot->limit);
	free_slot(slot);
}

/*
 * The pages beyond the end need not come, and those that were refused before
 * the total was known are worth another attempt after all.
 */
static void
settle_slots(Pages *pages)
{
	for (int i = 0; i < pages->nslots; i++)
	{
		Slot	   *slot = &pages->slots[i];

		if (slot->state == SLOT_IDLE)
			continue;
		if (slot->state == SLOT_IN_FLIGHT &&
			listing_is_beyond(&pages->listing, slot->offset))
		{
			http_abandon(pages->http, i);
			pages->in_flight--;
			abandon_page(pages, slot);
		}
		else if (slot->not_before == RETRY_NEVER)
		{
			if (listing_is_beyond(&pages->listing, slot->offset))
				abandon_page(pages, slot);
			else
				wait_until(slot, 0);
		}
	}
}

static int64
count_open_pages(const Pages *pages)
{
	int64		count = listing_pages_left(&pages->listing);

	for (int i = 0; i < pages->nslots; i++)
		count += pages->slots[i].state != SLOT_IDLE;
	return count;
}

static void
tell_total(Pages *pages)
{
	if (pages->total_told)
		return;
	pages->total_told = true;
	progress_total(pages->progress, pages->listing.total,
				   pages->listing.pages + count_open_pages(pages),
				   pages->listing.stride);
}

/* Does the page say that it answers what was asked?  It need not say anything. */
static bool
answers(const Pages *pages, const Slot *slot, const ProgramPage *page)
{
	return (page->offset < 0 || page->offset == slot->offset) &&
		(page->status == NULL ||
		 strcmp(page->status, pages->account->program_status) == 0);
}

static void
take_page(Pages *pages, Slot *slot, const ProgramPage *page)
{
	ListingPage seen = {
		.offset = slot->offset,
		.asked = slot->limit,
		.count = page->count,
		.total = page->total,
		.limit = page->limit,
	};

	rows_add_page(pages->rows, page, slot->offset,
				  pages->account->username);
	if (!answers(pages, slot, page))
		pages->listing.holes++;
	free_slot(slot);
	listing_add_page(&pages->listing, &seen);
	settle_slots(pages);
	retry_succeeded(&pages->retry, slot->sent_at);
	tell_total(pages);
}

static FailurePlace
place_of(const Pages *pages, const Slot *slot)
{
	FailurePlace place = {
		.username = pages->account->username,
		.offset = slot->offset,
		.attempt = slot->attempt,
		.attempts = pages->account->attempts,
	};

	return place;
}

/* Without its first page a listing has no known end, so that is never skipped. */
static void
give_up_page(Pages *pages, Slot *slot, const Failure *failure)
{
	FailurePlace place = place_of(pages, slot);

	if (!pages->account->partial || slot->offset == 0 ||
		failure->kind == FAILURE_FATAL)
		failure_raise(failure, &place);
	progress_warning(failure->sqlstate, failure_message(failure, &place),
					 failure->detail,
					 "The page is skipped, and nothing is deleted, because of the server's option partial.");
	pages->listing.failed++;
	free_slot(slot);
}

/* While the total is unknown, a page that fails may be one beyond the end. */
static void
fail_page(Pages *pages, Slot *slot, const Failure *failure)
{
	if (failure->kind != FAILURE_FATAL && slot->offset > 0 &&
		!pages->listing.total_known)
		wait_until(slot, RETRY_NEVER);
	else
		give_up_page(pages, slot, failure);
}

static void
try_again(Pages *pages, Slot *slot, const Failure *failure, int64 wait)
{
	int64		now = clock_us();

	if (slot->attempt >= pages->account->attempts)
	{
		fail_page(pages, slot, failure);
		return;
	}
	if (wait >= 0)
		retry_hold(&pages->retry, now + wait);
	wait_until(slot, now + retry_backoff(&pages->retry, slot->attempt));
	slot->attempt++;
	pages->counts.retries++;
}

/* Refused for the rate: no attempt is used up while any page gets through. */
static void
slow_down(Pages *pages, Slot *slot, Failure *failure, int64 wait)
{
	int			refused = retry_refused(&pages->retry, clock_us(), slot->sent_at,
										pages->in_flight, wait);

	if (refused >= pages->account->attempts)
	{
		slot->attempt = refused;
		failure->kind = FAILURE_FATAL;
		give_up_page(pages, slot, failure);
	}
	wait_until(slot, 0);
	pages->counts.retries++;
}

/*
 * With fewer sockets, or less memory, fewer requests are in flight; where there
 * is not enough for one it is an error.
 */
static void
use_less_room(Pages *pages, Slot *slot, const Failure *failure)
{
	FailurePlace place = place_of(pages, slot);

	if (pages->in_flight == 0)
		failure_raise(failure, &place);
	retry_limit(&pages->retry, pages->in_flight);
	wait_until(slot, 0);
	pages->counts.requests--;
}

static void
take_failure(Pages *pages, Slot *slot, Failure *failure, const HttpResponse *response)
{
	int64		wait = retry_after(response->retry_after, time(NULL));
	int64		max_wait = pages->account->max_retry_after;

	if (listing_is_beyond(&pages->listing, slot->offset))
	{
		abandon_page(pages, slot);
		return;
	}
	if ((failure->kind == FAILURE_RETRY || failure->kind == FAILURE_RATE) &&
		wait > max_wait * USECS_PER_MSEC)
		failure_of_wait(failure, wait / USECS_PER_MSEC, max_wait);

	switch (failure->kind)
	{
		case FAILURE_RETRY:
			try_again(pages, slot, failure, wait);
			break;
		case FAILURE_RATE:
			slow_down(pages, slot, failure, wait);
			break;
		case FAILURE_NO_ROOM:
			use_less_room(pages, slot, failure);
			break;
		case FAILURE_FINAL:
		case FAILURE_FATAL:
			fail_page(pages, slot, failure);
			break;
	}
}

/*
 * Reads a page without the programs that are known.  What is wrong with it is
 * told by the whole text.
 */
static bool
read_body(const Pages *pages, const HttpResponse *response, ProgramPage *page,
		  PageProblem *problem)
{
	Shortened	shortened;

	if (stored_set(pages->stored).count > 0 &&
		shorten(&shortened, response->body, response->length, stored_lookup,
				pages->stored) &&
		page_read(page, shortened.text, shortened.length, problem))
	{
		shorten_mark(&shortened, page);
		return true;
	}
	return page_read(page, response->body, response->length, problem);
}

static void
take_response(Pages *pages, const HttpResponse *response)
{
	Slot	   *slot = &pages->slots[response->slot];
	MemoryContext caller = MemoryContextSwitchTo(pages->page_context);
	ProgramPage page;
	PageProblem problem;
	Failure		failure;

	pages->in_flight--;
	if (failure_of_response(&failure, response))
		take_failure(pages, slot, &failure, response);
	else if (read_body(pages, response, &page, &problem))
		take_page(pages, slot, &page);
	else
	{
		failure_of_page(&failure, &problem, response);
		take_failure(pages, slot, &failure, response);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(pages->page_context);
}

/* ---- a pass ---- */

static void
tell_progress(Pages *pages)
{
	Listing    *listing = &pages->listing;
	int64		done = listing->pages + listing->failed;

	progress_fetched(pages->progress, done,
					 pages->total_told ? done + count_open_pages(pages) : 0,
					 listing->rows);
}

const Listing *
pages_fetch(Pages *pages, int64 expected)
{
	HttpResponse response;

	listing_init(&pages->listing, pages->account->page_size, expected);
	pages->http = http_open(&pages->settings);
	while (!is_done(pages))
	{
		int64		now = clock_us();

		http_wait(pages->http, send_pages(pages, now) ? now : next_deadline(pages));
		while (http_next(pages->http, &response))
		{
			take_response(pages, &response);
			CHECK_FOR_INTERRUPTS();
		}
		tell_progress(pages);
	}
	pages->counts.received_bytes += http_received_bytes(pages->http);
	http_close(pages->http);
	return &pages->listing;
}

/* ---- one sync's pages ---- */

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

Pages *
pages_create(const Account *account, const Stored *stored, Rows *rows,
			 Progress *progress)
{
	Pages	   *pages = palloc0(sizeof(Pages));

	pages->account = account;
	pages->stored = stored;
	pages->rows = rows;
	pages->progress = progress;
	pages->settings = http_settings(account);
	pages->nslots = account->concurrency;
	pages->slots = palloc0(pages->nslots * sizeof(Slot));
	retry_init(&pages->retry, account->concurrency,
			   account->retry_delay * USECS_PER_MSEC, account->retry_factor,
			   account->retry_max_delay * USECS_PER_MSEC,
			   pg_prng_uint64(&pg_global_prng_state));
	pages->page_context = AllocSetContextCreate(CurrentMemoryContext,
												"yelp_sync page",
												ALLOCSET_DEFAULT_SIZES);
	return pages;
}

PagesCounts
pages_counts(const Pages *pages)
{
	return pages->counts;
}
