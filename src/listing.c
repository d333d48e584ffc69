/*
 * listing.c
 *	  Track which parts of a listing have been requested and have arrived, and
 *	  whether its end was seen.
 *
 * The API lists programs by offset and limit, and reports a total with each
 * page.  As many whole pages are requested as were listed last time or as the
 * total says, whichever is more.  What a page left out that is shorter than
 * requested is requested in pieces of that page's size, if the total or other
 * pages show that programs follow.  So an API that serves smaller pages, from
 * the start or from some page on, is read without gaps.
 *
 * The total is only a hint for what to request: it may be cached, capped or
 * miscounted.  Nor does it mean anything if the API refuses an offset, fails
 * there, or returns no or other programs: some APIs do so where the listing
 * ends, others where they reach a limit of their own.  The end is seen from
 * inside instead: two responses that begin at different offsets end with the
 * same program at the same position, and both had room for more.  Responses
 * that end because the API limits their size end at different positions.
 *
 * The last page is one of them, unless it is full; the others are looks at the
 * end: requests that begin inside the last page.  They are sent together with
 * the pages, and begin half a page before the end that is expected, so that
 * they show an end that has moved a little as well.  If they do not show it,
 * others follow as soon as everything up to the last program has arrived, and
 * begin with that program or the one before.  If they return more programs,
 * the listing is read on; if they return fewer, because the API serves one
 * program per page, what follows is requested as well, but nothing proves the
 * end.
 *
 * A single program leaves no room for two offsets.  There it must suffice that
 * a request for what follows was made and returned nothing new.
 *
 * Responses arrive in any order, and some APIs repeat a page past the end, so
 * nothing is concluded before everything up to the end has arrived.
 */
#include "postgres.h"

#include "listing.h"

#define FIRST_PARTS 16

/*
 * A reading is given up if so many more requests return nothing new than
 * anything new, not counting those for what a page left out.
 */
#define MAX_FRUITLESS 100

/* Maximum number of pages requested at once past what was expected */
#define MAX_LOOKAHEAD 64

/* Positions from .. to - 1 of the listing, which have not arrived yet */
typedef struct ListingPart
{
	int64		from;
	int64		to;
	int			size;			/* programs to request at a time */
	bool		look;
	bool		requested;		/* as a single request */
} ListingPart;

struct Listing
{
	ListingState state;
	int			page_size;
	int64		expected;
	bool		trust_total;

	/* What to request */
	int64		next;			/* whole pages from here ... */
	int64		planned;		/* ... to here */
	int			lookahead;		/* pages that were planned last past what was
								 * expected */
	ListingPart *parts;			/* parts of pages, looks, and all requests */
	int			nparts;
	int			max_parts;

	/* The last program, and what is known of its being the last */
	struct
	{
		uint64		id;
		int64		short_from; /* offset of a response that ends with it and
								 * had room for more, or -1 */
		bool		proved;		/* there is another one, from another offset */
		bool		looked;		/* looks at it were planned, ... */
		bool		answered;	/* and one was, with any programs */
		bool		passed;		/* a request for what follows returned nothing */
		bool		asked_on;	/* more was planned, although no look showed
								 * any */
	}			end;
	int64		last_on_page;	/* end of the last program that no look has
								 * brought */
	int64		look_from;		/* offset of the early look, or -1 */
	bool		asked_for_second;	/* the program after the first one */

	int64		fruitful;		/* requests that returned new programs */
	int64		fruitless;		/* whole pages that did not */
	int64		first_empty;	/* offset of the first empty page, or -1 */
};

/* ---- what to request ---- */

static ListingPart *
add_part(Listing *listing, int64 from, int64 to, int size)
{
	ListingPart *part;

	if (listing->nparts == listing->max_parts)
	{
		listing->max_parts *= 2;
		listing->parts = repalloc(listing->parts,
								  listing->max_parts * sizeof(ListingPart));
	}
	part = &listing->parts[listing->nparts++];
	*part = (ListingPart)
	{
		.from = from,.to = to,.size = size
	};
	return part;
}

static void
remove_part(Listing *listing, int i)
{
	listing->parts[i] = listing->parts[--listing->nparts];
}

