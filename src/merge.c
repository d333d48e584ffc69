/*
 * merge.c
 *	  Make the rows of yelp_programs equal to the programs that were received.
 *
 * The hash table of programs.c knows which of them are new, changed or gone,
 * so each is written by one of a few plain statements, over batches of rows
 * that are passed as arrays.  The values of unique indexes that users add are
 * freed before others take them: all deletions come first, then the programs
 * that ended, the other changes, and the new ones.
 *
 * In the end, the rows are read once more: whatever others or triggers did
 * meanwhile, a sync that calls itself synced has stored every program.
 */
#include "postgres.h"

#include "merge.h"

#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "statement.h"

/*
 * If more rows than this differ, only one in RESPELLED_SHARE of those that
 * are only formatted anew is written.
 */
#define MANY_ROWS 1000
#define RESPELLED_SHARE 10

const char *const sync_status_names[] =
{
	[SYNC_SYNCED] = "synced",
	[SYNC_PARTIAL] = "partial",
	[SYNC_FAILED] = "failed"
};

/* ---- statements ---- */

/*
 * They run with the caller's search_path, because the caller's triggers do; so
 * everything is schema-qualified, including operators.  Arguments have the
 * types of our functions: others may create functions of the same names.
 *
 * $1 is the username, $2 the time, $3 to $5 are IDs, fingerprints and
 * documents.  $6 says which of the programs that are only formatted anew get
 * their new fingerprint: those whose own has this remainder, or all if it is
 * negative.  So those that are formatted anew once are settled after some
 * syncs, and those that always are cost little.
 *
 * The planner knows the number of elements of an array, but may be wrong about
 * the number of rows of an account, for example of one that is new since the
 * last ANALYZE.  If it took them for one row, it would read all of them for
 * each batch.  As the username comes out of a subquery (OFFSET 0), it expects
 * the average instead, and looks the keys up in the primary key.
 */
#define EQ "OPERATOR(pg_catalog.=)"

/* The keys of programs that are gone */
#define GONE_KEYS \
	"(SELECT u.username, k.program_id" \
	"  FROM (SELECT $1 AS username OFFSET 0) u, pg_catalog.unnest($3) k(program_id) OFFSET 0) g" \
	" WHERE t.username " EQ " g.username AND t.program_id " EQ " g.program_id@t@"

#define GONE_RESULT \
	" RETURNING t.program_id::pg_catalog.text, NULL::pg_catalog.text[]," \
	"  CASE WHEN @record@ THEN t.data END, NULL::pg_catalog.jsonb"

/* Received programs with the columns that their documents fill */
#define RECEIVED \
	"(SELECT r.*, @schema@.yelp_sync_columns(r.data) AS columns FROM (" \
	"  SELECT u.username, f.program_id, f.fingerprint, f.document::pg_catalog.jsonb AS data" \
	"  FROM (SELECT $1 AS username OFFSET 0) u, ROWS FROM" \
	"   (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))" \
	"   AS f(program_id, fingerprint, document) OFFSET 0) r OFFSET 0) d"

static const char delete_gone[] =
"DELETE FROM @programs@ t USING " GONE_KEYS GONE_RESULT;

/* Only returns them */
static const char keep_missing[] =
"SELECT k.program_id, NULL::pg_catalog.text[], NULL::pg_catalog.jsonb, NULL::pg_catalog.jsonb"
" FROM pg_catalog.unnest($3) k(program_id)";

/* Without its fingerprint: if it returns with the same text, that is no edit */
static const char mark_gone[] =
"UPDATE @programs@ t SET gone_at = $2, updated_at = $2, fingerprint = NULL FROM " GONE_KEYS
GONE_RESULT;

/*
 * A program is compared with the stored row, unless that has the same text
 * meanwhile.  One that is not to be written is returned without "changed".
 */
