/*
 * known_program_test.c
 *	  Unit tests of program_page.c with stored programs.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "lib/stringinfo.h"

#include "fingerprint.h"
#include "no_server.h"
#include "program_page.h"
#include "tap.h"

#define A "{\"program_id\":\"a\",\"note\":\"x\\\"}{\\\\\",\"in\":[{\"deep\":[]}]}"
#define B "{\"program_id\":\"b\", \"data\":{\"c\":\"]\"}}"
#define C "{\"program_id\":\"c\",\"program_type\":\"CPC\"}"
#define PAGE(programs) "{\"total\":3,\"payment_programs\":[" programs "]}"

/* A stored program */
typedef struct Stored
{
	uint64		id_hash;
	uint64		fingerprint;
} Stored;

#define MAX_STORED 8

/* A few stored programs, searched linearly */
typedef struct StoredPrograms
{
	Stored		programs[MAX_STORED];
} StoredPrograms;

static const uint64 *
find_fingerprint(const void *arg, uint64 id_hash)
{
	const StoredPrograms *stored = arg;

	for (int i = 0; i < MAX_STORED; i++)
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

/* Stores a text under an ID, as if that had been read from it. */
static void
store_as(StoredPrograms *stored, const char *id, const char *text, const char *read_id)
{
	Stored	   *program = stored->programs;

	while (program->id_hash != 0)
		program++;
	program->id_hash = fingerprint_of_id(id, strlen(id));
	program->fingerprint =
		fingerprint_of_text(text, strlen(text),
							fingerprint_of_id(read_id, strlen(read_id)));
}

static void
store(StoredPrograms *stored, const char *id, const char *text)
{
	store_as(stored, id, text, id);
}

static bool
read_page(ProgramPage *page, const char *text, const StoredPrograms *stored)
{
	KnownPrograms known = {find_fingerprint, prefetch_nothing, stored};
	PageError	problem;

	return program_page_read(page, text, strlen(text), stored ? &known : NULL,
							 &problem);
}

static int
count_known(const ProgramPage *page)
{
	int			count = 0;

	for (int i = 0; i < page->count; i++)
		count += page->programs[i].document == NULL;
	return count;
}

/* The number of known programs on the page; -1 if it is not a page. */
static int
known_on(const char *text, const StoredPrograms *stored)
{
	ProgramPage page;

	return read_page(&page, text, stored) ? count_known(&page) : -1;
}

/* Reads a page of A, C and B, where A and B are stored. */
static void
test_page(void)
{
	StoredPrograms stored = {0};
	ProgramPage page;

	store(&stored, "a", A);
	store(&stored, "b", B);
	tap_ok(read_page(&page, PAGE(A ", " C "\n," B), &stored), "a page");
	tap_is_int(page.count, 3, "with all programs");
	tap_is_text(page.programs[0].id, "a", "the first by id");
	tap_ok(page.programs[0].document == NULL, "without document");
	tap_ok(page.programs[0].fingerprint == stored.programs[0].fingerprint,
		   "with its fingerprint");
	tap_is_text(page.programs[1].id, "c", "the unknown one");
	tap_is_int(page.programs[1].length, strlen(C), "with its document");
	tap_is_text(page.programs[2].id, "b", "the last one");
	tap_ok(page.programs[2].document == NULL &&
		   page.programs[2].fingerprint == stored.programs[1].fingerprint,
		   "likewise known");
}

/*
 * However a page is formatted, stored programs are recognized, even if not
 * always as fast.
 */
static void
test_layouts(void)
{
	static const char *const programs[] = {
		"{\"program_id\":\"a\"}",
		"{\"program_id\":\"a\",\"in\":{\"program_id\":\"b\"}}",
		"{\"in\":{\"program_id\":\"b\"},\"program_id\":\"a\"}",
		"{\"in\":[{\"in\":1},{\"in\":2}],\"program_id\":\"a\"}",
		"{ \"program_id\" : \"a\" , \"in\" : { } }",
		"{\n\t\"zzz\": 1,\n\t\"program_id\": \"a\"\n}",
		"{\"program_id\":\"\\u0061\",\"program_type\":\"CPC\"}",
		"{\"program\\u005fid\":\"a\"}",
		"{\"program_id\":\"b\",\"x\":[],\"program_id\":\"a\"}",
		"{\"program_id\":7,\"program_id\":\"a\"}",
		"{\"x\":\",{\",\"program_id\":\"a\",\"y\":\"}]}\"}",
	};
	static const char *const layouts[] = {
		"{\"total\":1,\"payment_programs\":[%s]}",
		"{\"payment_programs\":[%s],\"total\":1}",
		"{\"total\":1,\"payment_programs\":[%s," B "]}",
		"{\"total\":1,\"payment_programs\":[ %s ,\n" B " ] }",
		"{\"total\":1,\"payment_programs\":[1,%s,{\"program_id\":\"c\"}]}",
		"{\"total\":1,\"x\":[" B "],\"payment_programs\":[" B ",%s],\"y\":{\"z\":[" B "]}}",
	};

	for (int i = 0; i < (int) lengthof(programs); i++)
	{
		StoredPrograms stored = {0};

		store(&stored, "a", programs[i]);
		for (int j = 0; j < (int) lengthof(layouts); j++)
		{
			const char *before = strstr(layouts[j], "%s");
			char	   *text = psprintf("%.*s%s%s", (int) (before - layouts[j]), layouts[j],
										programs[i], before + 2);

			tap_is_int(known_on(text, &stored), 1, "known: %s", text);
		}
	}
}

/* Is the result the same, whether programs are stored or not? */
static bool
reads_alike(const char *text, const StoredPrograms *stored)
{
	ProgramPage whole;
	ProgramPage page;
	bool		fine = read_page(&whole, text, NULL);

	if (read_page(&page, text, stored) != fine)
		return false;
	if (page.count != whole.count || page.skipped != whole.skipped ||
		page.total != whole.total)
		return false;
	for (int i = 0; i < page.count; i++)
	{
		if (strcmp(page.programs[i].id, whole.programs[i].id) != 0 ||
			page.programs[i].id_hash != whole.programs[i].id_hash ||
			page.programs[i].fingerprint != whole.programs[i].fingerprint)
			return false;
	}
	return true;
}

/* A known text proves nothing about any other text. */
static void
test_odd(void)
{
	static const char *const texts[] = {
		"{\"total\":2,\"before\":[" A "],\"payment_programs\":[" A "," B "]}",
		"{\"total\":2,\"payment_programs\":[" A "],\"payment_programs\":[" B "," A "]}",
		"{\"total\":2,\"payment_programs\":[" A "," B "],\"after\":[" B "]}",
		"{\"total\":2,\"in\":{\"payment_programs\":[" A "]},\"payment_programs\":[" B "]}",
		"{\"total\":2,\"in\":[{\"payment_programs\":[" A "]}],\"payment_programs\":[" B "]}",
		PAGE(A "," A "," B), A, PAGE("\"" B "\""), PAGE("[" A "]"), PAGE(""),
	};
	StoredPrograms stored = {0};
	StoredPrograms copied = {0};

	store(&stored, "a", A);
	store(&stored, "b", B);
	store_as(&copied, "x", A, "a");
	store_as(&copied, "b", A, "a");
	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		tap_ok(reads_alike(texts[i], &stored), "read alike: %s", texts[i]);
		tap_ok(reads_alike(texts[i], &copied), "and with copied rows");
	}
	tap_is_int(known_on(PAGE(A), &copied), 0,
			   "what is stored under another id is read in full");
}

