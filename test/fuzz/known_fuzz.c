/*
 * known_fuzz.c
 *	  A page reads the same whether its programs are known or not.
 *
 * Known is, of each text, every object in it that the page reader takes for a
 * program where it stands alone on a page: so there are known programs in texts
 * that are no page, too, and in places where none belongs.
 */
#include "postgres.h"

#include "fingerprint.h"
#include "no_server.h"
#include "program_page.h"

#include "fuzz.h"

#define MAX_STORED 256

typedef struct StoredProgram
{
	uint64		id_hash;
	uint64		fingerprint;
} StoredProgram;

typedef struct StoredPrograms
{
	StoredProgram programs[MAX_STORED];
	int			count;
} StoredPrograms;

/* Of the same id the last one counts, as in a hash table. */
static const uint64 *
find_fingerprint(const void *arg, uint64 id_hash)
{
	const StoredPrograms *stored = arg;

	for (int i = stored->count - 1; i >= 0; i--)
	{
		if (stored->programs[i].id_hash == id_hash)
			return &stored->programs[i].fingerprint;
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

/* Stores an object that is a program where it stands alone. */
static void
store(StoredPrograms *stored, const char *start, const char *end)
{
	char	   *text = psprintf("{\"total\":1,\"payment_programs\":[%.*s]}",
								(int) (end - start), start);
	StoredProgram *program = &stored->programs[stored->count];
	ProgramPage page;
	PageError	problem;

	if (!program_page_read(&page, text, strlen(text), NULL, &problem) ||
		page.count != 1 || page.skipped > 0)
		return;
	program->id_hash = page.programs[0].id_hash;
	program->fingerprint = page.programs[0].fingerprint;
	stored->count++;
}

static void
store_all(StoredPrograms *stored, const char *text)
{
	stored->count = 0;
	for (const char *at = strchr(text, '{'); at; at = strchr(at + 1, '{'))
	{
		const char *end = object_end(at);

		if (end)
			store(stored, at, end);
		if (stored->count == MAX_STORED)
			return;
	}
}

/* Some of them are not stored after all, others with another text. */
static void
change_some(StoredPrograms *stored)
{
	int			count = 0;

	for (int i = 0; i < stored->count; i++)
	{
		StoredProgram program = stored->programs[i];

		if (program.id_hash % 4 == 0)
			continue;
		if (program.id_hash % 4 == 1)
			program.fingerprint++;
		stored->programs[count++] = program;
	}
	stored->count = count;
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
compare_program(const PageProgram *whole, const PageProgram *program,
				const StoredPrograms *stored)
{
	const uint64 *fingerprint = find_fingerprint(stored, whole->id_hash);
	bool		is_stored = fingerprint && *fingerprint == whole->fingerprint;

	fuzz_check(strcmp(program->id, whole->id) == 0 &&
			   program->id_hash == whole->id_hash, "an id stays the same");
	fuzz_check(program->fingerprint == whole->fingerprint,
			   "a fingerprint stays the same");
	fuzz_check((program->document == NULL) == is_stored,
			   "what is stored has no document, all else has one");
	if (is_stored)
		return;
	fuzz_check(program->document == whole->document &&
			   program->length == whole->length, "a document stays the same");
}

static void
compare_page(const ProgramPage *whole, const ProgramPage *page,
			 const StoredPrograms *stored)
{
	fuzz_check(page->total == whole->total && page->limit == whole->limit &&
			   page->offset == whole->offset &&
			   same_text(page->status, whole->status),
			   "what the page says of itself stays the same");
	fuzz_check(page->count == whole->count && page->skipped == whole->skipped,
			   "there are as many programs");
	fuzz_check(same_text(page->skip_reason, whole->skip_reason),
			   "what is skipped has the same reason");
	for (int i = 0; i < page->count; i++)
		compare_program(&whole->programs[i], &page->programs[i], stored);
}

static void
compare(const char *text, size_t size, const StoredPrograms *stored)
{
	KnownPrograms known = {find_fingerprint, prefetch_nothing, stored};
	ProgramPage whole;
	ProgramPage page;
	PageError	whole_problem;
	PageError	problem;
	bool		is_page = program_page_read(&whole, text, size, NULL, &whole_problem);

	fuzz_check(program_page_read(&page, text, size, &known, &problem) == is_page,
			   "what is no page is none with known programs");
	if (is_page)
		compare_page(&whole, &page, stored);
	else
		fuzz_check(problem.kind == whole_problem.kind &&
				   strcmp(problem.message, whole_problem.message) == 0,
				   "the problem stays the same");
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = fuzz_text(data, size);
	StoredPrograms *stored = palloc(sizeof(StoredPrograms));

	fingerprint_set_seed(1);
	store_all(stored, text);
	compare(text, size, stored);
	change_some(stored);
	compare(text, size, stored);

	fuzz_free_all();
	return 0;
}
