/*
 * program_page_fuzz.c
 *	  Arbitrary text for program_page_read(), fetch_error_api_words(),
 *	  fetch_error_requested_wait() and text_shown().
 *
 * The page is compared with what PostgreSQL's own JSON parser finds, and with
 * the result where programs are stored.  By design they differ from the parser
 * in this:
 *
 * - What is nested deeper than JSON_MAX_DEPTH is not read, and a program that
 *	 contains it is skipped.
 * - \u0000, unpaired surrogates and invalid UTF-8 are accepted as JSON; but a
 *	 program that contains them is skipped.
 * - So is a program with numbers that are long if written without exponents.
 */
#include "postgres.h"

#include "fetch_error.h"
#include "no_server.h"
#include "stored.h"
#include "text.h"

#include "fuzz.h"
#include "json_oracle.h"

static void
check_text(const char *text, size_t max_length)
{
	size_t		length = strlen(text);

	fuzz_check(length > 0 && length <= max_length, "a text has a fit length");
	fuzz_check(fuzz_is_utf8(text, length), "a text is UTF-8");
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* ---- each page and program ---- */

static void
check_program(const PageProgram *program)
{
	OraclePage	unused;

	check_text(program->id, PAGE_MAX_ID_BYTES);
	fuzz_check(!fuzz_has_controls(program->id), "an ID has no control characters");
	fuzz_check(program->document[0] == '{' && program->document[program->length - 1] == '}',
			   "a document is an object");
	fuzz_check(program->id_hash == fingerprint_of_id(program->id, strlen(program->id)),
			   "an ID's hash is its own");
	fuzz_check(program->fingerprint ==
			   fingerprint_of_text(program->document, program->length, program->id_hash),
			   "a fingerprint is the document's");
	fuzz_check(oracle_read_page(program->document, program->length, &unused),
			   "PostgreSQL accepts a document");
}

static void
check_page(const ProgramPage *page, const char *body, size_t size)
{
	const char *behind = body;

	fuzz_check(page->total >= 0 && page->total <= PAGE_MAX_TOTAL, "a total is within its bounds");
	fuzz_check((page->skipped > 0) == (page->skip_reason != NULL), "what is skipped has a reason");
	for (int i = 0; i < page->count; i++)
	{
		fuzz_check(page->programs[i].document > behind, "documents are in order");
		behind = page->programs[i].document + page->programs[i].length;
		check_program(&page->programs[i]);
	}
	fuzz_check(behind <= body + size, "documents are within the page");
	if (page->skip_reason)
		check_text(page->skip_reason, 1024);
}

/* ---- PostgreSQL's parser ---- */

/* Should a program be read that PostgreSQL found on a page without bad strings? */
static bool
is_fit(const OracleProgram *program)
{
	return program->is_object && program->id && program->id[0] != '\0' &&
		strlen(program->id) <= PAGE_MAX_ID_BYTES && !fuzz_has_controls(program->id) &&
		program->longest_number <= JSON_MAX_DIGITS &&
		program->exponents <= JSON_MAX_DIGITS + JSON_MAX_GROWTH * program->length;
}

static void
compare_page(const ProgramPage *page, const OraclePage *oracle)
{
	int			count = 0;

	fuzz_check(!oracle->reports_error, "PostgreSQL finds no error on a page");
	fuzz_check(oracle->total && strtold(oracle->total, NULL) == (long double) page->total,
			   "PostgreSQL finds the same total");
	for (int i = 0; i < oracle->count; i++)
	{
		const OracleProgram *program = &oracle->programs[i];

		if (!is_fit(program))
			continue;
		fuzz_check(count < page->count, "each fit program is read");
		fuzz_check(strcmp(page->programs[count].id, program->id) == 0, "PostgreSQL finds the same ID");
		fuzz_check(page->programs[count++].document == program->text,
				   "PostgreSQL finds the document in the same place");
	}
	fuzz_check(count == page->count, "only fit programs are read");
	fuzz_check(page->skipped == oracle->count - count, "all others are skipped");
}

static void
compare_with_parser(const ProgramPage *page, const JsonError *error, const char *text, size_t size,
					bool is_json)
{
	OraclePage	oracle;
	bool		is_valid = oracle_read_page(text, size, &oracle);

	if (error == NULL)
	{
		fuzz_check(is_json, "PostgreSQL accepts a page as JSON");
		if (is_valid)
			compare_page(page, &oracle);
		return;
	}
	check_text(error->message, 1024);
	if (error->kind == JSON_BROKEN)
		fuzz_check(!is_json || !fuzz_is_utf8(text, size), "PostgreSQL refuses what is not JSON");
	else
		fuzz_check(is_json, "PostgreSQL accepts what is JSON");
	if (is_valid && strcmp(error->message, "API reported an error") == 0)
		fuzz_check(oracle.reports_error, "PostgreSQL finds the error as well");
}

/* ---- brackets ---- */

/* The next bracket outside of strings, and the depth behind it; or NULL. */
static const char *
next_bracket(const char *at, int *depth)
{
	for (; *at != '\0'; at++)
	{
		if (strchr("{[]}", *at))
		{
			*depth += *at == '{' || *at == '[' ? 1 : -1;
			return at;
		}
		if (*at != '"')
			continue;
		for (at++; *at != '"'; at++)
		{
			if (*at == '\\' && at[1] != '\0')
				at++;
			if (*at == '\0')
				return NULL;
		}
	}
	return NULL;
}

static bool
is_deep(const char *text)
{
	int			depth = 0;

	for (const char *at = text; depth <= JSON_MAX_DEPTH && (at = next_bracket(at, &depth)); at++)
		;
	return depth > JSON_MAX_DEPTH;
}

/* The end of the object that begins here, or NULL. */
static const char *
object_end(const char *at)
{
	int			depth = 0;

	for (; (at = next_bracket(at, &depth)) != NULL; at++)
	{
		if (depth == 0)
			return at + 1;
	}
	return NULL;
}

/* ---- stored programs ---- */

/*
 * Stores the first objects in a text, wherever they are, that are programs if
 * they are alone on a page; except for one in four, and one in four with
 * another text.
 */
static void
store_programs(Stored *stored, const char *text)
{
	int			tries = 0;

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
		if (program_page_read(&page, alone, strlen(alone), NULL, &error) &&
			page.count == 1 && page.programs[0].id_hash % 4 != 0)
			store(stored, page.programs[0].id_hash,
				  page.programs[0].fingerprint + (page.programs[0].id_hash % 4 == 1));
	}
}

