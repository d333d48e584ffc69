/*
 * retry_after_fuzz.c
 *	  Arbitrary headers for fetch_error_requested_wait().
 *
 * The first four bytes of an input are the time of day, in seconds.  A line with
 * the header Retry-After comes next, and one with the header Date may follow.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "fuzz.h"

#define SECOND INT64CONST(1000000)
#define TEN_YEARS (INT64CONST(315360000) * SECOND)

static int64
wait_for(const char *retry_after, const char *rate_reset, const char *date, time_t now)
{
	HttpResponse response = {
		.status = 429,.retry_after = retry_after,.rate_reset = rate_reset,.date = date
	};
	int64		wait = fetch_error_requested_wait(&response, TEN_YEARS, now);

	fuzz_check(wait == -1 || (wait > 0 && wait <= TEN_YEARS),
			   "a wait is absent, or positive and at most ten years");
	return wait;
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	uint32		seconds;
	time_t		now;
	char	   *value;
	char	   *date;
	int64		wait;
	int64		later;
	int64		dated;

	if (size < sizeof(seconds))
		return 0;
	memcpy(&seconds, data, sizeof(seconds));
	now = seconds;
	value = fuzz_text(data + sizeof(seconds), size - sizeof(seconds));
	date = strchr(value, '\n');
	if (date)
		*date++ = '\0';

	wait = wait_for(value, NULL, NULL, now);
	later = wait_for(value, NULL, NULL, now + 1);
	if (strspn(value, "0123456789.") == strlen(value))
		fuzz_check(later == wait, "seconds do not depend on the time of day");
	else if (wait > SECOND && wait < TEN_YEARS)
		fuzz_check(later == wait - SECOND, "a date comes nearer");
	else if (wait <= SECOND)
		fuzz_check(later == -1, "a date that has passed is no wait");

	dated = wait_for(value, NULL, date, now);
	fuzz_check(dated == wait || dated == wait_for(value, NULL, date, now + 1000),
			   "with a date the time of day does not matter");
	(void) wait_for(NULL, value, date, now);
	fuzz_free_all();
	return 0;
}
