/*
 * elide.c
 *	  A page without the programs whose text is known.
 *
 * Most programs are the same as last time, to the byte.  Their text was checked
 * when it was stored, so it need not be parsed again, nor carried further: it
 * is found by its fingerprint and replaced by its member program_id.  What is left
 * of the page is checked as ever.
 *
 * The fingerprint only spares reading the rest: the id that counts is the one in
 * the program's own text, and where the row of that fingerprint is stored under
 * another one, the program is read in full.
 *
 * The scan only follows strings and brackets.  It can be led astray by a text
 * that is not JSON; but what leads it astray stays in the text, and a program
 * that is replaced is one that was once accepted whole.
 */
#include "postgres.h"

#include "elide.h"

/* Programs are elements of an array that is a member of the page. */
#define PROGRAM_DEPTH 2

#define ID_NAME "program_id"
#define STUB_START "{\"" ID_NAME "\":\""
#define STUB_END "\"}"

/* The bytes that the scan stops at */
static const bool stops[256] = {
	['\0'] = true,['"'] = true,
	['{'] = true,['}'] = true,['['] = true,[']'] = true
};

/* A program as the scan finds it */
typedef struct Candidate
{
	const char *start;			/* its opening brace, or NULL */
	const char *id;				/* the text of its id, or NULL: not found */
	int			id_length;
	bool		escapes;		/* in a name: the id may be elsewhere */
} Candidate;

/*
 * The closing quote of a string, or the NUL that it runs into; says whether
 * there are escapes in it.
 */
static const char *
skip_string(const char *at, bool *escapes)
{
	for (at++; *at != '"' && *at != '\0'; at++)
	{
		if (*at != '\\')
			continue;
		*escapes = true;
		if (at[1] != '\0')
			at++;
	}
	return at;
}

static const char *
skip_space(const char *at)
{
	return at + strspn(at, " \t\n\r");
}

/*
 * If the string from start to its closing quote is the name program_id, and a
 * string is its value, notes that.  The last of several counts, as in jsonb.
 */
static void
note_id(Candidate *program, const char *start, const char *quote)
{
	bool		escapes = false;
	const char *value;
	const char *end;

	if (*quote == '\0' || quote - start - 1 != (int) strlen(ID_NAME) ||
		memcmp(start + 1, ID_NAME, strlen(ID_NAME)) != 0)
		return;
	value = skip_space(quote + 1);
	if (*value != ':')
		return;
	value = skip_space(value + 1);
	program->id = NULL;
	if (*value != '"')
		return;
	end = skip_string(value, &escapes);
	if (escapes || *end == '\0')
		return;
	program->id = value + 1;
	program->id_length = end - program->id;
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
append_stub(Elided *elided, const Candidate *program)
{
	append(elided, STUB_START, strlen(STUB_START));
	append(elided, program->id, program->id_length);
	append(elided, STUB_END, strlen(STUB_END));
}

static void
begin_program(Candidate *program, const char *start)
{
	memset(program, 0, sizeof(Candidate));
	program->start = start;
}

/* The end of the next object at the programs' depth. */
static const char *
next_program(const char *at, int *depth, Candidate *program)
{
	for (;; at++)
	{
		while (!stops[(unsigned char) *at])
			at++;
		if (*at == '"')
		{
			bool		is_member = *depth == PROGRAM_DEPTH + 1;
			bool		escapes = false;
			const char *start = at;

			at = skip_string(at, &escapes);
			if (is_member && program->start)
			{
				if (escapes && *at && *skip_space(at + 1) == ':')
					program->escapes = true;
				note_id(program, start, at);
			}
		}
		if (*at == '\0')
			return NULL;
		if (*at == '{' || *at == '[')
		{
			if (*depth == PROGRAM_DEPTH && *at == '{')
				begin_program(program, at);
			(*depth)++;
		}
		else if (*at != '"' && --(*depth) == PROGRAM_DEPTH && program->start)
			return at + 1;
	}
}

/* Is it stored with this fingerprint, under the id that it has? */
static bool
is_known(const Candidate *program, uint64 fingerprint, size_t length,
		 ElideLookup lookup, const void *arg)
{
	const char *id;

	if (program->id == NULL || program->escapes ||
		strlen(STUB_START) + program->id_length + strlen(STUB_END) > length)
		return false;
	id = lookup(arg, fingerprint);
	return id && strlen(id) == (size_t) program->id_length &&
		memcmp(id, program->id, program->id_length) == 0;
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
	Candidate	program = {0};
	const char *end = text;
	int			depth = 0;

	begin(elided, length);
	while ((end = next_program(end, &depth, &program)) != NULL)
	{
		uint64		fingerprint = program_page_fingerprint(program.start,
														   end - program.start);

		if (is_known(&program, fingerprint, end - program.start, lookup, arg))
		{
			append(elided, copied, program.start - copied);
			note_program(elided, fingerprint);
			append_stub(elided, &program);
			copied = end;
		}
		program.start = NULL;
	}
	append(elided, copied, text +length - copied);
	elided->text[elided->length] = '\0';
	return elided->count > 0;
}

/*
 * Objects in other arrays may have been replaced as well: those of the page are
 * told by their place.  Both come in the order of the text.
 */
void
elide_mark(const Elided *elided, ProgramPage *page)
{
	int			next = 0;

	for (int i = 0; i < page->count; i++)
	{
		PageProgram *program = &page->programs[i];
		size_t		position = program->document - elided->text;

		while (next < elided->count && elided->programs[next].position < position)
			next++;
		if (next == elided->count)
			break;
		if (elided->programs[next].position != position)
			continue;
		program->fingerprint = elided->programs[next].fingerprint;
		program->document = NULL;
		program->length = 0;
	}
}
