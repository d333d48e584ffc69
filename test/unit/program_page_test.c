/*
 * program_page_test.c
 *	  Unit tests of program_page.c.
 */
#include "postgres.h"

#include "program_page.h"

#include "fingerprint.h"
#include "json.h"
#include "no_server.h"
#include "tap.h"

/* A string literal and its length, including any NUL bytes */
#define TEXT(literal) literal, sizeof(literal) - 1

#define ID "JjhIENbS68b2Wkomkbu6Jw"

/* A page with programs, and a page with one program that has these members */
#define PAGE(programs) \
	"{\"total\":1,\"payment_programs\":[" programs "]}"
#define PROGRAM(members) PAGE("{\"program_id\":\"" ID "\"" members "}")

static const char *
kind_name(PageErrorKind kind)
{
	switch (kind)
	{
		case PAGE_FINE:
			return "fine";
		case PAGE_NOT_JSON:
			return "not JSON";
		case PAGE_NOT_A_PAGE:
			return "not a page";
		case PAGE_IMPLAUSIBLE:
			return "implausible";
	}
	return "unknown";
}

/* Reads a text that must be a page; false if it is not. */
static bool
read_fine(ProgramPage *page, const char *text, size_t length, const char *name)
{
	PageError	problem;
	bool		fine = program_page_read(page, text, length, NULL, &problem);

	return tap_ok(fine, "%s: a page%s%s", name, fine ? "" : ", but ",
				  fine ? "" : problem.message);
}

static void
fine(const char *text, size_t length, const char *name)
{
	ProgramPage page;

	read_fine(&page, text, length, name);
}

/* The text is rejected with exactly this message. */
static void
refused(const char *text, size_t length, PageErrorKind kind,
		const char *program_id, const char *message)
{
	ProgramPage page;
	PageError	problem;

	if (!tap_ok(!program_page_read(&page, text, length, NULL, &problem),
				"refused: %s", message))
		return;
	tap_is_text(kind_name(problem.kind), kind_name(kind), "is %s",
				kind_name(kind));
	tap_is_text(problem.message, message, "says why");
	tap_is_text(problem.program_id, program_id, "names the program");
	tap_ok(page.count == 0 && page.programs == NULL, "leaves nothing");
}

static void
not_json(const char *text, size_t length, const char *why)
{
	refused(text, length, PAGE_NOT_JSON, NULL,
			psprintf("body is not JSON: %s", why));
}

