/*
 * paginator.c
 *	  Read all pages of an account's listing once.
 *
 * As many pages as expected are requested at once, including page 0; each
 * page reports the total, and pages that this adds are requested as well.  A
 * page is processed as soon as it has arrived: its programs are added to the
 * rows, and its text is freed.
 *
 * A page occupies a slot from its first attempt to its last.  Between
 * attempts it waits in its slot, for its own backoff and for anything that
 * delays all requests (throttle.c).
 *
 * If a page past all programs does not arrive, either the page is missing or
 * the listing has ended.  That is decided after all others have been
 * answered; until then, the page is postponed.
 */
#include "postgres.h"

#include "paginator.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "clock.h"
#include "fetch_error.h"
#include "http.h"
#include "listing.h"
#include "program_page.h"
#include "reading.h"
#include "slots.h"
#include "text.h"
#include "throttle.h"

/*
 * Requests started between two checks for responses, so that rejections by
 * the API are noticed before everything has been sent.
 */
#define STARTS_PER_TURN 16

/*
 * Number of skipped pages with a WARNING of their own; the others are only
 * counted
 */
#define MAX_SKIP_WARNINGS 5

/* A page that did not arrive, past all that had arrived by then */
typedef struct Postponed
{
	Slot		slot;			/* a copy */
	int			status;			/* of the last attempt, 0 if there is none */
	bool		early;			/* failed before the total was known */
	FetchError	error;
	struct Postponed *next;		/* with a higher offset */
} Postponed;

struct Paginator
{
	/* What to fetch */
	const Account *account;
	Progress   *progress;

	/* Which page is requested when */
	Listing    *listing;
	Throttle	throttle;
	Slots		slots;
	Slot	   *probe;			/* a second request for this page, or NULL */
	Slot	   *probed;
	bool		total_reported;
	Postponed  *postponed;		/* ordered by offset */

	/* What has arrived */
	ReadingNotes notes;
	int64		arrived;		/* pages in all readings */
	HttpClient *http;
	Programs   *programs;
	PaginatorCounts counts;
	int64		skipped;		/* pages in all readings */
	MemoryContext page_context;
};

/* ---- requests ---- */

static char *
page_url(const Paginator *paginator, const Slot *slot)
{
	return psprintf("%s?offset=" INT64_FORMAT "&limit=%d&program_status=%s",
					paginator->account->endpoint, slot->offset, slot->limit,
					program_status_names[paginator->account->program_status]);
}

static void
send_attempt(Paginator *paginator, Slot *slot, int64 now)
{
	char	   *url = page_url(paginator, slot);

	http_start(paginator->http, slot - paginator->slots.slots, url, slot->tries.fresh);
	pfree(url);
	throttle_started(&paginator->throttle, now);
	slots_send(&paginator->slots, slot, now);
	paginator->counts.requests++;
}

/* A slot with a page that may be sent now, or NULL; waiting pages first. */
static Slot *
next_page(Paginator *paginator, int64 now)
{
	Slot	   *slot = slots_find(&paginator->slots, SLOT_WAITING, now);

	if (slot)
		return slot;
	slot = slots_find(&paginator->slots, SLOT_IDLE, now);
	if (slot == NULL || !listing_next(paginator->listing, &slot->offset, &slot->limit))
		return NULL;
	slots_begin(slot);
	return slot;
}

/* ---- requests that hang ---- */

/* When to request a page that hangs a second time: this one, in that slot. */
static int64
next_probe(const Paginator *paginator, Slot **oldest, Slot **idle)
{
	*oldest = *idle = NULL;
	for (int i = 0; i < paginator->slots.count; i++)
	{
		Slot	   *slot = &paginator->slots.slots[i];

		if (slot->state == SLOT_IDLE)
			*idle = slot;
		else if (slot->state == SLOT_IN_FLIGHT &&
				 (*oldest == NULL || slot->tries.sent_at < (*oldest)->tries.sent_at))
			*oldest = slot;
	}
	if (paginator->probe || *oldest == NULL || *idle == NULL)
		return THROTTLE_NEVER;
	return throttle_next_probe(&paginator->throttle, (*oldest)->tries.sent_at);
}

static void
send_probe(Paginator *paginator, int64 now)
{
	Slot	   *idle;

	if (next_probe(paginator, &paginator->probed, &idle) > now)
		return;
	paginator->probe = idle;
	idle->offset = paginator->probed->offset;
	idle->limit = paginator->probed->limit;
	slots_begin(idle);
	send_attempt(paginator, idle, now);
	throttle_probed(&paginator->throttle, false);
	paginator->counts.retries++;
}

static void
give_up_request(Paginator *paginator, Slot *slot)
{
	http_abandon(paginator->http, slot - paginator->slots.slots);
	slots_return(&paginator->slots, slot);
	slots_free(slot);
}

