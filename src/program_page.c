/*
 * program_page.c
 *	  Read the programs from the text of a page.
 *
 * A page is read in a single pass, program by program, so that memory use is
 * limited by the size of the text and not by the number of its values.
 *
 * Most programs are byte for byte the same as last time.  They are recognized
 * by the ID, which the scan notes on the way, and the fingerprint, and are not
 * read any further: what their text is worth was found out when it was stored.
 */
#include "postgres.h"

#include "program_page.h"

#include <math.h>

#include "text.h"

/* Maximum length of another member's name in a message, in bytes */
#define MAX_SHOWN_NAME 64

#define MIN_PROGRAMS 64

/* The state of reading a page */
typedef struct PageReader
{
	ProgramPage *page;
	JsonScan	scan;
	JsonError  *error;
	const KnownPrograms *known; /* the stored programs, or NULL */

	/* The members of the page, all zero if missing */
	JsonToken	total;
	JsonToken	status;
	JsonToken	list;
	bool		failed;			/* the API reports an error */

	/* Its programs */
	int			capacity;
	int			position;		/* in the list, from 1 */
	char	   *reason;			/* why the current program cannot be stored */

	/* How a program on the page begins, up to its ID */
	const char *start;
	int			start_length;

	/* The current program */
	JsonToken	id_token;		/* has size 0 if missing */
	char		id[PAGE_MAX_ID_BYTES * JSON_SPELLED_BYTES];
	int			id_length;
	uint64		id_hash;
	uint64		fingerprint;
	bool		active;
} PageReader;

/* Takes ownership of the message; returns false for the caller to return. */
static bool
fail(PageReader *reader, JsonErrorKind kind, char *message)
{
	reader->error->kind = kind;
	reader->error->message = message;
	return false;
}

/* ---- one program ---- */

/* Notes the ID of the current program, which has been scanned. */
static void
note_id(PageReader *reader, JsonToken id)
{
	reader->id_token = id;
	reader->id_length = id.length <= (int) sizeof(reader->id) ?
		json_decode(&id, reader->id) : PAGE_MAX_ID_BYTES + 1;
	if (reader->id_length > PAGE_MAX_ID_BYTES)
		return;
	reader->id[reader->id_length] = '\0';
	reader->id_hash = fingerprint_of_id(reader->id, reader->id_length);
	if (reader->known)
		reader->known->prefetch(reader->known->arg, reader->id_hash);
}

/* A JsonReader of the members of a program. */
static const char *
read_program_member(void *arg, const JsonToken *name, const char *at)
{
	PageReader *reader = arg;
	const char *end = json_scan_value(&reader->scan, at);
	JsonToken	value;

	if (end == NULL)
		return NULL;
	value = json_token(at, end);
	if (json_string_is(name, "program_id"))
		note_id(reader, value);
	else if (json_string_is(name, "program_status"))
		reader->active = json_string_is(&value, "ACTIVE");
	return end;
}

/*
 * Guesses the ID of a program and where it ends, which saves scanning it if it
 * is stored: most begin as another one on the page does, up to the ID, and end
 * before the next one begins.  A wrong guess only costs time.
 */
static const char *
guess_end(PageReader *reader, const char *at)
{
	const char *id = at + reader->start_length;
	const char *quote;
	const char *next;

	if (reader->known == NULL || reader->start == NULL ||
		strncmp(at, reader->start, reader->start_length) != 0)
		return NULL;
	quote = memchr(id, '"', reader->scan.end - id);
	next = quote;
	while (next && strncmp(next, reader->start, reader->start_length) != 0)
		next = memchr(next + 1, '{', reader->scan.end - next - 1);
	if (next == NULL)
		return NULL;
	note_id(reader, json_token(id - 1, quote + 1));
	while (next[-1] != '}' && next > quote)
		next--;
	return next;
}

/* What is wrong with the ID of the current program, or NULL. */
static const char *
find_id_complaint(const PageReader *reader)
{
	const JsonToken *id = &reader->id_token;
	const char *unstorable;

	if (id->size == 0)
		return "is missing";
	if (id->type != JSON_STRING)
		return "is not a string";
	if (id->length == 0)
		return "is empty";
	if (reader->id_length > PAGE_MAX_ID_BYTES)
		return "is longer than " CppAsString2(PAGE_MAX_ID_BYTES) " bytes";
	unstorable = json_unstorable(id->text - 1, id->text + id->length + 1);
	if (unstorable)
		return unstorable;
	return text_has_controls(reader->id, reader->id_length) ?
		"contains a control character" : NULL;
}

