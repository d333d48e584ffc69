/*
 * known.h
 *	  What is stored of an account, as far as it takes to know it again.
 */
#ifndef YELP_SYNC_KNOWN_H
#define YELP_SYNC_KNOWN_H

#include "staging.h"

typedef struct Known Known;

/*
 * Reads the ids and fingerprints of the account's rows.  Needs an SPI
 * connection; the schema is quoted.  Rows of tables that inherit from yelp_programs
 * count only where it is partitioned.  The result is in the current context.
 */
extern Known *known_read(const char *schema, bool partitioned,
						 const char *username);

extern void known_free(Known *known);

/* The set of the programs that are stored. */
extern ProgramSet known_set(const Known *known);

/*
 * The id of the stored program whose text has this fingerprint, or NULL: a
 * ElideLookup.  Of a great many programs only some are known.
 */
extern const char *known_lookup(const void *stored, uint64 fingerprint);

#endif							/* YELP_SYNC_KNOWN_H */