static void
not_a_page(const char *text, size_t length, const char *why)
{
	refused(text, length, PAGE_NOT_A_PAGE, NULL, why);
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

/* The program is skipped, because it cannot be stored. */
static void
bad_program(const char *text, size_t length, const char *why)
{
	skipped(text, length, psprintf("program \"%s\": %s", ID, why));
}

/* A text repeated between two others. */
static char *
repeated(const char *before, const char *text, int count, const char *after)
{
	size_t		length = strlen(text);
	char	   *result = palloc(strlen(before) + length * count +
								strlen(after) + 1);
	char	   *to = result + strlen(strcpy(result, before));

	for (int i = 0; i < count; i++, to += length)
		memcpy(to, text, length);
	strcpy(to, after);
	return result;
}

static void
test_whole_page(void)
{
	static const char first[] =
	"{\"program_id\":\"" ID "\",\"program_type\":\"CPC\","
	"\"program_status\":\"ACTIVE\",\"program_pause_status\":\"NOT_PAUSED\","
	"\"start_date\":\"2026-03-23\",\"end_date\":\"9999-12-31\","
	"\"program_metrics\":{\"budget\":1000000,\"currency\":\"USD\","
	"\"is_autobid\":true,\"max_bid\":null,\"billed_impressions\":1234,"
	"\"billed_clicks\":56,\"ad_cost\":245000,"
	"\"fee_period\":\"Calendar Month\"},"
	"\"businesses\":[{\"yelp_business_id\":\"ys4FVTHxbSepIkvCLHYxCA\","
	"\"partner_business_id\":null}],\"future_budget_changes\":[],"
	"\"active_features\":[\"AD_GOAL\"],"
	"\"available_features\":[\"AD_GOAL\",\"CALL_TRACKING\"]}";
	static const char second[] =
	"{ \"program_id\" : \"kWDutUAzwQVj5BMdz80R-Q\","
	" \"page_upgrade_info\":{\"cost\":8.24,\"monthly_rate\":30} }";
	const char *text =
	psprintf("{\"program_status\":\"ALL\",\"total\":1913,\"offset\":0,"
			 "\"limit\":40,\"payment_programs\":[%s,\n\t%s ]} \r\n",
			 first, second);
	ProgramPage page;

	if (!read_fine(&page, text, strlen(text), "two programs"))
		return;
	tap_is_int(page.total, 1913, "total");
	tap_is_int(page.limit, 40, "limit");
	tap_is_int(page.count, 2, "count");
	tap_is_text(page.programs[0].id, ID, "first id");
	tap_is_text(page.programs[1].id, "kWDutUAzwQVj5BMdz80R-Q", "second id");
	tap_is_text(pnstrdup(page.programs[0].document, page.programs[0].length),
				first, "first document");
	tap_is_text(pnstrdup(page.programs[1].document, page.programs[1].length),
				second, "second document, with its spaces");
	tap_ok(page.programs[0].document == strstr(text, first),
		   "documents lie within the page");
	tap_ok(page.programs[1].fingerprint ==
		   fingerprint_of_text(second, strlen(second), page.programs[1].id_hash),
		   "the fingerprint is the hash of the document and the id");
}

static void
test_empty_page(void)
{
	ProgramPage page;

	if (!read_fine(&page, TEXT("{\"total\":0,\"payment_programs\":[]}"),
				   "no programs"))
		return;
	tap_is_int(page.count, 0, "no program");
	tap_is_int(page.total, 0, "total of 0");
	tap_is_int(page.limit, -1, "no limit told");
}

/* The page's limit is only an echo: whatever it is, the page is read. */
static void
test_limit(void)
{
	static const struct
	{
		const char *value;
		int64		limit;
	}			cases[] = {
		{"1", 1}, {"40", 40}, {"0", -1}, {"-1", -1}, {"null", -1},
		{"\"40\"", -1}, {"40.0", 40}, {"4e1", 40}, {"{}", -1}, {"[]", -1},
		{"true", -1}, {"99999999999999999999", -1}
	};

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char	   *text = psprintf("{\"payment_programs\":[],\"limit\":%s,"
									"\"total\":0}", cases[i].value);
		ProgramPage page;

		if (read_fine(&page, text, strlen(text), text))
			tap_is_int(page.limit, cases[i].limit, "limit %s", cases[i].value);
	}
}

static void
test_broken_text(void)
{
	not_json(TEXT(""), "it is empty");
	not_json(TEXT(" \n"), "truncated after 2 bytes");
	not_json(TEXT("<html>"), "expected a value at byte 1");
	not_json(TEXT("\xEF\xBB\xBF{}"), "expected a value at byte 1");
	not_json(TEXT("{"), "truncated after 1 bytes");
	not_json(TEXT("[[]"), "truncated after 3 bytes");
	not_json(TEXT("{\"a"), "truncated after 3 bytes");
	not_json(TEXT("{\"a\""), "truncated after 4 bytes");
	not_json(TEXT("{\"a\":"), "truncated after 5 bytes");
	not_json(TEXT("{\"a\":1"), "truncated after 6 bytes");
	not_json(TEXT("{\"a\":1,"), "truncated after 7 bytes");
	not_json(TEXT("{\"a\":tru"), "truncated after 8 bytes");
	not_json(TEXT("{\"a\":-"), "truncated after 6 bytes");
	not_json(TEXT("{\"a\":1."), "truncated after 7 bytes");
	not_json(TEXT("{\"a\":1e+"), "truncated after 8 bytes");
	not_json(TEXT("{\"\\"), "invalid escape at byte 3");
	not_json(TEXT("{\"\\u12"), "invalid escape at byte 3");
	not_json(TEXT("}"), "expected a value at byte 1");
	not_json(TEXT("]"), "expected a value at byte 1");
}

