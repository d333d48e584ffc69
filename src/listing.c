/*
 * listing.c
 *	  Track which parts of a listing have been requested, where it ends, and
 *	  whether all of it has arrived.
 *
 * The API lists programs by offset and limit, and reports a total with each
 * page.  The parts not yet requested are kept as ranges of positions:
 * initially as many as are expected, then what the total adds, and what pages
 * shorter than requested left out.  So an API that serves smaller pages, from
 * the start or from some page on, is read without gaps.
 *
 * The total is only a hint for what to request: it may be cached, capped or
 * miscounted.  The end of the listing is verified instead.  The end has been
 * seen
 *
 * - after a page that is shorter than the API's own page size, or after as
 *	 many programs as last time, if the total agrees, or
 * - if a look past the last program returned nothing new: an empty page, a
 *	 response that there is no such page, or two pages of programs already
 *	 seen.
 *
 * If the total is a multiple of the page size, or if all programs fit on one
 * page, whose size proves nothing, the look is requested together with the
 * other pages; if the API does not report its page size, once it has reported
 * the total.  Otherwise it follows if everything else has arrived but the end
 * has not been seen; as long as more programs are found past the total, an
 * increasing number of pages is requested at once.
 *
 * An empty page that is followed by others is a gap.  A listing with a gap
 * proves nothing about programs that did not arrive.
 */
#include "postgres.h"

#include "listing.h"

#define FIRST_RANGES 16

/* Give up after this many empty pages at the end */
#define MAX_EMPTY 100

/* Maximum number of pages requested at once past the total */
#define MAX_LOOKAHEAD 64

/* Positions from .. to - 1 of the listing, which have not been requested yet */
typedef struct ListingRange
{
	int64		from;
	int64		to;
} ListingRange;

struct Listing
{
	ListingState state;

	/* What to request */
	ListingRange *ranges;
	int			nranges;
	int			max_ranges;
	int64		planned;		/* everything before is requested or a range */
	int64		look_at;		/* where to look for the end, or -1 */
	int64		looked_at;		/* the latest such position, or 0 */
	int64		look_end;		/* up to where to look for it */
	int			lookahead;		/* pages to request in the next look */
	int			outstanding;	/* pages requested and not yet answered */
	int			postponed;		/* pages whose meaning is not yet decided */

	/* Where the listing ends */
	int64		closed_at;		/* a look from here returned nothing new, or
								 * -1 */
	int64		repeat_at;		/* a page past last_end that only repeats
								 * programs, or -1 */
	int64		short_end;		/* end of the last short page, or -1 */
	int			short_count;	/* programs on it */
	int64		short_limit;	/* that it could have, says the API, or -1 */
	int			nshort;			/* number of short pages */
	bool		strict;			/* a short page does not prove the end */
	int64		expected;		/* where it ended last time, or 0 */
	int			max_count;		/* programs on the longest page */
	int			last_short;		/* programs on the latest short page */
	int			empty_tail;		/* empty pages past last_end */
	int64		first_empty;	/* offset of the first empty page past the
								 * programs known then, or -1 */
};

static void
add_range(Listing *listing, int64 from, int64 to)
{
	ListingRange *range;

	if (from >= to)
		return;
	if (listing->nranges == listing->max_ranges)
	{
		listing->max_ranges *= 2;
		listing->ranges = repalloc(listing->ranges,
								   listing->max_ranges * sizeof(ListingRange));
	}
	range = &listing->ranges[listing->nranges++];
	range->from = from;
	range->to = to;
}

/*
 * Plans whole pages, up to the one with the last of the given number of
 * programs.
 */
static void
plan_until(Listing *listing, int64 end)
{
	int64		missing = end - listing->planned;
	int64		npages = (missing + listing->state.stride - 1) / listing->state.stride;

	if (missing <= 0)
		return;
	add_range(listing, listing->planned,
			  listing->planned + npages * listing->state.stride);
	listing->planned += npages * listing->state.stride;
}

/*
 * Plans a look past the expected number of programs, together with the other
 * requests.  If that is a multiple of the page size, one of its pages is the
 * look.
 */
