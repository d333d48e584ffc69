/*
 * history.c
 *	  The history of syncs, yelp_sync_runs, and of programs,
 *	  yelp_program_changes.
 */
#include "postgres.h"

#include "history.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "statement.h"
#include "subtransaction.h"

static Datum
text_or_null(const char *string)
{
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

/* Raises a WARNING instead of an error, unless the sync is interrupted. */
static void
try_statement(void (*step) (void *arg), Statement *statement, const char *what,
			  const char *username)
{
	ErrorData  *error = subtransaction_try(step, statement);

	if (error && is_interruption(error))
		ReThrowError(error);
	if (error)
		progress_warning(error->sqlerrcode,
						 psprintf("could not %s of account \"%s\": %s", what,
								  username, error->message),
						 error->detail, error->hint);
}

static void
run_statement(void *arg)
{
	statement_run(arg);
}

/* ---- the last run ---- */

static void
take_last_run(TupleTableSlot *slot, void *arg)
{
	LastRun    *last = arg;

	slot_getallattrs(slot);
	last->listed = DatumGetInt64(slot->tts_values[0]);
	if (!slot->tts_isnull[1])
		last->total = DatumGetInt64(slot->tts_values[1]);
	last->synced = !slot->tts_isnull[2] && DatumGetBool(slot->tts_values[2]);
}

LastRun
history_last_run(const char *schema, const char *username, const char *server)
{
	LastRun		last = {-1, -1, false};
	Statement		statement = {
		.purpose = psprintf("reading %s.yelp_sync_runs", schema),
		.sql = psprintf("SELECT listed::pg_catalog.int8, programs::pg_catalog.int8,"
						" status::pg_catalog.text OPERATOR(pg_catalog.=) 'synced'"
						" FROM %s.yelp_sync_runs"
						" WHERE username::pg_catalog.text OPERATOR(pg_catalog.=) $1"
						"  AND server::pg_catalog.text OPERATOR(pg_catalog.=) $2"
						"  AND listed IS NOT NULL"
						"  AND finished_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
						" ORDER BY finished_at DESC LIMIT 1", schema),
		.receive = take_last_run,
		.arg = &last,
	};

	statement_add(&statement, TEXTOID, CStringGetTextDatum(username));
	statement_add(&statement, TEXTOID, CStringGetTextDatum(server));
	try_statement(run_statement, &statement, "read the history", username);
	return last;
}

/* ---- adding rows ---- */

Datum
history_new_run_id(void)
{
	return DirectFunctionCall1(gen_random_uuid, (Datum) 0);
}

static void
add_number(Statement *statement, bool known, int64 number)
{
	statement_add(statement, INT8OID, Int64GetDatum(number));
	statement->nulls[statement->count - 1] = !known;
}

static void
add_interval(Statement *statement, bool known, int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	statement_add(statement, INTERVALOID, known ? IntervalPGetDatum(interval) : (Datum) 0);
}

void
history_add(const char *schema, const SyncRun *run, const SyncResult *result,
			const Fetched *fetched, const ErrorData *error)
{
	static const Fetched nothing;
	bool		known = fetched != NULL;
	int			first = 1;
	Statement		statement = {
		.purpose = psprintf("insert into %s.yelp_sync_runs", schema),
		.sql = psprintf("INSERT INTO %s.yelp_sync_runs"
						" (run_id, username, server, synced_by, started_at, finished_at, status,"
						"  program_status, programs, listed, pages, requests, retries,"
						"  received_bytes, added, updated, unchanged, deleted, missing, problems,"
						"  failed_pages, fetch_time, merge_time, warnings, sqlstate, error)"
						" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
						"  $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)", schema),
	};

	if (!known)
		fetched = &nothing;
	statement_add(&statement, UUIDOID, run->run_id);
	statement_add(&statement, TEXTOID, CStringGetTextDatum(run->username));
	statement_add(&statement, TEXTOID, text_or_null(run->server));
	statement_add(&statement, TEXTOID, CStringGetTextDatum(run->synced_by));
	statement_add(&statement, TIMESTAMPTZOID, TimestampTzGetDatum(run->started_at));
	statement_add(&statement, TIMESTAMPTZOID, TimestampTzGetDatum(run->finished_at));
	statement_add(&statement, TEXTOID, CStringGetTextDatum(sync_status_names[result->status]));
	statement_add(&statement, TEXTOID, text_or_null(run->program_status));
	add_number(&statement, known, fetched->reading.total);
	add_number(&statement, known, result->programs);
	add_number(&statement, known, fetched->pages);
	add_number(&statement, known, fetched->counts.requests);
	add_number(&statement, known, fetched->counts.retries);
	add_number(&statement, known, fetched->counts.received_bytes);
	add_number(&statement, known, result->added);
	add_number(&statement, known, result->updated);
	add_number(&statement, known, result->unchanged);
	add_number(&statement, known, result->deleted);
	add_number(&statement, known, result->missing);
	add_number(&statement, known, result->problems);
	add_number(&statement, known, fetched->failed_pages);
	add_interval(&statement, known, result->fetch_us);
	add_interval(&statement, known, result->merge_us);
	/* There may be one more, about this row */
	statement_add(&statement, TEXTARRAYOID, run->warnings == NULL ? (Datum) 0 :
				  makeMdArrayResult(run->warnings, 1, &run->warnings->nelems, &first,
									CurrentMemoryContext, false));
	statement_add(&statement, TEXTOID, text_or_null(error ? unpack_sql_state(error->sqlerrcode) : NULL));
	statement_add(&statement, TEXTOID, text_or_null(error == NULL ? NULL : error->detail == NULL ? error->message :
											psprintf("%s: %s", error->message, error->detail)));
	try_statement(run_statement, &statement, "record the sync", run->username);
}

/* The first parameters are set. */
static void
add_changes(void *arg)
{
	Statement	   *statement = arg;
	const Merge *merge = statement->arg;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(merge->change_desc, &TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "yelp_sync batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	for (int first = statement->count; statement_add_rows(statement, merge->changes, slot, NULL, NULL) > 0;)
	{
		statement_run(statement);
		statement->count = first;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
}

void
history_add_changes(const SyncRun *run, const Merge *merge)
{
	Statement		statement = {
		.purpose = psprintf("insert into %s.yelp_program_changes", merge->tables.schema),
		.sql = psprintf("INSERT INTO %s.yelp_program_changes"
						" (run_id, changed_at, username, program_id, action, changed, old, new)"
						" SELECT $1, $2, $3, c.program_id, c.action, c.changed::pg_catalog.text[],"
						"  c.old, c.new"
						" FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5),"
						"  pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8))"
						"  AS c(program_id, action, changed, old, new)", merge->tables.schema),
		.arg = unconstify(Merge *, merge),
	};

	statement_add(&statement, UUIDOID, run->run_id);
	statement_add(&statement, TIMESTAMPTZOID, TimestampTzGetDatum(merge->at));
	statement_add(&statement, TEXTOID, CStringGetTextDatum(run->username));
	try_statement(add_changes, &statement, "record the changes", run->username);
	tuplestore_end(merge->changes);
}
