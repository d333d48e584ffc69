/*
 * history.c
 *	  The history of syncs, yelp_sync_runs.
 */
#include "postgres.h"

#include "history.h"

#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat.h"

/* A column of the only row; -1 for NULL. */
static int64
number_of(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									  column, &isnull);

	return isnull ? -1 : DatumGetInt64(value);
}

LastRun
history_last_run(const char *schema, const char *username, const char *server)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(username), CStringGetTextDatum(server)};
	char	   *sql = psprintf("SELECT listed::pg_catalog.int8, programs::pg_catalog.int8,"
							   " (status::pg_catalog.text OPERATOR(pg_catalog.=) 'synced')::pg_catalog.int4::pg_catalog.int8"
							   " FROM %s.yelp_sync_runs"
							   " WHERE username::pg_catalog.text OPERATOR(pg_catalog.=) $1"
							   "  AND server::pg_catalog.text OPERATOR(pg_catalog.=) $2"
							   "  AND listed IS NOT NULL"
							   " ORDER BY run_id DESC LIMIT 1", schema);
	LastRun		last = {-1, -1, false};

	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	if (SPI_processed > 0)
	{
		last.listed = number_of(1);
		last.total = number_of(2);
		last.synced = number_of(3) == 1;
	}
	return last;
}

int64
history_next_run(Oid runs)
{
	Oid			sequence = compat_identity_sequence(runs, get_attnum(runs, "run_id"));

	if (!OidIsValid(sequence))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no identity column \"run_id\"",
						get_rel_name(runs)),
				 errdetail("The server option record_changes requires run numbers."),
				 errhint("Restore it: ALTER TABLE ... ALTER COLUMN run_id ADD GENERATED ALWAYS AS IDENTITY;")));
	return nextval_internal(sequence, false);
}

static Datum
interval_datum(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

/* ---- a row to insert ---- */

#define MAX_COLUMNS 32

typedef struct RunRow
{
	StringInfoData names;
	StringInfoData parameters;
	int			count;
	Oid			types[MAX_COLUMNS];
	Datum		values[MAX_COLUMNS];
} RunRow;

static void
set(RunRow *row, const char *column, Oid type, Datum value)
{
	const char *separator = row->count > 0 ? ", " : "";

	Assert(row->count < MAX_COLUMNS);
	row->types[row->count] = type;
	row->values[row->count++] = value;
	appendStringInfo(&row->names, "%s%s", separator, column);
	appendStringInfo(&row->parameters, "%s$%d", separator, row->count);
}

static void
set_text(RunRow *row, const char *column, const char *value)
{
	set(row, column, TEXTOID, CStringGetTextDatum(value));
}

static void
set_time(RunRow *row, const char *column, TimestampTz value)
{
	set(row, column, TIMESTAMPTZOID, TimestampTzGetDatum(value));
}

static void
set_number(RunRow *row, const char *column, int64 value)
{
	set(row, column, INT8OID, Int64GetDatum(value));
}

static void
set_interval(RunRow *row, const char *column, int64 microseconds)
{
	set(row, column, INTERVALOID, interval_datum(microseconds));
}

/* Sets the columns that every sync has, whatever its outcome. */
static void
begin_row(RunRow *row, const SyncRun *run, const char *status)
{
	row->count = 0;
	initStringInfo(&row->names);
	initStringInfo(&row->parameters);
	if (run->run_id > 0)
		set_number(row, "run_id", run->run_id);
	set_text(row, "username", run->username);
	set_text(row, "synced_by", run->synced_by);
	set_time(row, "started_at", run->started_at);
	set_time(row, "finished_at", run->finished_at);
	set_text(row, "status", status);
	if (run->server)
		set_text(row, "server", run->server);
	if (run->program_status)
		set_text(row, "program_status", run->program_status);
	if (run->warnings)
		set(row, "warnings", TEXTARRAYOID,
			makeArrayResult(run->warnings, CurrentMemoryContext));
}

static void
insert_row(const char *schema, const RunRow *row)
{
	char	   *sql = psprintf("INSERT INTO %s.yelp_sync_runs (%s)"
							   " OVERRIDING SYSTEM VALUE VALUES (%s)",
							   schema, row->names.data, row->parameters.data);
	int			result = SPI_execute_with_args(sql, row->count, (Oid *) row->types,
											   (Datum *) row->values, NULL, false, 0);

	if (result != SPI_OK_INSERT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not record the sync in table %s.yelp_sync_runs", schema),
				 errdetail("A rule on the table replaced the INSERT (%s).",
						   SPI_result_code_string(result)),
				 errhint("Drop the rule, or use a trigger instead.")));
}

void
history_add(const char *schema, const SyncRun *run, const Fetched *fetched,
			const Merge *merge)
{
	RunRow		row;

	begin_row(&row, run, merge->status);
	set_number(&row, "programs", fetched->reading.total);
	set_number(&row, "listed", merge->programs);
	set_number(&row, "pages", fetched->pages);
	set_number(&row, "requests", fetched->counts.requests);
	set_number(&row, "retries", fetched->counts.retries);
	set_number(&row, "received_bytes", fetched->counts.received_bytes);
	set_number(&row, "added", merge->added);
	set_number(&row, "updated", merge->updated);
	set_number(&row, "unchanged", merge->unchanged);
	set_number(&row, "deleted", merge->deleted);
	set_number(&row, "missing", merge->show_missing ? merge->unlisted : 0);
	set_number(&row, "problems", merge->problems);
	set_number(&row, "failed_pages", fetched->failed_pages);
	set_interval(&row, "fetch_time", fetched->elapsed);
	set_interval(&row, "merge_time", run->merge_us);
	insert_row(schema, &row);
}

void
history_add_failure(const char *schema, const SyncRun *run, const ErrorData *error)
{
	RunRow		row;

	begin_row(&row, run, "failed");
	set_text(&row, "sqlstate", unpack_sql_state(error->sqlerrcode));
	set_text(&row, "error", error->message);
	insert_row(schema, &row);
}
