/*
 * fetch.c
 *	  All programs of an account, as rows, and whether they are all.
 *
 * The listing can move while it is read: it has no cursor.  A reading shows all
 * that is listed when every page arrived and answered what was asked, the end
 * was seen, all pages reported the same total, and as many distinct programs
 * arrived as that.  A reading that leaves a doubt which another one may settle
 * is followed by a second one.
 *
 * Even a reading without doubt can err: when one program vanishes and another
 * appears while the pages in between are read, the total stays, and the program
 * that slipped to an earlier page is missed.  So where stored programs are not
 * listed the listing is read again, until two readings in a row brought the same
 * programs.  Only then is anything deleted.  These readings are strict: what
 * seems to be the last page, because it is short, is looked behind.
 *
 * The same where the total, which is not trusted, exceeds what is listed by
 * another number than last time: it may count wrongly, or a page may have
 * arrived empty.
 */
#include "postgres.h"

#include "fetch.h"

#include "clock.h"
#include "paginator.h"

/* Give up after so many readings of a listing that keeps changing */
#define MAX_READINGS 3

StaticAssertDecl(MAX_READINGS <= KNOWN_MAX_PASS, "a mark must hold every pass");

struct Fetch
{
	Paginator  *paginator;
	Progress   *progress;
	bool		trust_total;
	int64		started;
	Fetched		fetched;
};

/*
 * Did pages not answer what was asked?  Behind the last program an API may serve
 * one of its pages once more; but where the total speaks of more programs, it
 * may not have understood what was asked.
 */
static bool
is_mismatch(const Reading *reading, ProgramSet programs)
{
	return reading->mismatch &&
		(!reading->turns_back || programs.count < reading->total);
}

/* What keeps a reading from showing all that is listed. */
static FetchDoubt
doubt_of(const Fetch *fetch, const Reading *reading, ProgramSet programs)
{
	if (reading->failed_pages > 0)
		return DOUBT_FAILED_PAGES;
	if (reading->skipped > 0)
		return DOUBT_SKIPPED;
	if (!reading->end_seen)
		return DOUBT_END;
	if (is_mismatch(reading, programs))
		return DOUBT_MISMATCH;
	if (reading->gap >= 0)
		return DOUBT_GAP;
	if (fetch->trust_total && programs.count < reading->total)
		return DOUBT_FEWER;
	if (reading->total_moved)
		return DOUBT_MOVING;
	return DOUBT_NONE;
}

/*
 * Reads the listing once.  If it brought what the reading before did, the two
 * confirm each other, and the rows of the last one count; else those of all.
 */
static void
read_listing(Fetch *fetch, int64 expected)
{
	Fetched    *fetched = &fetch->fetched;
	ProgramSet	before = fetched->programs;

	staging_begin_pass(&fetched->staging);
	fetched->reading = paginator_fetch(fetch->paginator, expected,
									   fetched->staging.pass > 1);
	fetched->programs = staging_end_pass(&fetched->staging);
	fetched->pages += fetched->reading.pages;
	fetched->failed_pages += fetched->reading.failed_pages;

	fetched->confirmed = fetched->staging.pass > 1 &&
		program_set_equal(before, fetched->programs);
	fetched->first_pass = fetched->confirmed ? fetched->staging.pass : 1;
	fetched->repeats = fetched->first_pass < fetched->staging.pass ||
		fetched->staging.arrived > fetched->programs.count;
	fetched->doubt = doubt_of(fetch, &fetched->reading, fetched->programs);
	if (fetched->doubt == DOUBT_MOVING && fetched->confirmed)
		fetched->doubt = DOUBT_NONE;
}

static void
read_again(Fetch *fetch, const char *why)
{
	progress_again(fetch->progress, why);
	read_listing(fetch, Max(fetch->fetched.reading.total,
							fetch->fetched.programs.count));
}

/*
 * May another reading show more than this one?  Not where the total exceeds the
 * programs by as much as last time, when two readings could not settle it, and
 * nothing is missing.
 */
static bool
is_worth_another(const Fetched *fetched, int64 surplus, FetchLacks lacks, void *arg)
{
	switch (fetched->doubt)
	{
		case DOUBT_MISMATCH:
		case DOUBT_GAP:
		case DOUBT_MOVING:
			return true;
		case DOUBT_FEWER:
			return fetched->reading.total - fetched->programs.count != surplus ||
				lacks(arg, fetched);
		default:
			return false;
	}
}

/* Why a reading without doubt needs another one to confirm it, or NULL. */
static const char *
what_to_confirm(const Fetched *fetched, int64 surplus, FetchLacks lacks, void *arg)
{
	int64		exceeds = fetched->reading.total - fetched->programs.count;

	if (lacks(arg, fetched))
		return "programs seem to be gone";
	if (exceeds > 0 && exceeds != surplus)
		return "it is inconsistent";
	return NULL;
}

static void
tell_done(const Fetch *fetch)
{
	const Fetched *fetched = &fetch->fetched;
	ProgressPages pages = {
		.completed = fetched->reading.pages,
		.total = fetched->reading.pages + fetched->reading.failed_pages,
		.programs = fetched->programs.count,
		.retries = fetched->counts.retries,
	};

	progress_fetch_done(fetch->progress, &pages, fetched->elapsed);
}

Fetched    *
fetch_programs(Fetch *fetch, FetchExpected expected, FetchLacks lacks, void *arg)
{
	Fetched    *fetched = &fetch->fetched;
	const char *why;

	read_listing(fetch, expected.programs);
	if (is_worth_another(fetched, expected.surplus, lacks, arg))
		read_again(fetch, "it is inconsistent");
	while (fetched->doubt == DOUBT_NONE && !fetched->confirmed &&
		   (why = what_to_confirm(fetched, expected.surplus, lacks, arg)) != NULL)
	{
		if (fetched->staging.pass < MAX_READINGS)
			read_again(fetch, why);
		else
			fetched->doubt = DOUBT_MOVING;
	}
	staging_finish(&fetched->staging);
	fetched->counts = paginator_counts(fetch->paginator);
	fetched->elapsed = clock_us() - fetch->started;
	tell_done(fetch);
	return fetched;
}

Fetch	   *
fetch_create(const Account *account, Known *known, Progress *progress)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->progress = progress;
	fetch->trust_total = account->trust_total;
	fetch->started = clock_us();
	staging_init(&fetch->fetched.staging, known);
	fetch->paginator = paginator_create(account, known,
										&fetch->fetched.staging, progress);
	return fetch;
}
