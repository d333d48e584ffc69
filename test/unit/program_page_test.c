/*
 * program_page_test.c
 *	  Unit tests of program_page.c and json.c.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "no_server.h"
#include "program_page.h"
#include "tap.h"

/* A string literal and its length, including any NUL bytes */
#define TEXT(literal) literal, sizeof(literal) - 1

#define ID "JjhIENbS68b2Wkomkbu6Jw"

/* A page with programs, and a page with one program that has these members */
#define PAGE(programs) \
	"{\"total\":1,\"payment_programs\":[" programs "]}"
#define PROGRAM(members) PAGE("{\"program_id\":\"" ID "\"" members "}")

/* A text and what is wrong with it */
typedef struct Case
{
	const char *text;
	size_t		length;
	const char *message;
} Case;

static const char *const kind_names[] = {
	[JSON_BROKEN] = "not JSON",
	[JSON_UNFIT] = "not a page",
	[JSON_TOO_LARGE] = "too large"
};

/* ---- checks ---- */

/* Reads a text that must be a page; false if it is not. */
static bool
read_fine(ProgramPage *page, const char *text, size_t length, const char *name)
{
	JsonError	error;
	bool		fine = program_page_read(page, text, length, NULL, &error);

	return tap_ok(fine, "%s: a page%s%s", name, fine ? "" : ", but ",
				  fine ? "" : error.message);
}

/* Nothing on the page is skipped. */
static void
fine(const char *text, size_t length, const char *name)
{
	ProgramPage page;

	if (read_fine(&page, text, length, name))
		tap_is_text(page.skip_reason, NULL, "nothing is skipped");
}

/* The text is rejected with exactly this message. */
static void
refused(const char *text, size_t length, JsonErrorKind kind, const char *message)
{
	ProgramPage page;
	JsonError	error;

	if (!tap_ok(!program_page_read(&page, text, length, NULL, &error), "refused: %s", message))
		return;
	tap_is_text(kind_names[error.kind], kind_names[kind], "is %s", kind_names[kind]);
	tap_is_text(error.message, message, "says why");
	tap_ok(page.count == 0 && page.programs == NULL && page.skipped == 0, "leaves nothing");
}

static void
not_json(const Case *cases, int count)
{
	for (int i = 0; i < count; i++)
		refused(cases[i].text, cases[i].length, JSON_BROKEN,
				psprintf("body is not JSON: %s", cases[i].message));
}

static void
not_a_page(const Case *cases, int count)
{
	for (int i = 0; i < count; i++)
		refused(cases[i].text, cases[i].length, JSON_UNFIT, cases[i].message);
}

/* The page is read, but one of its programs is skipped for this reason. */
static void
skipped(const char *text, size_t length, const char *why)
{
	ProgramPage page;

	if (!read_fine(&page, text, length, why))
		return;
	tap_is_int(page.skipped, 1, "a program is skipped");
	tap_is_text(page.skip_reason, why, "says why");
}

static void
all_skipped(const Case *cases, int count)
{
	for (int i = 0; i < count; i++)
		skipped(cases[i].text, cases[i].length, cases[i].message);
}

/* A text repeated between two others. */
static char *
repeated(const char *before, const char *text, int count, const char *after)
{
	size_t		length = strlen(text);
	char	   *result = palloc(strlen(before) + length * count + strlen(after) + 1);
	char	   *to = result + strlen(strcpy(result, before));

	for (int i = 0; i < count; i++, to += length)
		memcpy(to, text, length);
	strcpy(to, after);
	return result;
}

/* ---- pages ---- */

static void
test_whole_page(void)
{
	static const char first[] =
	"{\"program_id\":\"" ID "\",\"program_status\":\"ACT\\u0049VE\",\"start_date\":\"2026-03-23\","
	"\"program_metrics\":{\"budget\":1000000,\"max_bid\":null},"
	"\"businesses\":[{\"yelp_business_id\":\"ys4FVTHxbSepIkvCLHYxCA\"}],\"active_features\":[]}";
	static const char second[] =
	"{ \"program_id\" : \"kWDutUAzwQVj5BMdz80R-Q\", \"program_status\":\"INACTIVE\","
	" \"page_upgrade_info\":{\"cost\":8.24,\"monthly_rate\":30} }";
	const char *text =
	psprintf("{\"program_status\":\"A\\u004cL\",\"total\":1913,\"offset\":0,"
			 "\"limit\":40,\"payment_programs\":[%s,\n\t%s ]} \r\n",
			 first, second);
	ProgramPage page;

	if (!read_fine(&page, text, strlen(text), "two programs"))
		return;
	tap_is_int(page.total, 1913, "total");
	tap_is_text(page.status, "ALL", "program_status");
	tap_is_int(page.count, 2, "count");
	tap_is_text(page.programs[0].id, ID, "first id");
	tap_is_text(page.programs[1].id, "kWDutUAzwQVj5BMdz80R-Q", "second id");
	tap_is_text(pnstrdup(page.programs[0].document, page.programs[0].length),
				first, "first document");
	tap_is_text(pnstrdup(page.programs[1].document, page.programs[1].length),
				second, "second document, with its spaces");
	tap_ok(page.programs[0].active && !page.programs[1].active, "only the first is active");
	tap_ok(page.programs[0].document == strstr(text, first),
		   "documents lie within the page");
	tap_ok(page.programs[1].id_hash == fingerprint_of_id("kWDutUAzwQVj5BMdz80R-Q", 22),
		   "the hash of the id");
	tap_ok(page.programs[1].fingerprint ==
		   fingerprint_of_text(second, strlen(second), page.programs[1].id_hash),
		   "the fingerprint is the hash of the document and the id");
}