/* The last member with the name is the ID, however it is spelled. */
static void
test_ids(void)
{
	static const struct
	{
		const char *text;
		const char *id;
	}			cases[] =
	{
		{"{\"program_id\" : \"a\",\"pad\":\"xxxxxxxxxxxx\"}", "a"},
		{"{\"program_id\":\"b\",\"pad\":1,\"program_id\":\"a\"}", "a"},
		{"{\"program_id\":\"a\",\"pad\":1,\"program_id\":\"b\"}", "b"},
		{"{\"program_id\":\"a\",\"pad\":1,\"program\\u005fid\":\"b\"}", "b"},
		{"{\"program_id\":\"\\u0061\",\"pad\":\"xxxxxxxxxxxxx\"}", "a"},
		{"{\"in\":{\"program_id\":\"a\"},\"program_id\":\"b\"}", "b"},
		{"{\"pad\":\"program_id\",\"x\":\"a\",\"program_id\":\"b\"}", "b"},
	};
	static const char *const unusable[] = {
		"{\"program_id\":\"a\",\"pad\":1,\"program_id\":7}",
		"{\"in\":{\"program_id\":\"a\"},\"pad\":\"xxxxxxxxx\"}",
		"{\"pad\":\"program_id\",\"x\":\"a\",\"y\":\"xxxxxxx\"}",
		"{\"program_id\":\"a\\u0000\"}",
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		const char *other = strcmp(cases[i].id, "a") == 0 ? "b" : "a";
		char	   *text = psprintf(PAGE("%s"), cases[i].text);
		StoredPrograms stored = {0};
		StoredPrograms copied = {0};

		store(&stored, cases[i].id, cases[i].text);
		tap_is_int(known_on(text, &stored), 1, "known: %s", cases[i].text);
		tap_ok(reads_alike(text, &stored), "and read alike");
		store_as(&copied, other, cases[i].text, cases[i].id);
		tap_is_int(known_on(text, &copied), 0, "unknown where its row was copied");
		tap_ok(reads_alike(text, &copied), "and read alike");
	}
	for (int i = 0; i < (int) lengthof(unusable); i++)
	{
		char	   *text = psprintf(PAGE("%s"), unusable[i]);
		StoredPrograms stored = {0};

		store_as(&stored, "a", unusable[i], "b");
		tap_ok(reads_alike(text, &stored), "read alike: %s", unusable[i]);
	}
}

