/*
 * retry_after_fuzz.c
 *	  Any headers at all to throttle_requested_wait().
 *
 * The first four bytes of an input are the time of day, in seconds.  A line with
 * the header Retry-After comes next, and one with the header Date may follow.
 */
#include "postgres.h"

#include "throttle.h"

#include "fuzz.h"

#define SECOND INT64CONST(1000000)
#define TEN_YEARS (INT64CONST(315360000) * SECOND)

static int64
parse(const char *value, const char *date, time_t now)
{
	HttpResponse response = {.retry_after = value,.date = date};
	int64		wait = throttle_requested_wait(&response, 0, now);

	fuzz_check(wait == -1 || (wait > 0 && wait <= TEN_YEARS),
			   "a wait is absent, or positive and at most ten years");
	return wait;
}

/* A wait in seconds is the same at any time, the one until a date is not. */
static void
check_clock(const char *value, time_t now)
{
	int64		wait = parse(value, NULL, now);
	int64		later = parse(value, NULL, now + 1);

	if (strspn(value, "0123456789.") == strlen(value))
		fuzz_check(later == wait, "seconds do not depend on the time of day");
	else if (wait > SECOND && wait < TEN_YEARS)
		fuzz_check(later == wait - SECOND, "a date comes nearer");
	else if (wait == SECOND)
		fuzz_check(later == -1, "a date that is now is no wait");
	else if (wait == -1)
		fuzz_check(later == -1, "a date that is over stays over");
}

/* The answer's own date is in the place of the time of day. */
static void
check_date(const char *value, const char *date, time_t now)
{
	int64		wait = parse(value, date, now);

	if (wait != parse(value, NULL, now))
		fuzz_check(wait == parse(value, date, now + 1000),
				   "with a date the time of day does not matter");
}

/* When a limit is reset may be any text as well. */
static void
check_reset(const char *value, const char *date, time_t now)
{
	HttpResponse response = {.status = 429,.rate_reset = value,.date = date};
	int64		wait = throttle_requested_wait(&response, TEN_YEARS, now);

	fuzz_check(wait == -1 || (wait > 0 && wait <= TEN_YEARS),
			   "a reset is ignored, or at most as far ahead as allowed");
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	uint32		now;
	char	   *value;
	char	   *line_end;

	if (size < sizeof(now))
		return 0;
	memcpy(&now, data, sizeof(now));
	value = fuzz_text(data + sizeof(now), size - sizeof(now));
	line_end = strchr(value, '\n');
	if (line_end)
		*line_end = '\0';
	check_clock(value, now);
	check_date(value, line_end ? line_end + 1 : NULL, now);
	check_reset(value, line_end ? line_end + 1 : NULL, now);

	fuzz_free_all();
	return 0;
}
