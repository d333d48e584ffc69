/*
 * listing.h
 *	  Which parts of a listing were asked for, where it ends, and whether all
 *	  of it arrived.
 *
 * Pure: knows neither requests nor rows.  Memory is palloc'd in the current
 * context.
 */
#ifndef YELP_SYNC_LISTING_H
#define YELP_SYNC_LISTING_H

typedef struct Listing Listing;

/* What is known so far, for callers to look at. */
typedef struct ListingState
{
	int			stride;			/* programs to ask for per page */

	/* The totals that the pages report */
	bool		total_known;
	int64		total;			/* the largest of them */
	bool		total_moved;	/* they differ */

	/* What arrived */
	int64		pages;
	int64		rows;
	int64		last_end;		/* behind the last program that was new */
	bool		end_unknown;	/* what lies behind last_end cannot be had */
	int64		failed;			/* pages that could not be had and are skipped */
} ListingState;

/* What a page reports and holds. */
typedef struct ListingPage
{
	int64		offset;
	int			asked;			/* programs asked for */
	int			count;			/* programs on it */
	int			fresh;			/* of these, new in this reading */
	int64		total;
	int64		limit;			/* the API's echo, or -1 */
} ListingPage;

/*
 * Begins a reading of a listing that is expected to have so many programs, 0
 * for unknown: at least the first page is asked for.  A strict one does not take
 * a short page for the end, but looks behind it.
 */
extern Listing *listing_create(int page_size, int64 expected, bool strict);

extern void listing_free(Listing *listing);

/* Valid as long as the listing, and changed by the functions below. */
extern const ListingState *listing_state(const Listing *listing);

/*
 * The next page to ask for; false when there is none, for now.  Each page that
 * is handed out is answered by one of the next three functions.
 */
extern bool listing_next(Listing *listing, int64 *offset, int *limit);

/* The page arrived. */
extern void listing_add_page(Listing *listing, const ListingPage *page);

/* Its answer is no longer waited for. */
extern void listing_abandon_page(Listing *listing, int64 offset, int limit);

/*
 * The page did not arrive, and only when all others are answered will it show
 * what that means.  Then one of these says it.
 */
extern void listing_postpone_page(Listing *listing, int64 offset);

/* All others are answered: now it is said of each postponed page. */
extern void listing_settle(Listing *listing);

/* The page failed before anything was known: it is asked for once more. */
extern void listing_ask_again(Listing *listing, int64 offset, int limit);

/* The API says that there is no such page: nothing lies there. */
extern void listing_refuse_page(Listing *listing, int64 offset);

/* What lies behind the programs that arrived cannot be had. */
extern void listing_lose_end(Listing *listing);

/* The page cannot be had and is skipped. */
extern void listing_fail_page(Listing *listing);

/* Pages with programs on them, by what is known now; a look behind the last is none. */
extern int64 listing_pages_expected(const Listing *listing);

/* Pages that are still to be asked for, by what is known now. */
extern int64 listing_pages_left(const Listing *listing);

/* Is this offset behind all programs that arrived so far? */
extern bool listing_is_tail(const Listing *listing, int64 offset);

/* Is this offset behind the end, which was seen?  Then no answer is needed. */
extern bool listing_is_behind_end(const Listing *listing, int64 offset);

/* Was it seen that the listing ends at this offset or before it? */
extern bool listing_ends_before(const Listing *listing, int64 offset);

/* Was it seen where the listing ends? */
extern bool listing_end_is_seen(const Listing *listing);

/*
 * Is there a page without programs with others behind it?  The offset of the
 * first one, or -1.
 */
extern int64 listing_gap(const Listing *listing);

#endif							/* YELP_SYNC_LISTING_H */
