/*
 * progress.c
 *	  Report the progress of a sync: as NOTICEs, for people or for programs,
 *	  and to all sessions in the view yelp_sync_progress.
 *
 * What the view shows is in shared memory, with a slot for each possible
 * backend, indexed by backend number.  The first session that needs it creates
 * it; the others find it by name.  A session only writes to its own slot; a
 * nested sync replaces the outer one until it ends.  Slots are cleared when a
 * sync ends for any reason, and when the session ends.  If a backend crashes,
 * the server restarts all backends, and the shared memory is gone.
 */
#include "postgres.h"

#include "progress.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "merge.h"
#include "statement.h"
#include "text.h"

/* At most ten messages a second, and at least one every five seconds */
#define MIN_INTERVAL (100 * USECS_PER_MSEC)
#define MAX_INTERVAL (5000 * USECS_PER_MSEC)

#define SECONDS(us) ((us) / 1000000.0)

/* Includes a layout version: sessions may have loaded different libraries */
#define SEGMENT_NAME "yelp_sync_progress_3"

typedef struct ProgressSlot
{
	slock_t		mutex;
	ProgressRow row;
} ProgressSlot;

int			progress_format = PROGRESS_TEXT;

/* The running sync, or NULL */
static Progress *current;

/* Indexed by backend number; NULL until this session needs it */
static ProgressSlot *slots;

/* ---- the view ---- */

static void
init_slots(void *segment)
{
	ProgressSlot *slot = segment;

	memset(slot, 0, MaxBackends * sizeof(ProgressSlot));
	for (int i = 0; i < MaxBackends; i++)
		SpinLockInit(&slot[i].mutex);
}

/* Replaces what is shown for this session; NULL: nothing.  Raises no errors. */
static void
show(const ProgressRow *row)
{
	ProgressSlot *slot;

	if (slots == NULL)
		return;
	slot = &slots[compat_backend_number()];
	SpinLockAcquire(&slot->mutex);
	if (row)
		slot->row = *row;
	else
		slot->row.pid = 0;
	SpinLockRelease(&slot->mutex);
}

/* A terminated session exits without ending its sync. */
static void
clear_slot(pg_attribute_unused() int code, pg_attribute_unused() Datum arg)
{
	show(NULL);
}

/* Leaves slots NULL where the server has no such shared memory. */
static void
attach(pg_attribute_unused() void *arg)
{
	slots = compat_shared_segment(SEGMENT_NAME, MaxBackends * sizeof(ProgressSlot),
								  init_slots);
	if (slots)
		before_shmem_exit(clear_slot, 0);
}

void
progress_list(ReturnSetInfo *result)
{
	static const char *const phases[] = {
		[PHASE_PREPARING] = "preparing",
		[PHASE_FETCHING] = "fetching",
		[PHASE_MERGING] = "merging",
	};

	if (slots == NULL)
		attach(NULL);
	for (int i = 0; slots && i < MaxBackends; i++)
	{
		Datum		values[10];
		bool		nulls[lengthof(values)] = {false};
		ProgressRow row;

		SpinLockAcquire(&slots[i].mutex);
		row = slots[i].row;
		SpinLockRelease(&slots[i].mutex);
		if (row.pid == 0 || row.database != MyDatabaseId)
			continue;
		values[0] = Int32GetDatum(row.pid);
		values[1] = CStringGetTextDatum(row.username);
		values[2] = CStringGetTextDatum(phases[row.phase]);
		values[3] = Int32GetDatum(row.reading);
		values[4] = Int64GetDatum(row.completed);
		values[5] = Int64GetDatum(row.total);
		values[6] = Int64GetDatum(row.programs);
		values[7] = Int64GetDatum(row.retries);
		values[8] = Int32GetDatum(row.in_flight);
		values[9] = TimestampTzGetDatum(row.started_at);
		nulls[5] = row.total == 0;
		/* The same rule as for pg_stat_activity */
		if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) &&
			!has_privs_of_role(GetUserId(), row.role))
			memset(nulls + 1, true, sizeof(nulls) - sizeof(*nulls));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/* ---- messages ---- */

