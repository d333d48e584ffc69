/*
 * known.h
 *	  The ids and fingerprints of the stored programs, and which of them arrived.
 */
#ifndef YELP_SYNC_KNOWN_H
#define YELP_SYNC_KNOWN_H

#include "utils/tuplestore.h"

#include "program_set.h"

typedef struct Known Known;

/* Where a stored program arrived last. */
typedef struct KnownMark
{
	unsigned int pass:2;		/* 1 for the first, 0: it did not arrive */
	unsigned int staged:1;		/* with another text than the stored one, in
								 * whichever pass */
	unsigned int offset:29;		/* of the last page of the pass that has it */
} KnownMark;

/* The passes and offsets that a mark can hold */
#define KNOWN_MAX_PASS 3
#define KNOWN_MAX_OFFSET ((1 << 29) - 1)

/*
 * Reads the ids and fingerprints of the account's rows, of which about so many
 * are expected.  Needs an SPI connection; the schema is quoted.  Rows of tables
 * that inherit from yelp_programs count only where it is partitioned.  The result
 * is in the current context.
 */
extern Known *known_read(const char *schema, bool partitioned,
						 const char *username, int64 expected);

extern void known_free(Known *known);

/* The set of the programs that are stored. */
extern ProgramSet known_set(const Known *known);

/* The fingerprint of a stored program: see KnownPrograms. */
extern const uint64 *known_fingerprint(const void *arg, uint64 id_hash);

/* It will be asked for soon: see KnownPrograms. */
extern void known_prefetch(const void *arg, uint64 id_hash);

/* The mark of a stored program, NULL: it is not stored. */
extern KnownMark *known_mark(Known *known, uint64 id_hash);

/* How many of the stored programs arrived in this pass or a later one? */
extern int64 known_count_arrived(const Known *known, int first_pass);

/*
 * Adds the ids of the stored programs that did not arrive in this pass or a later
 * one to the rows, which have one column.  Needs an SPI connection.
 */
extern void known_add_missing(const Known *known, int first_pass,
							  Tuplestorestate *rows);

#endif							/* YELP_SYNC_KNOWN_H */
