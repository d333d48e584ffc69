/*
 * program_page.c
 *	  Read the programs from the text of a page.
 *
 * A page is read in a single pass, program by program, so that memory use is
 * limited by the size of the text and not by the number of its values:
 *
 * - The members of the page are scanned one by one (json_scan.c).  A copy
 *	 without the contents of arrays and objects, the page's frame, is
 *	 tokenized by jsmn after the scan, and total, limit and so on are read
 *	 from it.
 * - Each program in the list payment_programs is tokenized by itself.
 * - Most programs are byte for byte the same as last time.  These are
 *	 recognized by their fingerprints and not tokenized at all.
 *
 * To recognize a program, its ID and its end must be known.  Both are guessed
 * (program_guess.c).  A wrong guess only costs time, because the fingerprint
 * covers the text and the ID that was read from it: it proves that this very
 * text was once read in full, was an object, and had this ID.
 */
#include "postgres.h"

#include "program_page.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "fingerprint.h"
#include "json.h"
#include "program_guess.h"
#include "text.h"

/* Maximum length of another member's name in a message, in bytes */
#define MAX_SHOWN_NAME 64

#define LIST_NAME "payment_programs"

/* Nesting depth of a program */
#define PROGRAM_DEPTH 2

#define MIN_PROGRAMS 64

/* The state of reading a page */
typedef struct PageReader
{
	ProgramPage *page;
	JsonScan	scan;
	JsonError	fault;

	/* The page without the contents of its arrays and objects */
	StringInfoData frame;
	bool		bad_utf8;		/* invalid UTF-8 outside the programs */

	/* Its programs */
	int			capacity;
	int			position;		/* in the list, from 0 */
	JsonTokens	tokens;			/* reused for each program */

	/* The stored programs */
	const KnownPrograms *known;
	Guesses		guesses;
} PageReader;

/* Takes ownership of the message; returns false for the caller to return. */
static bool
set_problem(PageError *problem, PageErrorKind kind, char *message)
{
	problem->kind = kind;
	problem->message = message;
	return false;
}

static bool
bad_field(PageError *problem, const char *name, const char *complaint)
{
	return set_problem(problem, PAGE_NOT_A_PAGE,
					   psprintf("field \"%s\" %s", name, complaint));
}

/*
 * One program.
 */

/* The reason why jsonb cannot store an object, as a message, or NULL. */
static char *
find_unstorable(const JsonToken *object)
{
	const JsonToken *end = object + object->size;

	if (json_unstorable(object) == NULL)
		return NULL;
	for (const JsonToken *name = object + 1; name < end; name += name->size)
	{
		const char *complaint = json_unstorable(name);

		if (complaint && !json_is_utf8(name->text, name->length))
			return pstrdup("a field name contains invalid UTF-8");
		if (complaint)
			return psprintf("field \"%s\" %s",
							text_shown(name->text, name->length, MAX_SHOWN_NAME),
							complaint);
	}
	return NULL;
}

/* What is wrong with a program's ID; if nothing is, sets the ID. */
static const char *
read_id(const JsonToken *value, char **id)
{
	static const char too_long[] =
	"is longer than " CppAsString2(PAGE_MAX_ID_BYTES) " bytes";
	char		decoded[PAGE_MAX_ID_BYTES * JSON_SPELLED_BYTES];
	const char *complaint;
	int			length;

	if (value == NULL)
		return "is missing";
	if (value->type != JSON_STRING)
		return "is not a string";
	if (value->length == 0)
		return "is empty";
	if (value->length > (int) sizeof(decoded))
		return too_long;
	complaint = json_unstorable(value);
	if (complaint)
		return complaint;
	length = json_decode(value, decoded);
	if (length > PAGE_MAX_ID_BYTES)
		return too_long;
	if (text_has_controls(decoded, length))
		return "contains a control character";
	*id = pnstrdup(decoded, length);
	return NULL;
}

/*
 * Reads a program from an element of the list.  If it is unusable, returns a
 * message that begins with the element's name; otherwise NULL.
 */