static void
add_text(StringInfo event, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(event, ",\"%s\":", name);
	escape_json(event, value);
}

/*
 * A JSON object.  The fields are part of one, each preceded by a comma; the
 * other members may be NULL.
 */
static char *
json_event(const char *type, const char *fields, const char *message,
		   const char *detail, const char *hint)
{
	StringInfoData event;

	initStringInfo(&event);
	appendStringInfo(&event, "{\"type\":\"%s\"", type);
	add_text(&event, "account", current ? current->account : NULL);
	appendStringInfoString(&event, fields);
	add_text(&event, "message", message);
	add_text(&event, "detail", detail);
	add_text(&event, "hint", hint);
	appendStringInfoChar(&event, '}');
	return event.data;
}

static void
notify(const char *type, const char *fields, const char *message)
{
	if (progress_format != PROGRESS_OFF)
		ereport(NOTICE,
				(errmsg_internal("%s", client_text(progress_format == PROGRESS_JSON ?
												   json_event(type, fields, message, NULL, NULL) :
												   psprintf("yelp_sync: %s", message)))));
}

/* Raises a WARNING, whose message in JSON is another one. */
static void
warn(const char *type, int sqlstate, const char *text, const char *message,
	 const char *detail, const char *hint)
{
	if (progress_format == PROGRESS_JSON)
		text = json_event(type, psprintf(",\"sqlstate\":\"%s\"", unpack_sql_state(sqlstate)),
						  message, detail, hint);
	ereport(WARNING,
			(errcode(sqlstate),
			 errmsg_internal("%s", client_text(text)),
			 detail ? errdetail_internal("%s", client_text(detail)) : 0,
			 hint ? errhint("%s", client_text(hint)) : 0));
}

/* ---- a sync, from its beginning to its end ---- */

void
progress_enter(Progress *progress, const char *account, TimestampTz started_at)
{
	ProgressRow *row = &progress->row;

	row->pid = MyProcPid;
	row->database = MyDatabaseId;
	row->role = GetSessionUserId();
	row->started_at = started_at;
	row->reading = 1;
	strlcpy(row->username, account, sizeof(row->username));
	progress->account = account;
	progress->context = CurrentMemoryContext;
	progress->outer = current;
	current = progress;
}

void
progress_leave(const Progress *progress)
{
	current = progress->outer;
	show(current ? &current->row : NULL);
}

/* Nobody's sync fails because others cannot see it. */
void
progress_start(Progress *progress, const char *server)
{
	ErrorData  *error = slots ? NULL : statement_try(attach, NULL);

	if (error)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("yelp_sync: this session's syncs are not shown in yelp_sync_progress: %s",
						error->message)));
	progress->reported_at = clock_us();
	show(&progress->row);
	notify("start", "", psprintf("start: account \"%s\" on server \"%s\"",
								 progress->account, server));
}

void
progress_created(const char *tables)
{
	notify("info", "", psprintf("created %s", tables));
}

void
progress_total(Progress *progress, int64 total, int64 pages, int page_size)
{
	progress->reported_at = clock_us();
	notify("info",
		   psprintf(",\"total_api\":" INT64_FORMAT ",\"pages\":" INT64_FORMAT
					",\"page_size\":%d", total, pages, page_size),
		   psprintf(INT64_FORMAT " programs in " INT64_FORMAT " pages of %d",
					total, pages, page_size));
}

static void
report_pages(const ProgressRow *row)
{
	int64		percentage = row->total > 0 ? row->completed * 100 / row->total : 0;
	char	   *message = "waiting for the first page";

	if (row->total > 0)
		message = psprintf("fetched " INT64_FORMAT "/" INT64_FORMAT " pages (" INT64_FORMAT
						   "%%), " INT64_FORMAT " programs", row->completed, row->total,
						   percentage, row->programs);
	if (row->reading > 1)
		message = psprintf("reading %d: %s", row->reading, message);
	notify("progress",
		   psprintf(",\"reading\":%d,\"completed\":" INT64_FORMAT ",\"total\":" INT64_FORMAT
					",\"percentage\":" INT64_FORMAT ",\"programs\":" INT64_FORMAT
					",\"retries\":" INT64_FORMAT, row->reading, row->completed, row->total,
					percentage, row->programs, row->retries),
		   message);
}

