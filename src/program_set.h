/*
 * program_set.h
 *	  A set of programs, condensed to what distinguishes it from others.
 */
#ifndef YELP_SYNC_PROGRAM_SET_H
#define YELP_SYNC_PROGRAM_SET_H

#include "program_page.h"

typedef struct ProgramSet
{
	int64		count;
	uint64		digest;			/* XOR of ID hashes */
	uint64		content;		/* XOR of hashes of IDs and fingerprints; only
								 * if each program is added once */
} ProgramSet;

/*
 * Adds a program that is not yet in the set; a fingerprint of 0 means
 * unknown.
 */
static inline void
program_set_add(ProgramSet *set, uint64 id_hash, uint64 fingerprint)
{
	set->count++;
	set->digest ^= id_hash;
	set->content ^= fingerprint_of_program(id_hash, fingerprint);
}

static inline bool
program_set_equal(ProgramSet a, ProgramSet b)
{
	return a.count == b.count && a.digest == b.digest;
}

static inline bool
program_set_same_content(ProgramSet a, ProgramSet b)
{
	return program_set_equal(a, b) && a.content == b.content;
}

#endif							/* YELP_SYNC_PROGRAM_SET_H */