/* Plans whole pages, up to the one with the last of the given number. */
static void
plan_until(Listing *listing, int64 end)
{
	int64		pages = (end + listing->page_size - 1) / listing->page_size;

	listing->planned = Max(listing->planned, pages * listing->page_size);
}

/*
 * Plans the looks that are needed for two responses that end there, with room
 * for more, from different offsets: from this one or before.  The last page is
 * one of them, unless it is full: then its offset is given as -1.
 */
static void
plan_looks(Listing *listing, int64 offset, int64 end, int64 short_page)
{
	int			needed = short_page < 0 ? 2 : 1;

	for (offset = Max(offset, 1); needed > 0 && offset >= 0; offset--)
	{
		int64		limit = Max(listing->page_size, end - offset + 1);

		if (offset == short_page)
			continue;
		add_part(listing, offset, offset + limit, (int) limit)->look = true;
		needed--;
	}
}

/*
 * Plans looks that begin half a page before the end that is expected, unless
 * those that were planned before begin there as well.
 */
static void
plan_early_looks(Listing *listing, int64 end)
{
	int64		page = end - end % listing->page_size;
	int64		offset = Max(end - listing->page_size / 2, 1);

	if (offset != listing->look_from)
		plan_looks(listing, offset, end, page < end ? page : -1);
	listing->look_from = offset;
}

/* The first total also determines other looks, unless the first show it. */
static void
note_total(Listing *listing, int64 total)
{
	ListingState *state = &listing->state;
	bool		first = state->total < 0;

	state->total_moved |= !first && total != state->total;
	state->total = Max(state->total, total);
	if (first && total > 0 &&
		(listing->look_from < 0 || total <= listing->look_from ||
		 total >= listing->look_from + listing->page_size))
		plan_early_looks(listing, total);
	plan_until(listing, total);
}

/* Is a part before the position still to come? */
static bool
is_open_before(const Listing *listing, int64 end)
{
	if (listing->next < end)
		return true;
	for (int i = 0; i < listing->nparts; i++)
	{
		if (!listing->parts[i].look && listing->parts[i].from < end)
			return true;
	}
	return false;
}

/* Is any response still to come; one that may show the end, if that is asked? */
static bool
is_outstanding(const Listing *listing, bool of_end)
{
	for (int i = 0; i < listing->nparts; i++)
	{
		const ListingPart *part = &listing->parts[i];

		if (of_end ? part->look && part->from < listing->state.last &&
			part->to > listing->state.last : part->look || part->requested)
			return true;
	}
	return false;
}

/* Prevents reading forever, whatever the API returns. */
static bool
is_pointless(const Listing *listing)
{
	return listing->fruitless > MAX_FRUITLESS + listing->fruitful;
}

/*
 * The next part to request, or NULL if that is a whole page or nothing.  Parts
 * of pages that lie past all programs may be past the end.
 */
static ListingPart *
next_part(const Listing *listing, bool look)
{
	int64		last = listing->state.last;
	int64		end = Max(listing->state.total, last + listing->end.asked_on);
	ListingPart *next = NULL;

	for (int i = 0; i < listing->nparts; i++)
	{
		ListingPart *part = &listing->parts[i];

		if (!part->requested && part->look == look &&
			(look || (part->from < end && !is_pointless(listing))) &&
			(next == NULL || part->from < next->from))
			next = part;
	}
	return next;
}

/* Should a whole page be requested? */
static bool
wants_page(const Listing *listing)
{
	return listing->next < listing->planned && !is_pointless(listing);
}

static bool
wants_anything(const Listing *listing)
{
	return wants_page(listing) || next_part(listing, false) || next_part(listing, true);
}

/*
 * Everything planned has been requested: plans more if the end has not been
 * seen.
 */