/* What else the page says of itself is not needed: whatever it is, the page is read. */
static void
test_status(void)
{
	static const char *const others[] = {
		"1", "null", "{}", "[]", "[\"ALL\"]", "true", "\"\xFF\""
	};

	for (size_t i = 0; i < lengthof(others); i++)
	{
		char	   *text = psprintf("{\"payment_programs\":[],\"limit\":%s,\"offset\":%s,"
									"\"program_status\":%s,\"total\":0}",
									others[i], others[i], others[i]);
		ProgramPage page;

		if (read_fine(&page, text, strlen(text), text))
			tap_is_text(page.status, NULL, "program_status");
	}
}

static void
test_pages(void)
{
	static const Case roots[] = {
		{TEXT("null"), "body is JSON, but not an object"},
		{TEXT("12"), "body is JSON, but not an object"},
		{TEXT(" \"text\" "), "body is JSON, but not an object"},
		{TEXT("[{\"total\":1,\"payment_programs\":[]}]"), "body is JSON, but not an object"},
		{TEXT("{}"), "field \"total\" is missing"},
		{TEXT("{\"error\":{\"id\":\"X\"}}"), "field \"total\" is missing"},
		{TEXT("{\"a\":{\"total\":1,\"payment_programs\":[]}}"), "field \"total\" is missing"},
		{TEXT("{\"Total\":7,\"payment_programs\":[]}"), "field \"total\" is missing"},
		{TEXT("{\"total\\u0000\":7,\"payment_programs\":[]}"), "field \"total\" is missing"},
		{TEXT("{\"total\":1}"), "field \"payment_programs\" is missing"},
		{TEXT("{\"total\":1,\"payment_programs\":{}}"),
		"field \"payment_programs\" is not an array"},
		{TEXT("{\"total\":1,\"payment_programs\":\"[]\"}"),
		"field \"payment_programs\" is not an array"},
		{TEXT("{\"total\":7,\"total\":null,\"payment_programs\":[]}"),
		"field \"total\" is not an integer"},
	};
	static const char *const integers[] = {"0", "-0.0", "7.0", "1e2", "10000000"};
	static const char *const others[] = {
		"null", "true", "\"12\"", "[12]", "{}", "1.5", "1e-1", "9999999.5"
	};
	static const char *const larger[] = {
		"10000001", "9223372036854775808", "99999999999999999999999999", "1e9999"
	};

	not_a_page(roots, lengthof(roots));
	for (size_t i = 0; i < lengthof(integers); i++)
	{
		char	   *text = psprintf("{\"payment_programs\":[],\"total\":%s}", integers[i]);
		ProgramPage page;

		if (read_fine(&page, text, strlen(text), text))
			tap_is_int(page.total, (int64) strtod(integers[i], NULL), "total");
	}
	for (size_t i = 0; i < lengthof(others); i++)
	{
		char	   *text = psprintf("{\"payment_programs\":[],\"total\":%s}", others[i]);

		refused(text, strlen(text), JSON_UNFIT, "field \"total\" is not an integer");
	}
	for (size_t i = 0; i < lengthof(larger); i++)
	{
		char	   *text = psprintf("{\"payment_programs\":[],\"total\":%s}", larger[i]);

		refused(text, strlen(text), JSON_TOO_LARGE, "field \"total\" is greater than 10000000");
	}
	refused(TEXT("{\"payment_programs\":[],\"total\":-1}"), JSON_UNFIT,
			"field \"total\" is negative");
}

/* A page that says itself that it is not whole is no page. */
static void
test_errors(void)
{
	static const char *const errors[] = {
		"\"x\"", "1", "-0.5", "0.1", "true", "[0]", "[ {} ]", "{\"id\":\"X\"}"
	};
	static const char *const nothing[] = {
		"null", "false", "0", "\"\"", "[]", "[ \n]", "{}", "{\t}"
	};

	for (size_t i = 0; i < lengthof(errors); i++)
	{
		const char *value = errors[i];
		char	   *one = psprintf("{\"error\":%s,\"total\":1,\"payment_programs\":[]}", value);
		char	   *many = psprintf("{\"total\":1,\"payment_programs\":[{}],\"errors\":%s,"
									"\"errors\":[]}", value);

		refused(one, strlen(one), JSON_UNFIT, "API reported an error");
		refused(many, strlen(many), JSON_UNFIT, "API reported an error");
	}
	for (size_t i = 0; i < lengthof(nothing); i++)
	{
		char	   *text = psprintf("{\"total\":1,\"error\":%s,\"errors\":%s,\"payment_programs\":[]}",
									nothing[i], nothing[i]);

		fine(text, strlen(text), text);
	}
	fine(TEXT(PROGRAM(",\"error\":\"x\",\"errors\":[1]")), "errors of a program");
	fine(TEXT("{\"total\":0,\"payment_programs\":[],\"in\":{\"error\":1},\"my_error\":1}"),
		 "other errors");
}

/* ---- JSON ---- */