/* jsmn accepts most of these. */
static void
test_grammar(void)
{
	not_json(TEXT("{\"a\"}"), "expected \":\" at byte 5");
	not_json(TEXT("{\"a\",\"b\"}"), "expected \":\" at byte 5");
	not_json(TEXT("{\"a\":1,}"), "expected a string at byte 8");
	not_json(TEXT("{,}"), "expected a string at byte 2");
	not_json(TEXT("{\"a\":,}"), "expected a value at byte 6");
	not_json(TEXT("{\"a\":}"), "expected a value at byte 6");
	not_json(TEXT("{\"a\":1:2}"), "expected \",\" or \"}\" at byte 7");
	not_json(TEXT("{\"a\":1 \"b\":2}"), "expected \",\" or \"}\" at byte 8");
	not_json(TEXT("{\"a\"::1}"), "expected a value at byte 6");
	not_json(TEXT("{1:2}"), "expected a string at byte 2");
	not_json(TEXT("{null:2}"), "expected a string at byte 2");
	not_json(TEXT("{{}:2}"), "expected a string at byte 2");
	not_json(TEXT("{a:2}"), "expected a string at byte 2");
	not_json(TEXT("{'a':2}"), "expected a string at byte 2");
	not_json(TEXT("{1}"), "expected a string at byte 2");
	not_json(TEXT("{]"), "expected a string at byte 2");
	not_json(TEXT("{\"a\":1]"), "expected \",\" or \"}\" at byte 7");
	not_json(TEXT("[1 2]"), "expected \",\" or \"]\" at byte 4");
	not_json(TEXT("[1,]"), "expected a value at byte 4");
	not_json(TEXT("[,1]"), "expected a value at byte 2");
	not_json(TEXT("[1,,2]"), "expected a value at byte 4");
	not_json(TEXT("[\"a\":1]"), "expected \",\" or \"]\" at byte 5");
	not_json(TEXT("[}"), "expected a value at byte 2");
	not_json(TEXT("[1}"), "expected \",\" or \"]\" at byte 3");
	not_json(TEXT("[][]"), "more than one value at byte 3");
	not_json(TEXT("{}{}"), "more than one value at byte 3");
	not_json(TEXT("{} x"), "more than one value at byte 4");
	not_json(TEXT("{}}"), "more than one value at byte 3");
	not_json(TEXT("1 2"), "more than one value at byte 3");
	not_json(TEXT("[/* */]"), "expected a value at byte 2");
	not_json(TEXT("[\f]"), "expected a value at byte 2");
	not_json(TEXT("[\xC2\xA0]"), "expected a value at byte 2");
}

static void
test_plain_values(void)
{
	not_json(TEXT("[truth]"), "expected a value at byte 5");
	not_json(TEXT("[truetrue]"), "expected \",\" or \"]\" at byte 6");
	not_json(TEXT("[True]"), "expected a value at byte 2");
	not_json(TEXT("[nul]"), "expected a value at byte 5");
	not_json(TEXT("[nulll]"), "expected \",\" or \"]\" at byte 6");
	not_json(TEXT("[NaN]"), "expected a value at byte 2");
	not_json(TEXT("[Infinity]"), "expected a value at byte 2");
	not_json(TEXT("[-Infinity]"), "expected a digit at byte 3");
	not_json(TEXT("[01]"), "expected \",\" or \"]\" at byte 3");
	not_json(TEXT("[-01]"), "expected \",\" or \"]\" at byte 4");
	not_json(TEXT("[-]"), "expected a digit at byte 3");
	not_json(TEXT("[+1]"), "expected a value at byte 2");
	not_json(TEXT("[--1]"), "expected a digit at byte 3");
	not_json(TEXT("[1.]"), "expected a digit at byte 4");
	not_json(TEXT("[.5]"), "expected a value at byte 2");
	not_json(TEXT("[1.e5]"), "expected a digit at byte 4");
	not_json(TEXT("[1.2.3]"), "expected \",\" or \"]\" at byte 5");
	not_json(TEXT("[1e]"), "expected a digit at byte 4");
	not_json(TEXT("[1e+]"), "expected a digit at byte 5");
	not_json(TEXT("[1e1.5]"), "expected \",\" or \"]\" at byte 5");
	not_json(TEXT("[0x10]"), "expected \",\" or \"]\" at byte 3");
	not_json(TEXT("[1_000]"), "expected \",\" or \"]\" at byte 3");
	fine(TEXT(PROGRAM(",\"a\":[0,-0,0.0,-0.5,1e5,1E+5,1.25e-05,12345678901,"
					  "true,false,null,\"\",{},[]]")), "every plain value");
}

