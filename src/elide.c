/*
 * elide.c
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

#include "elide.h"

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
append(Elided *elided, const char *text, size_t length)
{
	memcpy(elided->text +elided->length, text, length);
	elided->length += length;
}

static void
note_program(Elided *elided, uint64 fingerprint)
{
	ElidedProgram *program;

	if (elided->count == elided->max_count)
	{
		elided->max_count *= 2;
		elided->programs = repalloc(elided->programs,
									elided->max_count * sizeof(ElidedProgram));
	}
	program = &elided->programs[elided->count++];
	program->position = elided->length;
	program->fingerprint = fingerprint;
}

static void
append_stub(Elided *elided, const char *id)
{
	append(elided, STUB_START, strlen(STUB_START));
	append(elided, id, strlen(id));
	append(elided, STUB_END, strlen(STUB_END));
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
begin(Elided *elided, size_t length)
{
	elided->text = palloc(length + 1);
	elided->length = 0;
	elided->count = 0;
	elided->max_count = 64;
	elided->programs = palloc(elided->max_count * sizeof(ElidedProgram));
}

bool
elide(Elided *elided, const char *text, size_t length,
	  ElideLookup lookup, const void *arg)
{
	const char *copied = text;
	const char *start = NULL;
	const char *end = text;
	int			depth = 0;

	begin(elided, length);
	while ((end = next_program(end, &depth, &start)) != NULL)
	{
		uint64		fingerprint = hash_bytes_extended((const unsigned char *) start,
													  end - start,
													  PAGE_FINGERPRINT_SEED);
		const char *id = lookup(arg, fingerprint);

		if (id && strlen(STUB_START) + strlen(id) + strlen(STUB_END) <= (size_t) (end - start))
		{
			append(elided, copied, start - copied);
			note_program(elided, fingerprint);
			append_stub(elided, id);
			copied = end;
		}
		start = NULL;
	}
	append(elided, copied, text +length - copied);
	elided->text[elided->length] = '\0';
	return elided->count > 0;
}

void
elide_mark(const Elided *elided, ProgramPage *page)
{
	int			next = 0;

	for (int i = 0; i < page->count && next < elided->count; i++)
	{
		PageProgram *program = &page->programs[i];

		if (program->document !=
			elided->text +elided->programs[next].position)
			continue;
		program->fingerprint = elided->programs[next++].fingerprint;
		program->document = NULL;
		program->length = 0;
	}
}