static void
look_behind(Listing *listing, int64 expected)
{
	if (expected == 0 || expected % listing->state.stride == 0 ||
		expected == listing->looked_at)
		return;
	listing->look_at = listing->looked_at = expected;
}

Listing *
listing_create(int page_size, int64 expected, bool strict)
{
	Listing    *listing = palloc0(sizeof(Listing));

	listing->state.stride = page_size;
	listing->max_ranges = FIRST_RANGES;
	listing->ranges = palloc(FIRST_RANGES * sizeof(ListingRange));
	listing->closed_at = listing->repeat_at = listing->short_end =
		listing->first_empty = -1;
	listing->strict = strict;
	listing->expected = expected;
	listing->look_at = -1;
	if (strict || expected < page_size)
		look_behind(listing, expected);
	listing->lookahead = 1;
	listing->look_end = expected;
	plan_until(listing, Max(expected, 1));
	if (expected > 0 && expected % page_size == 0)
		plan_until(listing, expected + 1);
	return listing;
}

void
listing_free(Listing *listing)
{
	pfree(listing->ranges);
	pfree(listing);
}

const ListingState *
listing_state(const Listing *listing)
{
	return &listing->state;
}

/*
 * Does the short page have room for more programs, according to the API?  If
 * the API does not say, the page is trusted where the listing ended last
 * time.
 */
static bool
has_room(const Listing *listing)
{
	if (listing->short_limit < 0)
		return listing->short_end == listing->expected;
	return listing->short_count < listing->short_limit;
}

/*
 * Is the page after which the programs end shorter than the API's page size?
 * Some APIs serve smaller pages from some offset on, so a short page proves
 * nothing by itself: it must be the only one and have room for more, and the
 * total must agree.
 */
static bool
ends_with_short_page(const Listing *listing)
{
	return !listing->strict && listing->short_end == listing->state.last_end &&
		listing->short_end == listing->state.total && listing->nshort == 1 &&
		listing->short_count < listing->max_count && has_room(listing);
}

bool
listing_end_is_seen(const Listing *listing)
{
	if (!listing->state.total_known || listing->state.end_unknown)
		return false;
	if (ends_with_short_page(listing))
		return true;
	if (listing->closed_at < listing->state.last_end)
		return false;
	for (int i = 0; i < listing->nranges; i++)
	{
		const ListingRange *range = &listing->ranges[i];

		if (range->from < range->to && range->from < listing->closed_at &&
			range->to > listing->state.last_end)
			return false;
	}
	return true;
}

bool
listing_ends_before(const Listing *listing, int64 offset)
{
	return ends_with_short_page(listing) ||
		(listing->closed_at >= listing->state.last_end && listing->closed_at <= offset);
}

static bool
is_pointless(const Listing *listing)
{
	return listing->empty_tail >= MAX_EMPTY;
}

/* The position up to which programs are expected. */
static int64
known_end(const Listing *listing)
{
	if (!listing->state.total_known)
		return PG_INT64_MAX;
	if (listing->state.end_unknown)
		return listing->state.last_end;
	if (is_pointless(listing))
		return Max(listing->state.last_end, listing->closed_at);
	return Max(Max(listing->state.total, listing->state.last_end), listing->closed_at);
}

/*
 * The position up to which to request; increased until the end has been seen.
 */
static int64
ask_end(const Listing *listing)
{
	int64		end = known_end(listing);

	if (listing->state.end_unknown || is_pointless(listing) ||
		listing_end_is_seen(listing))
		return end;
	return Max(end, listing->look_end);
}

/* Has everything requested arrived, but not the end? */
static bool
needs_look(const Listing *listing)
{
	return listing->state.total_known && listing->outstanding == 0 &&
		listing->postponed == 0 && !listing->state.end_unknown && !is_pointless(listing) &&
		!listing_end_is_seen(listing);
}

/*
 * The lowest range that begins before a position, or NULL; removes empty
 * ones.
 */
