/*
 * elide_test.c
 *	  Pages without the programs whose text is known.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "elide.h"
#include "tap.h"

#define A "{\"program_id\":\"a\",\"note\":\"x\\\"}{\\\\\",\"in\":[{\"deep\":[]}]}"
#define B "{\"program_id\":\"b\", \"data\":{\"c\":\"]\"}}"
#define C "{\"program_id\":\"c\",\"program_type\":\"CPC\"}"
#define PAGE(programs) "{\"total\":3,\"payment_programs\":[" programs "]}"

/* The texts that are known, and their ids */
typedef struct Known
{
	const char *text;
	const char *id;
} Known;

static const Known a_and_b[] = {{A, "a"}, {B, "b"}, {NULL, NULL}};
static const Known none[] = {{NULL, NULL}};

static uint64
fingerprint_of(const char *text)
{
	return program_page_fingerprint(text, strlen(text));
}

static const char *
lookup(const void *arg, uint64 fingerprint)
{
	for (const Known *known = arg; known->text; known++)
	{
		if (fingerprint_of(known->text) == fingerprint)
			return known->id;
	}
	return NULL;
}

/* Reads a page of A, C and B, of which A and B are known. */
static void
test_page(void)
{
	const char *text = PAGE(A ", " C "\n," B);
	Elided		elided;
	ProgramPage page;
	PageError	problem;

	tap_ok(elide(&elided, text, strlen(text), lookup, a_and_b), "a page is elided");
	tap_is_text(elided.text,
				PAGE("{\"program_id\":\"a\"}, " C "\n,{\"program_id\":\"b\"}"),
				"to the ids of what is known");
	tap_is_int(elided.length, strlen(elided.text), "its length");
	tap_ok(program_page_read(&page, elided.text, elided.length, &problem), "it is a page");
	elide_mark(&elided, &page);
	tap_is_int(page.count, 3, "with all programs");
	tap_is_text(page.programs[0].id, "a", "the first by id");
	tap_ok(page.programs[0].document == NULL, "and without document");
	tap_ok(page.programs[0].fingerprint == fingerprint_of(A), "and with its fingerprint");
	tap_is_text(page.programs[1].id, "c", "the unknown one");
	tap_is_int(page.programs[1].length, strlen(C), "with its document");
	tap_ok(page.programs[1].fingerprint == fingerprint_of(C), "and its fingerprint");
	tap_is_text(page.programs[2].id, "b", "the last one");
	tap_ok(page.programs[2].document == NULL &&
		   page.programs[2].fingerprint == fingerprint_of(B), "likewise known");
}

static void
test_unknown(void)
{
	static const char *const texts[] = {
		PAGE(A "," B), PAGE(""), "", "{", "}}}}", "]]{[{", "\"", "{\"a\":[\"\\", "nothing",
	};
	Elided		elided;

	for (int i = 0; i < (int) lengthof(texts); i++)
		tap_ok(!elide(&elided, texts[i], strlen(texts[i]), lookup, none),
			   "nothing is known of: %s", texts[i]);
	tap_ok(!elide(&elided, A, strlen(A), lookup, a_and_b),
		   "a program that is no element of a list stays");
	tap_ok(!elide(&elided, PAGE("\"" B "\""), strlen(PAGE("\"" B "\"")), lookup, a_and_b),
		   "so does one in a string");
}

/* Is a page read alike, elided or not? */
static bool
reads_alike(const char *text, const Known *known)
{
	ProgramPage whole;
	ProgramPage page;
	PageError	problem;
	Elided		elided;
	bool		fine = program_page_read(&whole, text, strlen(text), &problem);

	if (!elide(&elided, text, strlen(text), lookup, known))
		return true;
	if (program_page_read(&page, elided.text, elided.length, &problem) != fine)
		return false;
	if (!fine)
		return true;
	elide_mark(&elided, &page);
	if (page.count != whole.count)
		return false;
	for (int i = 0; i < page.count; i++)
	{
		if (strcmp(page.programs[i].id, whole.programs[i].id) != 0 ||
			page.programs[i].fingerprint != whole.programs[i].fingerprint)
			return false;
	}
	return true;
}

