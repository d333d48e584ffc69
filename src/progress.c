/*
 * progress.c
 *	  Report the progress of a sync as NOTICEs, for people or for programs.
 */
#include "postgres.h"

#include "progress.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "clock.h"
#include "text.h"

/* At most ten messages a second, and at least one every five seconds */
#define MIN_INTERVAL (100 * USECS_PER_MSEC)
#define MAX_INTERVAL (5000 * USECS_PER_MSEC)

#define SECONDS(us) ((us) / 1000000.0)

int			progress_format = PROGRESS_TEXT;

/* The running sync, or NULL */
static Progress *current;

/* ---- events as JSON objects ---- */

static void
add_text(StringInfo event, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(event, ",\"%s\":", name);
	escape_json(event, value);
}

/* Begins an event, with its type and account. */
static void
begin_event(StringInfo event, const char *type)
{
	initStringInfo(event);
	appendStringInfo(event, "{\"type\":\"%s\"", type);
	add_text(event, "account", current ? current->account : NULL);
}

static char *
end_event(StringInfo event)
{
	appendStringInfoChar(event, '}');
	return event->data;
}

/* The fields are part of a JSON object, each preceded by a comma. */
static char *
json_event(const char *type, const char *fields, const char *message)
{
	StringInfoData event;

	begin_event(&event, type);
	appendStringInfoString(&event, fields);
	add_text(&event, "message", message);
	return end_event(&event);
}

/* A warning or an error. */
static char *
json_complaint(const char *type, int sqlstate, const char *message,
			   const char *detail, const char *hint)
{
	StringInfoData event;

	begin_event(&event, type);
	add_text(&event, "sqlstate", unpack_sql_state(sqlstate));
	add_text(&event, "message", message);
	add_text(&event, "detail", detail);
	add_text(&event, "hint", hint);
	return end_event(&event);
}

/* ---- NOTICEs ---- */

static void
notify(const char *type, const char *fields, const char *message)
{
	if (progress_format == PROGRESS_TEXT)
		ereport(NOTICE, (errmsg_internal("yelp_sync: %s", client_text(message))));
	else if (progress_format == PROGRESS_JSON)
		ereport(NOTICE,
				(errmsg_internal("%s", client_text(json_event(type, fields, message)))));
}

void
progress_show(Progress *progress, const ProgressPages *pages)
{
	ProgressRow *row = &progress->row;

	row->phase = PHASE_FETCHING;
	row->pages_done = pages->completed;
	row->pages_total = pages->total;
	row->programs = pages->programs;
	row->retries = pages->retries;
	row->in_flight = pages->in_flight;
	progress_view_show(row);
}

void
progress_enter(Progress *progress, const char *account, TimestampTz started_at)
{
	progress->account = account;
	progress->row.reading = 1;
	progress->row.started_at = started_at;
	strlcpy(progress->row.username, account, sizeof(progress->row.username));
	progress->context = CurrentMemoryContext;
	progress->outer = current;
	current = progress;
}

void
progress_leave(const Progress *progress)
{
	current = progress->outer;
	progress_view_show(current ? &current->row : NULL);
}

void
progress_start(Progress *progress, const char *username, const char *server)
{
	progress->reported_at = clock_us();
	progress_view_prepare();
	progress_view_show(&progress->row);
	notify("start", "",
		 psprintf("start: account \"%s\" on server \"%s\"", username, server));
}

void
progress_total(Progress *progress, int64 total, int64 pages, int page_size)
{
	char	   *fields = psprintf(",\"total_api\":" INT64_FORMAT
								  ",\"pages\":" INT64_FORMAT
								  ",\"page_size\":%d",
								  total, pages, page_size);

	progress->reported_at = clock_us();
	notify("info", fields,
		 psprintf(INT64_FORMAT " programs in " INT64_FORMAT " pages of %d",
				  total, pages, page_size));
}

static char *
fetched_message(const Progress *progress, const ProgressPages *pages, int64 percentage)
{
	char	   *reading = progress->row.reading > 1 ?
		psprintf("reading %d: ", progress->row.reading) : "";

	if (pages->total == 0)
		return psprintf("%swaiting for the first page", reading);
	return psprintf("%sfetched " INT64_FORMAT "/" INT64_FORMAT " pages ("
					INT64_FORMAT "%%), " INT64_FORMAT " programs",
					reading, pages->completed, pages->total, percentage,
					pages->programs);
}

