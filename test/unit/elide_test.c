/*
 * elide_test.c
 *	  Paginator without the programs whose text is known.
 */
#include "postgres.h"

#include "common/hashfn.h"
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
	return hash_bytes_extended((const unsigned char *) text, strlen(text),
							   PAGE_FINGERPRINT_SEED);
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
		ProgramPage whole;
		ProgramPage page;
		PageError	problem;
		Elided		elided;
		bool		fine;

		for (int i = 0; i <= round % 3; i++)
			text[		pg_prng_uint64_range(&random, 0, length - 1)] =
			bytes[pg_prng_uint64_range(&random, 0, sizeof(bytes) - 2)];

		fine = program_page_read(&whole, text, length, &problem);
		if (!elide(&elided, text, length, lookup, a_and_b))
			continue;
		if (program_page_read(&page, elided.text, elided.length, &problem) != fine)
			unlike++;
		else if (fine)
		{
			elide_mark(&elided, &page);
			unlike += page.count != whole.count;
			for (int i = 0; i < page.count && i < whole.count; i++)
				unlike += strcmp(page.programs[i].id, whole.programs[i].id) != 0 ||
					page.programs[i].fingerprint != whole.programs[i].fingerprint;
		}
	}
	tap_is_int(unlike, 0, "%d pages with changed bytes are read alike", rounds);
}

int
main(void)
{
	test_page();
	test_unknown();
	test_broken();
	test_random(200000);
	return tap_done();
}