static void
test_grammar(void)
{
	/* jsmn accepts many of these */
	static const Case cases[] = {
		{TEXT(""), "it is empty"},
		{TEXT(" \n"), "truncated after 2 bytes"},
		{TEXT("<html>"), "expected a value at byte 1"},
		{TEXT("\xEF\xBB\xBF{}"), "expected a value at byte 1"},
		{TEXT("{"), "truncated after 1 bytes"},
		{TEXT("[[]"), "truncated after 3 bytes"},
		{TEXT("{\"a"), "truncated after 3 bytes"},
		{TEXT("{\"a\""), "truncated after 4 bytes"},
		{TEXT("{\"a\":"), "truncated after 5 bytes"},
		{TEXT("{\"a\":1"), "truncated after 6 bytes"},
		{TEXT("{\"a\":1,"), "truncated after 7 bytes"},
		{TEXT("{\"a\":tru"), "truncated after 8 bytes"},
		{TEXT("{\"a\":-"), "truncated after 6 bytes"},
		{TEXT("{\"a\":1."), "truncated after 7 bytes"},
		{TEXT("{\"a\":1e+"), "truncated after 8 bytes"},
		{TEXT("{\"\\"), "invalid escape at byte 3"},
		{TEXT("{\"\\u12"), "invalid escape at byte 3"},
		{TEXT("}"), "expected a value at byte 1"},
		{TEXT("]"), "expected a value at byte 1"},
		{TEXT("{\"a\"}"), "expected \":\" at byte 5"},
		{TEXT("{\"a\",\"b\"}"), "expected \":\" at byte 5"},
		{TEXT("{\"a\":1,}"), "expected a string at byte 8"},
		{TEXT("{,}"), "expected a string at byte 2"},
		{TEXT("{\"a\":,}"), "expected a value at byte 6"},
		{TEXT("{\"a\":}"), "expected a value at byte 6"},
		{TEXT("{\"a\":1:2}"), "expected \",\" or \"}\" at byte 7"},
		{TEXT("{\"a\":1 \"b\":2}"), "expected \",\" or \"}\" at byte 8"},
		{TEXT("{\"a\"::1}"), "expected a value at byte 6"},
		{TEXT("{1:2}"), "expected a string at byte 2"},
		{TEXT("{{}:2}"), "expected a string at byte 2"},
		{TEXT("{'a':2}"), "expected a string at byte 2"},
		{TEXT("{]"), "expected a string at byte 2"},
		{TEXT("{\"a\":1]"), "expected \",\" or \"}\" at byte 7"},
		{TEXT("[1 2]"), "expected \",\" or \"]\" at byte 4"},
		{TEXT("[1,]"), "expected a value at byte 4"},
		{TEXT("[,1]"), "expected a value at byte 2"},
		{TEXT("[1,,2]"), "expected a value at byte 4"},
		{TEXT("[\"a\":1]"), "expected \",\" or \"]\" at byte 5"},
		{TEXT("[}"), "expected a value at byte 2"},
		{TEXT("[1}"), "expected \",\" or \"]\" at byte 3"},
		{TEXT("{}{}"), "more than one value at byte 3"},
		{TEXT("{} x"), "more than one value at byte 4"},
		{TEXT("{}}"), "more than one value at byte 3"},
		{TEXT("1 2"), "more than one value at byte 3"},
		{TEXT("[/* */]"), "expected a value at byte 2"},
		{TEXT("[\f]"), "expected a value at byte 2"},
		{TEXT("[\xC2\xA0]"), "expected a value at byte 2"},
		{TEXT("[truth]"), "expected a value at byte 5"},
		{TEXT("[truetrue]"), "expected \",\" or \"]\" at byte 6"},
		{TEXT("[True]"), "expected a value at byte 2"},
		{TEXT("[nul]"), "expected a value at byte 5"},
		{TEXT("[falsy]"), "expected a value at byte 6"},
		{TEXT("[NaN]"), "expected a value at byte 2"},
		{TEXT("[-Infinity]"), "expected a digit at byte 3"},
		{TEXT("[01]"), "expected \",\" or \"]\" at byte 3"},
		{TEXT("[-01]"), "expected \",\" or \"]\" at byte 4"},
		{TEXT("[-]"), "expected a digit at byte 3"},
		{TEXT("[+1]"), "expected a value at byte 2"},
		{TEXT("[1.]"), "expected a digit at byte 4"},
		{TEXT("[.5]"), "expected a value at byte 2"},
		{TEXT("[1.e5]"), "expected a digit at byte 4"},
		{TEXT("[1.2.3]"), "expected \",\" or \"]\" at byte 5"},
		{TEXT("[1e]"), "expected a digit at byte 4"},
		{TEXT("[1e+]"), "expected a digit at byte 5"},
		{TEXT("[1e1.5]"), "expected \",\" or \"]\" at byte 5"},
		{TEXT("[0x10]"), "expected \",\" or \"]\" at byte 3"},
		{TEXT("[\"a\nb\"]"), "raw control character at byte 4"},
		{TEXT("[\"\x1F\"]"), "raw control character at byte 3"},
		{TEXT("[\"\\x\"]"), "invalid escape at byte 3"},
		{TEXT("[\"\\U0041\"]"), "invalid escape at byte 3"},
		{TEXT("[\"ab\\u00g0\"]"), "invalid escape at byte 5"},
		{TEXT("[\"ab\\u00@0\"]"), "invalid escape at byte 5"},
		{TEXT("[\"\\u123\"]"), "invalid escape at byte 3"},
		{TEXT("[\"\\\"]"), "truncated after 5 bytes"},
		{TEXT("{\"a\\q\":1}"), "invalid escape at byte 4"},
	};

	not_json(cases, lengthof(cases));
	fine(TEXT(PROGRAM(",\"a\":[0,-0,0.0,-0.5,1e5,1E+5,1.25e-05,12345678901,"
					  "true,false,null,\"\",{},[ ]]\r\n\t ")), "every plain value");
	fine(TEXT(PROGRAM(",\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uABCD\x7F\"")), "every escape");
}