/* The second request has been answered first: so it is with all that hang. */
static void
give_up_hanging(Paginator *paginator, int64 now)
{
	int			count = 0;

	throttle_probed(&paginator->throttle, true);
	for (int i = 0; i < paginator->slots.count; i++)
	{
		Slot	   *slot = &paginator->slots.slots[i];

		if (slot->state != SLOT_IN_FLIGHT ||
			throttle_next_probe(&paginator->throttle, slot->tries.sent_at) > now)
			continue;
		give_up_request(paginator, slot);
		if (slot != paginator->probed)
		{
			slots_wait(slot, now);
			paginator->counts.retries++;
		}
		count++;
	}
	throttle_gave_up(&paginator->throttle, count);
	paginator->probe = NULL;
}

/* Sends what may be sent; true if there is more. */
static bool
send_pages(Paginator *paginator, int64 now)
{
	send_probe(paginator, now);
	for (int i = 0; i < STARTS_PER_TURN; i++)
	{
		Slot	   *slot;

		if (throttle_next_start(&paginator->throttle, paginator->slots.in_flight) > now)
			return false;
		slot = next_page(paginator, now);
		if (slot == NULL)
			return false;
		send_attempt(paginator, slot, now);
	}
	return true;
}

static bool
is_done(const Paginator *paginator)
{
	return slots_used(&paginator->slots) == 0 &&
		listing_pages_left(paginator->listing) == 0;
}

/* When there will be something to do even if nothing arrives. */
static int64
next_deadline(const Paginator *paginator)
{
	const Slots *slots = &paginator->slots;
	int64		next_start = throttle_next_start(&paginator->throttle, slots->in_flight);
	Slot	   *oldest,
			   *idle;
	int64		deadline = Min(progress_due(paginator->progress),
							   slots_deadline(slots, next_start));

	if (slots_used(slots) < slots->count &&
		listing_pages_left(paginator->listing) > 0)
		deadline = Min(deadline, next_start);
	return Min(deadline, next_probe(paginator, &oldest, &idle));
}

/* ---- responses ---- */

static void
abandon_page(Paginator *paginator, Slot *slot)
{
	listing_abandon_page(paginator->listing, slot->offset, slot->limit);
	slots_free(slot);
}

/* Once the end has been seen, pages past it are not needed. */
static void
settle_slots(Paginator *paginator)
{
	if (!listing_end_is_seen(paginator->listing))
		return;
	for (int i = 0; i < paginator->slots.count; i++)
	{
		Slot	   *slot = &paginator->slots.slots[i];

		if (slot->state == SLOT_IDLE ||
			!listing_is_behind_end(paginator->listing, slot->offset))
			continue;
		if (slot->state == SLOT_IN_FLIGHT)
			give_up_request(paginator, slot);
		if (slot == paginator->probe)
			paginator->probe = NULL;
		else
			abandon_page(paginator, slot);
	}
}

static void
report_total(Paginator *paginator)
{
	const ListingState *listing = listing_state(paginator->listing);

	if (paginator->total_reported)
		return;
	paginator->total_reported = true;
	progress_total(paginator->progress, listing->total,
				   listing_pages_expected(paginator->listing), listing->stride);
}

/* Prevents reading an endless listing forever. */
static void
reject_endless(const Paginator *paginator)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("listing of account \"%s\" does not end after %d programs",
					paginator->account->username, PAGE_MAX_TOTAL)));
}

static void
take_page(Paginator *paginator, Slot *slot, ProgramPage *page)
{
	int64		now = clock_us();
	ListingPage seen = {
		.offset = slot->offset,
		.asked = slot->limit,
		.count = page->count + page->skipped,
		.total = page->total,
		.limit = page->limit,
	};

	reading_add_page(&paginator->notes, slot->offset, slot->limit, page);
	seen.fresh = programs_add_page(paginator->programs, page);
	/* Skipped programs are not tracked: count them as new up to the total */
	if (slot->offset < page->total)
		seen.fresh += page->skipped;
	slots_free(slot);
	throttle_succeeded(&paginator->throttle, now, slot->tries.sent_at,
					   paginator->slots.in_flight);
	if (slot == paginator->probe)
		give_up_hanging(paginator, now);
	listing_add_page(paginator->listing, &seen);
	if (listing_state(paginator->listing)->rows > PAGE_MAX_TOTAL)
		reject_endless(paginator);
	settle_slots(paginator);
	paginator->arrived++;
	report_total(paginator);
}

static FetchErrorPlace
place_of(const Paginator *paginator, const Slot *slot)
{
	FetchErrorPlace place = {
		.username = paginator->account->username,
		.url = page_url(paginator, slot),
		.offset = slot->offset,
		.attempt = slot->tries.attempt,
		.attempts = paginator->account->attempts,
	};

	return place;
}

