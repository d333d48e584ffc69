/*
 * history.c
 *	  The history of syncs, yelp_sync_runs, and of programs,
 *	  yelp_program_changes, and what they tell about each account.
 */
#include "postgres.h"

#include "history.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "account.h"
#include "statement.h"

/*
 * Raises a WARNING instead of an error, unless the sync is interrupted; true
 * if there was none.
 */
static bool
try_statement(void (*step) (void *arg), Statement *statement, const char *what,
			  const char *username)
{
	ErrorData  *error = statement_try(step, statement);

	if (error)
		progress_warning(error->sqlerrcode,
						 psprintf("could not %s of account \"%s\": %s", what,
								  username, error->message),
						 error->detail, error->hint);
	return error == NULL;
}

/* Runs deferred triggers of the tables now: see tables.c. */
static void
run_deferred(const Tables *tables)
{
	Statement	set = {.purpose = "running deferred triggers"};

	if (tables->deferred == NULL)
		return;
	set.sql = psprintf("SET CONSTRAINTS %s IMMEDIATE", tables->deferred);
	statement_run(&set);
}

/* ---- the last run ---- */

FetchExpected
history_expected(const Merge *merge, bool trust_total)
{
	FetchExpected expected = {.programs = -1};
	Statement	statement = {
		.purpose = psprintf("reading %s.yelp_sync_runs", merge->tables.schema),
		.sql = psprintf("SELECT listed::pg_catalog.int8, CASE"
						"  WHEN $3 OR status::pg_catalog.text OPERATOR(pg_catalog.=) 'synced'"
						"  THEN programs::pg_catalog.int8 OPERATOR(pg_catalog.-) listed::pg_catalog.int8 END"
						" FROM %s.yelp_sync_runs"
						" WHERE username::pg_catalog.text OPERATOR(pg_catalog.=) $1"
						"  AND server::pg_catalog.text OPERATOR(pg_catalog.=) $2"
						"  AND listed IS NOT NULL"
						"  AND finished_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
						" ORDER BY finished_at DESC LIMIT 1", merge->tables.schema),
	};

	statement_add(&statement, TEXTOID, CStringGetTextDatum(merge->username));
	statement_add(&statement, TEXTOID, CStringGetTextDatum(merge->result.server));
	statement_add(&statement, BOOLOID, BoolGetDatum(trust_total));
	if (try_statement(statement_run, &statement, "read the history", merge->username) &&
		SPI_processed > 0)
	{
		const char *surplus = statement_value(2);

		expected.programs = Min(strtoi64(statement_value(1), NULL, 10), PAGE_MAX_TOTAL);
		expected.surplus = surplus ? strtoi64(surplus, NULL, 10) : 0;
	}
	return expected;
}

/* ---- adding rows ---- */

