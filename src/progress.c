/*
 * progress.c
 *	  How a sync goes, as NOTICEs for people or for programs.
 */
#include "postgres.h"

#include "progress.h"

#include "utils/json.h"

#include "clock.h"

/* At most ten messages a second, and one every five seconds at least */
#define MIN_INTERVAL (100 * USECS_PER_MSEC)
#define MAX_INTERVAL (5000 * USECS_PER_MSEC)

#define SECONDS(us) ((us) / 1000000.0)

int			progress_format = PROGRESS_TEXT;

/* The fields are the inside of a JSON object with a comma after each. */
static char *
json_event(const char *type, const char *fields, const char *message)
{
	StringInfoData event;

	initStringInfo(&event);
	appendStringInfo(&event, "{\"type\":\"%s\",%s\"message\":", type, fields);
	escape_json(&event, message);
	appendStringInfoChar(&event, '}');
	return event.data;
}

static void
tell(const char *type, const char *fields, const char *message)
{
	if (progress_format == PROGRESS_TEXT)
		ereport(NOTICE, (errmsg_internal("yelp_sync: %s", message)));
	else if (progress_format == PROGRESS_JSON)
		ereport(NOTICE,
				(errmsg_internal("%s", json_event(type, fields, message))));
}

void
progress_start(Progress *progress, const char *username, const char *server)
{
	progress->last_told = clock_us();
	tell("start", "",
		 psprintf("start: account \"%s\" on server \"%s\"", username, server));
}

void
progress_total(Progress *progress, int64 total, int64 pages, int page_size)
{
	char	   *fields = psprintf("\"total_api\":" INT64_FORMAT
								  ",\"pages\":" INT64_FORMAT
								  ",\"page_size\":%d,",
								  total, pages, page_size);

	progress->last_told = clock_us();
	tell("info", fields,
		 psprintf(INT64_FORMAT " programs in " INT64_FORMAT " pages of %d",
				  total, pages, page_size));
}

static void
tell_fetched(int64 completed, int64 total, int64 programs)
{
	int64		percentage = total > 0 ? completed * 100 / total : 0;
	char	   *fields = psprintf("\"completed\":" INT64_FORMAT
								  ",\"total\":" INT64_FORMAT
								  ",\"percentage\":" INT64_FORMAT
								  ",\"programs\":" INT64_FORMAT ",",
								  completed, total, percentage, programs);

	tell("progress", fields,
		 total == 0 ? "waiting for the first page" :
		 psprintf("fetched " INT64_FORMAT "/" INT64_FORMAT " pages ("
				  INT64_FORMAT "%%), " INT64_FORMAT " programs",
				  completed, total, percentage, programs));
}

void
progress_fetched(Progress *progress, int64 completed, int64 total, int64 programs)
{
	int64		now = clock_us();
	int64		interval = completed == progress->completed ?
	MAX_INTERVAL : MIN_INTERVAL;

	progress->behind = completed != progress->completed;
	if (now - progress->last_told < interval)
		return;
	progress->behind = false;
	progress->last_told = now;
	progress->completed = completed;
	tell_fetched(completed, total, programs);
}

int64
progress_due(const Progress *progress)
{
	return progress->last_told +
		(progress->behind ? MIN_INTERVAL : MAX_INTERVAL);
}

/* A program that shows a bar wants to see it full: JSON has no other event here. */
void
progress_fetch_done(Progress *progress, int64 pages, int64 programs,
					int64 retries, int64 elapsed_us)
{
	double		seconds = SECONDS(elapsed_us);

	progress->last_told = clock_us();
	if (progress_format == PROGRESS_JSON)
		tell_fetched(pages, pages, programs);
	else
		tell("", "",
			 psprintf("fetched " INT64_FORMAT " programs in %.2f s (%.0f programs/s), "
					  INT64_FORMAT " retries",
					  programs, seconds, programs / Max(seconds, 0.000001),
					  retries));
}

void
progress_merged(int64 missing, int64 common, int64 gone, int64 unlisted)
{
	int64		stored = common + gone + unlisted;
	char	   *fields = psprintf("\"total_db\":" INT64_FORMAT
								  ",\"missing\":" INT64_FORMAT
								  ",\"common\":" INT64_FORMAT
								  ",\"gone\":" INT64_FORMAT ",",
								  stored, missing, common, gone);
	char	   *rest = unlisted > 0 ? psprintf(INT64_FORMAT " not listed", unlisted) :
	psprintf(INT64_FORMAT " gone from the API", gone);

	tell("info", fields,
		 psprintf(INT64_FORMAT " stored: " INT64_FORMAT " missing here, "
				  INT64_FORMAT " common, %s", stored, missing, common, rest));
}

char	   *
progress_summary(const ProgressResult *result)
{
	return psprintf("complete: +" INT64_FORMAT " added, ~" INT64_FORMAT
					" updated, =" INT64_FORMAT " unchanged, -" INT64_FORMAT
					" deleted in %.2f s",
					result->added, result->updated, result->unchanged,
					result->deleted, SECONDS(result->total_us));
}

void
progress_complete(const ProgressResult *result)
{
	char	   *fields = psprintf("\"status\":\"%s\",\"added\":" INT64_FORMAT
								  ",\"updated\":" INT64_FORMAT
								  ",\"unchanged\":" INT64_FORMAT
								  ",\"deleted\":" INT64_FORMAT
								  ",\"total_synced\":" INT64_FORMAT
								  ",\"timing\":{\"total\":%.2f,\"api\":%.2f,"
								  "\"merge\":%.2f},",
								  result->status, result->added,
								  result->updated, result->unchanged,
								  result->deleted, result->programs,
								  SECONDS(result->total_us),
								  SECONDS(result->fetch_us),
								  SECONDS(result->merge_us));

	tell("complete", fields, progress_summary(result));
}

void
progress_again(const char *why)
{
	tell("info", "", psprintf("reading the listing once more: %s", why));
}

void
progress_warning(int sqlstate, const char *message, const char *detail,
				 const char *hint)
{
	if (progress_format == PROGRESS_JSON)
		message = json_event("warning", "", message);
	ereport(WARNING,
			(errcode(sqlstate),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}
