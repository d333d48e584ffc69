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
 * the listing has ended.  That is decided once the end has been seen, or
 * nothing is left to request (listing.c).
 */
#include "postgres.h"

#include "paginator.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "fetch_error.h"
#include "http.h"
#include "listing.h"
#include "program_page.h"
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

/* Bytes of a page's program_status that a message shows */
#define MAX_SHOWN_STATUS 64

typedef enum SlotState
{
	SLOT_IDLE = 0,
	SLOT_IN_FLIGHT,
	SLOT_WAITING				/* for its next attempt */
} SlotState;

typedef struct Slot
{
	SlotState	state;
	ListingRequest request;
	Tries		tries;
	int64		not_before;		/* if it is waiting, by clock_us */
} Slot;

/* A request that failed, past all programs that had arrived by then */
typedef struct Failure
{
	ListingRequest request;
	bool		refused;		/* the API says that the request is wrong */
	FetchError	error;
	struct Failure *next;		/* with a higher offset */
} Failure;

struct Paginator
{
	/* What to fetch */
	const Account *account;
	Progress   *progress;

	/* Which page is requested when */
	Listing    *listing;
	Throttle	throttle;
	Slot	   *slots;			/* as many as the account's concurrency */
	int			used;			/* slots with a page */
	int			in_flight;		/* requests */
	Slot	   *probe;			/* a second request for this page, or NULL */
	Slot	   *probed;
	Failure    *failures;		/* ordered by offset */

	/* What has arrived */
	Reading		reading;
	bool		total_reported;
	int64		arrived;		/* pages in all readings */
	HttpClient *http;
	Programs   *programs;
	MemoryContext context;		/* lives as long as the paginator */
	MemoryContext page_context;
};

/* ---- requests ---- */

static char *
page_url(const Paginator *paginator, const ListingRequest *request)
{
	return psprintf("%s?offset=" INT64_FORMAT "&limit=%d&program_status=%s",
					paginator->account->endpoint, request->offset, request->limit,
					program_status_names[paginator->account->program_status]);
}

/* The slot in this state that is due and has waited longest, or NULL. */
static Slot *
find_slot(const Paginator *paginator, SlotState state, int64 now)
{
	Slot	   *found = NULL;

	for (int i = 0; i < paginator->account->concurrency; i++)
	{
		Slot	   *slot = &paginator->slots[i];

		if (slot->state == state && slot->not_before <= now &&
			(found == NULL || slot->not_before < found->not_before))
			found = slot;
	}
	return found;
}

static void
free_slot(Paginator *paginator, Slot *slot)
{
	memset(slot, 0, sizeof(Slot));
	paginator->used--;
}

static void
use_slot(Paginator *paginator, Slot *slot)
{
	slot->tries.attempt = 1;
	paginator->used++;
}

static void
send_attempt(Paginator *paginator, Slot *slot, int64 now)
{
	char	   *url = page_url(paginator, &slot->request);

	http_start(paginator->http, slot - paginator->slots, url, slot->tries.fresh);
	pfree(url);
	throttle_started(&paginator->throttle, now);
	slot->state = SLOT_IN_FLIGHT;
	slot->tries.sent_at = now;
	paginator->in_flight++;
	paginator->reading.requests++;
}

static void
wait_in_slot(Slot *slot, int64 not_before)
{
	slot->state = SLOT_WAITING;
	slot->not_before = not_before;
}

/*
 * A slot with a page that may be sent now, or NULL; waiting pages first, unless
 * a look may show that they are past the end.
 */
static Slot *
next_page(Paginator *paginator, int64 now)
{
	Slot	   *waiting = find_slot(paginator, SLOT_WAITING, now);
	Slot	   *slot = find_slot(paginator, SLOT_IDLE, now);

	if (waiting && (slot == NULL || !listing_has_look(paginator->listing)))
		return waiting;
	if (slot == NULL || !listing_next(paginator->listing, &slot->request))
		return NULL;
	use_slot(paginator, slot);
	return slot;
}

