/*
 * elide.h
 *	  A page without the programs whose text is known.
 *
 * Needs no server: memory is palloc'd in the current context.
 */
#ifndef YELP_SYNC_ELIDE_H
#define YELP_SYNC_ELIDE_H

#include "program_page.h"

/*
 * The id of the program whose text has this fingerprint, or NULL.  It holds
 * neither quotes nor backslashes.
 */
typedef const char *(*ElideLookup) (const void *arg, uint64 fingerprint);

/* A program that was replaced: where it stood is {"program_id":"..."}. */
typedef struct ElidedProgram
{
	size_t		position;		/* of that, in the short text */
	uint64		fingerprint;	/* of the text that stood there */
} ElidedProgram;

typedef struct Elided
{
	char	   *text;			/* NUL-terminated */
	size_t		length;
	ElidedProgram *programs;	/* in the order of the text */
	int			count;
	int			max_count;
} Elided;

/*
 * Replaces the programs of a page that are known.  The text, NUL-terminated,
 * may be anything; what is not JSON before is not JSON after.  False when
 * nothing is known: there is no short text then.
 */
extern bool elide(Elided *elided, const char *text, size_t length,
				  ElideLookup lookup, const void *arg);

/*
 * Gives the programs that were replaced their fingerprints, and no document.
 * The page was read from the short text.
 */
extern void elide_mark(const Elided *elided, ProgramPage *page);

#endif							/* YELP_SYNC_ELIDE_H */
