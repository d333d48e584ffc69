/*
 * program_guess.c
 *	  Guess where the programs on a page begin and end, and which ones they
 *	  are.
 *
 * A program's guessed end is where the next one seems to begin, because most
 * begin alike.  Its guessed ID is what follows the first "program_id" in it.
 */
#include "postgres.h"

#include "program_guess.h"

#include "fingerprint.h"
#include "json_scan.h"

/* The common beginning of two programs: {"program_id */
#define LIKE_BYTES 12

void
guess_init(Guesses *guesses, const KnownPrograms *known, const char *text, size_t length)
{
	memset(guesses, 0, sizeof(Guesses));
	guesses->known = known;
	guesses->text_end = text + length;
	guesses->searchable = 2 * length;
}

/*
 * The position of the first member program_id within this text, including the
 * name; NULL if there seems to be none.
 */
static const char *
guess_member(Guesses *guesses, const char *at)
{
	static const char name[] = "\"" PROGRAM_ID "\"";
	size_t		left = Min((size_t) (guesses->text_end - at), guesses->searchable);
	const char *member;

	if (strncmp(at + 1, name, sizeof(name) - 1) == 0)
		return at + 1;
	member = memmem(at, left, name, sizeof(name) - 1);
	guesses->searchable -= member ? (size_t) (member - at) : left;
	return member;
}

/* The text of the first string that a member program_id may have. */
static bool
guess_id(Guesses *guesses, Guess *guess)
{
	const char *member = guess_member(guesses, guess->at);
	const char *id;
	const char *quote;

	if (member == NULL)
		return false;
	id = json_skip_space(member + strlen("\"" PROGRAM_ID "\""));
	if (*id != ':')
		return false;
	id = json_skip_space(id + 1);
	if (*id++ != '"')
		return false;
	quote = memchr(id, '"', Min(guesses->text_end - id, PAGE_MAX_ID_BYTES + 1));
	if (quote == NULL)
		return false;
	guess->id = id;
	guess->length = quote - id;
	guess->id_hash = fingerprint_of_id(id, guess->length);
	return true;
}

/*
 * Guesses the end of the object from the beginning of the next one, and
 * returns where that begins; NULL if there seems to be none.
 */
static const char *
guess_end(Guesses *guesses, Guess *guess)
{
	const char *at = guess->at;
	size_t		left = Min((size_t) (guesses->text_end - at), guesses->searchable);
	const char *limit = at + left;
	const char *next = at + 1;

	while (limit - next >= LIKE_BYTES &&
		   (next = memchr(next, '{', limit - next - LIKE_BYTES + 1)) != NULL)
	{
		const char *end = next;

		if (memcmp(next++, at, LIKE_BYTES) != 0)
			continue;
		while (json_is_space(end[-1]) || end[-1] == ',')
			end--;
		guesses->searchable -= end - at;
		guess->end = end;
		return next - 1;
	}
	guesses->searchable -= left;
	return NULL;
}

/*
 * Guesses several elements from this position on.  The hash table of the
 * stored programs is too large for the CPU cache, so its entries are
 * prefetched while the programs are being processed.
 */
static void
guess_elements(Guesses *guesses, const char *at)
{
	const KnownPrograms *known = guesses->known;

	guesses->count = guesses->next = 0;
	while (at && guesses->count < MAX_GUESSES)
	{
		Guess	   *guess = &guesses->all[guesses->count];

		memset(guess, 0, sizeof(Guess));
		guess->at = at;
		if (!guess_id(guesses, guess))
			return;
		known->prefetch(known->arg, guess->id_hash);
		at = guess_end(guesses, guess);
		guesses->count++;
	}
}

const Guess *
guess_at(Guesses *guesses, const char *at)
{
	if (guesses->next == guesses->count ||
		guesses->all[guesses->next].at != at)
		guess_elements(guesses, at);
	return guesses->count > 0 ? &guesses->all[guesses->next++] : NULL;
}
