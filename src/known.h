/*
 * known.h
 *	  The IDs and fingerprints of the stored programs, and which of them
 *	  arrived.
 */
#ifndef YELP_SYNC_KNOWN_H
#define YELP_SYNC_KNOWN_H

#include "utils/tuplestore.h"

#include "program_set.h"

typedef struct Known Known;

/* Where a stored program last arrived. */
typedef struct KnownMark
{
	unsigned int pass:2;		/* 1 for the first pass; 0: did not arrive */
	unsigned int staged:1;		/* arrived with a text other than the stored
								 * one, in any pass */
	unsigned int offset:29;		/* of the last page with it in the pass */
} KnownMark;

/* Maximum pass and offset of a mark */
#define KNOWN_MAX_PASS 3
#define KNOWN_MAX_OFFSET ((1 << 29) - 1)

/*
 * Reads the IDs and fingerprints of the account's rows, given their expected
 * number.  Needs an SPI connection; the schema is quoted.  Rows of tables
 * that inherit from yelp_programs are included only if it is partitioned.
 * The result is in the current context.
 */
extern Known *known_read(const char *schema, bool partitioned,
						 const char *username, int64 expected);

extern void known_free(Known *known);

/* The number of the account's rows in the active snapshot; the same rules. */
extern int64 known_count_rows(const char *schema, bool partitioned,
							  const char *username);

/* The set of stored programs. */
extern ProgramSet known_set(const Known *known);

/* The fingerprint of a stored program: see KnownPrograms. */
extern const uint64 *known_fingerprint(const void *arg, uint64 id_hash);

/* It will be looked up soon: see KnownPrograms. */
extern void known_prefetch(const void *arg, uint64 id_hash);

/* The mark of a stored program; NULL if it is not stored. */
extern KnownMark *known_mark(Known *known, uint64 id_hash);

/* How many of the stored programs arrived in this pass or a later one? */
extern int64 known_count_arrived(const Known *known, int first_pass);

/*
 * Adds the IDs of the stored programs that did not arrive in this pass or a
 * later one to the rows, which have a single column.  Needs an SPI
 * connection.
 */
extern void known_add_missing(const Known *known, int first_pass,
							  Tuplestorestate *rows);

#endif							/* YELP_SYNC_KNOWN_H */
