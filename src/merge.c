/*
 * merge.c
 *	  The fetched rows into yelp_programs.
 *
 * The fetched tuplestore is an ephemeral named relation, "fetched", and one
 * statement joins it with the account's rows by fingerprint.  Only what differs
 * is parsed to jsonb, mapped to columns and written.
 *
 * The statement runs under the caller's search_path, because triggers of the
 * caller's do; so everything in it is qualified with its schema, operators
 * included, and constructs that look up an operator unseen, such as IS DISTINCT
 * FROM, USING and CASE x WHEN, are left to the SQL functions of the install
 * script, which were parsed when it ran.
 *
 * It is planned without nested loops but for look-ups of single rows.  The
 * planner knows nothing of the fetched rows and may have old statistics of the
 * stored ones; where it takes many rows for few, a nested loop would take hours
 * instead of seconds, while a hash join costs little more where there are few.
 * What is hashed is narrow: altered rows, which carry whole documents, are
 * looked up by their key instead, so that memory does not grow with them.
 */
#include "postgres.h"

#include "merge.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/timestamp.h"

#define FETCHED "fetched"

/*
 * Names in a statement: %1$s is the extension's schema, %2$s the fetched rows,
 * %3$s "ONLY " unless the table is partitioned.
 */
#define EQ "OPERATOR(pg_catalog.=)"

/* The columns that yelp_sync_columns() fills, each with a prefix */
#define COLUMNS_OF(p) \
	p "program_type, " p "program_status, " p "program_pause_status, " \
	p "start_date, " p "end_date, " \
	p "yelp_business_id, " p "partner_business_id, " \
	p "budget, " p "max_bid, " p "ad_cost, " p "currency, " p "fee_period, " \
	p "is_autobid, " p "billed_impressions, " p "billed_clicks, " \
	p "active_features, " p "available_features, " p "problems"

/* The rows of the last pass, which has each program once */
#define PASS_ROWS \
	"(SELECT f.* FROM " FETCHED " f WHERE f.pass OPERATOR(pg_catalog.>=) $4)"

/* Each program once: the later page wins, and on a page the later place */
#define LATEST_ROWS \
	"(SELECT DISTINCT ON (f.program_id) f.program_id, f.fingerprint, f.document, f.page_offset, f.problems" \
	" FROM " FETCHED " f WHERE f.pass OPERATOR(pg_catalog.>=) $4" \
	" ORDER BY f.program_id, f.pass DESC, f.page_offset DESC, f.position DESC)"

/*
 * $1 username, $2 whether to delete, $3 the time, $4 the first pass that counts.
 *
 * A row without a document came as it was stored; if somebody has edited it in
 * the meantime, the next sync puts it right.
 *
 * A row is altered, too, when only the spelling of its document changed: it
 * gets the new fingerprint and keeps its time, and is not reported.
 */
/* What differs from the stored rows, and what is stored and did not arrive */
#define DIFFERENCE_CTE \
	"difference AS MATERIALIZED (" \
	" SELECT f.program_id AS fetched_id, p.program_id AS stored_id," \
	"  f.fingerprint, f.document, f.page_offset, f.problems" \
	" FROM %2$s f FULL JOIN" \
	"  (SELECT p.program_id, p.fingerprint FROM %3$s%1$s.yelp_programs p" \
	"   WHERE p.username " EQ " $1) p" \
	" ON f.program_id " EQ " p.program_id" \
	" WHERE NOT COALESCE(f.fingerprint " EQ " p.fingerprint, false)" \
	"  AND (f.program_id IS NULL OR f.document IS NOT NULL)" \
	")"

/* Of these, what arrived, as jsonb */
#define MAPPED_CTE \
	"mapped AS (" \
	" SELECT d.fetched_id, d.stored_id, d.fingerprint," \
	"  %1$s.yelp_sync_document(d.document, d.fetched_id, d.page_offset) AS data," \
	"  pg_catalog.string_to_array(d.problems, ',') AS problems" \
	" FROM difference d WHERE d.fetched_id IS NOT NULL OFFSET 0" \
	")"