static void
test_encoding(void)
{
	static const Case cases[] = {
		{TEXT("[\"\0\"]"), "NUL at byte 3"},
		{TEXT("{}\0"), "NUL at byte 3"},
		{TEXT("\0"), "NUL at byte 1"},
		{TEXT("\xFF"), "invalid UTF-8 at byte 1"},
		{TEXT("{\"a\xFF\":x}"), "invalid UTF-8 at byte 4"},
		{TEXT("{\"a\":x,\"\xFF\":1}"), "expected a value at byte 6"},
		{TEXT("[\"a\xE2\x82"), "truncated after 5 bytes"},
		{TEXT("[\"a\xE2\x82\xAC"), "truncated after 6 bytes"},
	};
	static const Case programs[] = {
		{TEXT(PAGE("{\"program_id\":\"a\",\"note\":[\"b\xC3\"]}")),
		"program \"a\": field \"note\" contains invalid UTF-8"},
		{TEXT(PAGE("{\"program_id\":\"a\",\"n\xC3\":1}")),
		"program \"a\": a field name contains invalid UTF-8"},
		{TEXT(PAGE("{\"program_id\":\"a\",\"x\":{\"n\xC3\":1}}")),
		"program \"a\": field \"x\" contains invalid UTF-8"},
		{TEXT(PAGE("{\"program_id\":\"a\xFF\"},{\"program_id\":\"b\"}")),
		"field \"payment_programs[0].program_id\" contains invalid UTF-8"},
		{TEXT(PAGE("{\"program_id\":\"a\",\"x\":\"\xED\xA0\x80\"}")),
		"program \"a\": field \"x\" contains invalid UTF-8"},
	};
	char	   *text;

	not_json(cases, lengthof(cases));
	all_skipped(programs, lengthof(programs));
	fine(TEXT("{\"total\":1,\"x\":\"\xFF\",\"y\":{\"\xFF\":1},\"payment_programs\":[]}"),
		 "invalid UTF-8 outside of programs, which nobody stores");
	text = psprintf(PROGRAM(",\"a\":\"x%s\""), repeated("", "\xC3\xA9", 1 << 20, ""));
	fine(text, strlen(text), "much UTF-8");
	text = psprintf(PROGRAM(",\"a\":\"%s\""), repeated("", "\xC3\xA9", 1 << 20, ""));
	fine(text, strlen(text), "much UTF-8");
	fine(TEXT(PROGRAM(",\"a\":\"caf\xC3\xA9 \xE5\xAF\xBF\xE5\x8F\xB8 "
					  "\xF0\x9F\xA5\x9E\",\"\xC3\xA9\":1")), "UTF-8");
}

/* An error names its place, and the program if it is known by then. */
static void
test_places(void)
{
	static const Case cases[] = {
		{TEXT(PAGE("{\"program_id\":\"a\"},{\"program_id\":\"b\",\"x\":NaN}")),
		"expected a value at byte 73, in field \"payment_programs[1]\", program \"b\""},
		{TEXT(PAGE("{\"program_id\":\"a\"},{\"x\":NaN,\"program_id\":\"b\"}")),
		"expected a value at byte 56, in field \"payment_programs[1]\""},
		{TEXT(PAGE("{\"program_id\":\"\",\"x\":NaN}")),
		"expected a value at byte 53, in field \"payment_programs[0]\""},
		{TEXT(PAGE("{\"program_id\":\"a\"},NaN")),
		"expected a value at byte 51, in field \"payment_programs[1]\""},
		{TEXT(PAGE("{\"program_id\":\"a\"} {\"program_id\":\"b\"}")),
		"expected \",\" or \"]\" at byte 51"},
		{TEXT("{\"payment_programs\":[{\"program_id\":\"a\"}],\"total\":NaN}"),
		"expected a value at byte 50"},
	};

	not_json(cases, lengthof(cases));
}

/* ---- programs ---- */

