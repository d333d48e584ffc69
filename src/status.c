/*
 * status.c
 *	  One row per account: whether it is mapped, and how its syncs went.
 *
 * The tables are the users' own and may not exist, so this is no plain view.
 */
#include "postgres.h"

#include "status.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "account.h"
#include "tables.h"

/*
 * $1: the usernames that are mapped.  A sync that was refused because another
 * one was running (55P03) is no attempt.  The account's lock: see sync.c.
 */
#define STATUS \
	"WITH programs AS (SELECT username COLLATE \"C\", count(*) AS programs FROM %s GROUP BY 1)," \
	" runs AS (SELECT username COLLATE \"C\"," \
	"   max(finished_at) FILTER (WHERE status = 'synced') AS complete" \
	"  FROM %s GROUP BY 1) " \
	"SELECT username, username = ANY ($1), EXISTS (SELECT FROM pg_locks" \
	"  WHERE locktype = 'userlock' AND granted" \
	"   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())" \
	"   AND (classid::int8 << 32 | objid::int8) = hashtextextended(username, 0))," \
	" programs, last.finished_at, last.status, complete, last.sqlstate, last.error " \
	"FROM (SELECT unnest($1) COLLATE \"C\" UNION SELECT username FROM programs" \
	"  UNION SELECT username FROM runs) AS a(username)" \
	" LEFT JOIN programs USING (username) LEFT JOIN runs USING (username)" \
	" LEFT JOIN LATERAL (SELECT finished_at, status, sqlstate, error FROM %s r" \
	"  WHERE r.username = a.username COLLATE \"C\" AND sqlstate IS DISTINCT FROM '55P03'" \
	"  ORDER BY finished_at DESC LIMIT 1) AS last ON true ORDER BY username"

#define NO_PROGRAMS "(SELECT NULL::text AS username LIMIT 0) AS none"
#define NO_RUNS "(SELECT NULL::text AS username, NULL::timestamptz AS finished_at," \
	" NULL::text AS status, NULL::text AS sqlstate, NULL::text AS error LIMIT 0)"

typedef struct Status
{
	const char *sql;
	Datum		mapped;			/* usernames, text[] */
	ReturnSetInfo *result;
} Status;

/* A step that runs as the tables' user. */
static void
add_rows(void *arg)
{
	Status	   *status = arg;
	Oid			types[] = {TEXTARRAYOID};
	uint64		count = tables_query(status->sql, lengthof(types), types, &status->mapped);

	for (uint64 i = 0; i < count; i++)
		tuplestore_puttuple(status->result->setResult, SPI_tuptable->vals[i]);
}

static Datum
username_array(List *usernames)
{
	ArrayBuildState *array = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	ListCell   *cell;

	foreach(cell, usernames)
		accumArrayResult(array, CStringGetTextDatum((char *) lfirst(cell)), false, TEXTOID,
						 CurrentMemoryContext);
	return makeArrayResult(array, CurrentMemoryContext);
}

void
status_list(FunctionCallInfo fcinfo, Oid schema)
{
	Tables		tables = {.schema_oid = schema};
	Status		status = {.result = (ReturnSetInfo *) fcinfo->resultinfo};
	const char *programs;
	const char *runs;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	programs = tables_readable(&tables, "yelp_programs");
	runs = tables_readable(&tables, "yelp_sync_runs");
	if (runs == NULL)
		runs = NO_RUNS;
	status.sql = psprintf(STATUS, programs ? programs : NO_PROGRAMS,
						  psprintf("%s AS r", runs), runs);
	status.mapped = username_array(account_usernames());
	tables_run_as(&tables, add_rows, &status);
	SPI_finish();
}
