/*
 * stored.h
 *	  What is stored of an account, as far as it takes to know it again.
 */
#ifndef YELP_SYNC_STORED_H
#define YELP_SYNC_STORED_H

#include "rows.h"

typedef struct Stored Stored;

/*
 * Reads the ids and fingerprints of the account's rows.  Needs an SPI
 * connection; the schema is quoted.  The result is in the current context.
 */
extern Stored *stored_read(const char *schema, const char *username);

extern void stored_free(Stored *stored);

/* The set of the programs that are stored. */
extern ProgramSet stored_set(const Stored *stored);

/*
 * The id of the stored program whose text has this fingerprint, or NULL: a
 * ShortenLookup.  Of a great many programs only some are known.
 */
extern const char *stored_lookup(const void *stored, uint64 fingerprint);

#endif							/* YELP_SYNC_STORED_H */