static void
test_strings(void)
{
	not_json(TEXT("[\"a\nb\"]"), "raw control character at byte 4");
	not_json(TEXT("[\"\t\"]"), "raw control character at byte 3");
	not_json(TEXT("[\"\x1F\"]"), "raw control character at byte 3");
	not_json(TEXT("[\"\\x\"]"), "invalid escape at byte 3");
	not_json(TEXT("[\"\\'\"]"), "invalid escape at byte 3");
	not_json(TEXT("[\"\\U0041\"]"), "invalid escape at byte 3");
	not_json(TEXT("[\"ab\\u00g0\"]"), "invalid escape at byte 5");
	not_json(TEXT("[\"\\u123\"]"), "invalid escape at byte 3");
	not_json(TEXT("[\"\\\"]"), "truncated after 5 bytes");
	not_json(TEXT("{\"a\\q\":1}"), "invalid escape at byte 4");
	fine(TEXT(PROGRAM(",\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uABCD\x7F\"")),
		 "every escape");
}

static void
test_encoding(void)
{
	not_json(TEXT("[\"\0\"]"), "NUL at byte 3");
	not_json(TEXT("{}\0"), "NUL at byte 3");
	not_json(TEXT("\0"), "NUL at byte 1");
	not_json(TEXT("[\"\xFF\"]"), "invalid UTF-8 at byte 3");
	skipped(TEXT(PAGE("{\"program_id\":\"a\",\"note\":[\"b\xC3\"]}")),
			"program \"a\": field \"note\" contains invalid UTF-8");
	skipped(TEXT(PAGE("{\"program_id\":\"a\",\"n\xC3\":1}")),
			"program \"a\": a field name contains invalid UTF-8");
	skipped(TEXT(PAGE("{\"program_id\":\"a\xFF\"},{\"program_id\":\"b\"}")),
			"field \"payment_programs[0].program_id\" contains invalid UTF-8");
	not_json(TEXT("{\"total\":1,\"x\":\"\xFF\",\"payment_programs\":[]}"),
			 "invalid UTF-8 outside its programs");
	not_json(TEXT("[\"\x80\"]"), "invalid UTF-8 at byte 3");
	not_json(TEXT("[\"\xC3\"]"), "invalid UTF-8 at byte 3");
	not_json(TEXT("[\"a\xE2\x82"), "invalid UTF-8 at byte 4");
	not_json(TEXT("[\"\xC0\x80\"]"), "invalid UTF-8 at byte 3");
	not_json(TEXT("[\"\xED\xA0\x80\"]"), "invalid UTF-8 at byte 3");
	not_json(TEXT("[\"\xF4\x90\x80\x80\"]"), "invalid UTF-8 at byte 3");
	fine(TEXT(PROGRAM(",\"a\":\"caf\xC3\xA9 \xE5\xAF\xBF\xE5\x8F\xB8 "
					  "\xF0\x9F\xA5\x9E\",\"\xC3\xA9\":1")), "UTF-8");
	fine(TEXT(PROGRAM(",\"a\":\"\\ud83e\\udd5e\"")), "a surrogate pair");
}

