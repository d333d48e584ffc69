/*
 * fuzz.h
 *	  What the fuzz targets share.
 *
 * A target is a file NAME_fuzz.c with LLVMFuzzerTestOneInput(), which libFuzzer
 * calls with one input after the other.  It is linked with memory.c, which
 * replaces PostgreSQL's palloc(), and either with libFuzzer or with replay.c.
 */
#ifndef YELP_SYNC_FUZZ_H
#define YELP_SYNC_FUZZ_H

#include "mb/pg_wchar.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

/* Frees everything that was palloc'd since the last call. */
extern void fuzz_free_all(void);

/* A copy of an input that ends with a NUL byte. */
static inline char *
fuzz_text(const uint8_t * data, size_t size)
{
	char	   *copy = palloc(size + 1);

	memcpy(copy, data, size);
	copy[size] = '\0';
	return copy;
}

/* Aborts if a property does not hold, so that the fuzzer keeps the input. */
static inline void
fuzz_check(bool holds, const char *property)
{
	if (holds)
		return;
	fprintf(stderr, "not so: %s\n", property);
	abort();
}

static inline bool
fuzz_is_utf8(const char *text, size_t length)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, length) == (int) length;
}

/* Does UTF-8 contain C0 or C1 control characters, or a delete? */
static inline bool
fuzz_has_controls(const char *text)
{
	for (const unsigned char *at = (const unsigned char *) text; *at != '\0'; at++)
	{
		if (*at < ' ' || *at == 0x7F || (*at == 0xC2 && at[1] < 0xA0))
			return true;
	}
	return false;
}

#endif							/* YELP_SYNC_FUZZ_H */