/* A known text proves nothing but itself. */
static void
test_odd(void)
{
	static const Known copied[] = {{A, "x"}, {B, "b"}, {NULL, NULL}};
	static const char *const texts[] = {
		"{\"total\":2,\"before\":[" A "],\"payment_programs\":[" A "," B "]}",
		"{\"total\":2,\"payment_programs\":[" A "],\"payment_programs\":[" B "," A "]}",
		"{\"total\":2,\"payment_programs\":[" A "," B "],\"after\":[" B "]}",
		"{\"total\":2,\"in\":{\"payment_programs\":[" A "]},\"payment_programs\":[" B "]}",
		PAGE(A "," A "," B),
	};
	Elided		elided;

	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		tap_ok(reads_alike(texts[i], a_and_b), "read alike: %s", texts[i]);
		tap_ok(reads_alike(texts[i], copied), "and where a is stored as x");
	}
	tap_ok(!elide(&elided, PAGE(A), strlen(PAGE(A)), lookup, copied),
		   "what is stored under another id is read in full");
}

/* The id is the last member of that name, however it is spelled. */
static void
test_ids(void)
{
	static const struct
	{
		const char *text;
		const char *id;
		bool		elided;
	}			cases[] =
	{
		{"{\"program_id\" : \"a\",\"pad\":\"xxxxxxxxxxxx\"}", "a", true},
		{"{\"program_id\":\"b\",\"pad\":1,\"program_id\":\"a\"}", "a", true},
		{"{\"program_id\":\"a\",\"pad\":1,\"program_id\":\"b\"}", "a", false},
		{"{\"program_id\":\"a\",\"pad\":1,\"program\\u005fid\":\"b\"}", "a", false},
		{"{\"program_id\":\"a\",\"pad\":1,\"program_id\":7}", "a", false},
		{"{\"program_id\":\"\\u0061\",\"pad\":\"xxxxxxxxxxxxx\"}", "a", false},
		{"{\"in\":{\"program_id\":\"a\"},\"pad\":\"xxxxxxxxx\"}", "a", false},
		{"{\"pad\":\"program_id\",\"x\":\"a\",\"y\":\"xxxxxxx\"}", "a", false},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		Known		known[] = {{cases[i].text, cases[i].id}, {NULL, NULL}};
		char	   *page = psprintf(PAGE("%s"), cases[i].text);
		Elided		elided;

		tap_is_int(elide(&elided, page, strlen(page), lookup, known),
				   cases[i].elided, "elided: %s", cases[i].text);
		tap_ok(reads_alike(page, known), "and read alike");
	}
}

/* What is not JSON before is not JSON after, with a known program amid it. */
static void
test_broken(void)
{
	static const char *const texts[] = {
		PAGE(A B), PAGE(A ","), PAGE("," A), PAGE(A "}"), PAGE(A ",\"\n\"," B), PAGE(A ",truth"),
		PAGE(A) "x", "{\"a\":[" A "]", "{\"a\" [" A "]}", "{[" A "]}", "{\"\\x\":[" A "]}",
		"{\"total\":1,\"payment_programs\":[" A "],\"payment_programs\":[}",
	};
	Elided		elided;
	ProgramPage page;
	PageError	problem;

	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		tap_ok(!program_page_read(&page, texts[i], strlen(texts[i]), &problem), "no page: %s", texts[i]);
		tap_ok(!elide(&elided, texts[i], strlen(texts[i]), lookup, a_and_b) ||
			   !program_page_read(&page, elided.text, elided.length, &problem),
			   "nor when it is elided");
	}
}

/* A page with some bytes changed is read alike, elided or not. */
static void
test_random(int rounds)
{
	static const char bytes[] = "{}[]\",:\\a0 \n\t\x01\x80";
	const char *original = PAGE(A "," C "," B);
	int			length = strlen(original);
	int			unlike = 0;
	pg_prng_state random;

	pg_prng_seed(&random, 1);
	for (int round = 0; round < rounds; round++)
	{
		char	   *text = pstrdup(original);

		for (int i = 0; i <= round % 3; i++)
		{
			int			at = pg_prng_uint64_range(&random, 0, length - 1);

			text[		at] = bytes[pg_prng_uint64_range(&random, 0, sizeof(bytes) - 2)];
		}
		unlike += !reads_alike(text, a_and_b);
		pfree(text);
	}
	tap_is_int(unlike, 0, "%d pages with changed bytes are read alike", rounds);
}

int
main(void)
{
	test_page();
	test_unknown();
	test_odd();
	test_ids();
	test_broken();
	test_random(200000);
	return tap_done();
}