static void
test_bad_escapes(void)
{
	static const char why[] = "field \"a\" contains \\u0000 or an unpaired "
	"surrogate, which text cannot contain";

	bad_program(TEXT(PROGRAM(",\"a\":\"\\u0000\"")), why);
	bad_program(TEXT(PROGRAM(",\"a\":{\"b\":[1,\"x\\u0000y\"]}")), why);
	bad_program(TEXT(PROGRAM(",\"a\":{\"\\u0000\":1}")), why);
	bad_program(TEXT(PROGRAM(",\"a\":\"\\ud800\"")), why);
	bad_program(TEXT(PROGRAM(",\"a\":\"\\uDFFF\"")), why);
	bad_program(TEXT(PROGRAM(",\"a\":\"\\ud800\\ud800\"")), why);
	bad_program(TEXT(PROGRAM(",\"a\":\"\\ud800\\u0041\"")), why);
	bad_program(TEXT(PROGRAM(",\"a\":\"\\ud800\\n\"")), why);
	bad_program(TEXT(PROGRAM(",\"a\":[\"\\ud83e\",\"\\udd5e\"]")), why);
	bad_program(TEXT(PROGRAM(",\"a\":\"\\ud83e\\udd5e\\udd5e\"")), why);
	bad_program(TEXT(PROGRAM(",\"\\ud800\":1")),
				"field \"\\ud800\" contains \\u0000 or an unpaired "
				"surrogate, which text cannot contain");
	bad_program(TEXT(PROGRAM(",\"program_type\":\"\\u0000\"")),
				"field \"program_type\" contains \\u0000 or an unpaired "
				"surrogate, which text cannot contain");
	skipped(TEXT(PAGE("{\"program_id\":\"\\u0000\"}")),
			"field \"payment_programs[0].program_id\" contains \\u0000 or "
			"an unpaired surrogate, which text cannot contain");
	fine(TEXT(PROGRAM(",\"a\":\"\\\\u0000 \\\\ud800\"")),
		 "escaped backslashes before u");
	fine(TEXT("{\"\\ud800\":\"\\u0000\",\"total\":0,\"payment_programs\":[]}"),
		 "bad escapes outside of programs, which nobody stores");
}

static void
test_roots(void)
{
	static const char why[] = "body is JSON, but not an object";

	not_a_page(TEXT("null"), why);
	not_a_page(TEXT("true"), why);
	not_a_page(TEXT("12"), why);
	not_a_page(TEXT(" \"text\" "), why);
	not_a_page(TEXT("[]"), why);
	not_a_page(TEXT("[{\"total\":1}]"), why);
	not_a_page(TEXT("{}"), "field \"total\" is missing");
	not_a_page(TEXT("{\"error\":{\"id\":\"X\"}}"), "field \"total\" is missing");
	not_a_page(TEXT("{\"a\":{\"total\":1,\"payment_programs\":[]}}"),
			   "field \"total\" is missing");
}

