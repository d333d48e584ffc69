/*
 * merge.c
 *	  Merge the fetched rows into yelp_programs.
 *
 * The fetched tuplestore is an ephemeral named relation, "fetched", and a
 * single statement joins it with the account's rows by fingerprint.  Only
 * programs that differ are parsed to jsonb, mapped to columns and written.
 *
 * It is planned without nested loops, except for look-ups of single rows.
 * The planner has no statistics of the fetched rows, and those of the stored
 * rows may be outdated; if it underestimates them, a nested loop would take
 * hours instead of seconds, while a hash join costs little more if there are
 * few.  The hashed rows are narrow: altered rows, which include whole
 * documents, are looked up by key instead, so that memory does not grow with
 * them.  If only few rows are to be altered or deleted, their IDs restrict
 * the table to them.
 */
#include "postgres.h"

#include "merge.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "local_setting.h"
#include "merge_statement.h"

/*
 * If at least this many rows arrive, only a fraction of the reformatted ones
 * is written
 */
#define MANY_ROWS 1000
#define RESPELLED_SHARE INT64CONST(10)

/* See are_few */
#define FEW_SHARE 10

#define WORK_MEM_SHARES 8
#define MIN_WORK_MEM 64			/* kB: PostgreSQL's minimum */

/* ---- the rows returned by the statement ---- */

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

/* Counts the row; true if it is returned to the caller. */
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
	{
		merge->kept += text_is(action, "kept");
		return false;
	}
	return true;
}

static bool
receive_action(TupleTableSlot *slot, DestReceiver *self)
{
	Merge	   *merge = ((ActionReceiver *) self)->merge;
	bool		isnull;
	bool		shown = count_action(merge, slot_getattr(slot, 1, &isnull));
	Datum		changed = slot_getattr(slot, 3, &isnull);

	if (!isnull)
		lost_fields_note(&merge->lost, changed);
	if (shown && merge->result)
		tuplestore_puttupleslot(merge->result, slot);
	return true;
}

/* ---- statements ---- */

static void
register_rows(char *name, TupleDesc desc, Tuplestorestate *rows)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = name;
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(rows);
	relation->reldata = rows;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows \"%s\"", name);
}

static void
unregister_rows(const char *name)
{
	if (SPI_unregister_relation(name) != SPI_OK_REL_UNREGISTER)
		elog(ERROR, "could not unregister the rows \"%s\"", name);
}

/*
 * Plans a statement without nested loops between tables, and without JIT
 * compilation, which does not pay off.  The settings only apply to planning
 * this statement: the user's functions and triggers that it calls are planned
 * normally.
 */
static SPIPlanPtr
plan_statement(const char *sql, ParamListInfo params, bool few)
{
	int			level = NewGUCNestLevel();
	Oid		   *types = palloc(params->numParams * sizeof(Oid));
	SPIPlanPtr	plan;
	CachedPlan *cached;

	for (int i = 0; i < params->numParams; i++)
		types[i] = params->params[i].ptype;
	local_setting("enable_nestloop", "off");
	local_setting("enable_mergejoin", "off");
	if (few)
		local_setting("enable_seqscan", "off");
	local_setting("jit", "off");
	plan = SPI_prepare_cursor(sql, params->numParams, types, CURSOR_OPT_GENERIC_PLAN);
	cached = SPI_plan_get_cached_plan(plan);
	ReleaseCachedPlan(cached, NULL);
	AtEOXact_GUC(true, level);
	return plan;
}

/*
 * SPI includes the statement in an error's context; replace this long text by
 * a description.
 */
static void
shorten_context(ErrorData *error, const char *sql, const char *purpose)
{
	char	   *start = error->context ? strstr(error->context, sql) : NULL;

	if (start)
		error->context = psprintf("%.*s%s%s", (int) (start - error->context),
								  error->context, purpose, start + strlen(sql));
}

/* Is it the constraint of the primary key, or that of a partition? */
static bool
is_primary_key(const Merge *merge, const char *constraint)
{
	const char *table = "yelp_programs";
	const char *suffix = strrchr(constraint, '_');

	if (!merge->tables.partitioned)
		return strcmp(constraint, "yelp_programs_pkey") == 0;
	return strncmp(constraint, table, strlen(table)) == 0 &&
		suffix && strcmp(suffix, "_pkey") == 0;
}

/*
 * With a transaction snapshot, rows that another sync has added since are not
 * visible, but still conflict.
 */
static bool
is_lost_race(const Merge *merge, const ErrorData *error)
{
	return IsolationUsesXactSnapshot() &&
		error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		error->constraint_name != NULL &&
		is_primary_key(merge, error->constraint_name);
}

/*
 * The statement uses about eight tuplestores and hash tables at a time, each
 * of which may take work_mem or twice that; let them share it.  Returns the
 * nest level for AtEOXact_GUC.
 */
static int
share_work_mem(void)
{
	int			level = NewGUCNestLevel();
	char	   *share = psprintf("%dkB", Max(work_mem / WORK_MEM_SHARES, MIN_WORK_MEM));

	local_setting("work_mem", share);
	/* Otherwise, the statement would be replanned with the user's settings */
	if (plan_cache_mode == PLAN_CACHE_MODE_FORCE_CUSTOM_PLAN)
		local_setting("plan_cache_mode", "auto");
	return level;
}

static void
run_plan(SPIPlanPtr plan, SPIExecuteOptions *options)
{
	int			level = share_work_mem();

	if (SPI_execute_plan_extended(plan, options) != SPI_OK_SELECT)
		elog(ERROR, "merge failed: %s", SPI_result_code_string(SPI_result));
	AtEOXact_GUC(true, level);
}

