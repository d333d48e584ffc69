/*
 * tables.h
 *	  Create the tables that a sync writes to, find them, and decide who may
 *	  use them and as whom.
 */
#ifndef YELP_SYNC_TABLES_H
#define YELP_SYNC_TABLES_H

#include "storage/lockdefs.h"

/* Maximum number of partitions of yelp_programs */
#define TABLES_MAX_PARTITIONS 1000

/* The tables used by a sync */
typedef struct Tables
{
	Oid			schema_oid;
	const char *schema;			/* schema of the tables, quoted */
	bool		partitioned;	/* is yelp_programs partitioned? */
	bool		distributed;	/* is yelp_programs a Citus table? */
	bool		heals;			/* is our trigger there? */
	const char *deferred;		/* constraints of the history that wait for the
								 * end of the transaction, or NULL */
	const char *created;		/* names of those just created; NULL: none */
	bool		created_programs;	/* is yelp_programs one of them? */
	const char *columns;		/* columns filled from a program's document,
								 * as a list */

	/* As whom statements run that use the tables */
	Oid			run_as;
	bool		restricted;		/* that role could not become the current user */
} Tables;

/*
 * Creates the missing tables in the extension's schema: all three, owned by
 * the current user; yelp_programs with the given number of partitions, or as
 * a plain table if that is 0.  Existing tables are left unchanged, but for a
 * missing yelp_programs_edited trigger, which is created.  Needs an SPI
 * connection.  Raises 42501 if the current user may not create them.
 */
extern void tables_create(Oid schema, int partitions);

/*
 * The tables for a sync by the current user, locked in this mode; missing
 * ones are created.  yelp_program_changes is needed only if changes are
 * recorded.  Needs an SPI connection.
 *
 * Raises 42501 if the current user lacks privileges, if row-level security
 * applies, or if another role's code would run with privileges that are not
 * its own (see tables.c); 42809 if one of them is not a table; 42703 or 42804
 * if a column is missing or has another type; 0A000 if equal keys may be
 * different texts.
 *
 * What is true stays true until the transaction ends only with a lock that
 * conflicts with CREATE TRIGGER: RowExclusiveLock.
 */
extern Tables tables_prepare(Oid schema, bool changes, LOCKMODE mode);

/*
 * The qualified name of a table, locked, if the current user may read it and
 * its owner is trusted; else NULL.  The tables need a schema only; the first
 * one decides as whom to run.  Raises 42501 if reading it could run another
 * role's code.
 */
extern const char *tables_readable(Tables *tables, const char *name);

/*
 * Runs a step as the role that statements on the tables run as.  After an
 * error, the end of the (sub)transaction restores the user.
 */
extern void tables_run_as(const Tables *tables, void (*step) (void *arg), void *arg);

#endif							/* YELP_SYNC_TABLES_H */