/* Programs that are proved to be gone */
#define DELETED_CTE \
	"deleted AS (" \
	" DELETE FROM %3$s%1$s.yelp_programs t USING difference d" \
	" WHERE $2 AND d.fetched_id IS NULL" \
	"  AND t.username " EQ " $1 AND t.program_id " EQ " d.stored_id" \
	" RETURNING t.program_id" \
	")"

/* Stored programs of another text, with the columns that changed */
#define ALTERED_CTE \
	"altered AS MATERIALIZED (" \
	" SELECT m.fetched_id, m.fingerprint, m.data, a.*, c.changed" \
	" FROM mapped m" \
	" CROSS JOIN LATERAL (SELECT p.data," \
	"   ROW(" COLUMNS_OF("p.") ")::%1$s.yelp_sync_values AS columns" \
	"  FROM %3$s%1$s.yelp_programs p" \
	"  WHERE p.username " EQ " $1 AND p.program_id " EQ " m.stored_id OFFSET 0) s" \
	" CROSS JOIN LATERAL %1$s.yelp_sync_columns(m.data, m.problems) a" \
	" CROSS JOIN LATERAL %1$s.yelp_sync_changed(s.columns, s.data, m.data, m.problems) c(changed)" \
	" WHERE m.stored_id IS NOT NULL" \
	")"

/* These programs updated, as far as a condition on "a", an altered one, holds */
#define UPDATED_CTE(name, condition) \
	name " AS (" \
	" UPDATE %3$s%1$s.yelp_programs t" \
	" SET (" COLUMNS_OF("") ", data, fingerprint, updated_at) =" \
	"  ROW(" COLUMNS_OF("a.") ", a.data, a.fingerprint," \
	"   CASE WHEN pg_catalog.cardinality(a.changed) " EQ " 0 THEN t.updated_at ELSE $3 END)" \
	" FROM altered a" \
	" WHERE t.username " EQ " $1 AND t.program_id " EQ " a.fetched_id AND " condition \
	" RETURNING t.program_id, a.changed" \
	")"

#define IS_ACTIVE "COALESCE(a.program_status " EQ " 'ACTIVE', false)"

/* Programs that were not stored */
#define ADDED_CTE \
	"added AS (" \
	" INSERT INTO %1$s.yelp_programs AS t" \
	"  (username, program_id, " COLUMNS_OF("") ", data, fingerprint, created_at, updated_at)" \
	" SELECT $1, m.fetched_id, a.*, m.data, m.fingerprint, $3, $3" \
	" FROM mapped m CROSS JOIN LATERAL %1$s.yelp_sync_columns(m.data, m.problems) a" \
	" WHERE m.stored_id IS NULL" \
	" RETURNING t.program_id" \
	")"

#define UPDATED_ROWS(name) \
	"SELECT CASE WHEN pg_catalog.cardinality(changed) " EQ " 0 THEN 'respelled' ELSE 'updated' END," \
	" program_id::pg_catalog.text, changed FROM " name

/*
 * The last query reads one result after the other, and so decides in which
 * order the rows are written: what makes room before what takes it, so that a
 * unique index of the user's is met by a program that succeeds another one.
 */
#define MERGE_STATEMENT \
	"WITH " DIFFERENCE_CTE ", " MAPPED_CTE ", " DELETED_CTE ", " ALTERED_CTE ", " \
	UPDATED_CTE("ended", "NOT " IS_ACTIVE) ", " UPDATED_CTE("updated", IS_ACTIVE) ", " \
	ADDED_CTE \
	" SELECT 'deleted'::pg_catalog.text, program_id::pg_catalog.text," \
	" NULL::pg_catalog.text[] FROM deleted" \
	" UNION ALL " UPDATED_ROWS("ended") \
	" UNION ALL " UPDATED_ROWS("updated") \
	" UNION ALL SELECT 'added', program_id::pg_catalog.text, NULL FROM added" \
	" UNION ALL SELECT 'missing', stored_id::pg_catalog.text, NULL FROM difference" \
	" WHERE NOT $2 AND fetched_id IS NULL"

#define WORK_MEM_SHARES 8
#define MIN_WORK_MEM 64			/* kB: the least that PostgreSQL allows */

