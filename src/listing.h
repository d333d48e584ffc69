/*
 * listing.h
 *	  Which parts of a listing have been asked for, and what came of them.
 *
 * Pure: knows neither requests nor rows.  Memory is palloc'd in the current
 * context.
 */
#ifndef YELP_SYNC_LISTING_H
#define YELP_SYNC_LISTING_H

/* Programs from .. to - 1 of the listing, that nobody has asked for yet. */
typedef struct ListingRange
{
	int64		from;
	int64		to;
} ListingRange;

typedef struct Listing
{
	/* What to ask for */
	int			stride;			/* programs to ask for per page */
	ListingRange *ranges;
	int			nranges;
	int			max_ranges;
	int64		planned;		/* all before has been asked for or is a range */

	/* What the pages said */
	bool		total_known;
	int64		total;			/* the largest that was told */
	int64		end;			/* of what is asked for: it, or a page more */
	bool		moved;			/* pages contradicted each other */
	bool		end_seen;		/* a page was shorter than the API's are */
	int			holes;			/* pages that were empty and should not be */
	int			empty_tail;		/* of these, behind the last program */
	int64		last_end;		/* of the pages that were not empty */
	int			failed;			/* pages that could not be had */
	int			last_short;		/* programs on the last page that was too
								 * short */

	/* What came */
	int64		pages;
	int64		rows;
} Listing;

/* What a page said and brought. */
typedef struct ListingPage
{
	int64		offset;
	int			asked;			/* programs asked for */
	int			count;			/* programs on it */
	int64		total;
	int64		limit;			/* the API's echo, or -1 */
} ListingPage;

/*
 * A listing that is expected to have so many programs, 0 for unknown: at
 * least the first page is asked for.
 */
extern void listing_init(Listing *listing, int page_size, int64 expected);

/* The next page to ask for; false when there is none, for now. */
extern bool listing_next(Listing *listing, int64 *offset, int *limit);

/* A page was asked for, and its answer is not waited for. */
extern void listing_abandon(Listing *listing, int64 offset, int limit);

extern void listing_add_page(Listing *listing, const ListingPage *page);

/* Paginator that are still to be asked for. */
extern int64 listing_pages_left(const Listing *listing);

/*
 * Is this offset, as far as is known, beyond the end?  Nothing need come from
 * there; what does shows that the end is not the end.
 */
extern bool listing_is_beyond(const Listing *listing, int64 offset);

/* Is the end of the programs so far from the total that reading on is vain? */
extern bool listing_is_vain(const Listing *listing);

/* Did every page come, and none contradict another? */
extern bool listing_is_whole(const Listing *listing);

#endif							/* YELP_SYNC_LISTING_H */