int64
progress_due(const Progress *progress)
{
	return progress->reported_at +
		(progress->row.completed != progress->completed ? MIN_INTERVAL : MAX_INTERVAL);
}

/* A fetch may take long: its messages are made in memory of their own. */
void
progress_fetched(Progress *progress)
{
	int64		now = clock_us();
	MemoryContext context,
				caller;

	progress->row.phase = PHASE_FETCHING;
	show(&progress->row);
	if (now < progress_due(progress))
		return;
	progress->reported_at = now;
	progress->completed = progress->row.completed;
	context = AllocSetContextCreate(CurrentMemoryContext, "yelp_sync message",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	report_pages(&progress->row);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/*
 * A progress bar must reach its end: in JSON, there is no other event for
 * this.
 */
void
progress_fetch_done(Progress *progress, int64 elapsed_us)
{
	const ProgressRow *row = &progress->row;
	double		seconds = SECONDS(elapsed_us);

	progress->row.phase = PHASE_MERGING;
	show(row);
	if (progress_format == PROGRESS_JSON)
		report_pages(row);
	else
		notify("", "",
			   psprintf("fetched " INT64_FORMAT " programs in %.2f s (%.0f programs/s), "
						INT64_FORMAT " retries", row->programs, seconds,
						row->programs / Max(seconds, 0.000001), row->retries));
}

char	   *
progress_summary(const SyncResult *result)
{
	return psprintf("complete: +" INT64_FORMAT " added, ~" INT64_FORMAT
					" updated, =" INT64_FORMAT " unchanged, -" INT64_FORMAT
					" deleted in %.2f s",
					result->added, result->updated, result->unchanged,
					result->deleted, SECONDS(result->total_us));
}

/* The comparison with the table, and what came of it. */
void
progress_complete(const SyncResult *result)
{
	int64		common = result->programs - result->added;
	int64		stored = common + result->deleted + result->unlisted;
	bool		proved = result->unlisted == 0;

	notify("info",
		   psprintf(",\"total_db\":" INT64_FORMAT ",\"new\":" INT64_FORMAT
					",\"common\":" INT64_FORMAT ",\"gone\":" INT64_FORMAT,
					stored, result->added, common, result->deleted),
		   psprintf(INT64_FORMAT " stored: " INT64_FORMAT " new, " INT64_FORMAT " common, "
					INT64_FORMAT " %s", stored, result->added, common,
					proved ? result->deleted : result->unlisted, proved ? "gone" : "not listed"));
	notify("complete",
		   psprintf(",\"status\":\"%s\",\"added\":" INT64_FORMAT ",\"updated\":" INT64_FORMAT
					",\"unchanged\":" INT64_FORMAT ",\"deleted\":" INT64_FORMAT
					",\"total_synced\":" INT64_FORMAT
					",\"timing\":{\"total\":%.2f,\"api\":%.2f,\"merge\":%.2f}",
					sync_status_names[result->status], result->added, result->updated, result->unchanged,
					result->deleted, result->programs, SECONDS(result->total_us),
					SECONDS(result->fetch_us), SECONDS(result->merge_us)),
		   progress_summary(result));
}

void
progress_again(Progress *progress, const char *why)
{
	notify("info", "", psprintf("reading the listing once more: %s", why));
	progress->row.reading++;
	progress->completed = 0;
}

void
progress_warning(int sqlstate, const char *message, const char *detail,
				 const char *hint)
{
	if (current)
	{
		const char *kept = detail ? psprintf("%s: %s", message, detail) : message;

		current->warnings = accumArrayResult(current->warnings, CStringGetTextDatum(kept),
											 false, TEXTOID, current->context);
	}
	warn("warning", sqlstate, message, message, detail, hint);
}

void
progress_failure(const char *account, const ErrorData *error)
{
	warn("error", error->sqlerrcode,
		 psprintf("could not sync account \"%s\": %s", account, error->message),
		 error->message, error->detail, error->hint);
}
