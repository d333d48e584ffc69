/*
 * reading.c
 *	  The result of one reading of a listing, and whether its pages are the
 *	  ones requested.
 */
#include "postgres.h"

#include "reading.h"

#include "fetch_error.h"
#include "text.h"

/* Bytes of a page's program_status that a message shows */
#define MAX_SHOWN_STATUS 64

void
reading_begin(ReadingNotes *notes, const char *program_status, MemoryContext context)
{
	memset(notes, 0, sizeof(ReadingNotes));
	notes->program_status = program_status;
	notes->context = context;
	echo_init(&notes->echo);
}

/* Notes the first page with a status filter other than requested. */
static void
compare_status(ReadingNotes *notes, int64 offset, const ProgramPage *page)
{
	char	   *mismatch;

	if (notes->mismatch || page->status == NULL ||
		pg_strcasecmp(page->status, notes->program_status) == 0)
		return;
	mismatch = psprintf("The page at offset " INT64_FORMAT
						" reports program_status \"%s\" instead of \"%s\".",
						offset,
						text_shown(page->status, strlen(page->status), MAX_SHOWN_STATUS),
						notes->program_status);
	notes->mismatch = MemoryContextStrdup(notes->context, mismatch);
}

static void
note_skipped(ReadingNotes *notes, int64 offset, const ProgramPage *page)
{
	if (page->skipped > 0 && notes->skip_reason == NULL)
		notes->skip_reason =
			MemoryContextStrdup(notes->context,
								psprintf("On the page at offset " INT64_FORMAT ", %s.",
										 offset, page->skip_reason));
	notes->skipped += page->skipped;
}

/* An empty page repeats no other, whatever it echoes. */
static void
note_echo(ReadingNotes *notes, int64 offset, int limit, const ProgramPage *page)
{
	EchoPage	echo = {
		.offset = offset,
		.limit = limit,
		.count = page->count,
		.echoed_offset = page->offset,
		.echoed_limit = page->limit,
	};

	if (page->count > 0)
		echo_add(&notes->echo, &echo);
}

void
reading_add_page(ReadingNotes *notes, int64 offset, int limit, const ProgramPage *page)
{
	compare_status(notes, offset, page);
	note_skipped(notes, offset, page);
	note_echo(notes, offset, limit, page);
}

static char *
describe_echo(const ReadingNotes *notes)
{
	char	   *mismatch = psprintf("The page at offset " INT64_FORMAT
									" reports offset " INT64_FORMAT ".",
									notes->echo.asked, notes->echo.echoed);

	return MemoryContextStrdup(notes->context, mismatch);
}

Reading
reading_end(const ReadingNotes *notes, const Listing *listing, int64 programs)
{
	const ListingState *state = listing_state(listing);
	EchoVerdict echo = echo_verdict(&notes->echo, programs);
	Reading		reading = {
		.total = state->total,
		.pages = state->pages,
		.failed_pages = state->failed,
		.skipped = notes->skipped,
		.skip_reason = notes->skip_reason,
		.total_moved = state->total_moved,
		.end_seen = listing_end_is_seen(listing),
		.gap = listing_gap(listing),
		.mismatch = notes->mismatch,
	};

	if (echo != ECHO_FITS && reading.mismatch == NULL)
	{
		reading.mismatch = describe_echo(notes);
		reading.turns_back = echo == ECHO_TURNS_BACK;
	}
	return reading;
}