static char *
read_program(PageProgram *program, const JsonToken *object, int position)
{
	const char *complaint;
	char	   *unstorable;

	complaint = read_id(json_member(object, PROGRAM_ID), &program->id);
	if (complaint)
		return psprintf("field \"" LIST_NAME "[%d]." PROGRAM_ID "\" %s",
						position, complaint);
	unstorable = find_unstorable(object);
	if (unstorable)
		return psprintf("program \"%s\": %s", program->id, unstorable);
	program->id_hash = fingerprint_of_id(program->id, strlen(program->id));
	program->document = object->text;
	program->length = object->length;
	program->fingerprint = fingerprint_of_text(object->text, object->length,
											   program->id_hash);
	return NULL;
}

/*
 * The list of programs.
 */

static void
clear_programs(ProgramPage *page)
{
	for (int i = 0; i < page->count; i++)
		pfree(page->programs[i].id);
	if (page->programs)
		pfree(page->programs);
	if (page->skip_reason)
		pfree(page->skip_reason);
	page->programs = NULL;
	page->count = page->skipped = 0;
	page->skip_reason = NULL;
}

static void
begin_list(PageReader *reader)
{
	clear_programs(reader->page);
	reader->capacity = 0;
	reader->position = 0;
}

/* Allocates the next program, which is not counted yet. */
static PageProgram *
next_program(PageReader *reader)
{
	ProgramPage *page = reader->page;

	if (page->count == reader->capacity)
	{
		reader->capacity = Max(2 * reader->capacity, MIN_PROGRAMS);
		page->programs = page->programs ?
			repalloc(page->programs, reader->capacity * sizeof(PageProgram)) :
			palloc(reader->capacity * sizeof(PageProgram));
	}
	return memset(&page->programs[page->count], 0, sizeof(PageProgram));
}

/* Takes ownership of the reason. */
static void
skip_element(PageReader *reader, char *reason)
{
	if (reader->page->skipped++ == 0)
		reader->page->skip_reason = reason;
	else
		pfree(reason);
}

/* The fingerprint of the stored program with this ID hash, or NULL. */
static const uint64 *
find_stored(const PageReader *reader, uint64 id_hash)
{
	return reader->known ?
		reader->known->fingerprint(reader->known->arg, id_hash) : NULL;
}

/* Reads an element that has been scanned. */
static void
add_element(PageReader *reader, const JsonText *element)
{
	PageProgram *program = next_program(reader);
	const JsonToken *object;
	const uint64 *stored;
	char	   *reason;

	if (element->ntokens > JSON_MAX_TOKENS)
	{
		skip_element(reader, psprintf("field \"" LIST_NAME "[%d]\" contains more than %d values",
									  reader->position, JSON_MAX_TOKENS));
		return;
	}
	if (*element->text != '{' ||
		(object = json_tokenize(&reader->tokens, element)) == NULL)
	{
		skip_element(reader, psprintf("field \"" LIST_NAME "[%d]\" is not an object",
									  reader->position));
		return;
	}
	reason = read_program(program, object, reader->position);
	if (reason)
	{
		if (program->id)
			pfree(program->id);
		skip_element(reader, reason);
		return;
	}
	stored = find_stored(reader, program->id_hash);
	if (stored && *stored == program->fingerprint)
		program->document = NULL;
	reader->page->count++;
}

/*
 * Adds the program if the text is that of the stored one; otherwise returns
 * false.
 */
static bool
add_stored(PageReader *reader, const Guess *guess, const char *end)
{
	const uint64 *stored = find_stored(reader, guess->id_hash);
	PageProgram *program;

	if (stored == NULL ||
		*stored != fingerprint_of_text(guess->at, end - guess->at, guess->id_hash))
		return false;
	program = next_program(reader);
	program->id = pnstrdup(guess->id, guess->length);
	program->id_hash = guess->id_hash;
	program->fingerprint = *stored;
	reader->page->count++;
	return true;
}