static void
report_fetched(const Progress *progress, const ProgressPages *pages)
{
	int64		percentage = pages->total > 0 ?
		pages->completed * 100 / pages->total : 0;
	char	   *fields = psprintf(",\"reading\":%d,\"completed\":" INT64_FORMAT
								  ",\"total\":" INT64_FORMAT
								  ",\"percentage\":" INT64_FORMAT
								  ",\"programs\":" INT64_FORMAT
								  ",\"retries\":" INT64_FORMAT,
								  progress->row.reading, pages->completed, pages->total,
								  percentage, pages->programs, pages->retries);

	notify("progress", fields, fetched_message(progress, pages, percentage));
}

void
progress_fetched(Progress *progress, const ProgressPages *pages)
{
	int64		now = clock_us();
	bool		same = pages->completed == progress->completed;

	progress->behind = !same;
	if (now - progress->reported_at < (same ? MAX_INTERVAL : MIN_INTERVAL))
		return;
	progress->behind = false;
	progress->reported_at = now;
	progress->completed = pages->completed;
	report_fetched(progress, pages);
}

int64
progress_due(const Progress *progress)
{
	return progress->reported_at +
		(progress->behind ? MIN_INTERVAL : MAX_INTERVAL);
}

/*
 * A progress bar must reach its end: in JSON, there is no other event for
 * this.
 */
void
progress_fetch_done(Progress *progress, const ProgressPages *pages, int64 elapsed_us)
{
	double		seconds = SECONDS(elapsed_us);

	progress_show(progress, pages);
	progress->row.phase = PHASE_MERGING;
	progress_view_show(&progress->row);
	progress->reported_at = clock_us();
	if (progress_format == PROGRESS_JSON)
		report_fetched(progress, pages);
	else
		notify("", "",
			 psprintf("fetched " INT64_FORMAT " programs in %.2f s (%.0f programs/s), "
					  INT64_FORMAT " retries",
					  pages->programs, seconds,
					  pages->programs / Max(seconds, 0.000001), pages->retries));
}

void
progress_merged(int64 missing, int64 common, int64 gone, int64 unlisted)
{
	int64		stored = common + gone + unlisted;
	char	   *fields = psprintf(",\"total_db\":" INT64_FORMAT
								  ",\"missing\":" INT64_FORMAT
								  ",\"common\":" INT64_FORMAT
								  ",\"gone\":" INT64_FORMAT,
								  stored, missing, common, gone);
	char	   *rest = unlisted > 0 ? psprintf(INT64_FORMAT " not listed", unlisted) :
	psprintf(INT64_FORMAT " gone from the API", gone);

	notify("info", fields,
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
	char	   *fields = psprintf(",\"status\":\"%s\",\"added\":" INT64_FORMAT
								  ",\"updated\":" INT64_FORMAT
								  ",\"unchanged\":" INT64_FORMAT
								  ",\"deleted\":" INT64_FORMAT
								  ",\"total_synced\":" INT64_FORMAT
								  ",\"timing\":{\"total\":%.2f,\"api\":%.2f,"
								  "\"merge\":%.2f}",
								  result->status, result->added,
								  result->updated, result->unchanged,
								  result->deleted, result->programs,
								  SECONDS(result->total_us),
								  SECONDS(result->fetch_us),
								  SECONDS(result->merge_us));

	notify("complete", fields, progress_summary(result));
}

void
progress_again(Progress *progress, const char *why)
{
	notify("info", "", psprintf("reading the listing once more: %s", why));
	progress->row.reading++;
	progress->completed = 0;
}

static void
keep_warning(const char *message)
{
	MemoryContext caller;

	if (current == NULL)
		return;
	caller = MemoryContextSwitchTo(current->context);
	current->warnings = accumArrayResult(current->warnings,
										 CStringGetTextDatum(message), false,
										 TEXTOID, current->context);
	MemoryContextSwitchTo(caller);
}

void
progress_warning(int sqlstate, const char *message, const char *detail,
				 const char *hint)
{
	keep_warning(message);
	if (progress_format == PROGRESS_JSON)
		message = json_complaint("warning", sqlstate, message, detail, hint);
	ereport(WARNING,
			(errcode(sqlstate),
			 errmsg_internal("%s", client_text(message)),
			 detail ? errdetail_internal("%s", client_text(detail)) : 0,
			 hint ? errhint("%s", client_text(hint)) : 0));
}

void
progress_failure(const char *account, const ErrorData *error)
{
	char	   *message = progress_format == PROGRESS_JSON ?
		json_complaint("error", error->sqlerrcode, error->message, error->detail,
					   error->hint) :
		psprintf("could not sync account \"%s\": %s", account, error->message);

	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg_internal("%s", client_text(message)),
			 error->detail ? errdetail_internal("%s", client_text(error->detail)) : 0,
			 error->hint ? errhint("%s", client_text(error->hint)) : 0));
}
