/*
 * listing.h
 *	  Track which parts of a listing have been requested, where it ends, and
 *	  whether all of it has arrived.
 *
 * Pure: does not depend on requests or rows.  Memory is palloc'd in the
 * current context.
 */
#ifndef YELP_SYNC_LISTING_H
#define YELP_SYNC_LISTING_H

typedef struct Listing Listing;

/* What is known so far. */
typedef struct ListingState
{
	int			stride;			/* programs to request per page */

	/* The totals reported by the pages */
	bool		total_known;
	int64		total;			/* the largest of them */
	bool		total_moved;	/* they differ */

	/* What has arrived */
	int64		pages;
	int64		rows;
	int64		last_end;		/* end of the last new program */
	bool		end_unknown;	/* what follows last_end cannot be fetched */
	int64		failed;			/* pages that cannot be fetched and are
								 * skipped */
} ListingState;

/* A page that has arrived. */
typedef struct ListingPage
{
	int64		offset;
	int			asked;			/* programs requested */
	int			count;			/* programs on it */
	int			fresh;			/* number of them that are new in this
								 * reading */
	int64		total;
	int64		limit;			/* as echoed by the API, or -1 */
} ListingPage;

/*
 * Begins a reading of a listing with the expected number of programs, 0 if
 * unknown; at least the first page is requested.  A strict reading does not
 * take a short page for the end, but looks past it.
 */
extern Listing *listing_create(int page_size, int64 expected, bool strict);

extern void listing_free(Listing *listing);

/* Valid as long as the listing, and changed by the functions below. */
extern const ListingState *listing_state(const Listing *listing);

/*
 * The next page to request; false if there is none for now.  For each page
 * returned, one of the next three functions must be called.
 */
extern bool listing_next(Listing *listing, int64 *offset, int *limit);

/* The page has arrived. */
extern void listing_add_page(Listing *listing, const ListingPage *page);

/* Its response is no longer needed. */
extern void listing_abandon_page(Listing *listing, int64 offset, int limit);

/*
 * The page did not arrive, and what that means can only be decided after all
 * others have been answered.  Then one of the functions below must be called.
 */
extern void listing_postpone_page(Listing *listing, int64 offset);

/* All others have been answered: postponed pages can now be decided. */
extern void listing_settle(Listing *listing);

/* The page failed before the total was known: it is requested again. */
extern void listing_ask_again(Listing *listing, int64 offset, int limit);

/* The API says that there is no such page: there is nothing. */
extern void listing_refuse_page(Listing *listing, int64 offset);

/* What follows the programs that have arrived cannot be fetched. */
extern void listing_lose_end(Listing *listing);

/* The page cannot be fetched and is skipped. */
extern void listing_fail_page(Listing *listing);

/*
 * The number of non-empty pages, as far as is known; excludes looks past the
 * last program.
 */
extern int64 listing_pages_expected(const Listing *listing);

/* The number of pages still to be requested, as far as is known. */
extern int64 listing_pages_left(const Listing *listing);

/* Is this offset past all programs that have arrived so far? */
extern bool listing_is_tail(const Listing *listing, int64 offset);

/* Is this offset past the end, which was seen?  Then no response is needed. */
extern bool listing_is_behind_end(const Listing *listing, int64 offset);

/* Is the listing known to end at this offset or before it? */
extern bool listing_ends_before(const Listing *listing, int64 offset);

/* Has the end of the listing been seen? */
extern bool listing_end_is_seen(const Listing *listing);

/* The offset of the first empty page that is followed by others, or -1. */
extern int64 listing_gap(const Listing *listing);

#endif							/* YELP_SYNC_LISTING_H */