/* The first parameters are set. */
static void
add_changes(void *arg)
{
	Statement  *statement = arg;
	const Merge *merge = statement->arg;
	int			first = statement->params->numParams;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(merge->change_desc, &TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "yelp_sync batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	while (statement_add_rows(statement, merge->changes, slot, NULL, NULL) > 0)
	{
		statement_run(statement);
		statement->params->numParams = first;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
	run_deferred(&merge->tables);
}

static void
record_changes(Merge *merge)
{
	Statement	statement = {
		.purpose = psprintf("insert into %s.yelp_program_changes", merge->tables.schema),
		.sql = psprintf("INSERT INTO %s.yelp_program_changes"
						" (run_id, changed_at, username, program_id, action, changed, old, new)"
						" SELECT $1, $2, $3, c.program_id, c.action, c.changed::pg_catalog.text[],"
						"  c.old, c.new"
						" FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5),"
						"  pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8))"
						"  AS c(program_id, action, changed, old, new)", merge->tables.schema),
		.arg = merge,
	};

	statement_add(&statement, UUIDOID, merge->result.run_id);
	statement_add(&statement, TIMESTAMPTZOID, TimestampTzGetDatum(merge->at));
	statement_add(&statement, TEXTOID, CStringGetTextDatum(merge->username));
	try_statement(add_changes, &statement, "record the changes", merge->username);
	tuplestore_end(merge->changes);
}

static void
add_run(void *arg)
{
	statement_run(arg);
	run_deferred(((Statement *) arg)->arg);
}

static void
add_text(Statement *insert, const char *value)
{
	statement_add(insert, TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0);
}

/* The last columns are figures or an error. */
#define INSERT_RUN \
	"INSERT INTO %s.yelp_sync_runs (run_id, username, server, synced_by, started_at, finished_at," \
	" status, program_status, warnings, "
#define VALUES_RUN ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, "

#define INSERT_FIGURES INSERT_RUN \
	"programs, listed, pages, requests, retries, received_bytes, added, updated, unchanged," \
	" deleted, missing, problems, failed_pages, fetch_time, merge_time" \
	VALUES_RUN "$10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22," \
	" $23 OPERATOR(pg_catalog.*) interval '1us', $24 OPERATOR(pg_catalog.*) interval '1us')"

#define INSERT_ERROR INSERT_RUN "sqlstate, error" VALUES_RUN "$10, $11)"

static void
add_figures(Statement *insert, const SyncResult *result, const Fetched *fetched)
{
	const Reading *reading = &fetched->reading;
	const int64 figures[] = {
		reading->total, result->programs, fetched->pages, reading->requests, reading->retries,
		reading->received_bytes, result->added, result->updated, result->unchanged,
		result->deleted, result->missing, result->problems, fetched->failed_pages,
		result->fetch_us, result->merge_us
	};

	for (int i = 0; i < (int) lengthof(figures); i++)
		statement_add(insert, INT8OID, Int64GetDatum(figures[i]));
}

void
history_add(Merge *merge, const Fetched *fetched, const ErrorData *error)
{
	SyncResult *result = &merge->result;
	Statement	insert = {
		.purpose = psprintf("insert into %s.yelp_sync_runs", merge->tables.schema),
		.sql = psprintf(fetched ? INSERT_FIGURES : INSERT_ERROR, merge->tables.schema),
		.arg = &merge->tables,
	};
	int			first = 1;

	result->run_id = DirectFunctionCall1(gen_random_uuid, (Datum) 0);
	result->finished_at = GetCurrentTimestamp();
	/* Those of a sync that failed were rolled back */
	if (fetched && merge->changes)
		record_changes(merge);

	statement_add(&insert, UUIDOID, result->run_id);
	add_text(&insert, merge->username);
	add_text(&insert, result->server);
	add_text(&insert, result->synced_by);
	statement_add(&insert, TIMESTAMPTZOID, TimestampTzGetDatum(result->started_at));
	statement_add(&insert, TIMESTAMPTZOID, TimestampTzGetDatum(result->finished_at));
	add_text(&insert, sync_status_names[result->status]);
	add_text(&insert, result->program_status);
	/* There may be one more, about this row */
	statement_add(&insert, TEXTARRAYOID, result->warnings == NULL ? (Datum) 0 :
				  makeMdArrayResult(result->warnings, 1, &result->warnings->nelems, &first,
									CurrentMemoryContext, false));
	if (fetched)
		add_figures(&insert, result, fetched);
	else
	{
		add_text(&insert, unpack_sql_state(error->sqlerrcode));
		add_text(&insert, error->detail == NULL ? error->message :
				 psprintf("%s: %s", error->message, error->detail));
	}
	try_statement(add_run, &insert, "record the sync", merge->username);
}

/* ---- the view ---- */

/*
 * The tables are the users' own and may not exist, so this is no plain view.
 * $1: the usernames that are mapped; $2: the database.  A sync that was refused
 * because another one was running is no attempt; other locks have the same
 * SQLSTATE.  The account's lock and the message: see sync.c.  The owner may
 * have altered types: a row has those of the view.
 */
#define STATUS \
	"WITH programs AS (SELECT username::text COLLATE \"C\", count(*) AS programs FROM %s GROUP BY 1)," \
	" runs AS (SELECT username::text COLLATE \"C\"," \
	"   max(finished_at::timestamptz) FILTER (WHERE status::text = 'synced') AS complete" \
	"  FROM %s GROUP BY 1) " \
	"SELECT username, username = ANY ($1), EXISTS (SELECT FROM pg_lock_status()" \
	"  WHERE locktype = 'userlock' AND granted AND database = $2" \
	"   AND (classid::int8 << 32 | objid::int8) = hashtextextended(username, 0))," \
	" programs, last.finished_at, last.status, complete, last.sqlstate, last.error " \
	"FROM (SELECT unnest($1) COLLATE \"C\" UNION SELECT username FROM programs" \
	"  UNION SELECT username FROM runs) AS a(username)" \
	" LEFT JOIN programs USING (username) LEFT JOIN runs USING (username)" \
	" LEFT JOIN LATERAL (SELECT finished_at::timestamptz, status::text, sqlstate::text, error::text" \
	"  FROM %s r" \
	"  WHERE r.username::text = a.username COLLATE \"C\"" \
	"   AND (error::text LIKE 'account %% is already being synced%%') IS NOT TRUE" \
	"  ORDER BY finished_at DESC LIMIT 1) AS last ON true ORDER BY username"

#define NO_PROGRAMS "(SELECT NULL::text AS username LIMIT 0) AS none"
#define NO_RUNS "(SELECT NULL::text AS username, NULL::timestamptz AS finished_at," \
	" NULL::text AS status, NULL::text AS sqlstate, NULL::text AS error LIMIT 0)"

static void
put_row(TupleTableSlot *slot, void *result)
{
	tuplestore_puttupleslot(((ReturnSetInfo *) result)->setResult, slot);
}

void
history_status(ReturnSetInfo *result, Oid schema)
{
	Tables		tables = {.schema_oid = schema};
	Statement	statement = {
		.purpose = "reading yelp_sync_status",
		.receive = put_row,
		.arg = result,
	};
	const char *programs;
	const char *runs;

	SPI_connect();
	programs = tables_readable(&tables, "yelp_programs");
	runs = tables_readable(&tables, "yelp_sync_runs");
	if (runs == NULL)
		runs = NO_RUNS;
	statement.sql = psprintf(STATUS, programs ? programs : NO_PROGRAMS,
							 psprintf("%s AS r", runs), runs);
	statement_add(&statement, TEXTARRAYOID,
				  PointerGetDatum(strlist_to_textarray(account_usernames())));
	statement_add(&statement, OIDOID, ObjectIdGetDatum(MyDatabaseId));
	tables_run_as(&tables, statement_query, &statement);
	SPI_finish();
}
