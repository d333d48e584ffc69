/*
 * stored.h
 *	  A few stored programs, as program_page.c looks them up.
 */
#ifndef YELP_SYNC_STORED_H
#define YELP_SYNC_STORED_H

#include "program_page.h"

#define MAX_STORED 8

typedef struct Stored
{
	uint64		ids[MAX_STORED];
	uint64		fingerprints[MAX_STORED];
	int			count;
} Stored;

static inline void
store(Stored *stored, uint64 id_hash, uint64 fingerprint)
{
	stored->ids[stored->count] = id_hash;
	stored->fingerprints[stored->count++] = fingerprint;
}

/* Of several with the same ID the last one counts. */
static const uint64 *
find_fingerprint(const void *arg, uint64 id_hash)
{
	const Stored *stored = arg;

	for (int i = stored->count - 1; i >= 0; i--)
	{
		if (stored->ids[i] == id_hash)
			return &stored->fingerprints[i];
	}
	return NULL;
}

static void
prefetch_nothing(pg_attribute_unused() const void *arg, pg_attribute_unused() uint64 id_hash)
{
}

#endif							/* YELP_SYNC_STORED_H */