static void
test_total(void)
{
	static const struct
	{
		const char *value;
		PageErrorKind kind;
		const char *why;
	}			cases[] = {
		{"null", PAGE_NOT_A_PAGE, "field \"total\" is not an integer"},
		{"true", PAGE_NOT_A_PAGE, "field \"total\" is not an integer"},
		{"\"12\"", PAGE_NOT_A_PAGE, "field \"total\" is not an integer"},
		{"[12]", PAGE_NOT_A_PAGE, "field \"total\" is not an integer"},
		{"{}", PAGE_NOT_A_PAGE, "field \"total\" is not an integer"},
		{"1.5", PAGE_NOT_A_PAGE, "field \"total\" is not an integer"},
		{"9999999999.5", PAGE_NOT_A_PAGE,
		"field \"total\" is not an integer"},
		{"-1", PAGE_NOT_A_PAGE, "field \"total\" is negative"},
		{"-99999999999999999999", PAGE_NOT_A_PAGE,
		"field \"total\" is negative"},
		{"10000001", PAGE_IMPLAUSIBLE, "field \"total\" is greater than 10000000"},
		{"9223372036854775808", PAGE_IMPLAUSIBLE,
		"field \"total\" is greater than 10000000"},
		{"99999999999999999999999999", PAGE_IMPLAUSIBLE,
		"field \"total\" is greater than 10000000"}
	};
	ProgramPage page;

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char	   *text = psprintf("{\"payment_programs\":[],\"total\":%s}",
									cases[i].value);

		refused(text, strlen(text), cases[i].kind, NULL, cases[i].why);
	}
	if (read_fine(&page, TEXT("{\"total\":10000000,\"payment_programs\":[]}"),
				  "the largest total"))
		tap_is_int(page.total, PAGE_MAX_TOTAL, "is read");
}

static void
test_program_list(void)
{
	not_a_page(TEXT("{\"total\":1}"),
			   "field \"payment_programs\" is missing");
	not_a_page(TEXT("{\"total\":1,\"payment_programs\":{}}"),
			   "field \"payment_programs\" is not an array");
	not_a_page(TEXT("{\"total\":1,\"payment_programs\":\"[]\"}"),
			   "field \"payment_programs\" is not an array");
	skipped(TEXT(PAGE("null")),
			"field \"payment_programs[0]\" is not an object");
	skipped(TEXT(PAGE("[]")),
			"field \"payment_programs[0]\" is not an object");
	skipped(TEXT(PAGE("{\"program_id\":\"a\"},\"b\"")),
			"field \"payment_programs[1]\" is not an object");
}

static void
test_program_id(void)
{
	static const char before[] =
	"{\"total\":1,\"payment_programs\":[{\"program_id\":\"";
	static const char after[] = "\"}]}";
	char	   *longest = repeated(before, "\\u00e9", PAGE_MAX_ID_BYTES / 2,
								   after);
	char	   *too_long = repeated(before, "x", PAGE_MAX_ID_BYTES + 1, after);
	char	   *far_too_long = repeated(before, "x", 100000, after);
	static const char over[] =
	"field \"payment_programs[0].program_id\" is longer than 256 bytes";
	ProgramPage page;

	skipped(TEXT(PAGE("{}")),
			"field \"payment_programs[0].program_id\" is missing");
	skipped(TEXT(PAGE("{\"id\":\"a\"}")),
			"field \"payment_programs[0].program_id\" is missing");
	skipped(TEXT(PAGE("{\"program_id\":\"a\"},{\"program_id\":12}")),
			"field \"payment_programs[1].program_id\" is not a string");
	skipped(TEXT(PAGE("{\"program_id\":null}")),
			"field \"payment_programs[0].program_id\" is not a string");
	skipped(TEXT(PAGE("{\"program_id\":{}}")),
			"field \"payment_programs[0].program_id\" is not a string");
	skipped(TEXT(PAGE("{\"program_id\":\"\"}")),
			"field \"payment_programs[0].program_id\" is empty");
	skipped(TEXT(PAGE("{\"program_id\":\"a\\u001b]0;x\"}")),
			"field \"payment_programs[0].program_id\" contains a control character");
	skipped(TEXT(PAGE("{\"program_id\":\"a\\u009b2J\"}")),
			"field \"payment_programs[0].program_id\" contains a control character");
	skipped(too_long, strlen(too_long), over);
	skipped(far_too_long, strlen(far_too_long), over);

	if (read_fine(&page, longest, strlen(longest), "the longest id"))
		tap_is_int(strlen(page.programs[0].id), PAGE_MAX_ID_BYTES, "is whole");
	if (read_fine(&page, TEXT(PAGE("{\"program_id\":\"\\u0041\\/\\\"\\\\"
								   "\\ud83e\\udd5e\\u20ac\"}")),
				  "an id with escapes"))
		tap_is_text(page.programs[0].id,
					"A/\"\\\xF0\x9F\xA5\x9E\xE2\x82\xAC", "is decoded");
}