/* A listing without its first page has no total, so that is never skipped. */
static void
skip_page(Paginator *paginator, const Slot *slot, const FetchError *error)
{
	FetchErrorPlace place = place_of(paginator, slot);

	if (!paginator->account->partial || slot->offset == 0 ||
		error->kind == FETCH_ERROR_FATAL)
		fetch_error_raise(error, &place);
	if (paginator->skipped++ < MAX_SKIP_WARNINGS)
		progress_warning(error->sqlstate, fetch_error_message(error, &place),
						 fetch_error_detail(error, &place),
						 "The page is skipped and nothing is deleted, because the server option partial is on.");
	listing_fail_page(paginator->listing);
}

/* Keeps the page and its error until all others have been answered. */
static void
postpone_page(Paginator *paginator, const Slot *slot, const FetchError *error,
			  int status)
{
	MemoryContext caller = MemoryContextSwitchTo(GetMemoryChunkContext(paginator));
	Postponed  *page = palloc(sizeof(Postponed));
	Postponed **at = &paginator->postponed;

	page->slot = *slot;
	page->status = status;
	page->early = !listing_state(paginator->listing)->total_known;
	page->error = *error;
	page->error.message = pstrdup(error->message);
	page->error.detail = error->detail ? pstrdup(error->detail) : NULL;
	while (*at && (*at)->slot.offset < slot->offset)
		at = &(*at)->next;
	page->next = *at;
	*at = page;
	listing_postpone_page(paginator->listing, slot->offset);
	MemoryContextSwitchTo(caller);
}

/* No attempts are left for the page. */
static void
fail_page(Paginator *paginator, Slot *slot, const FetchError *error, int status)
{
	if (error->kind != FETCH_ERROR_FATAL &&
		listing_is_tail(paginator->listing, slot->offset))
		postpone_page(paginator, slot, error, status);
	else
	{
		skip_page(paginator, slot, error);
		listing_postpone_page(paginator->listing, slot->offset);
	}
	slots_free(slot);
	settle_slots(paginator);
}

/* Is this a status with which an API says that there is no such page? */
static bool
is_refusal(int status)
{
	return status == 400 || status == 404 || status == 416 || status == 422;
}

/*
 * Could there be nothing at this offset?  According to the total there is
 * something, but an API whose total is too large may fail past its last
 * program.
 */
static bool
may_be_nothing(const Paginator *paginator, const Postponed *page)
{
	return page->slot.offset >= listing_state(paginator->listing)->total ||
		page->status >= 500;
}

static void
lose_end(Paginator *paginator, const Postponed *page)
{
	FetchErrorPlace place = place_of(paginator, &page->slot);

	progress_warning(page->error.sqlstate,
					 fetch_error_message(&page->error, &place),
					 fetch_error_detail(&page->error, &place),
					 "The page may be past the last program; the programs that arrived are stored, and nothing is deleted.");
	listing_lose_end(paginator->listing);
}

/*
 * All others have been answered.  Pages before programs that arrived are
 * missing; if the API says that there is no such page, the listing ends.
 */
static void
settle_postponed(Paginator *paginator)
{
	Postponed  *page = paginator->postponed;

	paginator->postponed = NULL;
	listing_settle(paginator->listing);
	for (; page; page = page->next)
	{
		Listing    *listing = paginator->listing;

		if (!listing_is_tail(listing, page->slot.offset) && page->early)
			listing_ask_again(listing, page->slot.offset, page->slot.limit);
		else if (!listing_is_tail(listing, page->slot.offset))
			skip_page(paginator, &page->slot, &page->error);
		else if (listing_state(listing)->end_unknown ||
				 listing_ends_before(listing, page->slot.offset))
			continue;
		else if (is_refusal(page->status))
			listing_refuse_page(listing, page->slot.offset);
		else if (may_be_nothing(paginator, page))
			lose_end(paginator, page);
		else
			skip_page(paginator, &page->slot, &page->error);
	}
}

static void
take_failure(Paginator *paginator, Slot *slot, FetchError *error, const HttpResponse *response)
{
	int64		max_wait = paginator->account->max_retry_after * USECS_PER_MSEC;
	Loss		loss = {
		.kind = error->kind,
		.timed_out = response->timed_out,
		.lost_kept = response->lost_kept,
		.wait = throttle_requested_wait(response, max_wait, time(NULL)),
		.in_flight = paginator->slots.in_flight,
	};
	int64		not_before;
	Verdict		verdict;

	if (slot == paginator->probe)
	{
		paginator->probe = NULL;
		slots_free(slot);
		return;
	}
	verdict = throttle_failed(&paginator->throttle, &slot->tries, &loss, clock_us(),
							  &not_before);
	if (verdict == FAIL_WAIT)
		fetch_error_of_wait(error, loss.wait / USECS_PER_MSEC, max_wait / USECS_PER_MSEC);
	else if (verdict == FAIL_SYNC)
		error->kind = FETCH_ERROR_FATAL;
	if (verdict != RETRY_PAGE && verdict != RETRY_UNSENT)
	{
		fail_page(paginator, slot, error, response->status);
		return;
	}
	slots_wait(slot, not_before);
	if (verdict == RETRY_UNSENT)
		paginator->counts.requests--;
	else
		paginator->counts.retries++;
}