static const char update_altered[] =
"WITH altered AS MATERIALIZED ("
" SELECT d.username, d.program_id, d.fingerprint, d.data, d.columns, s.changed,"
"   pg_catalog.cardinality(s.changed) OPERATOR(pg_catalog.>) 0 OR $6 OPERATOR(pg_catalog.<) 0"
"    OR pg_catalog.abs(d.fingerprint OPERATOR(pg_catalog.%) " CppAsString2(RESPELLED_SHARE) ") " EQ " $6 AS written,"
"   CASE WHEN @record@ THEN @schema@.yelp_sync_picked(s.columns, s.data, s.gone_at,"
"    pg_catalog.array_append(s.changed, 'data')) END AS old,"
"   CASE WHEN @record@ THEN @schema@.yelp_sync_picked(d.columns, d.data, NULL::pg_catalog.timestamptz,"
"    s.changed) END AS new"
" FROM " RECEIVED " CROSS JOIN LATERAL ("
"   SELECT c.*, pg_catalog.array_cat("
"    @schema@.yelp_sync_changed(c.columns, d.columns, c.data, d.data),"
"    CASE WHEN c.gone_at IS NOT NULL THEN '{gone_at}'::pg_catalog.text[] END) AS changed"
"   FROM (SELECT p.data, p.gone_at, ROW(@columns@)::@schema@.yelp_sync_values AS columns"
"     FROM @programs@ p"
"     WHERE p.username " EQ " d.username AND p.program_id " EQ " d.program_id@p@"
"      AND NOT COALESCE(p.fingerprint " EQ " d.fingerprint AND p.gone_at IS NULL, false)"
"     OFFSET 0) c OFFSET 0) s"
"), updated AS ("
" UPDATE @programs@ t"
" SET (@columns@, data, fingerprint, gone_at, updated_at) ="
"  ROW((a.columns).*, a.data, a.fingerprint, NULL,"
"   CASE WHEN pg_catalog.cardinality(a.changed) " EQ " 0 THEN t.updated_at ELSE $2 END)"
" FROM altered a"
" WHERE t.username " EQ " a.username AND t.program_id " EQ " a.program_id@t@ AND a.written"
" RETURNING t.program_id, a.changed, a.old, a.new"
")"
" SELECT u.program_id::pg_catalog.text, u.changed, u.old, u.new FROM updated u"
" UNION ALL SELECT a.program_id::pg_catalog.text, NULL, NULL, NULL FROM altered a WHERE NOT a.written";

static const char insert_new[] =
"INSERT INTO @schema@.yelp_programs AS t"
" (username, program_id, @columns@, data, fingerprint, created_at, updated_at)"
" SELECT d.username, d.program_id, (d.columns).*, d.data, d.fingerprint, $2, $2 FROM " RECEIVED
" RETURNING t.program_id::pg_catalog.text, NULL::pg_catalog.text[],"
"  NULL::pg_catalog.jsonb, CASE WHEN @record@ THEN t.data END";

/*
 * A statement for these tables.  Citus finds the node with the rows by a
 * constant username, so there "t" and "p" are restricted to that as well.
 */
static char *
statement_for(const char *template, const Tables *tables, bool record)
{
	const char *const words[][2] = {
		{"@t@", tables->distributed ? " AND t.username " EQ " $1" : ""},
		{"@p@", tables->distributed ? " AND p.username " EQ " $1" : ""},
		{"@record@", record ? "true" : "false"},
		{"@columns@", tables->columns},
		{"@programs@", tables->partitioned ? "@schema@.yelp_programs" : "ONLY @schema@.yelp_programs"},
		{"@schema@", tables->schema},	/* last: it may contain any word */
	};
	Datum		sql = CStringGetTextDatum(template);

	for (int i = 0; i < (int) lengthof(words); i++)
		sql = DirectFunctionCall3Coll(replace_text, C_COLLATION_OID, sql,
									  CStringGetTextDatum(words[i][0]),
									  CStringGetTextDatum(words[i][1]));
	return TextDatumGetCString(sql);
}

/* ---- the rows that they return ---- */

/* Takes a row (program_id, changed, old, new). */
static void
take_written(TupleTableSlot *slot, void *arg)
{
	Merge	   *merge = arg;
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	Datum		action = CStringGetTextDatum(merge->action);

	slot_getallattrs(slot);
	if (merge->statement == update_altered)
	{
		if (nulls[1])
		{
			programs_forgo(merge->programs, values[0]);
			return;
		}
		if (ARR_NDIM(DatumGetArrayTypeP(values[1])) == 0)
			return;
	}
	++*merge->count;
	if (merge->returned && (merge->show_missing || merge->statement != keep_missing))
	{
		Datum		row[] = {action, values[0], values[1]};
		bool		unknown[] = {false, nulls[0], nulls[1]};

		tuplestore_putvalues(merge->returned->setResult, merge->returned->setDesc,
							 row, unknown);
	}
	if (merge->changes && merge->statement != keep_missing)
	{
		/* Arrays of arrays are rectangular, so the names become a text */
		Datum		names = nulls[1] ? (Datum) 0 :
		CStringGetTextDatum(OidOutputFunctionCall(F_ARRAY_OUT, values[1]));
		Datum		row[] = {values[0], action, names, values[2], values[3]};
		bool		unknown[] = {nulls[0], false, nulls[1], nulls[2], nulls[3]};

		tuplestore_putvalues(merge->changes, merge->change_desc, row, unknown);
	}
}

/* ---- steps ---- */

/*
 * If another session has added the program, a retry helps; if a constraint of
 * the user's on other columns is violated, it does not.
 */
static void
explain_error(ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && error->detail &&
		strstr(error->detail, "(username, program_id)=(") != NULL)
	{
		error->sqlerrcode = ERRCODE_T_R_SERIALIZATION_FAILURE;
		error->message = "could not serialize access due to a concurrent sync";
	}
}