static void
run_merge(Merge *merge, const char *sql, SPIExecuteOptions *options, bool few)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		run_plan(plan_statement(sql, options->params, few), options);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (is_lost_race(merge, error))
		{
			error->sqlerrcode = ERRCODE_T_R_SERIALIZATION_FAILURE;
			error->message = "could not serialize access due to a concurrent sync";
		}
		shorten_context(error, sql, psprintf("merge into %s.yelp_programs", merge->tables.schema));
		ReThrowError(error);
	}
	PG_END_TRY();
}

/* What to join with, as cheaply as possible. */
static MergeSource
source_of(const Fetched *fetched)
{
	if (fetched->repeats)
		return MERGE_LATEST_ROWS;
	return fetched->first_pass > 1 ? MERGE_PASS_ROWS : MERGE_ALL_ROWS;
}

/*
 * Is at most one in FEW_SHARE of the stored programs to be altered or
 * deleted?
 */
static bool
are_few(const Merge *merge, const Fetched *fetched)
{
	return fetched->staging.count + merge_count_unlisted(merge, fetched) <=
		merge->stored.count / FEW_SHARE;
}

static void
execute_merge(Merge *merge, const Fetched *fetched)
{
	Oid			types[] = {
		TEXTOID, BOOLOID, TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID, INT8OID
	};
	ActionReceiver receiver = {
		.pub = *None_Receiver,
		.merge = merge,
	};
	SPIExecuteOptions options = {.dest = &receiver.pub};
	ParamListInfo params = makeParamList(lengthof(types));
	bool		few = are_few(merge, fetched);
	char	   *sql = merge_statement(&merge->tables, source_of(fetched),
									  merge->record, few, merge->tables.triggers);
	Datum		values[] = {
		CStringGetTextDatum(merge->username),
		BoolGetDatum(merge->delete_gone),
		TimestampTzGetDatum(merge->at),
		Int32GetDatum(fetched->first_pass),
		Int64GetDatum(fetched->staging.count > MANY_ROWS ? RESPELLED_SHARE : 1),
		Int64GetDatum((int64) pg_prng_uint64(&pg_global_prng_state)),
		Int64GetDatum(merge->run_id),
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
	run_merge(merge, sql, &options, few);
}

int64
merge_count_unlisted(const Merge *merge, const Fetched *fetched)
{
	return merge->stored.count - fetched->staging.stored;
}

static TupleDesc
missing_desc(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(1);

	TupleDescInitEntry(desc, 1, "program_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, 1, C_COLLATION_OID);
	return compat_finish_tuple_desc(desc);
}

/* The IDs of the stored programs that did not arrive. */
static Tuplestorestate *
find_missing(const Merge *merge, const Fetched *fetched)
{
	Tuplestorestate *missing = tuplestore_begin_heap(true, false, work_mem);

	if (merge_count_unlisted(merge, fetched) > 0)
		known_add_missing(merge->known, fetched->first_pass, missing);
	return missing;
}

/* Did exactly the stored programs arrive, unchanged and once each? */
static bool
nothing_changed(const Merge *merge, const Fetched *fetched)
{
	return !fetched->repeats &&
		program_set_same_content(merge->stored, fetched->programs);
}

static void
merge_rows(Merge *merge, const Fetched *fetched)
{
	Tuplestorestate *missing = find_missing(merge, fetched);

	/* Its memory can be reused */
	known_free(merge->known);
	merge->known = NULL;
	register_rows(MERGE_FETCHED, fetched->staging.desc, fetched->staging.store);
	register_rows(MERGE_MISSING, missing_desc(), missing);
	execute_merge(merge, fetched);
	unregister_rows(MERGE_MISSING);
	unregister_rows(MERGE_FETCHED);
	tuplestore_end(missing);
}

/* Counts the stored programs with problems. */
static void
count_problems(Merge *merge)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(merge->username)};
	char	   *sql = psprintf("SELECT pg_catalog.count(*), pg_catalog.min(pg_catalog.format("
							   "'The first one is program \"%%s\": %%s.', program_id,"
							   " pg_catalog.array_to_string(problems, ', ')))"
							   " FROM %s%s.yelp_programs"
							   " WHERE username OPERATOR(pg_catalog.=) $1 AND problems IS NOT NULL",
							   merge->tables.partitioned ? "" : "ONLY ", merge->tables.schema);
	bool		isnull;

	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	merge->problems = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
												  1, &isnull));
	merge->first_problem = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
}

static void
merge_changed(Merge *merge, const Fetched *fetched)
{
	const Staging *staging = &fetched->staging;
	int64		added;

	merge->programs = fetched->first_pass == staging->pass ?
		fetched->programs.count : staging->programs;
	if (nothing_changed(merge, fetched))
	{
		merge->unchanged = merge->programs;
		return;
	}
	/* Rows whose update is suppressed by a user's trigger are unchanged */
	merge->unchanged = known_count_arrived(merge->known, fetched->first_pass);
	added = merge->programs - merge->unchanged;
	merge_rows(merge, fetched);
	merge->unchanged -= merge->updated;
	if (merge->tables.triggers)
		merge->kept += Max(added - merge->added, 0);
}

void
merge_programs(Merge *merge, const Fetched *fetched)
{
	merge_changed(merge, fetched);
	count_problems(merge);
}

int64
merge_count_lost(const Merge *merge)
{
	int64		count;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	count = known_count_rows(merge->tables.schema, merge->tables.partitioned,
							 merge->username);
	PopActiveSnapshot();
	return Max(merge->stored.count + merge->added - merge->deleted - count, 0);
}