/* A JsonReader of the members of a program, which names the first bad one. */
static const char *
find_unstorable(void *arg, const JsonToken *name, const char *at)
{
	PageReader *reader = arg;
	const char *end = json_scan_value(&reader->scan, at);
	const char *complaint = end ? json_unstorable(name->text - 1, end) : NULL;

	if (complaint == NULL || reader->reason)
		return end;
	if (json_is_utf8(name->text, name->length))
		reader->reason = psprintf("field \"%s\" %s",
								  text_shown(name->text, name->length, MAX_SHOWN_NAME),
								  complaint);
	else
		reader->reason = psprintf("a field name %s", complaint);
	return end;
}

/*
 * The reason why the element between these positions, which is not stored, is
 * skipped, as a message; NULL if it is not.
 */
static char *
find_reason(PageReader *reader, const char *at, const char *end)
{
	const char *complaint = find_id_complaint(reader);

	if (*at != '{')
		return psprintf("field \"payment_programs[%d]\" is not an object",
						reader->position - 1);
	if (complaint)
		return psprintf("field \"payment_programs[%d].program_id\" %s",
						reader->position - 1, complaint);
	reader->reason = NULL;
	if (reader->scan.too_deep)
		reader->reason = psprintf("nested more than %d levels deep", JSON_MAX_DEPTH);
	else if (reader->scan.ntokens > JSON_MAX_TOKENS)
		reader->reason = psprintf("contains more than %d values", JSON_MAX_TOKENS);
	else if (end - at > PAGE_MAX_PROGRAM_BYTES)
		reader->reason = psprintf("is longer than %d bytes", PAGE_MAX_PROGRAM_BYTES);
	else if ((complaint = json_unstorable(at, end)) != NULL)
	{
		json_scan_list(&reader->scan, at, find_unstorable, reader);
		if (reader->reason == NULL)
			reader->reason = pstrdup(complaint);
	}
	return reader->reason ? psprintf("program \"%s\": %s", reader->id, reader->reason) : NULL;
}

/* Is the current program, between these positions, stored in this form? */
static bool
is_stored(PageReader *reader, const char *at, const char *end)
{
	const uint64 *stored;

	reader->fingerprint = fingerprint_of_text(at, end - at, reader->id_hash);
	stored = reader->known && reader->id_token.size > 0 ?
		reader->known->fingerprint(reader->known->arg, reader->id_hash) : NULL;
	return stored && *stored == reader->fingerprint;
}

/* ---- the list of programs ---- */

/* Forgets the list; if there are several, the last one counts. */
static void
clear_list(PageReader *reader)
{
	ProgramPage *page = reader->page;

	for (int i = 0; i < page->count; i++)
		pfree(page->programs[i].id);
	if (page->programs)
		pfree(page->programs);
	if (page->skip_reason)
		pfree(page->skip_reason);
	page->programs = NULL;
	page->skip_reason = NULL;
	page->count = page->skipped = 0;
	reader->capacity = reader->position = 0;
}

/* Adds the current program; if it is stored, without its document. */
static void
add_program(PageReader *reader, const char *at, const char *end, bool stored)
{
	ProgramPage *page = reader->page;
	PageProgram *program;

	if (page->count == reader->capacity)
	{
		reader->capacity = Max(2 * reader->capacity, MIN_PROGRAMS);
		page->programs = page->programs ?
			repalloc(page->programs, reader->capacity * sizeof(PageProgram)) :
			palloc(reader->capacity * sizeof(PageProgram));
	}
	program = &page->programs[page->count++];
	program->id = pnstrdup(reader->id, reader->id_length);
	program->id_hash = reader->id_hash;
	program->fingerprint = reader->fingerprint;
	program->document = stored ? NULL : at;
	program->length = end - at;
	program->active = reader->active;
}

/* Adds an element that has been scanned, or counts it as skipped. */
static void
add_element(PageReader *reader, const char *at, const char *end)
{
	ProgramPage *page = reader->page;
	bool		stored = is_stored(reader, at, end);
	char	   *reason = stored ? NULL : find_reason(reader, at, end);

	if (reason == NULL)
		add_program(reader, at, end, stored);
	else if (page->skipped++ == 0)
		page->skip_reason = reason;
	else
		pfree(reason);
}

/* Says where in the list the error is. */
static void
locate_error(PageReader *reader)
{
	char	   *message = reader->error->message;
	char	   *place = psprintf("field \"payment_programs[%d]\"", reader->position - 1);

	reader->error->message =
		reader->id_token.size == 0 || find_id_complaint(reader) ?
		psprintf("%s, in %s", message, place) :
		psprintf("%s, in %s, program \"%s\"", message, place, reader->id);
}