/* When the next request may be sent: now, if that is not in the future. */
static int64
next_start(const Paginator *paginator)
{
	return http_may_start(paginator->http) ?
		throttle_next_start(&paginator->throttle, paginator->in_flight) : THROTTLE_NEVER;
}

/* ---- requests that hang ---- */

/* When to request a page that hangs a second time: this one, in that slot. */
static int64
next_probe(const Paginator *paginator, Slot **oldest, Slot **idle)
{
	*oldest = *idle = NULL;
	for (int i = 0; i < paginator->account->concurrency; i++)
	{
		Slot	   *slot = &paginator->slots[i];

		if (slot->state == SLOT_IDLE)
			*idle = slot;
		else if (slot->state == SLOT_IN_FLIGHT &&
				 (*oldest == NULL || slot->tries.sent_at < (*oldest)->tries.sent_at))
			*oldest = slot;
	}
	if (paginator->probe || *oldest == NULL || *idle == NULL || !http_may_start(paginator->http))
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
	idle->request = paginator->probed->request;
	use_slot(paginator, idle);
	send_attempt(paginator, idle, now);
	throttle_probed(&paginator->throttle, false);
	paginator->reading.retries++;
}

static void
give_up_request(Paginator *paginator, Slot *slot)
{
	http_abandon(paginator->http, slot - paginator->slots);
	paginator->in_flight--;
}

/* The second request has been answered first: so it is with all that hang. */
static void
give_up_hanging(Paginator *paginator, int64 now)
{
	int			count = 0;

	throttle_probed(&paginator->throttle, true);
	for (int i = 0; i < paginator->account->concurrency; i++)
	{
		Slot	   *slot = &paginator->slots[i];

		if (slot->state != SLOT_IN_FLIGHT ||
			throttle_next_probe(&paginator->throttle, slot->tries.sent_at) > now)
			continue;
		give_up_request(paginator, slot);
		count++;
		if (slot == paginator->probed)
			free_slot(paginator, slot);
		else
		{
			wait_in_slot(slot, now);
			paginator->reading.retries++;
		}
	}
	throttle_gave_up(&paginator->throttle, count);
	paginator->probe = NULL;
}

/* Sends what may be sent; true if there may be more. */
static bool
send_pages(Paginator *paginator, int64 now)
{
	send_probe(paginator, now);
	for (int i = 0; i < STARTS_PER_TURN; i++)
	{
		Slot	   *slot;

		if (next_start(paginator) > now)
			return false;
		slot = next_page(paginator, now);
		if (slot == NULL)
			return false;
		send_attempt(paginator, slot, now);
	}
	return true;
}

/* When there will be something to do even if nothing arrives. */
static int64
next_deadline(const Paginator *paginator)
{
	int64		start = next_start(paginator);
	Slot	   *oldest,
			   *idle;
	int64		deadline = Min(progress_due(paginator->progress),
							   next_probe(paginator, &oldest, &idle));

	for (int i = 0; i < paginator->account->concurrency; i++)
	{
		const Slot *slot = &paginator->slots[i];

		if (slot->state == SLOT_WAITING)
			deadline = Min(deadline, Max(slot->not_before, start));
	}
	if (paginator->used < paginator->account->concurrency &&
		listing_has_next(paginator->listing))
		deadline = Min(deadline, start);
	return deadline;
}

/* ---- pages that do not arrive ---- */

/* A listing without its first page has no total, so that is never skipped. */
static void
skip_page(Paginator *paginator, const Failure *failure)
{
	const FetchError *error = &failure->error;

	if (!paginator->account->partial || failure->request.offset == 0 ||
		error->kind == FETCH_ERROR_FATAL)
		fetch_error_raise(error);
	if (paginator->reading.failed_pages++ < MAX_SKIP_WARNINGS)
		progress_warning(error->sqlstate, error->message, error->detail,
						 "The page is skipped and nothing is deleted, because the server option partial is on.");
	listing_skip_page(paginator->listing, &failure->request);
}

