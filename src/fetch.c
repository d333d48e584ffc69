/*
 * fetch.c
 *	  All programs of an account, as rows, and whether they are all.
 *
 * The listing can move while it is read: it has no cursor.  A pass proves what
 * it shows when every page came, all told the same total, and as many distinct
 * programs came as that.  A pass that does not is followed by a second one.
 * When the two brought the same programs, and as many as were told of, they are
 * believed; else the rows of both are used, and what is in neither is not taken
 * for gone.
 *
 * Even a proof can err: when one program vanishes and another appears while
 * the pages in between are read, the total stays, and the program that slipped
 * to an earlier page is missed.  So before anything is deleted the caller has
 * the listing fetched once more, unless it was already (fetch_confirm).
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
 * Not if a page stayed away or empty, or if fewer came than the total.
 */
static bool
is_confirmed(const Fetch *fetch, ProgramSet first, ProgramSet second)
{
	const Listing *listing = fetch->listing;

	return rows_same_set(first, second) &&
		listing->failed == 0 && listing->holes == 0 &&
		second.count >= listing->total;
}

/* Notes what a pass brought; the rows of those before it may count as well. */
static void
note_pass(Fetch *fetch, ProgramSet programs, int first_pass, bool proven)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->first_pass = first_pass;
	fetched->repeats = first_pass < fetched->rows.pass ||
		fetch->listing->rows > programs.count;
	fetched->programs = programs;
	fetched->total = fetch->listing->total;
	fetched->proven = proven;
}

Fetched *
fetch_programs(Fetch *fetch, int64 expected)
{
	ProgramSet	first = fetch_pass(fetch, expected);
	ProgramSet	second;
	bool		proven = is_proven(fetch, first);

	note_pass(fetch, first, 1, proven);
	if (proven || fetch->listing->failed > 0)
		return &fetch->fetched;

	progress_again("it does not show as many programs as it tells of");
	second = fetch_pass(fetch, fetch->listing->total);
	proven = is_proven(fetch, second) || is_confirmed(fetch, first, second);
	note_pass(fetch, second, proven ? 2 : 1, proven);
	return &fetch->fetched;
}

void
fetch_confirm(Fetch *fetch)
{
	ProgramSet	first = fetch->fetched.programs;
	ProgramSet	second;
	bool		proven;

	if (fetch->fetched.rows.pass > 1)
		return;
	progress_again("programs seem to be gone");
	second = fetch_pass(fetch, fetch->listing->total);
	proven = rows_same_set(first, second) && is_proven(fetch, second);
	note_pass(fetch, second, proven ? 2 : 1, proven);
}

Fetch *
fetch_open(const Account *account, Progress *progress)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->progress = progress;
	fetch->started = clock_us();
	rows_init(&fetch->fetched.rows);
	fetch->pages = pages_open(account, &fetch->fetched.rows, progress);
	return fetch;
}

void
fetch_close(Fetch *fetch)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->counts = pages_close(fetch->pages);
	fetched->elapsed = clock_us() - fetch->started;
	progress_fetch_done(fetch->progress, fetched->pages,
						fetched->programs.count, fetched->counts.retries,
						fetched->elapsed);
}
