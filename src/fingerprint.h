/*
 * fingerprint.h
 *	  Hashes that identify programs and their texts.
 *
 * Needs no server.  All hashes depend on the seed; without knowing it, nobody
 * can construct two texts or IDs with the same hash.
 */
#ifndef YELP_SYNC_FINGERPRINT_H
#define YELP_SYNC_FINGERPRINT_H

/*
 * Sets the seed of all fingerprints to something that the API cannot know.
 * Changing the seed makes all stored rows differ, so that the next sync maps
 * them to columns again.
 */
extern void fingerprint_set_seed(uint64 seed);

/* 64-bit hash of a program's ID, of the given length in bytes; never 0. */
extern uint64 fingerprint_of_id(const char *id, size_t length);

/*
 * 64-bit hash of a program's text together with the ID that was read from it;
 * never 0.  A stored program with this fingerprint was read in full from this
 * very text, and had this ID.
 */
extern uint64 fingerprint_of_text(const char *text, size_t length,
								  uint64 id_hash);

/* Hash of a program: its ID and its fingerprint. */
extern uint64 fingerprint_of_program(uint64 id_hash, uint64 fingerprint);

#endif							/* YELP_SYNC_FINGERPRINT_H */