/* ---- the rows that the statement returns ---- */

typedef struct ActionReceiver
{
	DestReceiver pub;
	Merge	   *merge;
} ActionReceiver;

static bool
text_is(Datum text, const char *word)
{
	size_t		length = strlen(word);

	return VARSIZE_ANY_EXHDR(DatumGetPointer(text)) == length &&
		memcmp(VARDATA_ANY(DatumGetPointer(text)), word, length) == 0;
}

/* Counts the row; true when the caller is to see it. */
static bool
count_action(Merge *merge, Datum action)
{
	if (text_is(action, "added"))
		merge->added++;
	else if (text_is(action, "updated"))
		merge->updated++;
	else if (text_is(action, "deleted"))
		merge->deleted++;
	else if (text_is(action, "missing"))
	{
		merge->unlisted++;
		return merge->show_missing;
	}
	else
		return false;
	return true;
}

static bool
receive_action(TupleTableSlot *slot, DestReceiver *self)
{
	Merge	   *merge = ((ActionReceiver *) self)->merge;
	bool		isnull;

	if (count_action(merge, slot_getattr(slot, 1, &isnull)))
		tuplestore_puttupleslot(merge->result, slot);
	return true;
}

/* ---- statements ---- */

static void
register_rows(const Fetched *fetched)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = FETCHED;
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = fetched->staging.desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = fetched->staging.count;
	relation->reldata = fetched->staging.store;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the fetched rows");
}

static void
unregister_rows(void)
{
	if (SPI_unregister_relation(FETCHED) != SPI_OK_REL_UNREGISTER)
		elog(ERROR, "could not unregister the fetched rows");
}

/*
 * Plans a statement without nested loops of tables, and without compiling
 * what runs once.  The settings hold for the planning alone: functions and
 * triggers of the user's that the statement calls are planned as ever.
 */
static SPIPlanPtr
plan_statement(const char *sql, int nargs, Oid *types)
{
	int			level = NewGUCNestLevel();
	SPIPlanPtr	plan;
	CachedPlan *cached;

	(void) set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("enable_mergejoin", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	plan = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);
	cached = SPI_plan_get_cached_plan(plan);
	ReleaseCachedPlan(cached, NULL);
	AtEOXact_GUC(true, level);
	return plan;
}

/*
 * SPI quotes the statement in the context of an error; in the place of so long
 * a text it gets the statement's purpose.
 */
static void
shorten_context(ErrorData *error, const char *sql, const char *purpose)
{
	char	   *start = error->context ? strstr(error->context, sql) : NULL;

	if (start)
		error->context = psprintf("%.*s%s%s", (int) (start - error->context),
								  error->context, purpose, start + strlen(sql));
}

/*
 * Under a snapshot of the transaction's, rows that another sync has added since
 * cannot be seen, but collide.
 */
static bool
is_lost_race(const ErrorData *error)
{
	return IsolationUsesXactSnapshot() &&
		error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		error->constraint_name != NULL &&
		strcmp(error->constraint_name, "yelp_programs_pkey") == 0;
}

/*
 * A statement keeps some eight tables and hash tables at a time, each of which
 * may take work_mem, or twice that: together they shall.  Returns the level of
 * the setting, for AtEOXact_GUC.
 */