static void
test_bad_escapes(void)
{
	static const char *const bad[] = {
		"\"\\u0000\"", "{\"b\":[1,\"x\\u0000y\"]}", "{\"\\u0000\":1}", "\"\\ud800\"",
		"\"\\ud800xxdc00\"", "\"\\ud800\\ndc00\"", "\"\\uDFFF\"", "\"\\ud800\\ud800\"", "\"\\ud800\\u0041\"", "\"\\ud800\\n\"",
		"[\"\\ud83e\",\"\\udd5e\"]", "\"\\ud83e\\udd5e\\udd5e\""
	};

	for (size_t i = 0; i < lengthof(bad); i++)
	{
		char	   *text = psprintf(PROGRAM(",\"a\":%s"), bad[i]);

		skipped(text, strlen(text), "program \"" ID "\": field \"a\" contains \\u0000 or an "
				"unpaired surrogate, which text cannot contain");
	}
	skipped(TEXT(PROGRAM(",\"\\ud800\":1")), "program \"" ID "\": field \"\\ud800\" contains "
			"\\u0000 or an unpaired surrogate, which text cannot contain");
	skipped(TEXT(PAGE("{\"program_id\":\"\\u0000\"}")),
			"field \"payment_programs[0].program_id\" contains \\u0000 or "
			"an unpaired surrogate, which text cannot contain");
	fine(TEXT(PROGRAM(",\"a\":\"\\\\u0000 \\\\ud800 \\ud83e\\udd5e\"")), "good ones");
	fine(TEXT("{\"\\ud800\":\"\\u0000\",\"total\":0,\"payment_programs\":[]}"),
		 "bad escapes outside of programs, which nobody stores");
}

static void
test_program_id(void)
{
#define ID_FIELD "field \"payment_programs[0].program_id\" "
	static const Case cases[] = {
		{TEXT(PAGE("null")), "field \"payment_programs[0]\" is not an object"},
		{TEXT(PAGE("[{\"program_id\":\"a\"}]")), "field \"payment_programs[0]\" is not an object"},
		{TEXT(PAGE("{\"program_id\":\"a\"},\"b\"")), "field \"payment_programs[1]\" is not an object"},
		{TEXT("{\"total\":1,\"payment_programs\":[1,2,{\"program_id\":\"a\"}],\"payment_programs\":[3]}"),
		"field \"payment_programs[0]\" is not an object"},
		{TEXT(PAGE("{}")), ID_FIELD "is missing"},
		{TEXT(PAGE("{\"id\":\"a\"}")), ID_FIELD "is missing"},
		{TEXT(PAGE("{\"x\":{\"program_id\":\"a\"}}")), ID_FIELD "is missing"},
		{TEXT(PAGE("{\"program_id\":\"a\"},{\"program_id\":12}")),
		"field \"payment_programs[1].program_id\" is not a string"},
		{TEXT(PAGE("{\"program_id\":\"a\",\"program_id\":null}")), ID_FIELD "is not a string"},
		{TEXT(PAGE("{\"program_id\":{}}")), ID_FIELD "is not a string"},
		{TEXT(PAGE("{\"program_id\":\"\"}")), ID_FIELD "is empty"},
		{TEXT(PAGE("{\"program_id\":\"a\\u001b]0;x\"}")), ID_FIELD "contains a control character"},
		{TEXT(PAGE("{\"program_id\":\"a\\b\"}")), ID_FIELD "contains a control character"},
		{TEXT(PAGE("{\"program_id\":\"a\\u009b2J\"}")), ID_FIELD "contains a control character"},
	};
	static const char before[] = "{\"total\":1,\"payment_programs\":[{\"program_id\":\"";
	static const char after[] = "\"}]}";
	char	   *longest = repeated(before, "\\u00e9", PAGE_MAX_ID_BYTES / 2, after);
	char	   *too_long = repeated(before, "x", PAGE_MAX_ID_BYTES + 1, after);
	char	   *far_too_long = repeated(before, "x", 100000, after);
	ProgramPage page;

	all_skipped(cases, lengthof(cases));
	skipped(too_long, strlen(too_long), ID_FIELD "is longer than 256 bytes");
	skipped(far_too_long, strlen(far_too_long), ID_FIELD "is longer than 256 bytes");
	if (read_fine(&page, longest, strlen(longest), "the longest id"))
		tap_is_int(page.count ? strlen(page.programs[0].id) : 0, PAGE_MAX_ID_BYTES, "is whole");
	if (read_fine(&page, TEXT(PAGE("{\"program_id\":\"\\u0041\\/\\\"\\\\\\ud83e\\udd5e\\u20ac\"}")),
				  "an id with escapes"))
		tap_is_text(page.programs[0].id, "A/\"\\\xF0\x9F\xA5\x9E\xE2\x82\xAC", "is decoded");
}

/* Of several members with a name the last one counts, however it is spelled. */
static void
test_names(void)
{
	static const struct
	{
		const char *text;
		int			count;
		const char *id;
	}			cases[] = {
		{"{\"total\":\"x\",\"payment_programs\":1,\"total\":7,\"payment_programs\":["
		"{\"program_id\":1,\"program_id\":\"b\"}]}", 1, "b"},
		{"{\"total\":7,\"payment_programs\":[{\"program_id\":\"a\"},1],"
		"\"payment_programs\":[{\"program_id\":\"b\"}]}", 1, "b"},
		{"{\"total\":7,\"payment_programs\":[{\"program_id\":\"a\"},1],\"payment_programs\":null}",
		0, NULL},
		{"{\"\\u0074otal\":7,\"payment\\u005fprograms\":[{\"program_\\u0069\\u0064\":\"b\"}]}", 1, "b"},
	};
	char	   *name = repeated("a", "\xC3\xA9", 1000, "");
	char	   *text = psprintf(PROGRAM(",\"%s\":\"\\u0000\""), name);
	char	   *spelled;

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		ProgramPage page;

		if (!read_fine(&page, cases[i].text, strlen(cases[i].text), cases[i].text))
			continue;
		tap_is_int(page.total, 7, "total");
		tap_is_int(page.skipped, 0, "nothing is skipped");
		tap_is_int(page.count, cases[i].count, "programs");
		tap_is_text(page.count ? page.programs[0].id : NULL, cases[i].id, "the id");
	}
	spelled = psprintf(PROGRAM(",\"%s\":1"), repeated("", "\\u0070", 1000, ""));
	fine(spelled, strlen(spelled), "a long name with escapes");
	skipped(text, strlen(text), psprintf("program \"" ID "\": field \"%.63s\" contains \\u0000 or an "
										 "unpaired surrogate, which text cannot contain", name));
}