/* A page with a program that has these members, with the value inserted. */
static char *
page_with(const char *members, const char *value)
{
	const char *place = strstr(members, "%s");

	return psprintf("{\"total\":1,\"payment_programs\":[{%.*s%s%s,"
					"\"program_id\":\"" ID "\"}]}",
					(int) (place - members) - 1, members + 1,
					value, place + 2);
}

/* Numbers that are not read must still fit jsonb. */
static void
test_other_numbers(void)
{
	static const char why[] = "field \"a\" contains a number that is out of range";
	char	   *digits = repeated("", "7", 1001, "");
	char	   *text;

	bad_program(TEXT(PROGRAM(",\"a\":1e10000")), why);
	bad_program(TEXT(PROGRAM(",\"a\":[{\"b\":-1.5E+99999}]")), why);
	bad_program(TEXT(PROGRAM(",\"a\":1e-99999")), why);
	text = page_with(",\"a\":%s", digits);

	bad_program(text, strlen(text), why);
	text = page_with(",\"a\":0.%s", digits);

	bad_program(text, strlen(text), why);
	text = page_with(",\"a\":\"1e99999 %s\"", digits);

	fine(text, strlen(text), "a string like a large number");
	text = page_with(",\"a\":[1e9999,%s]", digits + 1);

	fine(text, strlen(text), "the largest numbers");
	fine(TEXT("{\"total\":0,\"payment_programs\":[],\"x\":1e99999}"),
		 "a large number outside of programs");
}

static void
test_repeated_names(void)
{
	ProgramPage page;

	if (read_fine(&page, TEXT("{\"total\":\"x\",\"payment_programs\":1,"
							  "\"total\":7,\"payment_programs\":["
							  "{\"program_id\":1,\"program_id\":\"b\","
							  "\"start_date\":1,\"start_date\":null}]}"),
				  "repeated names"))
	{
		tap_is_int(page.total, 7, "the last total counts");
		tap_is_text(page.programs[0].id, "b", "the last program_id counts");
	}
	if (read_fine(&page, TEXT("{\"total\":1,\"payment_programs\":[{\"program_id\":\"a\"},1],"
							  "\"payment_programs\":[{\"program_id\":\"b\"}]}"),
				  "two lists"))
	{
		tap_is_int(page.count, 1, "the last list counts");
		tap_is_int(page.skipped, 0, "nothing of the first one is skipped");
		tap_is_text(page.programs[0].id, "b", "what it holds");
	}
	if (read_fine(&page, TEXT("{\"total\":1,\"payment_programs\":[{\"program_id\":\"a\"},1],"
							  "\"payment_programs\":null}"),
				  "a list and null"))
		tap_is_int(page.count + page.skipped, 0, "null counts");
	not_a_page(TEXT("{\"total\":7,\"total\":null,\"payment_programs\":[]}"),
			   "field \"total\" is not an integer");
}

static void
test_spelled_names(void)
{
	ProgramPage page;

	if (read_fine(&page, TEXT("{\"\\u0074otal\":7,\"payment\\u005fprograms\":["
							  "{\"program_\\u0069\\u0064\":\"b\"}]}"),
				  "names with escapes"))
	{
		tap_is_int(page.total, 7, "total is read");
		tap_is_text(page.programs[0].id, "b", "program_id is read");
	}
	not_a_page(TEXT("{\"Total\":7,\"payment_programs\":[]}"),
			   "field \"total\" is missing");
	not_a_page(TEXT("{\"total\\u0000\":7,\"payment_programs\":[]}"),
			   "field \"total\" is missing");
}

