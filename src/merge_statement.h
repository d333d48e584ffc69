/*
 * merge_statement.h
 *	  The statement that merges the fetched rows into yelp_programs.
 */
#ifndef YELP_SYNC_MERGE_STATEMENT_H
#define YELP_SYNC_MERGE_STATEMENT_H

#include "tables.h"

/* Names of the ephemeral relations that the statement reads */
#define MERGE_FETCHED "fetched"	/* the staged programs */
#define MERGE_MISSING "missing"	/* IDs of stored programs that did not arrive */

/* Which of the fetched rows to merge */
typedef enum MergeSource
{
	MERGE_ALL_ROWS,
	MERGE_PASS_ROWS,			/* those of the last pass, which has each
								 * program once */
	MERGE_LATEST_ROWS			/* the latest row of each program */
} MergeSource;

/*
 * The statement, palloc'd, which returns rows (action, program_id, changed).
 * Its parameters are described in merge_statement.c.
 *
 * record: add rows to yelp_program_changes; few: only few stored rows are
 * altered or deleted; filtered: also return the programs that policies or
 * triggers kept from being updated or deleted.
 */
extern char *merge_statement(const Tables *tables, MergeSource source, bool record,
							 bool few, bool filtered);

#endif							/* YELP_SYNC_MERGE_STATEMENT_H */