static void
plan_on(Listing *listing)
{
	int64		last = listing->state.last;
	bool		goes_on = last > listing->planned;

	if (!listing->state.total_known || listing_end_is_seen(listing) ||
		is_pointless(listing))
		return;
	if (goes_on || (listing->end.looked && listing->end.answered &&
					!listing->end.asked_on && !is_outstanding(listing, true)))
	{
		listing->end.asked_on |= !goes_on;
		if (last < listing->planned)
			return;
		listing->lookahead = Min(Max(listing->lookahead * 2, 1), MAX_LOOKAHEAD);
		plan_until(listing, listing->planned +
				   (int64) listing->lookahead * listing->page_size);
		return;
	}
	if (last == 0 || listing->end.looked || is_open_before(listing, last) ||
		is_outstanding(listing, listing->end.passed))
		return;
	listing->end.looked = true;
	plan_looks(listing, last - 1, last, listing->end.short_from);
}

bool
listing_has_next(Listing *listing)
{
	if (listing->end.passed || !wants_anything(listing))
		plan_on(listing);
	return wants_anything(listing);
}

bool
listing_has_look(const Listing *listing)
{
	const ListingPart *look = next_part(listing, true);

	return look && look->from <= listing->state.last;
}

bool
listing_next(Listing *listing, ListingRequest *request)
{
	ListingPart *part;

	if (!listing_has_next(listing))
		return false;
	part = next_part(listing, false);
	if (listing_has_look(listing) || (part == NULL && !wants_page(listing)))
		part = next_part(listing, true);
	request->offset = part ? part->from : listing->next;
	request->limit = part ? (int) Min(part->size, part->to - part->from) : listing->page_size;
	request->look = part && part->look;
	if (part == NULL)
		listing->next += request->limit;
	else if ((part->from += request->limit) == part->to)
		remove_part(listing, (int) (part - listing->parts));
	part = add_part(listing, request->offset, request->offset + request->limit,
					request->limit);
	part->look = request->look;
	part->requested = true;
	return true;
}

/* ---- what has arrived ---- */

static void
end_request(Listing *listing, const ListingRequest *request)
{
	for (int i = 0; i < listing->nparts; i++)
	{
		const ListingPart *part = &listing->parts[i];

		if (part->requested && part->from == request->offset &&
			part->size == request->limit && part->look == request->look)
		{
			remove_part(listing, i);
			return;
		}
	}
	Assert(false);
}

/* A request returned no new programs. */
static void
note_nothing_new(Listing *listing, const ListingRequest *request)
{
	listing->fruitless += request->limit >= listing->page_size;
	listing->end.passed |= request->offset >= listing->state.last;
}

static void
begin_last(Listing *listing, int64 end, uint64 id)
{
	listing->state.last = end;
	memset(&listing->end, 0, sizeof(listing->end));
	listing->end.id = id;
	listing->end.short_from = -1;
}

/*
 * Notes which responses end with the last program.  If one that begins with
 * the last program returns more, the listing goes on, even with programs that
 * are listed twice.  If a single response has brought all programs, and then
 * another one ends with the same at a lower position, the former was a repeated
 * page.
 */
static void
note_programs(Listing *listing, const ListingRequest *request, const ListingPage *page)
{
	int64		last = listing->state.last;
	int64		end = request->offset + page->count;
	bool		goes_on = request->offset == last - 1 && page->first_id == listing->end.id;
	bool		repeated = end < last && page->fresh == 0 &&
	page->last_id == listing->end.id && listing->fruitful == 1;

	if (repeated || (end > last && (page->fresh > 0 || goes_on)))
		begin_last(listing, end, page->last_id);
	else if (end != last || page->last_id != listing->end.id)
		return;
	if (page->count >= request->limit)
		return;
	listing->end.proved |= listing->end.short_from >= 0 &&
		listing->end.short_from != request->offset;
	listing->end.short_from = request->offset;
}

/*
 * What a page left out is requested, unless the listing ends with it; what it
 * has beyond what was requested need not be.
 */
static void
note_page(Listing *listing, const ListingRequest *request, int count)
{
	int64		end = request->offset + count;

	if (count > 0 && count < request->limit)
		add_part(listing, end, request->offset + request->limit, count);
	if (count > request->limit)
		listing->next = Max(listing->next, end / listing->page_size * listing->page_size);
	listing->planned = Max(listing->planned, listing->next);
	/* The rest of a page may be empty because the API leaves programs out */
	if (count == 0 && request->limit >= listing->page_size &&
		(listing->first_empty < 0 || request->offset < listing->first_empty))
		listing->first_empty = request->offset;
	listing->state.pages += count > 0 || request->offset == 0;
	listing->state.rows += count;
}

