/*
 * fingerprint.c
 *	  Hashes that identify programs and their texts.
 *
 * A sync spends most of its time hashing the text of unchanged programs, so
 * the hash is optimized for texts of a few hundred bytes: like wyhash and
 * XXH3, it folds 64x64-bit products, in three independent lanes.  The keys
 * are derived from the seed, so that an API, which does not know them, cannot
 * construct inputs that make a factor 0.
 */
#include "postgres.h"

#include "fingerprint.h"

#include "common/hashfn.h"

/*
 * Version of the mapping of programs to columns.  Incrementing it makes the
 * next sync map all programs again.
 */
#define MAPPING_VERSION 2

#define LANES 3
#define LANE_BYTES 16			/* two words, the factors of a product */

static uint64 keys[LANES + 2];

void
fingerprint_set_seed(uint64 seed)
{
	uint64		mapping_seed = hash_bytes_uint32_extended(MAPPING_VERSION, seed);

	for (int i = 0; i < (int) lengthof(keys); i++)
		keys[i] = hash_bytes_uint32_extended(i, mapping_seed);
}

static inline uint64
read_word(const char *at)
{
	uint64		word;

	memcpy(&word, at, sizeof(word));
	return word;
}

/* XOR of the two halves of the product. */
static inline uint64
fold_product(uint64 a, uint64 b)
{
#ifdef HAVE_INT128
	uint128		product = (uint128) a * b;

	return (uint64) product ^ (uint64) (product >> 64);
#else
	uint64		low = (a & PG_UINT32_MAX) * (b & PG_UINT32_MAX);
	uint64		middle = (a >> 32) * (b & PG_UINT32_MAX) + (low >> 32);
	uint64		other = (a & PG_UINT32_MAX) * (b >> 32) + (middle & PG_UINT32_MAX);
	uint64		high = (a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32);

	return (other << 32 | (low & PG_UINT32_MAX)) ^ high;
#endif
}

/* Mixes LANE_BYTES bytes into the state of a lane. */
static inline uint64
mix(uint64 state, const char *at, uint64 key)
{
	return fold_product(read_word(at) ^ key, read_word(at + 8) ^ state);
}

static uint64
hash(const char *at, size_t length, uint64 state)
{
	const char *end = at + length;
	char		padded[LANE_BYTES] = {0};
	uint64		lanes[LANES];

	state ^= keys[LANES];
	for (int i = 0; i < LANES; i++)
		lanes[i] = state;
	for (; end - at > LANES * LANE_BYTES; at += LANES * LANE_BYTES)
	{
		for (int i = 0; i < LANES; i++)
			lanes[i] = mix(lanes[i], at + i * LANE_BYTES, keys[i]);
	}
	state = lanes[0] ^ lanes[1] ^ lanes[2];
	for (; end - at > LANE_BYTES; at += LANE_BYTES)
		state = mix(state, at, keys[0]);
	/* The last bytes, some of which may already have been mixed in */
	if (length >= LANE_BYTES)
		state = mix(state, end - LANE_BYTES, keys[1]);
	else
		state = mix(state, memcpy(padded, at, length), keys[1]);
	state = fold_product(state ^ keys[2], length ^ keys[LANES + 1]);
	return state ? state : 1;
}

uint64
fingerprint_of_id(const char *id, size_t length)
{
	return hash(id, length, 0);
}

uint64
fingerprint_of_text(const char *text, size_t length, uint64 id_hash)
{
	return hash(text, length, id_hash);
}

uint64
fingerprint_of_program(uint64 id_hash, uint64 fingerprint)
{
	return fold_product(id_hash ^ keys[0], fingerprint ^ keys[1]);
}
