/*
 * program_page_fuzz.c
 *	  Any text at all to program_page_read() and fetch_error_read_api().
 *
 * What they make of it is held against what PostgreSQL's own JSON parser finds,
 * and against what they make of it where programs are stored.  By design they
 * differ from the parser in this:
 *
 * - What is nested deeper than JSON_MAX_DEPTH is not looked at, and a program
 *	 that holds it is skipped.
 * - \u0000, half a surrogate pair or invalid UTF-8 is JSON to us; but a program
 *	 that holds it is skipped.
 * - So is a program with numbers that are long if spelled without exponents.
 */
#include "postgres.h"

#include "program_page.h"

#include "mb/pg_wchar.h"

#include "fetch_error.h"
#include "no_server.h"

#include "fuzz.h"
#include "json_oracle.h"

#define MAX_STORED 8

/* ---- what each page and program must be ---- */

static bool
is_utf8(const char *text, size_t length)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, length) == (int) length;
}

static void
check_text(const char *text, size_t max_length)
{
	size_t		length = strlen(text);

	fuzz_check(length > 0 && length <= max_length, "a text has a fit length");
	fuzz_check(is_utf8(text, length), "a text is UTF-8");
}

/* Has it C0 or C1 control characters, or a delete? */
static bool
has_controls(const char *string)
{
	for (const char *at = string; *at != '\0'; at++)
	{
		unsigned char c = *at;

		if (c < ' ' || c == 0x7F)
			return true;
		if (c == 0xC2 && (unsigned char) at[1] < 0xA0)
			return true;
	}
	return false;
}

static void
check_program(const PageProgram *program)
{
	OraclePage	unused;

	check_text(program->id, PAGE_MAX_ID_BYTES);
	fuzz_check(!has_controls(program->id), "an id has no control characters");
	fuzz_check(program->document[0] == '{' &&
			   program->document[program->length - 1] == '}',
			   "a document is an object");
	fuzz_check(program->id_hash == fingerprint_of_id(program->id, strlen(program->id)),
			   "an id's hash is its own");
	fuzz_check(program->fingerprint ==
			   fingerprint_of_text(program->document, program->length, program->id_hash),
			   "a fingerprint is the document's");
	fuzz_check(oracle_read_page(program->document, program->length, &unused),
			   "PostgreSQL takes a document");
}

static void
check_page(const ProgramPage *page, const char *body, size_t size)
{
	const char *behind = body;

	fuzz_check(page->total >= 0 && page->total <= PAGE_MAX_TOTAL, "a total can be");
	fuzz_check((page->skipped > 0) == (page->skip_reason != NULL),
			   "what is skipped has a reason");
	for (int i = 0; i < page->count; i++)
	{
		const PageProgram *program = &page->programs[i];

		fuzz_check(program->document > behind, "documents come in order");
		behind = program->document + program->length;
		check_program(program);
	}
	fuzz_check(behind <= body + size, "documents are within the page");
	if (page->skip_reason)
		check_text(page->skip_reason, 1024);
}

/* ---- PostgreSQL's parser ---- */

/* Shall a program be taken that PostgreSQL found on a page without bad strings? */
static bool
is_fit(const OracleProgram *program)
{
	return program->is_object && program->id && program->id[0] != '\0' &&
		strlen(program->id) <= PAGE_MAX_ID_BYTES && !has_controls(program->id) &&
		program->longest_number <= JSON_MAX_DIGITS &&
		program->exponents <= JSON_MAX_DIGITS + JSON_MAX_GROWTH * program->length;
}

/* Did PostgreSQL find the same on the page? */
static void
compare_page(const ProgramPage *page, const OraclePage *oracle)
{
	int			count = 0;

	fuzz_check(!oracle->reports_error, "PostgreSQL finds no error on a page");
	fuzz_check(oracle->total &&
			   strtold(oracle->total, NULL) == (long double) page->total,
			   "PostgreSQL finds the same total");
	for (int i = 0; i < oracle->count; i++)
	{
		const OracleProgram *program = &oracle->programs[i];

		if (!is_fit(program))
			continue;
		fuzz_check(count < page->count, "each fit program is taken");
		fuzz_check(strcmp(page->programs[count].id, program->id) == 0,
				   "PostgreSQL finds the same id");
		fuzz_check(page->programs[count].document == program->text,
				   "PostgreSQL finds the document in the same place");
		count++;
	}
	fuzz_check(count == page->count, "only fit programs are taken");
	fuzz_check(page->skipped == oracle->count - count, "all others are skipped");
}

/* Is a text deeper than what is looked at, by its brackets outside of strings? */
static bool
is_deep(const char *text)
{
	int			depth = 0;
	bool		in_string = false;

	for (const char *at = text; *at != '\0' && depth <= JSON_MAX_DEPTH; at++)
	{
		if (in_string && *at == '\\' && at[1] != '\0')
			at++;
		else if (*at == '"')
			in_string = !in_string;
		else if (!in_string)
			depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
	}
	return depth > JSON_MAX_DEPTH;
}

static void
compare_with_parser(const ProgramPage *page, const JsonError *error, const char *text, size_t size,
					bool is_json)
{
	OraclePage	oracle;
	bool		is_valid = oracle_read_page(text, size, &oracle);

	if (error == NULL)
	{
		fuzz_check(is_json, "what is a page to us is JSON to PostgreSQL");
		if (is_valid)
			compare_page(page, &oracle);
		return;
	}
	check_text(error->message, 1024);
	if (error->kind == JSON_BROKEN)
		fuzz_check(!is_json || !is_utf8(text, size), "what is not JSON to us is not JSON to PostgreSQL");
	else
		fuzz_check(is_json, "what is JSON to us is JSON to PostgreSQL");
	if (is_valid && strcmp(error->message, "API reported an error") == 0)
		fuzz_check(oracle.reports_error, "PostgreSQL finds the error as well");
}