/* ---- what is too much ---- */

static void
test_numbers(void)
{
	static const char why[] =
	"program \"" ID "\": field \"a\" contains a number of more than 1000 digits";
	static const char *const large[] = {
		"1e1000", "1E+1000", "-1e-999", "[{\"b\":-1.5E+99999}]", "1e-99999",
		"1e4294967297", "1e-9999", "0e1000"
	};
	char	   *digits = repeated("", "7", JSON_MAX_DIGITS + 1, "");
	char	   *many = repeated("1e2", ",1e200", 400, "");
	char	   *text;

	for (size_t i = 0; i < lengthof(large); i++)
	{
		text = psprintf(PROGRAM(",\"a\":%s"), large[i]);
		skipped(text, strlen(text), why);
	}
	text = psprintf(PROGRAM(",\"a\":%s"), digits);
	skipped(text, strlen(text), why);
	text = psprintf(PROGRAM(",\"a\":\"1e99999 %s\",\"b\":[%s,1e995,1e-994]"), digits, digits + 1);
	fine(text, strlen(text), "a string like a large number, and the largest ones");
	fine(TEXT("{\"total\":0,\"payment_programs\":[],\"x\":1e99999}"),
		 "a large number outside of programs");

	/* Each is short, but all of them together are not */
	text = psprintf(PROGRAM(",\"a\":[%s]"), many);
	skipped(text, strlen(text), "program \"" ID "\": field \"a\" contains too many exponents");
	text = psprintf(PROGRAM(",\"a\":[1e300,1e300],\"b\":[1e300,1e300],\"c\":[1e300,1e300]"));
	skipped(text, strlen(text), "program \"" ID "\": contains too many exponents");
	many = repeated("1e2", ",1.25e-05,6.02e23,1e+16", 10000, "");
	text = psprintf(PROGRAM(",\"a\":[%s]"), many);
	fine(text, strlen(text), "many numbers as programs write them");
}

static void
test_nesting(void)
{
	int			room = JSON_MAX_DEPTH - 3;	/* for the page, its list, and a
											 * program */
	char	   *open = repeated("", "[", room, "");
	char	   *close = repeated("", "]", room, "");
	char	   *deepest = psprintf(PROGRAM(",\"a\":%s%s},{\"program_id\":\"b\""), open, close);
	char	   *deeper = psprintf(PROGRAM(",\"a\":[%s%s]},{\"program_id\":\"b\""), open, close);
	char	   *late = psprintf(PROGRAM(",\"a\":%s{\"x\":\"}\\\"]\"}%s,\"program_id\":\"c\""), open,
								close);
	char	   *arrays = repeated("", "[", 200000, "");
	char	   *objects = repeated("", "{\"a\":", 200000, "1");
	char	   *deep_page = psprintf("{\"x\":%s%s,\"total\":0,\"payment_programs\":[]}",
									 repeated("", "[", 200000, ""), repeated("", "]", 200000, ""));
	ProgramPage page;
	JsonError	error;

	fine(deepest, strlen(deepest), "the deepest nesting");
	skipped(deeper, strlen(deeper), "program \"" ID "\": nested more than 100 levels deep");
	if (read_fine(&page, deeper, strlen(deeper), "one that is too deep"))
		tap_is_text(page.count ? page.programs[0].id : NULL, "b", "does not affect the next one");
	skipped(late, strlen(late), "program \"c\": nested more than 100 levels deep");
	fine(deep_page, strlen(deep_page), "deep nesting outside of programs");
	refused(arrays, strlen(arrays), JSON_BROKEN, "body is not JSON: truncated after 200000 bytes");
	refused(objects, strlen(objects), JSON_BROKEN,
			"body is not JSON: truncated after 1000001 bytes");
	deeper[strlen(deeper) - 40] = '"';
	tap_ok(!program_page_read(&page, deeper, strlen(deeper), NULL, &error),
		   "an open string in deep nesting");
}

