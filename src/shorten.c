/*
 * shorten.c
 *	  A page without the programs whose text is known.
 *
 * Most programs are the same as last time, to the byte.  Their text was checked
 * when it was stored, so it need not be parsed again, nor carried further: it
 * is found by its fingerprint and replaced by the program's id.  What is left of
 * the page is checked as ever.
 *
 * The scan only follows strings and brackets.  It can be led astray by a text
 * that is not JSON; but what leads it astray stays in the text, and a program
 * that is replaced is one that was once accepted whole.
 */
#include "postgres.h"

#include "shorten.h"

#include "common/hashfn.h"

/* Programs are elements of an array that is a member of the page. */
#define PROGRAM_DEPTH 2

#define STUB_START "{\"program_id\":\""
#define STUB_END "\"}"

/* The bytes that the scan stops at */
static const bool stops[256] = {
	['\0'] = true,['"'] = true,
	['{'] = true,['}'] = true,['['] = true,[']'] = true
};

/* The closing quote of a string, or the NUL that it runs into. */
static const char *
skip_string(const char *at)
{
	for (at++; *at != '"' && *at != '\0'; at++)
	{
		if (*at == '\\' && at[1] != '\0')
			at++;
	}
	return at;
}

static void
append(Shortened *shortened, const char *text, size_t length)
{
	memcpy(shortened->text +shortened->length, text, length);
	shortened->length += length;
}

static void
note_program(Shortened *shortened, uint64 fingerprint)
{
	ShortenedProgram *program;

	if (shortened->count == shortened->max_count)
	{
		shortened->max_count *= 2;
		shortened->programs = repalloc(shortened->programs,
									   shortened->max_count * sizeof(ShortenedProgram));
	}
	program = &shortened->programs[shortened->count++];
	program->position = shortened->length;
	program->fingerprint = fingerprint;
}

static void
append_stub(Shortened *shortened, const char *id)
{
	append(shortened, STUB_START, strlen(STUB_START));
	append(shortened, id, strlen(id));
	append(shortened, STUB_END, strlen(STUB_END));
}

/* The end of the next object at the programs' depth, and its start. */
static const char *
next_program(const char *at, int *depth, const char **start)
{
	for (;; at++)
	{
		while (!stops[(unsigned char) *at])
			at++;
		if (*at == '"')
			at = skip_string(at);
		if (*at == '\0')
			return NULL;
		if (*at == '{' || *at == '[')
		{
			if (*depth == PROGRAM_DEPTH && *at == '{')
				*start = at;
			(*depth)++;
		}
		else if (*at != '"' && --(*depth) == PROGRAM_DEPTH && *start)
			return at + 1;
	}
}

static void
begin(Shortened *shortened, size_t length)
{
	shortened->text = palloc(length + 1);
	shortened->length = 0;
	shortened->count = 0;
	shortened->max_count = 64;
	shortened->programs = palloc(shortened->max_count * sizeof(ShortenedProgram));
}

bool
shorten(Shortened *shortened, const char *text, size_t length,
		ShortenLookup lookup, const void *arg)
{
	const char *copied = text;
	const char *start = NULL;
	const char *end = text;
	int			depth = 0;

	begin(shortened, length);
	while ((end = next_program(end, &depth, &start)) != NULL)
	{
		uint64		fingerprint = hash_bytes_extended((const unsigned char *) start,
													  end - start,
													  PAGE_FINGERPRINT_SEED);
		const char *id = lookup(arg, fingerprint);

		if (id && strlen(STUB_START) + strlen(id) + strlen(STUB_END) <= (size_t) (end - start))
		{
			append(shortened, copied, start - copied);
			note_program(shortened, fingerprint);
			append_stub(shortened, id);
			copied = end;
		}
		start = NULL;
	}
	append(shortened, copied, text +length - copied);
	shortened->text[shortened->length] = '\0';
	return shortened->count > 0;
}

void
shorten_mark(const Shortened *shortened, ProgramPage *page)
{
	int			next = 0;

	for (int i = 0; i < page->count && next < shortened->count; i++)
	{
		PageProgram *program = &page->programs[i];

		if (program->document !=
			shortened->text +shortened->programs[next].position)
			continue;
		program->fingerprint = shortened->programs[next++].fingerprint;
		program->document = NULL;
		program->length = 0;
	}
}
