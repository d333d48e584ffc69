/*
 * programs.h
 *	  All programs of an account that are stored or were received: which of
 *	  them are new, changed or no longer listed.
 */
#ifndef YELP_SYNC_PROGRAMS_H
#define YELP_SYNC_PROGRAMS_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

#include "program_page.h"
#include "tables.h"

/*
 * The received programs that differ from what is stored, as rows, in the
 * order in which they are to be written.  A program that ends frees a value
 * that another one may take, if a unique index covers only active ones.
 */
typedef enum ProgramRows
{
	ROWS_ENDED,					/* stored with another text, and not ACTIVE */
	ROWS_ALTERED,				/* the others that are stored */
	ROWS_NEW
} ProgramRows;

#define PROGRAM_ROWS (ROWS_NEW + 1)

/* Their columns: text, bigint, text */
#define ROW_PROGRAM_ID 1
#define ROW_FINGERPRINT 2
#define ROW_DOCUMENT 3
#define ROW_COLUMNS 3

typedef struct Programs
{
	struct program_table_hash *table;
	MemoryContext context;
	TransactionId quiet_since;	/* see programs_are_as_read */
	int64		stored;			/* programs stored, without those that are
								 * gone and kept */
	int64		received;		/* programs in any reading, each counted once */

	/* The current or the last reading */
	int			reading;		/* 1 for the first, 0 before */
	int64		listed;			/* programs in it */
	uint64		digest;			/* of their IDs: XOR of the hashes */
	int64		common;			/* how many of them are stored */

	/* What is merged */
	int			first_reading;	/* programs that were received last in an
								 * earlier reading are ignored */
	TupleDesc	desc;
	Tuplestorestate *rows[PROGRAM_ROWS];	/* spill to disk */
	int64		counts[PROGRAM_ROWS];
	int64		added;			/* new programs whose rows were taken */

	/* What reading the stored rows again finds */
	Tuplestorestate *unlisted;	/* IDs of programs that are not listed */
	int64		right;			/* listed programs that are stored as received */
	int64		left;			/* programs that are neither listed nor gone */
} Programs;

/* Maximum number of readings */
#define PROGRAMS_MAX_READINGS 3

/*
 * Reads the IDs and fingerprints of the account's rows, given their expected
 * number.  Needs an SPI connection.  The result lives in a context of its own.
 * Rows of tables that inherit from yelp_programs are included only if it is
 * partitioned.
 */
extern Programs *programs_read(const Tables *tables, const char *username,
							   int64 expected);
extern void programs_free(Programs *programs);

/* Begins a reading; rows are kept in memory up to work_mem. */
extern void programs_begin_reading(Programs *programs);

/*
 * Adds the programs of a page, and returns how many of them are new in this
 * reading.  Of a program that is received twice, the first one counts.
 */
extern int	programs_add_page(Programs *programs, const ProgramPage *page);

/* For the page reader, which need not read what is known: see KnownPrograms. */
extern const uint64 *programs_fingerprint(const void *programs, uint64 id_hash);
extern void programs_prefetch(const void *programs, uint64 id_hash);

/* The number of stored programs that the last reading did not list. */
extern int64 programs_count_unlisted(const Programs *programs);

/* The number of programs to merge, each counted once. */
extern int64 programs_count_listed(const Programs *programs);

/*
 * Takes the row that the slot holds: true if it is the latest of its program
 * and was not taken before, so that it is to be written.
 */
extern bool programs_take_row(void *programs, TupleTableSlot *slot);

/* The program with this ID has deliberately not been written. */
extern void programs_forgo(Programs *programs, Datum program_id);

/* The IDs of the stored programs that are not listed, as rows of one column. */
extern Tuplestorestate *programs_find_unlisted(Programs *programs, const Tables *tables,
											   const char *username);

/*
 * Is it certain that nobody has changed the table since it was read, because
 * no transaction has ended in the whole cluster?
 */
extern bool programs_are_as_read(const Programs *programs, const Tables *tables);

/*
 * Looks at the rows once more, in their latest state: the number of listed
 * programs that are not stored as they were received and, if those that are
 * not listed were removed, of those that are still there.
 */
extern int64 programs_count_wrong(Programs *programs, const Tables *tables,
								  const char *username, bool removed);

#endif							/* YELP_SYNC_PROGRAMS_H */