/* Memory use is limited by the size of the text, not by the number of its values. */
static void
test_many(void)
{
	char	   *numbers = repeated("", "1,", JSON_MAX_TOKENS, "1");
	char	   *members = repeated("{\"total\":1,\"payment_programs\":[]", ",\"\":1",
								   JSON_MAX_TOKENS, "}");
	char	   *longest = repeated("", "x", PAGE_MAX_PROGRAM_BYTES, "");
	char	   *text;
	ProgramPage page;

	text = psprintf(PROGRAM(",\"a\":[%s]"), numbers);
	skipped(text, strlen(text), "program \"" ID "\": contains more than 65536 values");
	numbers[2 * (JSON_MAX_TOKENS - 6)] = '\0';
	text = psprintf(PROGRAM(",\"a\":[%s1]"), numbers);
	fine(text, strlen(text), "as many values as are read");
	text = psprintf("{\"total\":1,\"x\":[%s1],\"y\":[[%s1]],\"payment_programs\":[]}",
					numbers, numbers);
	fine(text, strlen(text), "values outside of programs");
	fine(members, strlen(members), "members of a page");

	text = psprintf(PROGRAM(",\"a\":\"%s\""), longest);
	skipped(text, strlen(text), "program \"" ID "\": is longer than 16777216 bytes");
	longest[PAGE_MAX_PROGRAM_BYTES - strlen("{\"program_id\":\"" ID "\",\"a\":\"\"}")] = '\0';
	text = psprintf(PROGRAM(",\"a\":\"%s\""), longest);
	fine(text, strlen(text), "the longest program");

	text = repeated("{\"total\":1,\"payment_programs\":[{\"program_id\":\"x\"}",
					",{\"program_id\":\"y\"}", 99999, "]}");
	if (read_fine(&page, text, strlen(text), "100000 programs"))
	{
		tap_is_int(page.count, 100000, "all are read");
		tap_is_text(page.programs[0].id, "x", "the first");
		tap_is_text(page.programs[99999].id, "y", "the last");
	}
	text = repeated("{\"total\":1,\"payment_programs\":[{}", ",1,{}", 499999, "]}");
	if (read_fine(&page, text, strlen(text), "elements that are no programs"))
	{
		tap_is_int(page.skipped, 999999, "are counted");
		tap_is_text(page.skip_reason, ID_FIELD "is missing", "with the reason of the first");
	}
	text = repeated("{\"total\":1,\"payment_programs\":[1", ",1", PAGE_MAX_TOTAL, "]}");
	refused(text, strlen(text), JSON_TOO_LARGE, "page of 10000001 programs is too long");
}

/* ---- stored programs ---- */

#define A "{\"program_id\":\"a\",\"note\":\"x\\\"}{\\\\\",\"in\":[{\"deep\":[]}]}"
#define B "{\"program_id\":\"b\", \"data\":{\"c\":\"]\"}}"
#define C "{\"program_id\":\"c\",\"program_type\":\"CPC\"}"

#define MAX_STORED 4

/* A few stored programs, searched linearly */
typedef struct Stored
{
	uint64		ids[MAX_STORED];
	uint64		fingerprints[MAX_STORED];
} Stored;

static const uint64 *
find_fingerprint(const void *arg, uint64 id_hash)
{
	const Stored *stored = arg;

	for (int i = 0; i < MAX_STORED; i++)
	{
		if (stored->ids[i] == id_hash)
			return &stored->fingerprints[i];
	}
	return NULL;
}

static void
prefetch_nothing(pg_attribute_unused() const void *arg, pg_attribute_unused() uint64 id_hash)
{
}

/* Stores a text under an ID, as if another one had been read from it. */
static void
store_as(Stored *stored, const char *id, const char *text, const char *read_id)
{
	int			i = 0;

	while (stored->ids[i] != 0)
		i++;
	stored->ids[i] = fingerprint_of_id(id, strlen(id));
	stored->fingerprints[i] = fingerprint_of_text(text, strlen(text),
												  fingerprint_of_id(read_id, strlen(read_id)));
}

/* The number of programs on the page that are stored; -1 if it is not a page. */
static int
read_stored(ProgramPage *page, const char *text, const Stored *stored)
{
	KnownPrograms known = {find_fingerprint, prefetch_nothing, stored};
	JsonError	error;
	int			count = 0;

	if (!program_page_read(page, text, strlen(text), stored ? &known : NULL, &error))
		return -1;
	for (int i = 0; i < page->count; i++)
		count += page->programs[i].document == NULL;
	return count;
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Is the result the same, whether programs are stored or not? */
static bool
reads_alike(const char *text, const Stored *stored)
{
	ProgramPage whole;
	ProgramPage page;

	if ((read_stored(&whole, text, NULL) < 0) != (read_stored(&page, text, stored) < 0) ||
		page.count != whole.count || page.skipped != whole.skipped ||
		page.total != whole.total || !same_text(page.skip_reason, whole.skip_reason))
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

/* However a page is formatted, stored programs are recognized. */
static void
test_stored(void)
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
		"{\"program_id\":\"a\",\"in\":[{\"program_id\":\"b\"}, {\"program_id\":\"b\"}]}",
	};
	static const char *const layouts[] = {
		"{\"total\":1,\"payment_programs\":[%s]}",
		"{\"payment_programs\":[%s],\"total\":1}",
		"{\"total\":1,\"payment_programs\":[%s," B "]}",
		"{\"total\":1,\"payment_programs\":[" C ",%s," B "]}",
		"{\"total\":1,\"payment_programs\":[ %s ,\n" B " ] }",
		"{\"total\":1,\"payment_programs\":[1,%s,{\"program_id\":\"c\"}]}",
		"{\"total\":1,\"x\":[" B "],\"payment_programs\":[" B ",%s],\"y\":{\"z\":[" B "]}}",
	};

	for (int i = 0; i < (int) lengthof(programs); i++)
	{
		Stored		stored = {0};
		Stored		copied = {0};

		store_as(&stored, "a", programs[i], "a");
		store_as(&copied, "b", programs[i], "a");
		for (int j = 0; j < (int) lengthof(layouts); j++)
		{
			const char *before = strstr(layouts[j], "%s");
			char	   *text = psprintf("%.*s%s%s", (int) (before - layouts[j]), layouts[j],
										programs[i], before + 2);
			ProgramPage page;

			tap_is_int(read_stored(&page, text, &stored), 1, "stored: %s", text);
			tap_ok(reads_alike(text, &stored), "and read alike");
			tap_is_int(read_stored(&page, text, &copied), 0, "not stored where its row was copied");
			tap_ok(reads_alike(text, &copied), "and read alike");
		}
	}
}

