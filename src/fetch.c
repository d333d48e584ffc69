/*
 * fetch.c
 *	  All programs of an account, as rows, and whether they are all.
 *
 * The listing can move while it is read: it has no cursor.  A pass proves what
 * it shows when every page came, all told the same total, and as many distinct
 * programs came as that.  A pass that does not is followed by a second one.
 * Where that proves nothing either, the two are believed when they brought the
 * same programs, and as many as the API tells of.
 *
 * Even a proof can err: when one program vanishes and another appears while
 * the pages in between are read, the total stays, and the program that slipped
 * to an earlier page is missed.  So nothing is deleted on a single pass: where
 * programs seem to be gone the caller has the listing fetched once more, and
 * what either pass showed is not gone.
 */
#include "postgres.h"

#include "fetch.h"

#include "clock.h"
#include "pages.h"

struct Fetch
{
	Pages	   *pages;
	Progress   *progress;
	int64		started;
	const Listing *listing;		/* of the last pass */
	Fetched		fetched;
};

/* Fetches the whole listing once; returns the programs that it showed. */
static ProgramSet
fetch_pass(Fetch *fetch, int64 expected)
{
	Fetched    *fetched = &fetch->fetched;

	rows_begin_pass(&fetched->rows);
	fetch->listing = pages_fetch(fetch->pages, expected);
	fetched->pages += fetch->listing->pages;
	fetched->failed_pages += fetch->listing->failed;
	return rows_end_pass(&fetched->rows);
}

static bool
is_proven(const Fetch *fetch, ProgramSet programs)
{
	return listing_is_whole(fetch->listing) &&
		programs.count == fetch->listing->total;
}

/*
 * Do two passes that brought the same programs prove that there are no others?
 * Not if a page stayed away or empty, if fewer came than the total, or if the
 * total was wrong and the end not seen.
 */
static bool
is_confirmed(const Fetch *fetch, ProgramSet first, ProgramSet second)
{
	const Listing *listing = fetch->listing;

	return rows_same_set(first, second) &&
		listing->failed == 0 && listing->holes == 0 &&
		second.count >= listing->total &&
		(!listing->moved || listing->end_seen);
}

/*
 * Notes what a pass brought, and which rows count: those of the last pass where
 * it brought what the one before it did, else those of both.
 */
static void
note_pass(Fetch *fetch, ProgramSet programs, bool same_as_before)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->first_pass = same_as_before ? fetched->rows.pass : 1;
	fetched->repeats = fetched->first_pass < fetched->rows.pass ||
		fetch->listing->rows > programs.count;
	fetched->programs = programs;
	fetched->last_pages = fetch->listing->pages;
	fetched->total = fetch->listing->total;
	fetched->proven = is_proven(fetch, programs);
}

Fetched *
fetch_programs(Fetch *fetch, int64 expected)
{
	Fetched    *fetched = &fetch->fetched;

	note_pass(fetch, fetch_pass(fetch, expected), true);
	if (!fetched->proven && fetched->failed_pages == 0 &&
		!listing_is_vain(fetch->listing))
		fetch_again(fetch, "it does not show what it tells of");
	return fetched;
}

void
fetch_again(Fetch *fetch, const char *why)
{
	Fetched    *fetched = &fetch->fetched;
	ProgramSet	first = fetched->programs;
	ProgramSet	second;

	progress_again(why);
	second = fetch_pass(fetch, Max(fetched->total, first.count));
	note_pass(fetch, second, rows_same_set(first, second));
	fetched->proven = fetched->proven || is_confirmed(fetch, first, second);
}

Fetch *
fetch_create(const Account *account, Progress *progress)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->progress = progress;
	fetch->started = clock_us();
	rows_init(&fetch->fetched.rows);
	fetch->pages = pages_create(account, &fetch->fetched.rows, progress);
	return fetch;
}

void
fetch_end(Fetch *fetch)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->counts = pages_counts(fetch->pages);
	fetched->elapsed = clock_us() - fetch->started;
	progress_fetch_done(fetch->progress, fetched->last_pages,
						fetched->programs.count, fetched->counts.retries,
						fetched->elapsed);
}
