/*
 * program_page_fuzz.c
 *	  Any text at all to program_page_read() and fetch_error_read_api().
 *
 * What they make of it is held against what PostgreSQL's own JSON parser finds.
 * By design they differ in this:
 *
 * - A text that nests deeper than JSON_MAX_DEPTH is no page.
 * - \u0000, half a surrogate pair or, within a program, invalid UTF-8 is JSON to
 *	  us; but the program that holds it is skipped.
 * - So is a program with a number of so many digits that numeric may not hold
 *	  it, whether it does or not.
 */
#include "postgres.h"

#include "program_page.h"

#include "mb/pg_wchar.h"

#include "fetch_error.h"
#include "fingerprint.h"
#include "no_server.h"

#include "fuzz.h"
#include "json_oracle.h"

static bool
is_utf8(const char *text, size_t length)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, length) == (int) length;
}

static void
check_text(const char *text, size_t most)
{
	size_t		length = strlen(text);

	fuzz_check(length > 0 && length <= most, "a text has a fit length");
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
	fuzz_check(page->limit == -1 || page->limit > 0, "a limit can be");
	fuzz_check(page->offset >= -1, "an offset can be");
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

/* Shall a program be taken that PostgreSQL found on a page without bad strings? */
static bool
is_fit(const OracleProgram *program)
{
	return program->is_object && program->id && program->id[0] != '\0' &&
		strlen(program->id) <= PAGE_MAX_ID_BYTES && !has_controls(program->id) &&
		!program->odd_number;
}

/* Did PostgreSQL find the same on the page? */
static void
compare_page(const ProgramPage *page, const OraclePage *oracle)
{
	int			count = 0;

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

/* Such a text is not read to its end, and may be broken there. */
static bool
is_too_deep(const PageError *problem)
{
	return strstr(problem->message, "is nested more than") != NULL;
}

static void
check_problem(const PageError *problem, bool is_json, bool is_valid)
{
	fuzz_check(problem->kind != PAGE_FINE, "a problem has a kind");
	check_text(problem->message, 1024);
	if (problem->program_id)
		check_text(problem->program_id, PAGE_MAX_ID_BYTES);
	if (problem->kind == PAGE_NOT_JSON)
		fuzz_check(!is_json || !is_valid,
				   "what is not JSON to us is not JSON to PostgreSQL");
	else
		fuzz_check(is_json || is_too_deep(problem),
				   "what is JSON to us is JSON to PostgreSQL");
}

static void
check_error_text(const char *text)
{
	if (text == NULL)
		return;
	check_text(text, API_ERROR_MAX_BYTES);
	fuzz_check(!has_controls(text), "an error has no control characters");
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = fuzz_text(data, size);
	bool		is_json = oracle_is_json(text, size);
	ProgramPage page;
	OraclePage	oracle;
	PageError	problem;
	ApiError	error;

	fingerprint_set_seed(1);
	if (program_page_read(&page, text, size, NULL, &problem))
	{
		fuzz_check(is_json, "what is a page to us is JSON to PostgreSQL");
		check_page(&page, text, size);
		if (oracle_read_page(text, size, &oracle))
			compare_page(&page, &oracle);
	}
	else
	{
		check_problem(&problem, is_json, is_utf8(text, size));
	}

	fuzz_check(fetch_error_read_api(&error, text, size) == (error.id || error.description),
			   "an error says something");
	check_error_text(error.id);
	check_error_text(error.description);
	fuzz_check(is_json || (error.id == NULL && error.description == NULL),
			   "what is not JSON has no error");

	fuzz_free_all();
	return 0;
}
