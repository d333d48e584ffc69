/*
 * statement.c
 *	  Run SQL statements of the extension itself.
 */
#include "postgres.h"

#include "statement.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "compat.h"

/*
 * Rows that one statement takes.  It holds several copies of their documents,
 * so they are limited in bytes as well.
 */
#define MAX_ROWS 1000
#define MAX_BYTES (512 * 1024)
#define MAX_COLUMNS 8

typedef struct Receiver
{
	DestReceiver pub;
	const Statement *statement;
	MemoryContext caller;
} Receiver;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Receiver   *receiver = (Receiver *) self;
	const Statement *statement = receiver->statement;
	MemoryContext executor = MemoryContextSwitchTo(receiver->caller);

	if (statement->receive)
		statement->receive(slot, statement->arg);
	MemoryContextSwitchTo(executor);
	return true;
}

void
statement_add(Statement *statement, Oid type, Datum value)
{
	Assert(statement->count < STATEMENT_MAX_PARAMETERS);
	statement->types[statement->count] = type;
	statement->values[statement->count] = value;
	statement->nulls[statement->count] = value == (Datum) 0 && !get_typbyval(type);
	statement->count++;
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

static void
execute(Statement *statement, bool read_only)
{
	Receiver	receiver = {
		.pub = *None_Receiver,
		.statement = statement,
		.caller = CurrentMemoryContext,
	};
	ParamListInfo params = makeParamList(statement->count);
	SPIExecuteOptions options = {
		.params = params,
		.read_only = read_only,
		.dest = &receiver.pub,
	};
	int			result;

	receiver.pub.receiveSlot = receive_row;
	receiver.pub.mydest = DestTuplestore;
	for (int i = 0; i < statement->count; i++)
	{
		params->params[i].value = statement->values[i];
		params->params[i].isnull = statement->nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = statement->types[i];
	}
	result = SPI_execute_extended(statement->sql, &options);
	if (result < 0)
		elog(ERROR, "%s failed: %s", statement->purpose, SPI_result_code_string(result));
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

	/* JIT compilation does not pay off, and takes memory */
	local_setting("jit", "off");
	PG_TRY();
	{
		execute(statement, read_only);
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
statement_run(Statement *statement)
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