/* ---- stored programs ---- */

typedef struct Stored
{
	uint64		ids[MAX_STORED];
	uint64		fingerprints[MAX_STORED];
	int			count;
} Stored;

/* Of the same id the last one counts, as in a hash table. */
static const uint64 *
find_fingerprint(const void *arg, uint64 id_hash)
{
	const Stored *stored = arg;

	for (int i = stored->count - 1; i >= 0; i--)
	{
		if (stored->ids[i] == id_hash)
			return &stored->fingerprints[i];
	}
	return NULL;
}

static void
prefetch_nothing(pg_attribute_unused() const void *arg,
				 pg_attribute_unused() uint64 id_hash)
{
}

/* The end of the object that begins here by its brackets, or NULL. */
static const char *
object_end(const char *at)
{
	int			depth = 0;
	bool		in_string = false;

	for (; *at != '\0'; at++)
	{
		if (in_string && *at == '\\' && at[1] != '\0')
			at++;
		else if (*at == '"')
			in_string = !in_string;
		else if (!in_string && (*at == '{' || *at == '['))
			depth++;
		else if (!in_string && (*at == '}' || *at == ']') && --depth == 0)
			return at + 1;
	}
	return NULL;
}

/*
 * Stores the first objects in a text, wherever they are, that are programs
 * where they stand alone on a page; but every fourth not, and every fourth with
 * another text.
 */
static void
store_programs(Stored *stored, const char *text)
{
	int			tries = 0;

	stored->count = 0;
	for (const char *at = strchr(text, '{'); at && tries < MAX_STORED; at = strchr(at + 1, '{'))
	{
		const char *end = object_end(at);
		ProgramPage page;
		JsonError	error;
		char	   *alone;

		if (end == NULL)
			continue;
		tries++;
		alone = psprintf("{\"total\":1,\"payment_programs\":[%.*s]}", (int) (end - at), at);
		if (!program_page_read(&page, alone, strlen(alone), NULL, &error) ||
			page.count != 1 || page.programs[0].id_hash % 4 == 0)
			continue;
		stored->ids[stored->count] = page.programs[0].id_hash;
		stored->fingerprints[stored->count++] =
			page.programs[0].fingerprint + (page.programs[0].id_hash % 4 == 1);
	}
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
compare_program(const PageProgram *whole, const PageProgram *program, const Stored *stored)
{
	const uint64 *fingerprint = find_fingerprint(stored, whole->id_hash);
	bool		is_stored = fingerprint && *fingerprint == whole->fingerprint;

	fuzz_check(strcmp(program->id, whole->id) == 0 &&
			   program->id_hash == whole->id_hash, "an id stays the same");
	fuzz_check(program->fingerprint == whole->fingerprint,
			   "a fingerprint stays the same");
	fuzz_check(program->document == (is_stored ? NULL : whole->document),
			   "what is stored has no document, all else the same one");
	fuzz_check(program->length == whole->length, "a document has the same length");
}

/* A page reads the same where its programs are stored. */
static void
compare_with_stored(const ProgramPage *whole, const JsonError *whole_error, const char *text,
					size_t size)
{
	Stored	   *stored = palloc(sizeof(Stored));
	KnownPrograms known = {find_fingerprint, prefetch_nothing, stored};
	ProgramPage page;
	JsonError	error;
	bool		is_page;

	store_programs(stored, text);
	is_page = program_page_read(&page, text, size, &known, &error);
	fuzz_check(is_page == (whole_error == NULL), "what is no page is none with stored programs");
	if (!is_page)
	{
		fuzz_check(error.kind == whole_error->kind &&
				   strcmp(error.message, whole_error->message) == 0, "the error stays the same");
		return;
	}
	fuzz_check(page.total == whole->total && same_text(page.status, whole->status),
			   "what the page says of itself stays the same");
	fuzz_check(page.count == whole->count && page.skipped == whole->skipped,
			   "there are as many programs");
	fuzz_check(same_text(page.skip_reason, whole->skip_reason),
			   "what is skipped has the same reason");
	for (int i = 0; i < page.count; i++)
		compare_program(&whole->programs[i], &page.programs[i], stored);
}

/* ---- the API's own words ---- */

static void
check_words(const char *text, size_t size, bool is_json)
{
	ApiError	words;
	const char *texts[2];

	fuzz_check(fetch_error_read_api(&words, text, size) == (words.id || words.description),
			   "an error says something");
	texts[0] = words.id;
	texts[1] = words.description;
	for (int i = 0; i < 2; i++)
	{
		if (texts[i] == NULL)
			continue;
		check_text(texts[i], API_ERROR_MAX_BYTES);
		fuzz_check(!has_controls(texts[i]), "an error has no control characters");
		fuzz_check(is_json, "what is not JSON has no error");
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = fuzz_text(data, size);
	ProgramPage page;
	JsonError	error;
	bool		is_page = program_page_read(&page, text, size, NULL, &error);
	bool		is_json = oracle_is_json(text, size);

	if (is_page)
		check_page(&page, text, size);
	if (!is_deep(text))
		compare_with_parser(&page, is_page ? NULL : &error, text, size, is_json);
	compare_with_stored(&page, is_page ? NULL : &error, text, size);
	check_words(text, size, is_json);

	fuzz_free_all();
	return 0;
}
