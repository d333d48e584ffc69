/*
 * fingerprint.h
 *	  Hashes that tell one program from another, and one text from another.
 *
 * Needs no server.  All of them depend on the seed: who does not know it cannot
 * make up two texts, or two ids, of the same hash.
 */
#ifndef YELP_SYNC_FINGERPRINT_H
#define YELP_SYNC_FINGERPRINT_H

/*
 * Sets the seed of all fingerprints: something that the API cannot know.
 * Another seed makes every stored row differ, so that the next sync maps it to
 * columns anew.
 */
extern void fingerprint_set_seed(uint64 seed);

/* The 64-bit hash of a program's id, of this length in bytes; never 0. */
extern uint64 fingerprint_of_id(const char *id, size_t length);

/*
 * The 64-bit hash of a program's text together with the id that was read from
 * it; never 0.  So what is stored with this fingerprint was once read in full,
 * from this text, and had this id.
 */
extern uint64 fingerprint_of_text(const char *text, size_t length,
								  uint64 id_hash);

/* The hash of a program: its id and its fingerprint. */
extern uint64 fingerprint_of_program(uint64 id_hash, uint64 fingerprint);

#endif							/* YELP_SYNC_FINGERPRINT_H */
