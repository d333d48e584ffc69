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
 * readings return the same programs.  Only then is anything deleted.
 *
 * The same is done if an untrusted total exceeds the number of listed
 * programs by a different number than last time: the total may be wrong, or a
 * page may have been empty by mistake.
 */
#include "postgres.h"

#include "fetch.h"

#include "compat.h"

/* The reason why the reading may be incomplete. */
static FetchDoubt
doubt_of(const Reading *reading, int64 programs, bool trust_total)
{
	if (reading->failed_pages > 0)
		return DOUBT_FAILED_PAGES;
	if (reading->skipped > 0)
		return DOUBT_SKIPPED;
	if (reading->refused)
		return DOUBT_REFUSED;
	if (!reading->end_seen)
		return DOUBT_END;
	if (reading->mismatch)
		return DOUBT_MISMATCH;
	if (reading->gap >= 0)
		return DOUBT_GAP;
	if (trust_total && programs < reading->total)
		return DOUBT_FEWER;
	if (reading->total_moved || programs < reading->positions)
		return DOUBT_MOVING;
	return DOUBT_NONE;
}

/*
 * Reads the listing once.  If this returns the same programs as the previous
 * reading, the two confirm each other, and only the rows of the last one are
 * used; otherwise, those of all readings.
 */
static void
read_listing(Fetched *fetched, Paginator *paginator, int64 expected, bool trust_total)
{
	Programs   *programs = fetched->programs;
	int64		before = programs->listed;
	uint64		digest = programs->digest;

	programs_begin_reading(programs);
	fetched->reading = paginator_fetch(paginator, expected);
	fetched->pages += fetched->reading.pages;
	fetched->failed_pages += fetched->reading.failed_pages;

	fetched->confirmed = programs->reading > 1 &&
		before == programs->listed && digest == programs->digest;
	programs->first_reading = fetched->confirmed ? programs->reading : 1;
	fetched->doubt = doubt_of(&fetched->reading, programs->listed, trust_total);
	if (fetched->doubt == DOUBT_MOVING && fetched->confirmed)
		fetched->doubt = DOUBT_NONE;
}

/*
 * Why another reading may prove more than this one, or NULL.  It does not if
 * the total exceeds the programs by as much as last time, which two readings
 * could not resolve, and no stored program is missing.
 */
static const char *
why_again(const Fetched *fetched, int64 surplus, bool lists_all)
{
	int64		excess = fetched->reading.total - fetched->programs->listed;
	bool		lacks = lists_all && programs_count_unlisted(fetched->programs) > 0;
	bool		first = fetched->programs->reading == 1;

	switch (fetched->doubt)
	{
		case DOUBT_NONE:
			if (fetched->confirmed)
				return NULL;
			if (lacks)
				return "programs seem to be gone";
			return excess > 0 && excess != surplus ? "it is inconsistent" : NULL;
		case DOUBT_END:
			return first && fetched->reading.failure == NULL ? "its end was not seen" : NULL;
		case DOUBT_FEWER:
			return first && (lacks || excess != surplus) ? "it is inconsistent" : NULL;
		case DOUBT_MISMATCH:
		case DOUBT_GAP:
		case DOUBT_MOVING:
			return first ? "it is inconsistent" : NULL;
		default:
			return NULL;
	}
}

Fetched    *
fetch_programs(const Account *account, Programs *programs, Progress *progress,
			   FetchExpected expected)
{
	Fetched    *fetched = palloc0(sizeof(Fetched));
	int64		started = clock_us();
	bool		lists_all = account->program_status == PROGRAM_STATUS_ALL;
	Paginator  *paginator;
	const char *why;

	fetched->programs = programs;
	paginator = paginator_create(account, programs, progress);
	read_listing(fetched, paginator, expected.programs, account->trust_total);
	while ((why = why_again(fetched, expected.surplus, lists_all)) != NULL)
	{
		if (programs->reading == PROGRAMS_MAX_READINGS)
		{
			fetched->doubt = DOUBT_MOVING;
			break;
		}
		progress_again(progress, why);
		read_listing(fetched, paginator, programs->listed, account->trust_total);
	}

	fetched->elapsed = clock_us() - started;
	progress->row.completed = fetched->reading.pages;
	progress->row.total = fetched->reading.pages + fetched->reading.failed_pages;
	progress->row.programs = programs->listed;
	progress->row.in_flight = 0;
	progress_fetch_done(progress, fetched->elapsed);
	return fetched;
}
