/*
 * statement.h
 *	  Run SQL statements of the extension itself, and steps whose errors are
 *	  caught.
 */
#ifndef YELP_SYNC_STATEMENT_H
#define YELP_SYNC_STATEMENT_H

#include "executor/tuptable.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

/* Receives a row of the result; runs in the caller's memory context. */
typedef void (*StatementReceive) (TupleTableSlot *slot, void *arg);

typedef struct Statement
{
	DestReceiver receiver;		/* private, as the next two are */
	MemoryContext caller;
	ParamListInfo params;

	const char *purpose;		/* shown in the context of errors, instead of
								 * the statement */
	const char *sql;
	StatementReceive receive;	/* or NULL: rows are left in SPI_tuptable */
	void	   *arg;
	void		(*explain) (ErrorData *error);	/* or NULL: alters an error */
} Statement;

/*
 * Adds the next of the parameters $1, $2, ...; a null pointer of a type passed
 * by reference is NULL.
 */
extern void statement_add(Statement *statement, Oid type, Datum value);

/* A descriptor of rows that are collected for a statement. */
extern TupleDesc statement_desc(int count, const char *const *names, const Oid *types);

/*
 * Adds each column of the next rows, as many as one statement should take, as
 * an array, in the current memory context.  The filter, if any, leaves out
 * rows.  Returns the number of rows.
 */
extern int	statement_add_rows(Statement *statement, Tuplestorestate *rows, TupleTableSlot *slot,
							   bool (*filter) (void *arg, TupleTableSlot *slot), void *arg);

/*
 * Runs the statement with the caller's search_path, because triggers of its
 * tables do as well: every name in it must be schema-qualified.  It is planned
 * with the values of its parameters.  Needs an SPI connection, as all do.  The
 * argument is a Statement, so that this may be a step that others run.
 */
extern void statement_run(void *statement);

/*
 * The same for a SELECT that sees what has been committed until now, even in
 * a REPEATABLE READ transaction.
 */
extern void statement_run_latest(Statement *statement);

/*
 * The same for one that finds only objects of pg_catalog by unqualified names,
 * also as a step.
 */
extern void statement_query(void *statement);

/* A column, from 1, of the first row in SPI_tuptable as text, or NULL. */
extern char *statement_value(int column);

/*
 * Runs a step in a subtransaction, which is rolled back on error, and returns
 * the error, in the current memory context, or NULL.  If there is no memory
 * for that, raises 53200, after the rollback.  Interruptions are not caught.
 */
extern ErrorData *statement_try(void (*step) (void *arg), void *arg);

/* Raises an error again, if there is one, that is a cancel or the like. */
extern void rethrow_interruption(ErrorData *error);

#endif							/* YELP_SYNC_STATEMENT_H */