/* A broken page is not accepted because of known programs in it. */
static void
test_broken(void)
{
	static const char *const texts[] = {
		PAGE(A B), PAGE(A ","), PAGE("," A), PAGE(A "}"), PAGE(A ",\"\n\"," B),
		PAGE(A ",truth"), PAGE(A ",," B), PAGE(A " , , " B), PAGE(A " " B),
		PAGE(A) "x", "{\"a\":[" A "]", "{\"a\" [" A "]}", "{[" A "]}", "{\"\\x\":[" A "]}",
		"{\"total\":1,\"payment_programs\":[" A "],\"payment_programs\":[}",
		"{\"total\":1,\"payment_programs\":[" A, "{\"total\":1,\"payment_programs\":[" A ",",
	};
	StoredPrograms stored = {0};

	store(&stored, "a", A);
	store(&stored, "b", B);
	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		tap_is_int(known_on(texts[i], NULL), -1, "no page: %s", texts[i]);
		tap_is_int(known_on(texts[i], &stored), -1, "nor where it is known");
	}
}

/*
 * A page with some bytes changed is read as it would be without stored
 * programs.
 */
static void
test_random(int rounds)
{
	static const char bytes[] = "{}[]\",:\\a0 \n\t\x01\x80";
	const char *original = PAGE(A "," C "," B);
	int			length = strlen(original);
	int			unlike = 0;
	pg_prng_state random;
	StoredPrograms stored = {0};

	store(&stored, "a", A);
	store(&stored, "b", B);
	pg_prng_seed(&random, 1);
	for (int round = 0; round < rounds; round++)
	{
		char	   *text = pstrdup(original);

		for (int i = 0; i <= round % 3; i++)
			text[pg_prng_uint64_range(&random, 0, length - 1)] =
				bytes[pg_prng_uint64_range(&random, 0, sizeof(bytes) - 2)];
		unlike += !reads_alike(text, &stored);
		pfree(text);
	}
	tap_is_int(unlike, 0, "%d pages with changed bytes are read alike", rounds);
}

/*
 * Guessing takes no longer than reading: a page on which all guesses are
 * wrong takes no significant time.
 */
static void
test_vain_guesses(void)
{
	StringInfoData text;
	StoredPrograms stored = {0};

	initStringInfo(&text);
	appendStringInfoString(&text, "{\"total\":1,\"payment_programs\":[");
	for (int i = 0; i < 100000; i++)
		appendStringInfo(&text, "{\"%d\":\"{{{{{{{{{{{{{{{{\",\"program_id\":\"a\"},", i);
	appendStringInfoString(&text, A "]}");
	store(&stored, "a", A);
	tap_is_int(known_on(text.data, &stored), 1, "of many programs the last one is known");
}

int
main(void)
{
	fingerprint_set_seed(1);
	test_page();
	test_layouts();
	test_odd();
	test_ids();
	test_broken();
	test_random(200000);
	test_vain_guesses();
	return tap_done();
}