static bool
read_body(const Paginator *paginator, const HttpResponse *response, ProgramPage *page,
		  JsonError *problem)
{
	KnownPrograms known = {programs_fingerprint, programs_prefetch, paginator->programs};

	return program_page_read(page, response->body, response->length,
							 paginator->programs->stored > 0 || paginator->programs->reading > 1 ?
							 &known : NULL,
							 problem);
}

static void
take_response(Paginator *paginator, const HttpResponse *response)
{
	Slot	   *slot = &paginator->slots.slots[response->slot];
	MemoryContext caller = MemoryContextSwitchTo(paginator->page_context);
	ProgramPage page;
	JsonError	problem;
	FetchError	error;

	slots_return(&paginator->slots, slot);
	if (slot == paginator->probed && paginator->probe)
	{
		give_up_request(paginator, paginator->probe);
		paginator->probe = NULL;
	}
	if (fetch_error_of_response(&error, response, paginator->arrived > 0))
		take_failure(paginator, slot, &error, response);
	else if (read_body(paginator, response, &page, &problem))
		take_page(paginator, slot, &page);
	else
	{
		fetch_error_of_page(&error, &problem, response);
		take_failure(paginator, slot, &error, response);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(paginator->page_context);
}

/* ---- a pass ---- */

static ProgressPages
pages_so_far(const Paginator *paginator)
{
	const ListingState *listing = listing_state(paginator->listing);
	ProgressPages pages = {
		.completed = listing->pages,
		.total = paginator->total_reported ? listing_pages_expected(paginator->listing) : 0,
		.programs = listing->rows,
		.retries = paginator->counts.retries,
		.in_flight = paginator->slots.in_flight,
	};

	return pages;
}

/* Sends what may be sent, and waits for responses. */
static void
send_and_wait(Paginator *paginator)
{
	int64		now = clock_us();
	bool		more = send_pages(paginator, now);
	ProgressPages pages = pages_so_far(paginator);

	progress_show(paginator->progress, &pages);
	http_wait(paginator->http, more ? now : next_deadline(paginator));
}

static void
warn_skipped(const Paginator *paginator)
{
	int64		more = paginator->skipped - MAX_SKIP_WARNINGS;

	if (more > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf("skipped " INT64_FORMAT " more page%s of account \"%s\"",
								  more, more == 1 ? "" : "s",
								  paginator->account->username),
						 NULL, NULL);
}

/* All requests have been answered: is there anything more to request? */
static bool
is_read(Paginator *paginator)
{
	if (!is_done(paginator))
		return false;
	settle_postponed(paginator);
	return is_done(paginator);
}

Reading
paginator_fetch(Paginator *paginator, int64 expected, bool strict)
{
	HttpResponse response;
	Reading		reading;

	paginator->listing = listing_create(paginator->account->page_size, expected, strict);
	reading_begin(&paginator->notes,
				  program_status_names[paginator->account->program_status],
				  GetMemoryChunkContext(paginator));
	paginator->skipped = 0;
	paginator->http = http_open(paginator->account);
	while (!is_read(paginator))
	{
		ProgressPages pages;

		send_and_wait(paginator);
		while (http_next(paginator->http, &response))
		{
			take_response(paginator, &response);
			CHECK_FOR_INTERRUPTS();
		}
		pages = pages_so_far(paginator);
		progress_fetched(paginator->progress, &pages);
	}
	paginator->counts.received_bytes += http_received_bytes(paginator->http);
	http_close(paginator->http);
	warn_skipped(paginator);
	reading = reading_end(&paginator->notes, paginator->listing,
						  paginator->programs->listed.count);
	listing_free(paginator->listing);
	return reading;
}

/* ---- the pages of a sync ---- */

Paginator  *
paginator_create(const Account *account, Programs *programs, Progress *progress)
{
	Paginator  *paginator = palloc0(sizeof(Paginator));

	paginator->account = account;
	paginator->programs = programs;
	paginator->progress = progress;
	slots_init(&paginator->slots, account->concurrency);
	throttle_init(&paginator->throttle, account, pg_prng_uint64(&pg_global_prng_state));
	paginator->page_context = AllocSetContextCreate(CurrentMemoryContext,
													"yelp_sync page",
													ALLOCSET_DEFAULT_SIZES);
	return paginator;
}

PaginatorCounts
paginator_counts(const Paginator *paginator)
{
	return paginator->counts;
}
