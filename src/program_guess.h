/*
 * program_guess.h
 *	  Guess where the programs on a page begin and end, and which ones they
 *	  are.
 *
 * Needs no server.
 */
#ifndef YELP_SYNC_PROGRAM_GUESS_H
#define YELP_SYNC_PROGRAM_GUESS_H

#include "program_page.h"

/* The member with a program's ID */
#define PROGRAM_ID "program_id"

/* Number of programs guessed at a time */
#define MAX_GUESSES 8

/* What an element of the list seems to be */
typedef struct Guess
{
	const char *at;				/* its beginning */
	const char *end;			/* its end, or NULL */
	const char *id;				/* a pointer into the text */
	int			length;			/* of the ID, in bytes */
	uint64		id_hash;
} Guess;

typedef struct Guesses
{
	const KnownPrograms *known;
	const char *text_end;
	size_t		searchable;		/* bytes that may still be searched */
	Guess		all[MAX_GUESSES];	/* consecutive elements */
	int			count;
	int			next;
} Guesses;

/* Initializes for a page with this text, which must be NUL-terminated. */
extern void guess_init(Guesses *guesses, const KnownPrograms *known,
					   const char *text, size_t length);

/* The guess for the object that begins at this position, or NULL. */
extern const Guess *guess_at(Guesses *guesses, const char *at);

#endif							/* YELP_SYNC_PROGRAM_GUESS_H */