/* Reads an element of the list; returns its end, or NULL after a fault. */
static const char *
read_element(PageReader *reader, const char *at)
{
	bool		too_many = reader->position >= PAGE_MAX_TOTAL;
	const Guess *guess = reader->known && *at == '{' && !too_many ?
		guess_at(&reader->guesses, at) : NULL;
	JsonText	element = {.text = at};
	const char *end;

	if (guess && guess->end && add_stored(reader, guess, guess->end))
		return guess->end;
	reader->scan.depth = PROGRAM_DEPTH;
	reader->scan.ntokens = 0;
	reader->scan.odd_numbers = false;
	end = json_scan_value(&reader->scan, at);
	if (end == NULL)
		return NULL;
	if (guess && end != guess->end && add_stored(reader, guess, end))
		return end;
	element.length = end - at;
	element.ntokens = reader->scan.ntokens;
	element.odd_numbers = reader->scan.odd_numbers;
	if (!too_many)
		add_element(reader, &element);
	return end;
}

/* Reads the list from its opening to its closing bracket. */
static const char *
read_list(PageReader *reader, const char *at)
{
	begin_list(reader);
	at = json_skip_space(at + 1);
	if (*at == ']')
		return at + 1;
	for (;; reader->position++)
	{
		CHECK_FOR_INTERRUPTS();
		at = read_element(reader, at);
		if (at == NULL)
			return NULL;
		at = json_skip_space(at);
		if (*at == ']')
			break;
		if (*at != ',')
			return json_scan_failed(&reader->scan, at, "expected \",\" or \"]\"");
		at = json_skip_space(at + 1);
	}
	reader->position++;
	return at + 1;
}

/*
 * The page.
 */

/* Is the quoted name that of the list of programs? */
static bool
is_list_name(const char *at, const char *end)
{
	JsonToken	name = {.text = at + 1};

	while (end[-1] != '"')
		end--;
	name.length = end - at - 2;
	return json_string_is(&name, LIST_NAME, strlen(LIST_NAME));
}

/* Adds a member to the frame, without the contents of an array or object. */
static void
append_to_frame(PageReader *reader, const char *name, const char *value,
				const char *end)
{
	appendBinaryStringInfo(&reader->frame, name, value - name);
	if (*value == '[')
		appendStringInfoString(&reader->frame, "[]");
	else if (*value == '{')
		appendStringInfoString(&reader->frame, "{}");
	else
		appendBinaryStringInfo(&reader->frame, value, end - value);
}

/* Reads a member of the page; returns its end, or NULL after a fault. */
static const char *
read_member(PageReader *reader, const char *name)
{
	const char *value = json_scan_name(&reader->scan, name);
	const char *end;
	bool		is_list;

	if (value == NULL)
		return NULL;
	is_list = is_list_name(name, value - 1);
	value = json_skip_space(value);
	reader->scan.depth = 1;
	if (is_list && *value == '[')
		end = read_list(reader, value);
	else
		end = json_scan_value(&reader->scan, value);
	if (end == NULL)
		return NULL;
	/* Invalid UTF-8 within a program only affects that program */
	reader->bad_utf8 |= !json_is_utf8(name, (is_list && *value == '[' ? value : end) - name);
	append_to_frame(reader, name, value, end);
	return end;
}

/* Reads the page from its opening to its closing brace. */
static const char *
read_members(PageReader *reader, const char *at)
{
	appendStringInfoChar(&reader->frame, '{');
	at = json_skip_space(at + 1);
	while (*at != '}')
	{
		at = read_member(reader, at);
		if (at == NULL)
			return NULL;
		at = json_skip_space(at);
		if (*at == '}')
			break;
		if (*at != ',')
			return json_scan_failed(&reader->scan, at, "expected \",\" or \"}\"");
		appendStringInfoChar(&reader->frame, ',');
		at = json_skip_space(at + 1);
		if (*at == '}')
			return json_scan_failed(&reader->scan, at, "expected a string");
	}
	appendStringInfoChar(&reader->frame, '}');
	return at + 1;
}

/* Is it a number with an integral value, such as 100.0 or 1e2? */
static bool
is_integer(const JsonToken *value, double *number)
{
	if (value == NULL || value->type != JSON_NUMBER)
		return false;
	*number = strtod(value->text, NULL);
	return *number == trunc(*number);
}