static ListingRange *
first_range(Listing *listing, int64 end)
{
	ListingRange *first = NULL;

	for (int i = 0; i < listing->nranges;)
	{
		ListingRange *range = &listing->ranges[i];

		if (range->from >= range->to)
		{
			*range = listing->ranges[--listing->nranges];
			continue;
		}
		if (range->from < end && (first == NULL || range->from < first->from))
			first = range;
		i++;
	}
	return first;
}

/*
 * Plans a look past everything requested, which leaves something to request.
 */
static void
plan_look(Listing *listing)
{
	listing->look_end = Max(listing->state.last_end, listing->state.total) + 1;
	if (first_range(listing, listing->look_end) == NULL)
		listing->look_end = Max(listing->look_end, listing->planned + 1);
	listing->look_end += (int64) (listing->lookahead - 1) * listing->state.stride;
	plan_until(listing, listing->look_end);
	listing->lookahead = Min(listing->lookahead * 2, MAX_LOOKAHEAD);
}

static ListingRange *
next_range(Listing *listing)
{
	ListingRange *range = first_range(listing, ask_end(listing));

	if (range || !needs_look(listing))
		return range;
	plan_look(listing);
	return first_range(listing, listing->look_end);
}

/*
 * The last page is requested at full length, so that all requests look alike;
 * part of a page at its own length, so that no programs arrive twice.
 */
bool
listing_next(Listing *listing, int64 *offset, int *limit)
{
	ListingRange *range = next_range(listing);

	if (range == NULL && listing->look_at >= 0)
	{
		*offset = listing->look_at;
		*limit = listing->state.stride;
		listing->look_at = -1;
		listing->outstanding++;
		return true;
	}
	if (range == NULL)
		return false;
	*offset = range->from;
	*limit = listing->state.stride;
	if (range->to < listing->planned)
		*limit = (int) Min(*limit, range->to - range->from);
	range->from += *limit;
	listing->outstanding++;
	return true;
}

void
listing_abandon_page(Listing *listing, int64 offset, int limit)
{
	listing->outstanding--;
	add_range(listing, offset, offset + limit);
}

bool
listing_is_tail(const Listing *listing, int64 offset)
{
	return offset > 0 && offset >= listing->state.last_end;
}

bool
listing_is_behind_end(const Listing *listing, int64 offset)
{
	return offset > 0 && listing_end_is_seen(listing) &&
		offset >= Max(known_end(listing), listing->state.last_end);
}

static void
follow_total(Listing *listing, int64 total)
{
	bool		first = !listing->state.total_known;

	if (!first && listing->state.total != total)
		listing->state.total_moved = true;
	listing->state.total = first ? total : Max(listing->state.total, total);
	listing->state.total_known = true;
	plan_until(listing, listing->state.total);
	if (first && total > 0 && total % listing->state.stride == 0)
	{
		listing->look_end = Max(listing->look_end, total + 1);
		plan_until(listing, total + 1);
	}
}

/* There is nothing new at the offset, which is past all programs. */
static void
close_at(Listing *listing, int64 offset)
{
	if (listing->closed_at < listing->state.last_end || offset < listing->closed_at)
		listing->closed_at = offset;
}

/*
 * The page, which is past all programs, has programs that were already seen:
 * either the API repeats one of its pages, or these programs are listed twice
 * and others follow.  Therefore a whole page and another one, or part of one,
 * are required to prove the end.
 */
static void
note_repeat(Listing *listing, const ListingPage *page)
{
	bool		second = listing->repeat_at >= listing->state.last_end &&
	listing->repeat_at != page->offset;

	if (second)
		close_at(listing, Max(listing->repeat_at, page->offset));
	else if (page->asked >= listing->state.stride)
		listing->repeat_at = page->offset;
	add_range(listing, page->offset + page->count, page->offset + page->asked);
}

static void
note_empty(Listing *listing, int64 offset)
{
	if (listing->first_empty < 0 || offset < listing->first_empty)
		listing->first_empty = offset;
}

/*
 * A short page shows the API's page size if the API says so, or if another
 * page was as short.
 */