void
listing_add_page(Listing *listing, const ListingRequest *request,
				 const ListingPage *page)
{
	ListingState *state = &listing->state;

	end_request(listing, request);
	listing->asked_for_second |= request->offset == 1;
	if (page->total >= 0)
		note_total(listing, page->total);
	state->total_known |= request->offset == 0;
	if (page->fresh == 0)
		note_nothing_new(listing, request);
	else
		listing->fruitful++;
	if (page->count > 0)
		note_programs(listing, request, page);
	if (!request->look && page->fresh > 0)
		listing->last_on_page = Max(listing->last_on_page, request->offset + page->count);
	if (!request->look)
		note_page(listing, request, page->count);
	else
		listing->end.answered |= page->count > 0 && request->offset < state->last &&
			request->offset + request->limit > state->last;
}

void
listing_fail_page(Listing *listing, const ListingRequest *request)
{
	end_request(listing, request);
	listing->asked_for_second |= request->offset == 1;
}

void
listing_skip_page(Listing *listing, const ListingRequest *request)
{
	int64		end = request->offset + request->limit;

	listing->state.failed++;
	if (end > listing->state.last)
		begin_last(listing, end, 0);
}

bool
listing_end_is_seen(const Listing *listing)
{
	const ListingState *state = &listing->state;

	if (!state->total_known || is_open_before(listing, state->last))
		return false;
	if (state->last == 0)
		return !(wants_anything(listing) || is_outstanding(listing, false));
	if (state->last == 1)
		return listing->asked_for_second;
	return listing->end.proved;
}

bool
listing_lacks(const Listing *listing, const ListingRequest *request)
{
	return !request->look &&
		(request->offset == 0 || request->offset < listing->last_on_page);
}

ListingVerdict
listing_judge(const Listing *listing, const ListingRequest *request, bool refused)
{
	bool		listed = request->offset < listing->state.last;
	bool		promised = request->offset < listing->expected ||
	(request->offset < listing->state.total && (listing->trust_total || listing->expected == 0));

	if (request->look)
		return LISTING_PAST_END;
	if (listing_lacks(listing, request))
		return LISTING_MISSING;
	if (refused && (listed || promised))
		return LISTING_REFUSED;
	return listed || (promised && !listing->end.answered && !listing_end_is_seen(listing)) ?
		LISTING_MISSING : LISTING_PAST_END;
}

/* ---- a reading ---- */

Listing    *
listing_create(int page_size, int64 expected, bool trust_total)
{
	Listing    *listing = palloc0(sizeof(Listing));

	listing->page_size = page_size;
	listing->expected = expected;
	listing->trust_total = trust_total;
	listing->max_parts = FIRST_PARTS;
	listing->parts = palloc(FIRST_PARTS * sizeof(ListingPart));
	listing->state.total = listing->first_empty = -1;
	listing->look_from = listing->end.short_from = -1;
	plan_until(listing, Max(expected, 1));
	if (expected > 0)
		plan_early_looks(listing, expected);
	return listing;
}

void
listing_free(Listing *listing)
{
	pfree(listing->parts);
	pfree(listing);
}

const ListingState *
listing_state(const Listing *listing)
{
	return &listing->state;
}

int64
listing_gap(const Listing *listing)
{
	return listing->first_empty < listing->state.last ? listing->first_empty : -1;
}

int64
listing_pages_expected(const Listing *listing)
{
	const ListingState *state = &listing->state;
	int64		end = Max(state->total_known ? state->total : listing->expected, state->last);
	int64		pages = state->pages + state->failed;

	for (int i = 0; i < listing->nparts; i++)
	{
		const ListingPart *part = &listing->parts[i];

		if (!part->look && part->from < end)
			pages += (part->to - part->from + part->size - 1) / part->size;
	}
	end = Min(end, listing->planned);
	if (listing->next < end)
		pages += (end - listing->next + listing->page_size - 1) / listing->page_size;
	return Max(pages, 1);
}