static bool
read_total(ProgramPage *page, const JsonToken *value, PageError *problem)
{
	double		total;

	if (value == NULL)
		return bad_field(problem, "total", "is missing");
	if (!is_integer(value, &total))
		return bad_field(problem, "total", "is not an integer");
	if (total < 0)
		return bad_field(problem, "total", "is negative");
	if (total > PAGE_MAX_TOTAL)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("field \"total\" is greater than %d",
									PAGE_MAX_TOTAL));
	page->total = (int64) total;
	return true;
}

/* A number that the API echoes from the request; -1 if missing. */
static int64
read_echo(const JsonToken *value, int64 least)
{
	double		echo;

	return is_integer(value, &echo) && echo >= least && echo < (double) PG_INT64_MAX ?
		(int64) echo : -1;
}

/* A string that the API echoes; NULL if missing. */
static char *
read_word(const JsonToken *value)
{
	char	   *word;

	if (value == NULL || value->type != JSON_STRING)
		return NULL;
	word = palloc(value->length + 1);
	word[json_decode(value, word)] = '\0';
	return word;
}

static bool
check_list(PageReader *reader, const JsonToken *list, PageError *problem)
{
	if (list == NULL)
		return bad_field(problem, LIST_NAME, "is missing");
	if (list->type == JSON_NULL)
		begin_list(reader);		/* if there are several lists, the last one is
								 * used */
	else if (list->type != JSON_ARRAY)
		return bad_field(problem, LIST_NAME, "is not an array");
	if (reader->position > PAGE_MAX_TOTAL)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("page of %d programs is too long",
									reader->position));
	return true;
}

static bool
read_frame(PageReader *reader, const JsonToken *frame, PageError *problem)
{
	ProgramPage *page = reader->page;

	if (reader->bad_utf8)
		return set_problem(problem, PAGE_NOT_JSON,
						   pstrdup("body is not JSON: invalid UTF-8 outside its programs"));
	if (!read_total(page, json_member(frame, "total"), problem))
		return false;
	page->limit = read_echo(json_member(frame, "limit"), 1);
	page->offset = read_echo(json_member(frame, "offset"), 0);
	page->status = read_word(json_member(frame, "program_status"));
	return check_list(reader, json_member(frame, LIST_NAME), problem);
}

static bool
set_fault(PageReader *reader, PageError *problem)
{
	static const PageErrorKind kinds[] = {
		[JSON_BROKEN] = PAGE_NOT_JSON,
		[JSON_UNFIT] = PAGE_NOT_A_PAGE,
		[JSON_TOO_LONG] = PAGE_IMPLAUSIBLE
	};

	return set_problem(problem, kinds[reader->fault.kind], reader->fault.message);
}

/* Scans the whole text, reading the programs on the way. */
static bool
scan_page(PageReader *reader, const char *text, size_t length)
{
	const char *at = json_skip_space(text);

	if (!json_scan_begin(&reader->scan, text, length, &reader->fault))
		return false;
	if (*at == '{')
		at = read_members(reader, at);
	else
		at = json_scan_value(&reader->scan, at);
	return json_scan_end(&reader->scan, at);
}

static bool
read_page(PageReader *reader, const char *text, size_t length, PageError *problem)
{
	const JsonToken *frame;

	if (!scan_page(reader, text, length))
		return set_fault(reader, problem);
	frame = json_read(&reader->tokens, reader->frame.data, reader->frame.len,
					  &reader->fault);
	return frame ? read_frame(reader, frame, problem) :
		set_fault(reader, problem);
}

bool
program_page_read(ProgramPage *page, const char *text, size_t length,
				  const KnownPrograms *known, PageError *problem)
{
	PageReader	reader = {.page = page,.known = known};
	bool		success;

	memset(page, 0, sizeof(ProgramPage));
	memset(problem, 0, sizeof(PageError));
	guess_init(&reader.guesses, known, text, length);
	initStringInfo(&reader.frame);
	success = read_page(&reader, text, length, problem);
	json_free(&reader.tokens);
	pfree(reader.frame.data);
	if (!success)
	{
		clear_programs(page);
		if (page->status)
			pfree(page->status);
		memset(page, 0, sizeof(ProgramPage));
	}
	return success;
}
