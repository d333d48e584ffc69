/*
 * history.c
 *	  The history of syncs, yelp_sync_runs.
 */
#include "postgres.h"

#include "history.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

int64
history_last_listed(const char *schema, const char *username, const char *server)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(username), CStringGetTextDatum(server)};
	char	   *sql = psprintf("SELECT listed::pg_catalog.int8 FROM %s.yelp_sync_runs"
							   " WHERE username::pg_catalog.text OPERATOR(pg_catalog.=) $1"
							   "  AND server::pg_catalog.text OPERATOR(pg_catalog.=) $2"
							   " ORDER BY run_id DESC LIMIT 1", schema);
	Datum		listed;
	bool		isnull;

	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	if (SPI_processed == 0)
		return -1;
	listed = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? -1 : DatumGetInt64(listed);
}

static Datum
interval_datum(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

void
history_add(const char *schema, const SyncRun *run, const Fetched *fetched,
			const Merge *merge)
{
	struct
	{
		const char *name;
		Oid			type;
		Datum		value;
	}			columns[] =
	{
		{"username", TEXTOID, CStringGetTextDatum(run->username)},
		{"server", TEXTOID, CStringGetTextDatum(run->server)},
		{"synced_by", TEXTOID, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))},
		{"status", TEXTOID, CStringGetTextDatum(merge->status)},
		{"program_status", TEXTOID, CStringGetTextDatum(run->program_status)},
		{"started_at", TIMESTAMPTZOID, TimestampTzGetDatum(run->started_at)},
		{"finished_at", TIMESTAMPTZOID, TimestampTzGetDatum(run->finished_at)},
		{"programs", INT8OID, Int64GetDatum(fetched->reading.total)},
		{"listed", INT8OID, Int64GetDatum(merge->programs)},
		{"pages", INT8OID, Int64GetDatum(fetched->pages)},
		{"requests", INT8OID, Int64GetDatum(fetched->counts.requests)},
		{"retries", INT8OID, Int64GetDatum(fetched->counts.retries)},
		{"received_bytes", INT8OID, Int64GetDatum(fetched->counts.received_bytes)},
		{"added", INT8OID, Int64GetDatum(merge->added)},
		{"updated", INT8OID, Int64GetDatum(merge->updated)},
		{"unchanged", INT8OID, Int64GetDatum(merge->unchanged)},
		{"deleted", INT8OID, Int64GetDatum(merge->deleted)},
		{"missing", INT8OID, Int64GetDatum(merge->show_missing ? merge->unlisted : 0)},
		{"problems", INT8OID, Int64GetDatum(fetched->staging.with_problems)},
		{"failed_pages", INT8OID, Int64GetDatum(fetched->failed_pages)},
		{"fetch_time", INTERVALOID, interval_datum(fetched->elapsed)},
		{"merge_time", INTERVALOID, interval_datum(run->merge_us)},
	};
	StringInfoData names;
	StringInfoData parameters;
	Oid			types[lengthof(columns)];
	Datum		values[lengthof(columns)];

	initStringInfo(&names);
	initStringInfo(&parameters);
	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", columns[i].name);
		appendStringInfo(&parameters, "%s$%d", i > 0 ? ", " : "", i + 1);
		types[i] = columns[i].type;
		values[i] = columns[i].value;
	}
	if (SPI_execute_with_args(psprintf("INSERT INTO %s.yelp_sync_runs (%s) VALUES (%s)",
									   schema, names.data, parameters.data),
							  lengthof(columns), types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "insert failed: %s", SPI_result_code_string(SPI_result));
}