static int
share_work_mem(void)
{
	int			level = NewGUCNestLevel();
	char	   *share = psprintf("%dkB", Max(work_mem / WORK_MEM_SHARES, MIN_WORK_MEM));

	(void) set_config_option("work_mem", share, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	/* Else the statement would be planned anew, under the user's settings */
	if (plan_cache_mode == PLAN_CACHE_MODE_FORCE_CUSTOM_PLAN)
		(void) set_config_option("plan_cache_mode", "auto", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

static void
run_merge(Merge *merge, SPIPlanPtr plan, const char *sql, SPIExecuteOptions *options)
{
	MemoryContext caller = CurrentMemoryContext;
	int			level = share_work_mem();

	PG_TRY();
	{
		if (SPI_execute_plan_extended(plan, options) != SPI_OK_SELECT)
			elog(ERROR, "merge failed: %s", SPI_result_code_string(SPI_result));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (is_lost_race(error))
		{
			error->sqlerrcode = ERRCODE_T_R_SERIALIZATION_FAILURE;
			error->message = "could not serialize access due to a concurrent sync";
		}
		shorten_context(error, sql, psprintf("merge into %s.yelp_programs", merge->schema));
		ReThrowError(error);
	}
	PG_END_TRY();
	AtEOXact_GUC(true, level);
}

/* Tables that inherit from yelp_programs are none of a sync's business. */
static const char *
only_clause(const Merge *merge)
{
	return merge->partitioned ? "" : "ONLY ";
}

/* What to join with, as cheap as it may be. */
static const char *
source_of(const Fetched *fetched)
{
	if (fetched->repeats)
		return LATEST_ROWS;
	return fetched->first_pass > 1 ? PASS_ROWS : FETCHED;
}

static void
execute_merge(Merge *merge, const Fetched *fetched)
{
	Oid			types[] = {TEXTOID, BOOLOID, TIMESTAMPTZOID, INT4OID};
	ActionReceiver receiver = {
		.pub = *None_Receiver,
		.merge = merge,
	};
	SPIExecuteOptions options = {.dest = &receiver.pub};
	ParamListInfo params = makeParamList(lengthof(types));
	char	   *sql = psprintf(MERGE_STATEMENT, merge->schema,
							   source_of(fetched), only_clause(merge));
	Datum		values[] = {
		CStringGetTextDatum(merge->username),
		BoolGetDatum(merge->delete_gone),
		TimestampTzGetDatum(merge->at),
		Int32GetDatum(fetched->first_pass),
	};

	receiver.pub.receiveSlot = receive_action;
	receiver.pub.mydest = DestTuplestore;
	for (int i = 0; i < (int) lengthof(types); i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	options.params = params;
	run_merge(merge, plan_statement(sql, lengthof(types), types), sql, &options);
}

/* The number that a query, of the account $1, answers with. */
static int64
query_number(const char *sql, const char *username)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(username)};
	int			level = share_work_mem();
	bool		isnull;

	if (SPI_execute_plan(plan_statement(sql, lengthof(types), types), values,
						 NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	AtEOXact_GUC(true, level);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * In most syncs all stored programs are listed, and comparing the sets shows it.
 * Where they differ a join tells whether more than new programs is the reason.
 */
int64
merge_count_unlisted(const Merge *merge, const Fetched *fetched)
{
	char	   *sql = psprintf("SELECT pg_catalog.count(*)"
							   " FROM %s%s.yelp_programs p LEFT JOIN " FETCHED " f"
							   " ON f.program_id " EQ " p.program_id AND f.pass " EQ " %d"
							   " WHERE p.username " EQ " $1 AND f.program_id IS NULL",
							   only_clause(merge), merge->schema,
							   fetched->staging.pass);
	int64		unlisted;

	if (merge->stored.count == 0 ||
		program_set_equal(merge->stored, fetched->programs))
		return 0;
	register_rows(fetched);
	unlisted = query_number(sql, merge->username);
	unregister_rows();
	return unlisted;
}

/* When the rows of several passes are used, their programs are yet to be counted. */
static int64
count_fetched(const Fetched *fetched, const char *username)
{
	if (fetched->first_pass == fetched->staging.pass)
		return fetched->programs.count;
	return query_number("SELECT pg_catalog.count(DISTINCT program_id) FROM " FETCHED,
						username);
}

/* Did each program come once, with the text that is stored, and no other? */
static bool
nothing_changed(const Merge *merge, const Fetched *fetched)
{
	return !fetched->repeats &&
		program_set_same_content(merge->stored, fetched->programs);
}

void
merge_programs(Merge *merge, const Fetched *fetched)
{
	if (nothing_changed(merge, fetched))
	{
		merge->programs = merge->unchanged = fetched->programs.count;
		return;
	}
	register_rows(fetched);
	execute_merge(merge, fetched);
	merge->programs = count_fetched(fetched, merge->username);
	merge->unchanged = merge->programs - merge->added - merge->updated;
	unregister_rows();
}
