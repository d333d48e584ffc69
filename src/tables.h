/*
 * tables.h
 *	  The tables that a sync writes to: makes them, finds them, and checks that
 *	  they can be used.
 */
#ifndef YELP_SYNC_TABLES_H
#define YELP_SYNC_TABLES_H

#include "access/tupdesc.h"

/* The most partitions that yelp_programs is made with. */
#define TABLES_MAX_PARTITIONS 1000

/* The tables as a sync uses them. */
typedef struct Tables
{
	const char *schema;			/* where they are, quoted */
	bool		partitioned;	/* is yelp_programs? */
	bool		row_security;	/* does it apply there to the current user? */
	TupleDesc	filled;			/* its columns that a program's document fills */
	Oid			programs;		/* yelp_programs */
	Oid			runs;			/* yelp_sync_runs */
} Tables;

/*
 * Makes the tables that are missing in the extension's schema, owned by the
 * current user: yelp_programs in so many partitions, or as a plain table with 0.
 * Those that are there are left as they are.  Needs an SPI connection.
 *
 * Raises 42501 where the current user may not make them, or where one belongs to
 * somebody whom it need not trust, and 42809 for what is no table.
 */
extern void tables_create(Oid schema, int partitions);

/*
 * The same for what a sync needs, which is yelp_program_changes only where changes
 * are recorded; and checks in addition that the current user has the rights
 * (42501) to do with the tables what a sync does, row-level security included, and
 * to call the functions that it calls.
 */
extern Tables tables_prepare(Oid schema, bool changes);

#endif							/* YELP_SYNC_TABLES_H */
