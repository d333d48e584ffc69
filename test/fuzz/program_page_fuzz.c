/*
 * program_page_fuzz.c
 *	  Any text at all to program_page_read() and api_error_read().
 *
 * A fuzz target for libFuzzer (clang -fsanitize=fuzzer,address,undefined).
 * Built with -DPAGE_FUZZ_MAIN it reads the files that it is given, or standard
 * input, so that a finding can be repeated with any compiler.
 */
#include "postgres.h"

#include "program_page.h"

#include "api_error.h"

#include "mb/pg_wchar.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

/* What a sanitizer does not see: stop, so that the fuzzer keeps the input. */
static void
check(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "program_page_fuzz: %s\n", what);
	abort();
}

static void
check_string(const char *text, size_t most)
{
	size_t		length = strlen(text);

	check(length > 0 && length <= most, "a text of a wrong length");
	check(pg_encoding_verifymbstr(PG_UTF8, text, length) == (int) length,
		  "a text that is not UTF-8");
}

static void
check_page(ProgramPage *page, const char *text, size_t size)
{
	const char *behind = text;

	check(page->total >= 0 && page->total <= PAGE_MAX_TOTAL, "a wrong total");
	check(page->limit == -1 || page->limit > 0, "a wrong limit");
	for (int i = 0; i < page->count; i++)
	{
		PageProgram *program = &page->programs[i];

		check_string(program->id, PAGE_MAX_ID_BYTES);
		check(program->document > behind, "a document out of place");
		behind = program->document + program->length;
		check(behind < text +size, "a document beyond the page");
		check(program->document[0] == '{' && behind[-1] == '}',
			  "a document that is no object");
		pfree(program->id);
	}
	pfree(page->programs);
}

static void
check_problem(PageError *problem)
{
	check(problem->kind != PAGE_FINE, "a problem of no kind");
	check_string(problem->message, 1024);
	pfree(problem->message);
	if (problem->program_id == NULL)
		return;
	check_string(problem->program_id, PAGE_MAX_ID_BYTES);
	pfree(problem->program_id);
}

static void
check_error_text(char *text)
{
	if (text == NULL)
		return;
	check_string(text, API_ERROR_MAX_BYTES);
	for (char *at = text; *at != '\0'; at++)
		check((unsigned char) *at >= ' ' && *at != 0x7F,
			  "a control character");
	pfree(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = palloc(size + 1);
	ProgramPage page;
	PageError	problem;
	ApiError	error;

	memcpy(text, data, size);
	text[		size] = '\0';

	if (program_page_read(&page, text, size, NULL, &problem))
		check_page(&page, text, size);
	else
		check_problem(&problem);

	api_error_read(&error, text, size);
	check_error_text(error.id);
	check_error_text(error.description);

	pfree(text);
	return 0;
}

#ifdef PAGE_FUZZ_MAIN

static void
read_file(FILE *file)
{
	size_t		room = 4096;
	size_t		size = 0;
	uint8_t    *data = palloc(room);

	while ((size += fread(data + size, 1, room - size, file)) == room)
		data = repalloc(data, room *= 2);
	LLVMFuzzerTestOneInput(data, size);
	pfree(data);
}

int
main(int argc, char **argv)
{
	if (argc == 1)
		read_file(stdin);
	for (int i = 1; i < argc; i++)
	{
		FILE	   *file = fopen(argv[i], "rb");

		if (file == NULL)
		{
			perror(argv[i]);
			return 1;
		}
		read_file(file);
		fclose(file);
	}
	return 0;
}

#endif							/* PAGE_FUZZ_MAIN */
