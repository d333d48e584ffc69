/*
 * listing.c
 *	  Which parts of a listing have been asked for, and what came of them.
 *
 * The API lists programs by offset and limit, and tells the total with each
 * page.  What nobody has asked for yet is kept as ranges of positions: at
 * first as many as are expected, then what the told total adds, and what a
 * page that was shorter than asked for left out.  So an API that serves
 * smaller pages, at first or from some page on, is followed without a gap.
 * Ranges beyond the total stay, in case that a later page tells a larger one.
 *
 * An API may also list more than the total that it tells: then the end is
 * where a page is not full.
 *
 * A page that is empty where there should be programs is a hole: asking again
 * from the same place would not end.  A listing with a hole, or whose pages
 * told different totals, proves nothing about what it does not show.
 */
#include "postgres.h"

#include "listing.h"

#define FIRST_RANGES 16

/* So many empty pages in the end, and no more are asked for */
#define MAX_EMPTY 100

/*
 * An API is believed to list more than its total, but not more than twice as
 * much, and some pages: one that never stops must not keep us for ever.
 */
#define MAX_OVERFLOW 2
#define MAX_OVERFLOW_PAGES 10

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

/* Plans whole pages, up to the one that holds the last of the total. */
static void
plan_until(Listing *listing, int64 total)
{
	int64		missing = total - listing->planned;
	int64		npages = (missing + listing->stride - 1) / listing->stride;

	if (missing <= 0)
		return;
	add_range(listing, listing->planned,
			  listing->planned + npages * listing->stride);
	listing->planned += npages * listing->stride;
}

void
listing_init(Listing *listing, int page_size, int64 expected)
{
	memset(listing, 0, sizeof(Listing));
	listing->stride = page_size;
	listing->max_ranges = FIRST_RANGES;
	listing->ranges = palloc(FIRST_RANGES * sizeof(ListingRange));
	plan_until(listing, Max(expected, 1));
}

bool
listing_is_vain(const Listing *listing)
{
	return listing->empty_tail >= MAX_EMPTY;
}

/* Up to where programs are to be asked for, as far as is known. */
static int64
known_end(const Listing *listing)
{
	if (!listing->total_known)
		return PG_INT64_MAX;
	return listing_is_vain(listing) ? listing->last_end : listing->end;
}

static bool
is_after_end(const Listing *listing, int64 position)
{
	return position >= known_end(listing);
}

bool
listing_is_beyond(const Listing *listing, int64 offset)
{
	return offset > 0 && listing->total_known && offset >= listing->end;
}

/* The first range that lies before the end, or NULL; empty ones are dropped. */
static ListingRange *
first_range(Listing *listing)
{
	for (int i = 0; i < listing->nranges;)
	{
		ListingRange *range = &listing->ranges[i];

		if (range->from >= range->to)
			*range = listing->ranges[--listing->nranges];
		else if (is_after_end(listing, range->from))
			i++;
		else
			return range;
	}
	return NULL;
}

/*
 * The last page is asked for at full length, so that all requests look alike;
 * a part of a page at its own length, so that nothing comes twice.
 */
bool
listing_next(Listing *listing, int64 *offset, int *limit)
{
	ListingRange *range = first_range(listing);

	if (range == NULL)
		return false;
	*offset = range->from;
	*limit = listing->stride;
	if (range->to < listing->planned)
		*limit = (int) Min(*limit, range->to - range->from);
	range->from += *limit;
	return true;
}

void
listing_abandon(Listing *listing, int64 offset, int limit)
{
	add_range(listing, offset, offset + limit);
}

/*
 * Where a page or more than the total was expected, the first page behind it
 * is asked for too: it shows that the listing did become shorter.
 */
static void
follow_total(Listing *listing, int64 total)
{
	bool		known = listing->total_known;

	if (listing->total_known && listing->total != total)
		listing->moved = true;
	listing->total = listing->total_known ? Max(listing->total, total) : total;
	listing->total_known = true;
	listing->end = Max(listing->end, listing->total);
	if (!known && listing->planned >= total + listing->stride)
		listing->end = Max(listing->end, total + 1);
	plan_until(listing, listing->end);
}

/*
 * Programs lie beyond the total.  Where a page there was full, others may
 * follow it: look, until a page is not full.
 */
static void
follow_overflow(Listing *listing, const ListingPage *page)
{
	int64		end = page->offset + page->count;

	listing->moved = true;
	if (page->count < Min(page->asked, listing->stride))
		return;
	if (end > MAX_OVERFLOW * listing->total + MAX_OVERFLOW_PAGES * page->asked)
		listing->holes++;		/* what is behind it will not be known */
	else
		listing->end = Max(listing->end, end + 1);
	plan_until(listing, listing->end);
}

/* The listing ended here, beyond or at the total. */
static void
stop_at(Listing *listing, int64 end)
{
	listing->end = Max(listing->total, Min(listing->end, end));
	listing->end_seen = true;
}

static void
note_hole(Listing *listing, int64 offset)
{
	listing->holes++;
	if (offset >= listing->last_end)
		listing->empty_tail++;
}

static void
note_programs(Listing *listing, int64 end)
{
	if (end <= listing->last_end)
		return;
	listing->last_end = end;
	listing->empty_tail = 0;
}

/*
 * A page that was too short shows the size that the API serves when it says
 * so, or when another one was as short.
 */
static void
follow_stride(Listing *listing, const ListingPage *page)
{
	if (page->count < listing->stride &&
		(page->limit == page->count || listing->last_short == page->count))
		listing->stride = page->count;
	listing->last_short = page->count;
}

/* A page longer than asked for brings what others need not bring again. */
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

static void
note_short_page(Listing *listing, const ListingPage *page)
{
	int64		end = page->offset + page->count;

	if (end < page->total)
		follow_stride(listing, page);
	else if (page->count < listing->stride)
		stop_at(listing, end);
	add_range(listing, end, page->offset + page->asked);
}

void
listing_add_page(Listing *listing, const ListingPage *page)
{
	int64		end = page->offset + page->count;

	follow_total(listing, page->total);
	if (page->count == 0 && page->offset > 0 && page->offset >= listing->total)
	{
		stop_at(listing, page->offset);
		listing_abandon(listing, page->offset, page->asked);
		return;
	}

	listing->pages++;
	listing->rows += page->count;
	if (end > page->total)
		follow_overflow(listing, page);
	if (page->count == 0 && page->offset < listing->total)
		note_hole(listing, page->offset);
	else
		note_programs(listing, end);
	if (page->count > page->asked)
		leave_out(listing, page->offset, end);
	else if (page->count > 0 && page->count < page->asked)
		note_short_page(listing, page);
}

int64
listing_pages_left(const Listing *listing)
{
	int64		pages = 0;

	for (int i = 0; i < listing->nranges; i++)
	{
		ListingRange range = listing->ranges[i];

		range.to = Min(range.to, known_end(listing));
		if (range.from < range.to)
			pages += (range.to - range.from + listing->stride - 1) /
				listing->stride;
	}
	return pages;
}

bool
listing_is_whole(const Listing *listing)
{
	return listing->total_known && !listing->moved &&
		listing->holes == 0 && listing->failed == 0;
}
