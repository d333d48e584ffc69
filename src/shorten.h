/*
 * shorten.h
 *	  A page without the programs whose text is known.
 *
 * Needs no server: memory is palloc'd in the current context.
 */
#ifndef YELP_SYNC_SHORTEN_H
#define YELP_SYNC_SHORTEN_H

#include "page.h"

/*
 * The id of the program whose text has this fingerprint, or NULL.  It holds
 * neither quotes nor backslashes.
 */
typedef const char *(*ShortenLookup) (const void *arg, uint64 fingerprint);

/* A program that was replaced: where it stood is {"program_id":"..."}. */
typedef struct ShortenedProgram
{
	size_t		position;		/* of that, in the short text */
	uint64		fingerprint;	/* of the text that stood there */
} ShortenedProgram;

typedef struct Shortened
{
	char	   *text;			/* NUL-terminated */
	size_t		length;
	ShortenedProgram *programs; /* in the order of the text */
	int			count;
	int			max_count;
} Shortened;

/*
 * Replaces the programs of a page that are known.  The text, NUL-terminated,
 * may be anything; what is not JSON before is not JSON after.  False when
 * nothing is known: there is no short text then.
 */
extern bool shorten(Shortened *shortened, const char *text, size_t length,
					ShortenLookup lookup, const void *arg);

/*
 * Gives the programs that were replaced their fingerprints, and no document.
 * The page was read from the short text.
 */
extern void shorten_mark(const Shortened *shortened, ProgramPage *page);

#endif							/* YELP_SYNC_SHORTEN_H */
