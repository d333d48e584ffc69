/*
 * fetch.c
 *	  All programs of an account, as rows, and whether they are all.
 *
 * The listing can move while it is read: it has no cursor.  A pass proves what
 * it shows when every page came, all told the same total, and as many distinct
 * programs came as that.  A pass that does not is followed by a second one.
 *
 * Even a proof can err: when one program vanishes and another appears while
 * the pages in between are read, the total stays, and the program that slipped
 * to an earlier page is missed.  So where programs seem to be gone the caller
 * has the listing fetched again, until two passes in a row brought the same
 * programs: that confirms them, and only then is anything deleted.
 */
#include "postgres.h"

#include "fetch.h"

#include "clock.h"
#include "paginator.h"

struct Fetch
{
	Paginator  *paginator;
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

	staging_begin_pass(&fetched->staging);
	fetch->listing = paginator_fetch(fetch->paginator, expected);
	fetched->pages += fetch->listing->pages;
	fetched->failed_pages += fetch->listing->failed;
	return staging_end_pass(&fetched->staging);
}

static bool
is_proven(const Fetch *fetch, ProgramSet programs)
{
	return listing_is_whole(fetch->listing) &&
		programs.count == fetch->listing->total;
}

/*
 * Do the programs that two passes brought alike prove that there are no others?
 * Not if a page stayed away or empty, if fewer came than the total, or if the
 * total was wrong and the end not seen.
 */
static bool
is_believable(const Fetch *fetch, ProgramSet programs)
{
	const Listing *listing = fetch->listing;

	return listing->failed == 0 && listing->holes == 0 &&
		programs.count >= listing->total &&
		(!listing->moved || listing->end_seen);
}

/*
 * Notes what a pass brought, and which rows count: those of the last pass where
 * it brought what the one before it did, else those of all.
 */
static void
note_pass(Fetch *fetch, ProgramSet programs, bool confirmed)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->first_pass = confirmed ? fetched->staging.pass : 1;
	fetched->repeats = fetched->first_pass < fetched->staging.pass ||
		fetch->listing->rows > programs.count;
	fetched->programs = programs;
	fetched->last_pages = fetch->listing->pages;
	fetched->total = fetch->listing->total;
	fetched->proven = is_proven(fetch, programs);
	fetched->confirmed = confirmed;
}

Fetched    *
fetch_programs(Fetch *fetch, int64 expected)
{
	Fetched    *fetched = &fetch->fetched;

	note_pass(fetch, fetch_pass(fetch, expected), false);
	if (!fetched->proven && fetched->failed_pages == 0 &&
		!listing_is_vain(fetch->listing))
		fetch_again(fetch, "it does not show what it tells of");
	return fetched;
}

void
fetch_again(Fetch *fetch, const char *why)
{
	Fetched    *fetched = &fetch->fetched;
	ProgramSet	before = fetched->programs;
	ProgramSet	now;

	progress_again(why);
	now = fetch_pass(fetch, Max(fetched->total, before.count));
	note_pass(fetch, now, program_set_equal(before, now));
	if (fetched->confirmed && is_believable(fetch, now))
		fetched->proven = true;
}

Fetch	   *
fetch_create(const Account *account, const Known *known, Progress *progress)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->progress = progress;
	fetch->started = clock_us();
	staging_init(&fetch->fetched.staging);
	fetch->paginator = paginator_create(account, known, &fetch->fetched.staging, progress);
	return fetch;
}

void
fetch_end(Fetch *fetch)
{
	Fetched    *fetched = &fetch->fetched;

	fetched->counts = paginator_counts(fetch->paginator);
	fetched->elapsed = clock_us() - fetch->started;
	progress_fetch_done(fetch->progress, fetched->last_pages,
						fetched->programs.count, fetched->counts.retries,
						fetched->elapsed);
}