/* Keeps the failure until it is clear what it means. */
static void
postpone(Paginator *paginator, const Failure *failure)
{
	MemoryContext caller = MemoryContextSwitchTo(paginator->context);
	Failure    *copy = palloc(sizeof(Failure));
	Failure   **at = &paginator->failures;

	*copy = *failure;
	copy->error.message = pstrdup(failure->error.message);
	copy->error.detail = pstrdup(failure->error.detail);
	while (*at && (*at)->request.offset < failure->request.offset)
		at = &(*at)->next;
	copy->next = *at;
	*at = copy;
	MemoryContextSwitchTo(caller);
}

/* Keeps the API's own words about the end that it does not show. */
static void
note_failure(Paginator *paginator, const Failure *failure)
{
	Reading    *reading = &paginator->reading;

	if (reading->failure)
		return;
	reading->failure_sqlstate = failure->error.sqlstate;
	reading->failure = failure->error.message;
	reading->failure_detail = failure->error.detail;
}

/*
 * Decides what the failures mean, now that the end has been seen or nothing is
 * left to request; true if this leaves something to request.
 */
static bool
judge_failures(Paginator *paginator)
{
	Failure    *failure = paginator->failures;
	bool		skipped = false;

	paginator->failures = NULL;
	for (; failure; failure = failure->next)
	{
		switch (listing_judge(paginator->listing, &failure->request, failure->refused))
		{
			case LISTING_MISSING:
				skip_page(paginator, failure);
				skipped = true;
				break;
			case LISTING_REFUSED:
				paginator->reading.refused = true;
				note_failure(paginator, failure);
				break;
			case LISTING_PAST_END:
				if (!listing_end_is_seen(paginator->listing))
					note_failure(paginator, failure);
				break;
		}
	}
	return skipped && !listing_end_is_seen(paginator->listing);
}

/* ---- responses ---- */

/* Notes the first page with a status filter other than requested. */
static void
compare_status(Paginator *paginator, int64 offset, const ProgramPage *page)
{
	const char *requested = program_status_names[paginator->account->program_status];
	char	   *mismatch;

	if (paginator->reading.mismatch || page->status == NULL ||
		pg_strcasecmp(page->status, requested) == 0)
		return;
	mismatch = psprintf("The page at offset " INT64_FORMAT
						" reports program_status \"%s\" instead of \"%s\".", offset,
						text_shown(page->status, strlen(page->status), MAX_SHOWN_STATUS),
						requested);
	paginator->reading.mismatch = MemoryContextStrdup(paginator->context, mismatch);
}

static void
note_skipped(Paginator *paginator, int64 offset, const ProgramPage *page)
{
	Reading    *reading = &paginator->reading;

	reading->skipped += page->skipped;
	if (page->skipped > 0 && reading->skip_reason == NULL)
		reading->skip_reason =
			MemoryContextStrdup(paginator->context,
								psprintf("On the page at offset " INT64_FORMAT ", %s.",
										 offset, page->skip_reason));
}

static void
report_total(Paginator *paginator)
{
	if (!paginator->total_reported)
		progress_total(paginator->progress, Max(listing_state(paginator->listing)->total, 0),
					   listing_pages_expected(paginator->listing),
					   paginator->account->page_size);
	paginator->total_reported = true;
}