/* Runs a statement over batches of these rows. */
static void
run_step(Merge *merge, const char *template, const char *action, int64 *count,
		 Tuplestorestate *rows, TupleDesc desc)
{
	const Programs *programs = merge->programs;
	bool		many = programs->counts[ROWS_ENDED] + programs->counts[ROWS_ALTERED] > MANY_ROWS;
	int32		remainder = many ?
	(int32) (pg_prng_uint64(&pg_global_prng_state) % RESPELLED_SHARE) : -1;
	char	   *sql = statement_for(template, &merge->tables, merge->record);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "yelp_sync batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	int			batch;

	merge->statement = template;
	merge->action = action;
	merge->count = count;
	do
	{
		Statement	statement = {
			.purpose = psprintf("merge into %s.yelp_programs", merge->tables.schema),
			.sql = sql,
			.receive = take_written,
			.arg = merge,
			.explain = explain_error,
		};

		statement_add(&statement, TEXTOID, CStringGetTextDatum(merge->username));
		statement_add(&statement, TIMESTAMPTZOID, TimestampTzGetDatum(merge->at));
		batch = statement_add_rows(&statement, rows, slot,
								   desc == programs->desc ? programs_take_row : NULL,
								   merge->programs);
		while (statement.params->numParams < 2 + ROW_COLUMNS)
			statement_add(&statement, TEXTARRAYOID, (Datum) 0);
		statement_add(&statement, INT4OID, Int32GetDatum(remainder));
		if (batch > 0)
			statement_run(&statement);
		MemoryContextReset(context);
	} while (batch > 0);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
}

/* Deletes or marks the programs that are proved to be gone, or returns them. */
static void
remove_unlisted(Merge *merge)
{
	static const char *const names[] = {"program_id"};
	TupleDesc	desc = statement_desc(lengthof(names), names, (Oid[]) {TEXTOID});
	Tuplestorestate *unlisted = programs_find_unlisted(merge->programs, &merge->tables,
													   merge->username);
	SyncResult *result = &merge->result;

	if (!merge->delete_gone)
		run_step(merge, keep_missing, "missing", &result->unlisted, unlisted, desc);
	else if (merge->keep_gone)
		run_step(merge, mark_gone, "gone", &result->deleted, unlisted, desc);
	else
		run_step(merge, delete_gone, "deleted", &result->deleted, unlisted, desc);
	tuplestore_end(unlisted);
}

/*
 * Counts the stored programs with problems; those of earlier syncs count as
 * well, as long as their fields are as they are.
 */
static void
count_problems(Merge *merge)
{
	Statement	statement = {
		.purpose = "counting programs with problems",
		.sql = psprintf("SELECT pg_catalog.count(*), pg_catalog.min(pg_catalog.format("
						"'The first one is program \"%%s\": %%s.', program_id,"
						" pg_catalog.array_to_string(problems, ', ')))"
						" FROM %s%s.yelp_programs"
						" WHERE username OPERATOR(pg_catalog.=) $1 AND problems IS NOT NULL",
						merge->tables.partitioned ? "" : "ONLY ", merge->tables.schema),
	};

	statement_add(&statement, TEXTOID, CStringGetTextDatum(merge->username));
	statement_run(&statement);
	merge->result.problems = strtoi64(statement_value(1), NULL, 10);
	merge->result.first_problem = statement_value(2);
}

void
merge_programs(Merge *merge)
{
	static const char *const names[] = {"program_id", "action", "changed", "old", "new"};
	static const Oid types[] = {TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID};
	Programs   *programs = merge->programs;
	SyncResult *result = &merge->result;
	bool		written = programs_count_unlisted(programs) > 0;

	if (merge->record)
	{
		merge->change_desc = statement_desc(lengthof(types), names, types);
		merge->changes = tuplestore_begin_heap(false, false, work_mem);
	}
	if (written)
		remove_unlisted(merge);
	for (ProgramRows rows = ROWS_ENDED; rows < PROGRAM_ROWS; rows++)
	{
		written |= programs->counts[rows] > 0;
		if (rows == ROWS_NEW)
			run_step(merge, insert_new, "added", &result->added, programs->rows[rows], programs->desc);
		else
			run_step(merge, update_altered, "updated", &result->updated, programs->rows[rows], programs->desc);
	}
	count_problems(merge);
	/* A sync that wrote nothing need not look, if nobody else did */
	if (written || !programs_are_as_read(programs, &merge->tables))
		merge->wrong = programs_count_wrong(programs, &merge->tables, merge->username,
											merge->delete_gone);
	result->programs = programs_count_listed(programs);
	result->missing = merge->show_missing ? result->unlisted : 0;
	result->unchanged = result->programs - programs->added - result->updated;
}
