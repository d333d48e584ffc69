/*
 * statement.h
 *	  Run SQL statements of the extension itself.
 */
#ifndef YELP_SYNC_STATEMENT_H
#define YELP_SYNC_STATEMENT_H

#include "executor/tuptable.h"
#include "utils/tuplestore.h"

#define STATEMENT_MAX_PARAMETERS 32

/* Receives a row of the result; runs in the caller's memory context. */
typedef void (*StatementReceive) (TupleTableSlot *slot, void *arg);

typedef struct Statement
{
	const char *purpose;		/* shown in the context of errors, instead of
								 * the statement */
	const char *sql;
	StatementReceive receive;		/* or NULL: rows are not wanted */
	void	   *arg;
	void		(*explain) (ErrorData *error);	/* or NULL: alters an error */

	/* The parameters $1, $2, ... */
	int			count;
	Oid			types[STATEMENT_MAX_PARAMETERS];
	Datum		values[STATEMENT_MAX_PARAMETERS];
	bool		nulls[STATEMENT_MAX_PARAMETERS];
} Statement;

/* Adds a parameter; a null pointer of a type passed by reference is NULL. */
extern void statement_add(Statement *statement, Oid type, Datum value);

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
 * with the values of its parameters.  Needs an SPI connection.
 */
extern void statement_run(Statement *statement);

/*
 * The same for a SELECT that sees what has been committed until now, even in
 * a REPEATABLE READ transaction.
 */
extern void statement_run_latest(Statement *statement);

#endif							/* YELP_SYNC_STATEMENT_H */