/* A message only shows the beginning of a long name. */
static void
test_long_names(void)
{
	char	   *name = repeated("a", "\xC3\xA9", 1000, "");
	char	   *text = psprintf(PROGRAM(",\"%s\":\"\\u0000\""), name);

	bad_program(text, strlen(text),
				psprintf("field \"%.63s\" contains \\u0000 or an unpaired "
						 "surrogate, which text cannot contain", name));
}

static void
test_nesting(void)
{
	int			room = JSON_MAX_DEPTH - 3;	/* for the page, its list, and a
											 * program */
	char	   *open = repeated("", "[", room, "");
	char	   *close = repeated("", "]", room, "");
	char	   *deepest = psprintf(PROGRAM(",\"a\":%s%s"), open, close);
	char	   *deeper = psprintf(PROGRAM(",\"a\":[%s%s]"), open, close);
	char	   *arrays = repeated("", "[", 200000, "");
	char	   *objects = repeated("", "{\"a\":", 200000, "1");
	char	   *message = psprintf("body is nested more than %d levels deep",
								   JSON_MAX_DEPTH);

	fine(deepest, strlen(deepest), "the deepest nesting");
	refused(deeper, strlen(deeper), PAGE_NOT_A_PAGE, NULL, message);
	refused(arrays, strlen(arrays), PAGE_NOT_A_PAGE, NULL, message);
	refused(objects, strlen(objects), PAGE_NOT_A_PAGE, NULL, message);
}

static void
test_many_programs(void)
{
	char	   *text = repeated("{\"total\":1,\"payment_programs\":["
								"{\"program_id\":\"x\"}",
								",{\"program_id\":\"y\"}", 99999, "]}");
	ProgramPage page;

	if (!read_fine(&page, text, strlen(text), "100000 programs"))
		return;
	tap_is_int(page.count, 100000, "all are read");
	tap_is_text(page.programs[0].id, "x", "the first");
	tap_is_text(page.programs[99999].id, "y", "the last");
}

/*
 * Memory use is limited by the size of the text, not by the number of its
 * values.
 */
static void
test_many_values(void)
{
	char	   *numbers = repeated("", "1,", JSON_MAX_TOKENS, "1");
	char	   *members = repeated("{\"total\":1,\"payment_programs\":[]", ",\"\":1",
								   JSON_MAX_TOKENS, "}");
	char	   *text;
	ProgramPage page;

	text = psprintf(PROGRAM(",\"a\":[%s]"), numbers);
	skipped(text, strlen(text), "field \"payment_programs[0]\" contains more than 65536 values");
	numbers[2 * (JSON_MAX_TOKENS - 6)] = '\0';
	text = psprintf(PROGRAM(",\"a\":[%s1]"), numbers);
	if (read_fine(&page, text, strlen(text), "as many values as are read"))
		tap_is_int(page.count, 1, "are a program");
	text = psprintf("{\"total\":1,\"x\":[%s1],\"y\":[[%s1]],\"payment_programs\":[]}",
					numbers, numbers);
	fine(text, strlen(text), "values outside of programs");
	refused(members, strlen(members), PAGE_IMPLAUSIBLE, NULL,
			"body contains more than 65536 values");
	text = repeated("{\"total\":1,\"payment_programs\":[{}", ",{}", 999999, "]}");
	if (read_fine(&page, text, strlen(text), "elements that are no programs"))
		tap_is_int(page.skipped, 1000000, "are counted");
	text = repeated("{\"total\":1,\"payment_programs\":[1", ",1", 999999, "]}");
	if (read_fine(&page, text, strlen(text), "elements that are no objects"))
		tap_is_int(page.skipped, 1000000, "are counted");
}

int
main(void)
{
	test_whole_page();
	test_empty_page();
	test_limit();
	test_broken_text();
	test_grammar();
	test_plain_values();
	test_strings();
	test_encoding();
	test_bad_escapes();
	test_roots();
	test_total();
	test_program_list();
	test_program_id();
	test_other_numbers();
	test_repeated_names();
	test_spelled_names();
	test_long_names();
	test_nesting();
	test_many_programs();
	test_many_values();
	return tap_done();
}
