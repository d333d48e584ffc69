/*
 * fuzz.h
 *	  What the fuzz targets share.
 *
 * A target is a file NAME_fuzz.c with LLVMFuzzerTestOneInput(), the function
 * that libFuzzer calls with one input after the other.  It is linked with
 * memory.c, which takes the place of PostgreSQL's palloc(), and either with
 * libFuzzer or with replay.c.
 */
#ifndef YELP_SYNC_FUZZ_H
#define YELP_SYNC_FUZZ_H

extern int	LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

/* Frees everything that was palloc'd since the last call. */
extern void fuzz_free_all(void);

/* A copy of an input with a NUL byte behind it. */
static inline char *
fuzz_text(const uint8_t * data, size_t size)
{
	char	   *copy = palloc(size + 1);

	memcpy(copy, data, size);
	copy[size] = '\0';
	return copy;
}

/* Stops where a property does not hold, so that the fuzzer keeps the input. */
static inline void
fuzz_check(bool holds, const char *property)
{
	if (holds)
		return;
	fprintf(stderr, "not so: %s\n", property);
	abort();
}

#endif							/* YELP_SYNC_FUZZ_H */