/* A JsonReader of the elements of the list. */
static const char *
read_element(void *arg, pg_attribute_unused() const JsonToken *name, const char *at)
{
	PageReader *reader = arg;
	const char *end = guess_end(reader, at);

	reader->position++;
	if (end && is_stored(reader, at, end))
	{
		add_program(reader, at, end, true);
		return end;
	}
	reader->id_token.size = 0;
	reader->active = false;
	reader->scan.ntokens = 1;
	reader->scan.too_deep = false;
	end = *at == '{' ? json_scan_list(&reader->scan, at, read_program_member, reader) :
		json_scan_value(&reader->scan, at);
	if (end == NULL)
		locate_error(reader);
	else
		add_element(reader, at, end);
	if (reader->start == NULL && reader->id_token.size > 0)
	{
		reader->start = at;
		reader->start_length = reader->id_token.text - at;
	}
	return end;
}

/* ---- the page ---- */

/* Does a member error or errors say nothing? */
static bool
says_nothing(const JsonToken *value)
{
	if (value->type == JSON_OBJECT || value->type == JSON_ARRAY)
		return strspn(value->text + 1, " \t\r\n") == (size_t) value->length - 2;
	if (value->type == JSON_STRING)
		return value->length == 0;
	return *value->text == 'n' || *value->text == 'f' ||
		(*value->text == '0' && value->length == 1);
}

/* A JsonReader of the members of the page. */
static const char *
read_page_member(void *arg, const JsonToken *name, const char *at)
{
	PageReader *reader = arg;
	bool		is_list = json_string_is(name, "payment_programs");
	const char *end;
	JsonToken	value;

	if (is_list)
		clear_list(reader);
	if (is_list && *at == '[')
		end = json_scan_list(&reader->scan, at, read_element, reader);
	else
		end = json_scan_value(&reader->scan, at);
	if (end == NULL)
		return NULL;
	value = json_token(at, end);
	if (is_list)
		reader->list = value;
	else if (json_string_is(name, "total"))
		reader->total = value;
	else if (json_string_is(name, "program_status"))
		reader->status = value;
	else if (json_string_is(name, "error") || json_string_is(name, "errors"))
		reader->failed |= !says_nothing(&value);
	return end;
}

/* A string that the API echoes; NULL if missing. */
static char *
read_word(const JsonToken *value)
{
	char	   *word;

	if (value->type != JSON_STRING || !json_is_utf8(value->text, value->length))
		return NULL;
	word = palloc(value->length + 1);
	word[json_decode(value, word)] = '\0';
	return word;
}

/* Reads what the page says of itself; false if it is not a page. */
static bool
read_page(PageReader *reader)
{
	ProgramPage *page = reader->page;
	const char *complaint = NULL;
	double		total = reader->total.type == JSON_NUMBER ? strtod(reader->total.text, NULL) : NAN;

	if (reader->total.size == 0)
		complaint = "field \"total\" is missing";
	else if (total != trunc(total))
		complaint = "field \"total\" is not an integer";
	else if (total < 0)
		complaint = "field \"total\" is negative";
	else if (reader->list.size == 0)
		complaint = "field \"payment_programs\" is missing";
	else if (reader->list.type != JSON_ARRAY && reader->list.type != JSON_NULL)
		complaint = "field \"payment_programs\" is not an array";
	else if (reader->failed)
		complaint = "API reported an error";
	if (complaint)
		return fail(reader, JSON_UNFIT, pstrdup(complaint));
	if (total > PAGE_MAX_TOTAL)
		return fail(reader, JSON_TOO_LARGE, psprintf("field \"total\" is greater than %d",
													 PAGE_MAX_TOTAL));
	if (reader->position > PAGE_MAX_TOTAL)
		return fail(reader, JSON_TOO_LARGE, psprintf("page of %d programs is too long",
													 reader->position));
	page->total = (int64) total;
	page->status = read_word(&reader->status);
	return true;
}

bool
program_page_read(ProgramPage *page, const char *text, size_t length,
				  const KnownPrograms *known, JsonError *error)
{
	PageReader	reader = {.page = page,.known = known,.error = error};
	bool		success;

	memset(page, 0, sizeof(ProgramPage));
	success = json_scan(&reader.scan, text, length, read_page_member, &reader, error) &&
		read_page(&reader);
	if (!success)
		clear_list(&reader);
	return success;
}
