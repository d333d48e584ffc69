/*
 * listing.h
 *	  Track which parts of a listing have been requested and have arrived, and
 *	  whether its end was seen.
 *
 * Pure: does not depend on requests or rows.  Memory is palloc'd in the
 * current context.
 */
#ifndef YELP_SYNC_LISTING_H
#define YELP_SYNC_LISTING_H

typedef struct Listing Listing;

/* What is known so far */
typedef struct ListingState
{
	/* The totals that the pages report */
	int64		total;			/* the largest of them, or -1 */
	bool		total_known;	/* the first page has arrived */
	bool		total_moved;	/* they differ */

	/* What has arrived */
	int64		pages;
	int64		rows;			/* programs on them, repeated ones included */
	int64		last;			/* end of the last program */
	int64		failed;			/* pages that cannot be fetched and are
								 * skipped */
} ListingState;

typedef struct ListingRequest
{
	int64		offset;
	int			limit;
	bool		look;			/* only serves to see the end */
} ListingRequest;

/* The response to a request */
typedef struct ListingPage
{
	int			count;			/* programs on it */
	int			fresh;			/* number of them that are new in this reading */
	int64		total;			/* -1: not reported */
	uint64		first_id;		/* hashes of IDs */
	uint64		last_id;
} ListingPage;

/* What a page that cannot be fetched means */
typedef enum ListingVerdict
{
	LISTING_PAST_END,			/* nothing */
	LISTING_MISSING,			/* its programs are missing */
	LISTING_REFUSED				/* the API refuses an offset that should exist */
} ListingVerdict;

/*
 * Begins a reading of a listing with the expected number of programs, 0 if
 * unknown.  If it is known, a page that only a total promises that is not
 * trusted need not exist.
 */
extern Listing *listing_create(int page_size, int64 expected, bool trust_total);

extern void listing_free(Listing *listing);

/* Valid as long as the listing, and changed by the functions below. */
extern const ListingState *listing_state(const Listing *listing);

/* Is there anything to request now? */
extern bool listing_has_next(Listing *listing);

/* Is the next request a look that may show the end now? */
extern bool listing_has_look(const Listing *listing);

/*
 * The next request; false if there is none for now.  For each, one of the next
 * two functions must be called.
 */
extern bool listing_next(Listing *listing, ListingRequest *request);

extern void listing_add_page(Listing *listing, const ListingRequest *request,
							 const ListingPage *page);

/* All attempts failed. */
extern void listing_fail_page(Listing *listing, const ListingRequest *request);

/* Is the end proved?  Then no more responses are needed. */
extern bool listing_end_is_seen(const Listing *listing);

/* Does the listing go on behind the request, which failed? */
extern bool listing_lacks(const Listing *listing, const ListingRequest *request);

/*
 * What a request that failed means, once nothing is left to request or the
 * end has been seen.  The API may have refused it, by saying that there is
 * something wrong with it.
 */
extern ListingVerdict listing_judge(const Listing *listing,
									const ListingRequest *request, bool refused);

/* The page is missing, and is skipped. */
extern void listing_skip_page(Listing *listing, const ListingRequest *request);

/* The offset of the first empty page that is followed by programs, or -1. */
extern int64 listing_gap(const Listing *listing);

/* The number of pages with programs, as far as is known. */
extern int64 listing_pages_expected(const Listing *listing);

#endif							/* YELP_SYNC_LISTING_H */