static void
take_page(Paginator *paginator, Slot *slot, const ProgramPage *page)
{
	ListingRequest request = slot->request;
	int64		now = clock_us();
	ListingPage seen = {
		.count = page->count + page->skipped,
		.total = page->total,
	};

	compare_status(paginator, request.offset, page);
	if (!request.look)
		note_skipped(paginator, request.offset, page);
	seen.fresh = programs_add_page(paginator->programs, page);
	/* Skipped programs are not tracked: count them as new up to the total */
	if (request.offset < page->total)
		seen.fresh += page->skipped;
	if (page->count > 0)
	{
		seen.first_id = page->programs[0].id_hash;
		seen.last_id = page->programs[page->count - 1].id_hash;
	}
	throttle_succeeded(&paginator->throttle, now, slot->tries.sent_at, paginator->in_flight);
	free_slot(paginator, slot);
	if (slot == paginator->probe)
		give_up_hanging(paginator, now);
	listing_add_page(paginator->listing, &request, &seen);
	if (listing_state(paginator->listing)->rows > PAGE_MAX_TOTAL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("listing of account \"%s\" does not end after %d programs",
						paginator->account->username, PAGE_MAX_TOTAL)));
	paginator->arrived++;
	report_total(paginator);
}

/* If only a look past all programs is left, another attempt tells no more. */
static bool
is_worth_retrying(const Paginator *paginator, const Slot *slot)
{
	return !slot->request.look || paginator->used > 1 ||
		slot->request.offset < listing_state(paginator->listing)->last;
}

static void
take_failure(Paginator *paginator, Slot *slot, FetchError *error,
			 const HttpResponse *response)
{
	Failure		failure = {
		.request = slot->request,
		.refused = response->status == 400 || response->status == 422,
	};
	int64		not_before;

	if (slot == paginator->probe)
	{
		paginator->probe = NULL;
		free_slot(paginator, slot);
		return;
	}
	error->kind = throttle_failed(&paginator->throttle, &slot->tries, error,
								  paginator->in_flight, clock_us(), &not_before);
	if (error->kind == FETCH_ERROR_NO_SOCKET ||
		(error->kind == FETCH_ERROR_RETRY && is_worth_retrying(paginator, slot)))
	{
		wait_in_slot(slot, not_before);
		if (error->kind == FETCH_ERROR_NO_SOCKET)
			paginator->reading.requests--;
		else
			paginator->reading.retries++;
		return;
	}
	fetch_error_locate(error, paginator->account, page_url(paginator, &slot->request),
					   slot->request.offset, slot->tries.attempt);
	failure.error = *error;
	free_slot(paginator, slot);
	listing_fail_page(paginator->listing, &failure.request);
	if (error->kind == FETCH_ERROR_FATAL ||
		listing_lacks(paginator->listing, &failure.request))
		skip_page(paginator, &failure);
	else
		postpone(paginator, &failure);
}

/* Reads the body of a response; 204 says that there is nothing. */
static bool
read_body(const Paginator *paginator, const HttpResponse *response, ProgramPage *page,
		  JsonError *problem)
{
	KnownPrograms known = {programs_fingerprint, programs_prefetch, paginator->programs};

	if (response->status == 204)
	{
		memset(page, 0, sizeof(ProgramPage));
		page->total = -1;
		return true;
	}
	return program_page_read(page, response->body, response->length,
							 paginator->programs->stored > 0 || paginator->programs->reading > 1 ?
							 &known : NULL,
							 problem);
}