/* A stored text proves nothing about any other text. */
static void
test_known_text(void)
{
	static const char *const texts[] = {
		"{\"total\":2,\"before\":[" A "],\"payment_programs\":[" A "," B "]}",
		"{\"total\":2,\"payment_programs\":[" A "],\"payment_programs\":[" B "," A "]}",
		"{\"total\":2,\"in\":{\"payment_programs\":[" A "]},\"payment_programs\":[" B "]}",
		PAGE(A "," A "," B), A, PAGE("\"" B "\""), PAGE("[" A "]"), PAGE(""),
		PAGE("{\"program_id\":\"a\",\"pad\":1,\"program_id\":7}"),
		PAGE("{\"program_id\":\"b\"}," "{\"program_id\":\"a\\u0000\"}"),
		PAGE("{\"pad\":\"program_id\",\"x\":\"a\",\"y\":\"xxxxxxx\"}"),
	};
	static const char *const broken[] = {
		PAGE(A B), PAGE(A ","), PAGE("," A), PAGE(A "}"), PAGE(A ",\"\n\"," B),
		PAGE(A ",truth"), PAGE(A ",," B), PAGE(A " , , " B), PAGE(A " " B),
		PAGE(A) "x", "{\"a\":[" A "]", "{\"a\" [" A "]}", "{[" A "]}", "{\"\\x\":[" A "]}",
		"{\"total\":1,\"payment_programs\":[" A "],\"payment_programs\":[}",
		"{\"total\":1,\"payment_programs\":[" A, "{\"total\":1,\"payment_programs\":[" A ",",
		PAGE(B "," A "x," B), PAGE(B "," A "]," B), PAGE(B "," A "}}," B),
	};
	Stored		stored = {0};
	Stored		forged = {0};
	ProgramPage page;

	store_as(&stored, "a", A, "a");
	store_as(&stored, "b", B, "b");
	store_as(&forged, "a", "{\"x\":1}", "a");
	tap_ok(reads_alike(PAGE("{\"program_id\":\"a\"},{\"x\":1}"), &forged), "an ID is no other program's");
	for (int i = 0; i < (int) lengthof(texts); i++)
		tap_ok(reads_alike(texts[i], &stored), "read alike: %s", texts[i]);
	for (int i = 0; i < (int) lengthof(broken); i++)
	{
		tap_is_int(read_stored(&page, broken[i], NULL), -1, "no page: %s", broken[i]);
		tap_is_int(read_stored(&page, broken[i], &stored), -1, "nor where its programs are stored");
	}
}

/* A page with some bytes changed is read as it would be without stored programs. */
static void
test_random(int rounds)
{
	static const char bytes[] = "{}[]\",:\\a0 \n\t\x01\x80";
	const char *original = PAGE(A "," C "," B);
	int			length = strlen(original);
	int			unlike = 0;
	pg_prng_state random;
	Stored		stored = {0};

	store_as(&stored, "a", A, "a");
	store_as(&stored, "b", B, "b");
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
 * A stored program whose end is guessed is not scanned: it does not matter what
 * it is.  Wrong guesses take no significant time.
 */
static void
test_guesses(void)
{
	char	   *text = repeated("{\"total\":1,\"payment_programs\":[{\"program_id\":\"x\"}",
								",{\"program_id\":\"a\",\"{{{{{{{{{{{{{{{{\":1},{ \"program_id\":\"b\"}",
								100000, "," A "]}");
	Stored		stored = {0};
	ProgramPage page;

	store_as(&stored, "a", A, "a");
	tap_is_int(read_stored(&page, text, &stored), 1, "of many programs the last one is stored");
	store_as(&stored, "odd", "{\"program_id\":\"odd\",{no JSON}}", "odd");
	tap_is_int(read_stored(&page, PAGE(C ",{\"program_id\":\"odd\",{no JSON}} ,\n" C), &stored), 1,
			   "what is stored is not scanned");
	tap_is_int(read_stored(&page, PAGE("{}," C ",{\"program_id\":\"odd\",{no JSON}}," C), &stored), 1,
			   "wherever the first program is");
	tap_is_int(read_stored(&page, PAGE(C ",{\"program_id\":\"odd\",{no JSON}}"), &stored), -1,
			   "unless it is the last one on the page");
}

int
main(void)
{
	test_whole_page();
	test_status();
	test_pages();
	test_errors();
	test_grammar();
	test_encoding();
	test_places();
	test_bad_escapes();
	test_program_id();
	test_names();
	test_numbers();
	test_nesting();
	test_many();
	test_stored();
	test_known_text();
	test_random(200000);
	test_guesses();
	return tap_done();
}
