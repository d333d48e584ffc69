/*
 * program_guess.h
 *	  Where programs of a page seem to begin and end, and which they seem to be.
 *
 * Needs no server.
 */
#ifndef YELP_SYNC_PROGRAM_GUESS_H
#define YELP_SYNC_PROGRAM_GUESS_H

#include "program_page.h"

/* The member that holds a program's id */
#define PROGRAM_ID "program_id"

/* So many programs are guessed at a time */
#define MAX_GUESSES 8

/* What an element of the list seems to be */
typedef struct Guess
{
	const char *at;				/* where it begins */
	const char *end;			/* or NULL */
	const char *id;				/* in the text */
	int			length;			/* of the id, in bytes */
	uint64		id_hash;
} Guess;

typedef struct Guesses
{
	const KnownPrograms *known;
	const char *text_end;
	size_t		searchable;		/* bytes that may still be searched */
	Guess		all[MAX_GUESSES];	/* elements in a row */
	int			count;
	int			next;
} Guesses;

/* For a page with this text, which must be followed by a NUL byte. */
extern void guess_init(Guesses *guesses, const KnownPrograms *known,
					   const char *text, size_t length);

/* The guess about the object that begins at this place, or NULL. */
extern const Guess *guess_at(Guesses *guesses, const char *at);

#endif							/* YELP_SYNC_PROGRAM_GUESS_H */