static void
take_response(Paginator *paginator, const HttpResponse *response)
{
	Slot	   *slot = &paginator->slots[response->slot];
	MemoryContext caller = MemoryContextSwitchTo(paginator->page_context);
	ProgramPage page;
	JsonError	problem;
	FetchError	error;

	paginator->in_flight--;
	if (slot == paginator->probed && paginator->probe)
	{
		give_up_request(paginator, paginator->probe);
		free_slot(paginator, paginator->probe);
		paginator->probe = NULL;
	}
	slot->state = SLOT_IDLE;
	if (fetch_error_of_response(&error, paginator->account, response, NULL,
								paginator->arrived > 0))
		take_failure(paginator, slot, &error, response);
	else if (read_body(paginator, response, &page, &problem))
		take_page(paginator, slot, &page);
	else
	{
		fetch_error_of_response(&error, paginator->account, response, &problem, true);
		take_failure(paginator, slot, &error, response);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(paginator->page_context);
}

/* ---- a reading ---- */

static void
report_progress(Paginator *paginator)
{
	const ListingState *listing = listing_state(paginator->listing);
	ProgressRow *row = &paginator->progress->row;

	row->completed = listing->pages;
	row->total = paginator->total_reported ? listing_pages_expected(paginator->listing) : 0;
	row->programs = listing->rows;
	row->retries = paginator->reading.retries;
	row->in_flight = paginator->in_flight;
	progress_fetched(paginator->progress);
}

/* Requests and receives pages until the end is seen or nothing is left. */
static void
read_pages(Paginator *paginator)
{
	while (!listing_end_is_seen(paginator->listing) &&
		   (paginator->used > 0 || listing_has_next(paginator->listing)))
	{
		int64		now = clock_us();
		bool		more = send_pages(paginator, now);
		const HttpResponse *response;

		report_progress(paginator);
		http_wait(paginator->http, more ? now : next_deadline(paginator));
		while ((response = http_next(paginator->http)) != NULL)
		{
			take_response(paginator, response);
			CHECK_FOR_INTERRUPTS();
		}
		report_progress(paginator);
	}
}

/* Whatever is past the end is not needed. */
static void
abandon_pages(Paginator *paginator)
{
	for (int i = 0; i < paginator->account->concurrency; i++)
	{
		Slot	   *slot = &paginator->slots[i];

		if (slot->state == SLOT_IN_FLIGHT)
			give_up_request(paginator, slot);
		if (slot->state != SLOT_IDLE)
			free_slot(paginator, slot);
	}
	paginator->probe = NULL;
}

static void
warn_skipped(const Paginator *paginator)
{
	int64		more = paginator->reading.failed_pages - MAX_SKIP_WARNINGS;

	if (more > 0)
		progress_warning(ERRCODE_WARNING,
						 psprintf("skipped " INT64_FORMAT " more page%s of account \"%s\"",
								  more, more == 1 ? "" : "s",
								  paginator->account->username),
						 NULL, NULL);
}

Reading
paginator_fetch(Paginator *paginator, int64 expected)
{
	Reading    *reading = &paginator->reading;
	const ListingState *state;

	*reading = (Reading)
	{
		.requests = reading->requests,.retries = reading->retries,
			.received_bytes = reading->received_bytes,
	};
	paginator->listing = listing_create(paginator->account->page_size, expected,
										paginator->account->trust_total);
	state = listing_state(paginator->listing);
	paginator->http = http_open(paginator->account);
	do
		read_pages(paginator);
	while (judge_failures(paginator));
	abandon_pages(paginator);
	paginator->reading.received_bytes += http_close(paginator->http);
	warn_skipped(paginator);

	reading->total = Max(state->total, 0);
	reading->positions = state->last;
	reading->pages = state->pages;
	reading->end_seen = listing_end_is_seen(paginator->listing);
	reading->total_moved = state->total_moved;
	reading->gap = listing_gap(paginator->listing);
	listing_free(paginator->listing);
	return *reading;
}

/* ---- the pages of a sync ---- */

Paginator  *
paginator_create(const Account *account, Programs *programs, Progress *progress)
{
	Paginator  *paginator = palloc0(sizeof(Paginator));

	paginator->account = account;
	paginator->programs = programs;
	paginator->progress = progress;
	paginator->slots = palloc0(account->concurrency * sizeof(Slot));
	throttle_init(&paginator->throttle, account, pg_prng_uint64(&pg_global_prng_state));
	paginator->context = CurrentMemoryContext;
	paginator->page_context = AllocSetContextCreate(CurrentMemoryContext,
													"yelp_sync page",
													ALLOCSET_DEFAULT_SIZES);
	return paginator;
}
