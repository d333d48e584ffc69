/*
 * statement.c
 *	  Run SQL statements of the extension itself, and steps whose errors are
 *	  caught.
 */
#include "postgres.h"

#include "statement.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"

#define MAX_PARAMETERS 32

/*
 * Rows that one statement takes.  It holds several copies of their documents,
 * so they are limited in bytes as well.
 */
#define MAX_ROWS 1000
#define MAX_BYTES (512 * 1024)
#define MAX_COLUMNS 8

/* ---- parameters ---- */

void
statement_add(Statement *statement, Oid type, Datum value)
{
	bool		isnull = value == (Datum) 0 && !get_typbyval(type);
	ParamExternData parameter = {value, isnull, PARAM_FLAG_CONST, type};

	if (statement->params == NULL)
	{
		statement->params = makeParamList(MAX_PARAMETERS);
		statement->params->numParams = 0;
	}
	Assert(statement->params->numParams < MAX_PARAMETERS);
	statement->params->params[statement->params->numParams++] = parameter;
}

TupleDesc
statement_desc(int count, const char *const *names, const Oid *types)
{
	TupleDesc	desc = CreateTemplateTupleDesc(count);

	for (int i = 0; i < count; i++)
		TupleDescInitEntry(desc, i + 1, names[i], types[i], -1, 0);
	return compat_finish_tuple_desc(desc);
}

int
statement_add_rows(Statement *statement, Tuplestorestate *rows, TupleTableSlot *slot,
				   bool (*filter) (void *arg, TupleTableSlot *slot), void *arg)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	ArrayBuildState *arrays[MAX_COLUMNS];
	Size		bytes = 0;
	int			count = 0;

	Assert(desc->natts <= MAX_COLUMNS);
	for (int i = 0; i < desc->natts; i++)
		arrays[i] = initArrayResult(TupleDescAttr(desc, i)->atttypid,
									CurrentMemoryContext, false);
	while (count < MAX_ROWS && bytes < MAX_BYTES &&
		   tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		should_free;

		CHECK_FOR_INTERRUPTS();
		if (filter && !filter(arg, slot))
			continue;
		slot_getallattrs(slot);
		for (int i = 0; i < desc->natts; i++)
			accumArrayResult(arrays[i], slot->tts_values[i], slot->tts_isnull[i],
							 TupleDescAttr(desc, i)->atttypid, CurrentMemoryContext);
		bytes += ExecFetchSlotMinimalTuple(slot, &should_free)->t_len;
		count++;
	}
	/* Its row may be in the current context, which the caller resets */
	ExecClearTuple(slot);
	for (int i = 0; i < desc->natts; i++)
		statement_add(statement, get_array_type(TupleDescAttr(desc, i)->atttypid),
					  makeArrayResult(arrays[i], CurrentMemoryContext));
	return count;
}

/* ---- running ---- */

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Statement  *statement = (Statement *) self;
	MemoryContext executor = MemoryContextSwitchTo(statement->caller);

	statement->receive(slot, statement->arg);
	MemoryContextSwitchTo(executor);
	return true;
}

/*
 * SPI includes the statement in an error's context; replace this long text by
 * a description.
 */
static void
shorten_context(ErrorData *error, const Statement *statement)
{
	char	   *start = error->context ? strstr(error->context, statement->sql) : NULL;

	if (start)
		error->context = psprintf("%.*s%s%s", (int) (start - error->context),
								  error->context, statement->purpose,
								  start + strlen(statement->sql));
}

static void
run(Statement *statement, bool read_only)
{
	MemoryContext caller = CurrentMemoryContext;
	int			level = NewGUCNestLevel();
	SPIExecuteOptions options = {.params = statement->params,.read_only = read_only};

	statement->caller = caller;
	if (statement->receive)
	{
		statement->receiver = *None_Receiver;
		statement->receiver.receiveSlot = receive_row;
		statement->receiver.mydest = DestTuplestore;
		options.dest = &statement->receiver;
	}
	/* JIT compilation does not pay off, and takes memory */
	local_setting("jit", "off");
	PG_TRY();
	{
		int			result = SPI_execute_extended(statement->sql, &options);

		if (result < 0)
			elog(ERROR, "%s failed: %s", statement->purpose, SPI_result_code_string(result));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		shorten_context(error, statement);
		if (statement->explain)
			statement->explain(error);
		ReThrowError(error);
	}
	PG_END_TRY();
	/* SPI leaves its own */
	MemoryContextSwitchTo(caller);
	AtEOXact_GUC(true, level);
}

void
statement_run(void *statement)
{
	run(statement, false);
}

void
statement_run_latest(Statement *statement)
{
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	run(statement, true);
	PopActiveSnapshot();
}

void
statement_query(void *statement)
{
	int			level = NewGUCNestLevel();

	local_setting("search_path", "pg_catalog, pg_temp");
	statement_run_latest(statement);
	AtEOXact_GUC(true, level);
}

char	   *
statement_value(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

/* ---- errors ---- */

void
rethrow_interruption(ErrorData *error)
{
	if (error && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
}

ErrorData  *
statement_try(void (*step) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* First, since there may be no memory for the copy */
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	rethrow_interruption(error);
	return error;
}
