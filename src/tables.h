/*
 * tables.h
 *	  Create the tables that a sync writes to, find them, and check that they
 *	  can be used.
 */
#ifndef YELP_SYNC_TABLES_H
#define YELP_SYNC_TABLES_H

#include "access/tupdesc.h"

/* Maximum number of partitions of yelp_programs */
#define TABLES_MAX_PARTITIONS 1000

/* The tables used by a sync */
typedef struct Tables
{
	const char *schema;			/* schema of the tables, quoted */
	bool		partitioned;	/* is yelp_programs partitioned? */
	bool		row_security;	/* does it apply to yelp_programs for the
								 * current user? */
	bool		triggers;		/* does yelp_programs have any of its users'? */
	TupleDesc	filled;			/* columns filled from a program's document */
	Oid			programs;		/* yelp_programs */
	Oid			runs;			/* yelp_sync_runs */
} Tables;

/*
 * Creates the missing tables in the extension's schema, owned by the current
 * user; yelp_programs with the given number of partitions, or as a plain
 * table if that is 0.  Existing tables are left unchanged.  Needs an SPI
 * connection.
 *
 * Raises 42501 if the current user may not create them, or if the owner of an
 * existing one is not trusted, and 42809 if it is not a table.
 */
extern void tables_create(Oid schema, int partitions);

/*
 * The same for the tables that a sync needs, with yelp_program_changes only
 * if changes are recorded.  Also checks that the current user has all
 * privileges that a sync needs on the tables, including row-level security,
 * and on the functions it calls, that the owners of the tables' triggers are
 * trusted (42501), and that equal keys are the same text (0A000).
 */
extern Tables tables_prepare(Oid schema, bool changes);

/*
 * The planner's estimate of the number of programs that are stored, of all
 * accounts together.
 */
extern double tables_estimate_programs(const Tables *tables);

#endif							/* YELP_SYNC_TABLES_H */