static void
compare_program(const PageProgram *whole, const PageProgram *program, const Stored *stored)
{
	const uint64 *fingerprint = find_fingerprint(stored, whole->id_hash);
	bool		is_stored = fingerprint && *fingerprint == whole->fingerprint;

	fuzz_check(strcmp(program->id, whole->id) == 0 && program->id_hash == whole->id_hash &&
			   program->fingerprint == whole->fingerprint && program->length == whole->length,
			   "a program stays the same");
	fuzz_check(program->document == (is_stored ? NULL : whole->document),
			   "a program has a document unless it is stored");
}

/* A page is read as it would be without stored programs. */
static void
compare_with_stored(const ProgramPage *whole, const JsonError *whole_error, const char *text,
					size_t size)
{
	Stored		stored = {.count = 0};
	KnownPrograms known = {find_fingerprint, prefetch_nothing, &stored};
	ProgramPage page;
	JsonError	error;
	bool		is_page;

	store_programs(&stored, text);
	is_page = program_page_read(&page, text, size, &known, &error);
	fuzz_check(is_page == (whole_error == NULL), "what is no page remains none");
	if (!is_page)
	{
		fuzz_check(error.kind == whole_error->kind &&
				   strcmp(error.message, whole_error->message) == 0, "the error stays the same");
		return;
	}
	fuzz_check(page.total == whole->total && same_text(page.status, whole->status) &&
			   page.count == whole->count && page.skipped == whole->skipped &&
			   same_text(page.skip_reason, whole->skip_reason), "the page stays the same");
	for (int i = 0; i < page.count; i++)
		compare_program(&whole->programs[i], &page.programs[i], &stored);
}

/* ---- the API's own words ---- */

static void
check_words(const char *text, size_t size, bool is_json)
{
	char	   *words = fetch_error_api_words(text, size);

	if (words == NULL)
		return;
	check_text(words, 2 * API_ERROR_MAX_BYTES + 4);
	fuzz_check(!fuzz_has_controls(words), "an error has no control characters");
	fuzz_check(is_json, "what is not JSON has no error");
}

/* ---- headers ---- */

#define SECOND INT64CONST(1000000)
#define TEN_YEARS (INT64CONST(315360000) * SECOND)
#define NOW ((time_t) 784111717)	/* 6 Nov 1994 08:48:37 */

static int64
wait_for(const char *retry_after, const char *rate_reset, const char *date, time_t now)
{
	HttpResponse response = {
		.status = 429,.retry_after = retry_after,.rate_reset = rate_reset,.date = date
	};
	int64		wait = fetch_error_requested_wait(&response, TEN_YEARS, now);

	fuzz_check(wait == -1 || (wait > 0 && wait <= TEN_YEARS),
			   "a wait is absent, or positive and at most ten years");
	return wait;
}

static void
check_wait(const char *value)
{
	int64		wait = wait_for(value, NULL, NULL, NOW);
	int64		later = wait_for(value, NULL, NULL, NOW + 1);

	if (strspn(value, "0123456789.") == strlen(value))
		fuzz_check(later == wait, "seconds do not depend on the time of day");
	else if (wait < TEN_YEARS)
		fuzz_check(later == (wait > SECOND ? wait - SECOND : -1), "a date comes nearer, and passes");
	(void) wait_for(NULL, value, NULL, NOW);
	(void) wait_for("Sun, 06 Nov 1994 08:49:37 GMT", NULL, value, NOW);
}

/* ---- text to show ---- */

static void
check_shown(const char *text, size_t size)
{
	int			max = size / 2;
	char	   *shown = text_shown(text, size, max);
	int			length = strlen(shown);

	fuzz_check(length <= max, "no more is shown than allowed");
	fuzz_check(length == 0 || shown[length - 1] != ' ', "no blanks are at the end");
	if (!fuzz_is_utf8(text, size))
		return;
	fuzz_check(text_has_controls(text, size) == fuzz_has_controls(text), "controls are found");
	fuzz_check(fuzz_is_utf8(shown, length) && !fuzz_has_controls(shown),
			   "what is shown is UTF-8 without controls");
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
	check_wait(text);
	check_shown(text, size);
	fuzz_free_all();
	return 0;
}
