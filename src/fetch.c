/*
 * fetch.c
 *	  Fetch all programs of an account, and determine whether the listing is
 *	  complete.
 *
 * The listing can change while it is being read, because it has no cursor.  A
 * reading is complete if every page arrived and is the one requested, the end
 * was seen, all pages reported the same total, and that many distinct
 * programs arrived.  If a reading leaves a doubt that another one may
 * resolve, the listing is read again.
 *
 * Even a reading without doubt can be wrong: if one program disappears and
 * another appears while the pages between them are read, the total is
 * unchanged, and a program that moved to an earlier page is missed.  So if
 * stored programs are not listed, the listing is read until two consecutive
 * readings return the same programs.  Only then is anything deleted.  These
 * readings are strict: they also check past a page that seems to be the last
 * because it is short.
 *
 * The same is done if an untrusted total exceeds the number of listed
 * programs by a different number than last time: the total may be wrong, or a
 * page may have been empty by mistake.
 */
#include "postgres.h"

#include "fetch.h"

#include "clock.h"
#include "paginator.h"

struct Fetch
{
	Paginator  *paginator;
	Progress   *progress;
	bool		trust_total;
	int64		started;
	Fetched		fetched;
};

/*
 * Are the pages not those requested?  Past the last program, an API may serve
 * one of its pages again; but if the total promises more programs, the API
 * may not have understood the request.
 */
static bool
is_mismatch(const Reading *reading, ProgramSet programs)
{
	return reading->mismatch &&
		(!reading->turns_back || programs.count < reading->total);
}

/* The reason why the reading may be incomplete. */
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
 * Reads the listing once.  If this returns the same programs as the previous
 * reading, the two confirm each other, and only the rows of the last one are
 * used; otherwise, those of all readings.
 */
static void
read_listing(Fetch *fetch, int64 expected)
{
	Fetched    *fetched = &fetch->fetched;
	Programs   *programs = fetched->programs;
	ProgramSet	before = programs->listed;

	programs_begin_reading(programs);
	fetched->reading = paginator_fetch(fetch->paginator, expected,
									   programs->reading > 1);
	fetched->pages += fetched->reading.pages;
	fetched->failed_pages += fetched->reading.failed_pages;

	fetched->confirmed = programs->reading > 1 &&
		before.count == programs->listed.count && before.digest == programs->listed.digest;
	programs->first_reading = fetched->confirmed ? programs->reading : 1;
	fetched->doubt = doubt_of(fetch, &fetched->reading, programs->listed);
	if (fetched->doubt == DOUBT_MOVING && fetched->confirmed)
		fetched->doubt = DOUBT_NONE;
}

static void
read_again(Fetch *fetch, const char *why)
{
	progress_again(fetch->progress, why);
	read_listing(fetch, Max(fetch->fetched.reading.total,
							fetch->fetched.programs->listed.count));
}

/*
 * Could another reading be more complete than this one?  Not if the total
 * exceeds the programs by as much as last time, which two readings could not
 * resolve, and no stored program is missing.
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
			return fetched->reading.total - fetched->programs->listed.count != surplus ||
				lacks(arg, fetched);
		default:
			return false;
	}
}

/* Why a reading without doubt needs to be confirmed, or NULL. */
static const char *
what_to_confirm(const Fetched *fetched, int64 surplus, FetchLacks lacks, void *arg)
{
	int64		exceeds = fetched->reading.total - fetched->programs->listed.count;

	if (lacks(arg, fetched))
		return "programs seem to be gone";
	if (exceeds > 0 && exceeds != surplus)
		return "it is inconsistent";
	return NULL;
}

static void
report_done(const Fetch *fetch)
{
	const Fetched *fetched = &fetch->fetched;
	ProgressPages pages = {
		.completed = fetched->reading.pages,
		.total = fetched->reading.pages + fetched->reading.failed_pages,
		.programs = fetched->programs->listed.count,
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
		if (fetched->programs->reading < PROGRAMS_MAX_READINGS)
			read_again(fetch, why);
		else
			fetched->doubt = DOUBT_MOVING;
	}
	fetched->counts = paginator_counts(fetch->paginator);
	fetched->elapsed = clock_us() - fetch->started;
	report_done(fetch);
	return fetched;
}

Fetch	   *
fetch_create(const Account *account, Programs *programs, Progress *progress)
{
	Fetch	   *fetch = palloc0(sizeof(Fetch));

	fetch->progress = progress;
	fetch->trust_total = account->trust_total;
	fetch->started = clock_us();
	fetch->fetched.programs = programs;
	fetch->paginator = paginator_create(account, programs, progress);
	return fetch;
}
