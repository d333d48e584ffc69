/*
 * history.c
 *	  The history of syncs, yelp_sync_runs, and of programs,
 *	  yelp_program_changes, and what they tell about each account.
 */
#include "postgres.h"

#include "history.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
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

/* The columns of a row, as a list, and their values */
static void
add(Statement *insert, StringInfo columns, const char *column, Oid type, Datum value)
{
	appendStringInfo(columns, "%s%s", columns->len > 0 ? ", " : "", column);
	statement_add(insert, type, value);
}

static void
add_text(Statement *insert, StringInfo columns, const char *column, const char *value)
{
	add(insert, columns, column, TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0);
}

static void
add_duration(Statement *insert, StringInfo columns, const char *column, int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	add(insert, columns, column, INTERVALOID, IntervalPGetDatum(interval));
}

static void
add_counts(Statement *insert, StringInfo columns, const SyncResult *result,
		   const Fetched *fetched)
{
	const struct
	{
		const char *column;
		int64		count;
	}			counts[] =
	{
		{"programs", fetched->reading.total},
		{"listed", result->programs},
		{"pages", fetched->pages},
		{"requests", fetched->reading.requests},
		{"retries", fetched->reading.retries},
		{"received_bytes", fetched->reading.received_bytes},
		{"added", result->added},
		{"updated", result->updated},
		{"unchanged", result->unchanged},
		{"deleted", result->deleted},
		{"missing", result->missing},
		{"problems", result->problems},
		{"failed_pages", fetched->failed_pages},
	};

	for (int i = 0; i < (int) lengthof(counts); i++)
		add(insert, columns, counts[i].column, INT8OID, Int64GetDatum(counts[i].count));
	add_duration(insert, columns, "fetch_time", result->fetch_us);
	add_duration(insert, columns, "merge_time", result->merge_us);
}

void
history_add(Merge *merge, const Fetched *fetched, const ErrorData *error)
{
	SyncResult *result = &merge->result;
	Statement	insert = {.purpose = psprintf("insert into %s.yelp_sync_runs", merge->tables.schema)};
	int			first = 1;
	StringInfoData columns;
	StringInfoData values;

	result->run_id = DirectFunctionCall1(gen_random_uuid, (Datum) 0);
	result->finished_at = GetCurrentTimestamp();
	/* Those of a sync that failed were rolled back */
	if (fetched && merge->changes)
		record_changes(merge);

	initStringInfo(&columns);
	add(&insert, &columns, "run_id", UUIDOID, result->run_id);
	add_text(&insert, &columns, "username", merge->username);
	add_text(&insert, &columns, "server", result->server);
	add_text(&insert, &columns, "synced_by", result->synced_by);
	add(&insert, &columns, "started_at", TIMESTAMPTZOID, TimestampTzGetDatum(result->started_at));
	add(&insert, &columns, "finished_at", TIMESTAMPTZOID, TimestampTzGetDatum(result->finished_at));
	add_text(&insert, &columns, "status", sync_status_names[result->status]);
	add_text(&insert, &columns, "program_status", result->program_status);
	if (fetched)
		add_counts(&insert, &columns, result, fetched);
	/* There may be one more, about this row */
	if (result->warnings)
		add(&insert, &columns, "warnings", TEXTARRAYOID,
			makeMdArrayResult(result->warnings, 1, &result->warnings->nelems, &first,
							  CurrentMemoryContext, false));
	if (error)
	{
		add_text(&insert, &columns, "sqlstate", unpack_sql_state(error->sqlerrcode));
		add_text(&insert, &columns, "error", error->detail == NULL ? error->message :
				 psprintf("%s: %s", error->message, error->detail));
	}
	initStringInfo(&values);
	for (int i = 1; i <= insert.params->numParams; i++)
		appendStringInfo(&values, "%s$%d", i > 1 ? ", " : "", i);
	insert.sql = psprintf("INSERT INTO %s.yelp_sync_runs (%s) VALUES (%s)",
						  merge->tables.schema, columns.data, values.data);
	try_statement(statement_run, &insert, "record the sync", merge->username);
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