static void
follow_stride(Listing *listing, const ListingPage *page)
{
	if (page->count < listing->state.stride &&
		(page->limit == page->count || listing->last_short == page->count))
		listing->state.stride = page->count;
	listing->last_short = page->count;
}

/* What a page longer than requested contains need not be requested again. */
static void
leave_out(Listing *listing, int64 from, int64 to)
{
	int			nranges = listing->nranges;

	for (int i = 0; i < nranges; i++)
	{
		ListingRange range = listing->ranges[i];

		if (range.to <= from || range.from >= to)
			continue;
		listing->ranges[i].to = Max(range.from, Min(range.to, from));
		add_range(listing, Max(range.from, to), range.to);
	}
}

/* What a short page left out is requested, unless the listing ends with it. */
static void
note_short_page(Listing *listing, const ListingPage *page)
{
	int64		end = page->offset + page->count;

	if (end < page->total)
		follow_stride(listing, page);
	listing->nshort++;
	if (end > listing->short_end)
	{
		listing->short_end = end;
		listing->short_count = page->count;
		listing->short_limit = page->limit;
	}
	add_range(listing, end, page->offset + page->asked);
}

static void
note_programs(Listing *listing, const ListingPage *page)
{
	int64		end = page->offset + page->count;

	listing->state.rows += page->count;
	listing->max_count = Max(listing->max_count, page->count);
	if (page->fresh > 0 && end > listing->state.last_end)
	{
		listing->state.last_end = end;
		listing->empty_tail = 0;
	}
	if (page->count > page->asked)
		leave_out(listing, page->offset, end);
	else if (page->count < page->asked)
		note_short_page(listing, page);
}

void
listing_add_page(Listing *listing, const ListingPage *page)
{
	bool		nothing_new = page->fresh == 0 &&
	page->offset >= listing->state.last_end;

	listing->outstanding--;
	listing->state.pages += !nothing_new || page->offset == 0;
	if (!listing->state.total_known && page->limit < 0 &&
		page->total != listing->expected)
		look_behind(listing, page->total);
	follow_total(listing, page->total);
	if (page->count == 0 && page->asked >= listing->state.stride)
		note_empty(listing, page->offset);
	if (nothing_new)
	{
		listing->empty_tail++;
		if (page->count == 0)
			close_at(listing, page->offset);
		else
			note_repeat(listing, page);
	}
	else if (page->count > 0)
		note_programs(listing, page);
}

void
listing_postpone_page(Listing *listing, int64 offset)
{
	listing->outstanding--;
	listing->postponed++;
	if (listing_is_tail(listing, offset))
		listing->empty_tail++;
}

void
listing_ask_again(Listing *listing, int64 offset, int limit)
{
	add_range(listing, offset, offset + limit);
}

void
listing_settle(Listing *listing)
{
	listing->postponed = 0;
}

void
listing_refuse_page(Listing *listing, int64 offset)
{
	note_empty(listing, offset);
	close_at(listing, offset);
}

void
listing_lose_end(Listing *listing)
{
	listing->state.end_unknown = true;
}

void
listing_fail_page(Listing *listing)
{
	listing->state.failed++;
}

int64
listing_pages_expected(const Listing *listing)
{
	const ListingState *state = &listing->state;
	int64		programs = Max(Max(state->total, state->last_end), 1);

	return Max((programs + state->stride - 1) / state->stride,
			   state->pages + state->failed);
}

int64
listing_pages_left(const Listing *listing)
{
	int64		end = ask_end(listing);
	int64		pages = 0;

	for (int i = 0; i < listing->nranges; i++)
	{
		ListingRange range = listing->ranges[i];

		range.to = Min(range.to, end);
		if (range.from < range.to)
			pages += (range.to - range.from + listing->state.stride - 1) /
				listing->state.stride;
	}
	if (pages == 0 && needs_look(listing))
		pages = 1;
	return pages + (listing->look_at >= 0);
}

int64
listing_gap(const Listing *listing)
{
	return listing->first_empty >= 0 && listing->first_empty < listing->state.last_end ?
		listing->first_empty : -1;
}
