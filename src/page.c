/*
 * page.c
 *	  From the text of a page to the programs on it.
 *
 * A text is read in three passes.
 *
 * 1. check_json() holds it to RFC 8259, because jsmn only tokenizes: even
 *	  strict it takes {"a"}, [1 2] and {}{} for JSON.  It counts the tokens, so
 *	  that jsmn gets all the memory it needs at once, and bounds the nesting,
 *	  which jsmn climbs anew at every closing bracket.
 * 2. tokenize() has jsmn split it, and links each token to the next one that
 *	  lies outside it.
 * 3. read_page() and its helpers walk the tokens.  Every member that the
 *	  extension reads has its line in a table of fields; the others may hold
 *	  whatever jsonb can store.
 *
 * As in jsonb, the last of several members of one name counts.
 */
#include "postgres.h"

#include "page.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

/* Amounts in cents go to numeric(14,2), so they stay below this. */
#define CENTS_BOUND INT64CONST(100000000000000)

/*
 * Numbers in members that nobody reads must fit jsonb's numeric.  These bounds
 * are far within its own.
 */
#define MAX_NUMBER_BYTES 1000
#define MAX_EXPONENT_DIGITS 4

/* The longest name of a field has 20 bytes, each of which \uXXXX may spell */
#define MAX_SPELLED_NAME 128

/* How much of another member's name a message shows, in bytes */
#define MAX_SHOWN_NAME 64

/* What may come next in a JSON text */
typedef enum Expected
{
	EXPECT_VALUE,
	EXPECT_VALUE_OR_END,
	EXPECT_MEMBER,
	EXPECT_MEMBER_OR_END,
	EXPECT_COMMA_OR_END
} Expected;

/* The state of check_json() */
typedef struct Scan
{
	const char *text;
	const char *at;
	const char *end;
	Expected	expected;
	int			ntokens;
	bool		odd_numbers;	/* some number is long or has an exponent */
	int			depth;
	char		open[PAGE_MAX_DEPTH];	/* the brackets that are open */
	PageProblem *problem;
} Scan;

/* A text that is JSON, and its tokens */
typedef struct Json
{
	const char *text;
	bool		odd_numbers;
	int			ntokens;
	jsmntok_t  *tokens;			/* size: the first token outside this one */
} Json;

/* Tells what is wrong with a value ("is not ..."), NULL if nothing */
typedef const char *(*FieldCheck) (const Json *json, int value);

struct Shape;

/* A member that the extension reads */
typedef struct Field
{
	const char *name;
	size_t		length;
	FieldCheck	check;			/* of values other than null */
	const struct Shape *inner;	/* of an object, or an array's first one */
} Field;

#define MAX_FIELDS 12

/* The members that are read of one kind of object */
typedef struct Shape
{
	const char *prefix;			/* of the fields' names in messages */
	int			nfields;
	const Field *fields;
} Shape;

#define FIELD(name, check, inner) {name, sizeof(name) - 1, check, inner}
#define SHAPE(prefix, fields) {prefix, lengthof(fields), fields}

static const char not_integer[] = "is not an integer";
static const char out_of_range[] = "is out of range";
static const char bad_escape[] =
"holds \\u0000 or half a surrogate pair, which no text can hold";

/* Takes over the message; false for the caller to return. */
static bool
set_problem(PageProblem *problem, PageProblemKind kind, char *message)
{
	problem->kind = kind;
	problem->message = message;
	return false;
}

/*
 * Pass 1: is it JSON?
 *
 * The text ends with a NUL byte and has none within, and no rule accepts one:
 * so nothing here needs to look for the end.
 */

static bool
scan_failed(Scan *scan, const char *what)
{
	size_t		position = scan->at - scan->text;

	if (scan->at == scan->end)
		return set_problem(scan->problem, PAGE_NOT_JSON,
						   psprintf("body is not JSON: it breaks off after %zu bytes",
									position));
	return set_problem(scan->problem, PAGE_NOT_JSON,
					   psprintf("body is not JSON: %s at byte %zu",
								what, position + 1));
}

/* Is it UTF-8 without NUL bytes, and of a size that jsmn can count? */
static bool
check_text(const char *text, size_t length, PageProblem *problem)
{
	int			valid;

	if (length > MaxAllocSize)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("body of %zu bytes is too long", length));
	if (length == 0)
		return set_problem(problem, PAGE_NOT_JSON,
						   pstrdup("body is not JSON: it is empty"));
	valid = pg_encoding_verifymbstr(PG_UTF8, text, (int) length);
	if (valid == (int) length)
		return true;
	return set_problem(problem, PAGE_NOT_JSON,
					   psprintf("body is not JSON: %s at byte %d",
								text[valid] == '\0' ? "NUL" : "invalid UTF-8",
								valid + 1));
}

static void
skip_space(Scan *scan)
{
	const char *at = scan->at;

	while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
		at++;
	scan->at = at;
}

/* The value of a hexadecimal digit, -1 if it is none. */
static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Behind the escape whose backslash is at `at`, NULL if it is none. */
static const char *
skip_escape(const char *at)
{
	switch (at[1])
	{
		case '"':
		case '\\':
		case '/':
		case 'b':
		case 'f':
		case 'n':
		case 'r':
		case 't':
			return at + 2;
		case 'u':
			for (int i = 2; i < 6; i++)
			{
				if (hex_value(at[i]) < 0)
					return NULL;
			}
			return at + 6;
		default:
			return NULL;
	}
}

static bool
scan_string(Scan *scan)
{
	const char *at = scan->at;

	if (*at != '"')
		return scan_failed(scan, "no string");
	at++;
	for (;;)
	{
		while ((unsigned char) *at >= ' ' && *at != '"' && *at != '\\')
			at++;
		if (*at != '\\')
			break;
		scan->at = at;
		at = skip_escape(at);
		if (at == NULL)
			return scan_failed(scan, "no escape");
	}
	scan->at = at;
	if (*at != '"')
		return scan_failed(scan, "raw control character");
	scan->at++;
	scan->ntokens++;
	scan->expected = EXPECT_COMMA_OR_END;
	return true;
}

/* Goes on behind the digits; false if there is none. */
static bool
scan_digits(Scan *scan)
{
	const char *at = scan->at;

	while (*at >= '0' && *at <= '9')
		at++;
	if (at == scan->at)
		return scan_failed(scan, "no digit");
	scan->at = at;
	return true;
}

static bool
scan_number(Scan *scan)
{
	const char *start = scan->at;

	if (*scan->at == '-')
		scan->at++;
	if (*scan->at == '0')
		scan->at++;
	else if (!scan_digits(scan))
		return false;
	if (*scan->at == '.')
	{
		scan->at++;
		if (!scan_digits(scan))
			return false;
	}
	if (*scan->at == 'e' || *scan->at == 'E')
	{
		scan->odd_numbers = true;
		scan->at++;
		if (*scan->at == '+' || *scan->at == '-')
			scan->at++;
		if (!scan_digits(scan))
			return false;
	}
	if (scan->at - start > MAX_NUMBER_BYTES)
		scan->odd_numbers = true;
	scan->ntokens++;
	scan->expected = EXPECT_COMMA_OR_END;
	return true;
}

static bool
scan_word(Scan *scan, const char *word)
{
	for (; *word != '\0'; word++, scan->at++)
	{
		if (*scan->at != *word)
			return scan_failed(scan, "no value");
	}
	scan->ntokens++;
	scan->expected = EXPECT_COMMA_OR_END;
	return true;
}

static bool
open_bracket(Scan *scan, Expected inside)
{
	if (scan->depth == PAGE_MAX_DEPTH)
		return set_problem(scan->problem, PAGE_IMPLAUSIBLE,
						   psprintf("body nests deeper than %d levels",
									PAGE_MAX_DEPTH));
	scan->open[scan->depth++] = *scan->at++;
	scan->ntokens++;
	scan->expected = inside;
	return true;
}

static bool
close_bracket(Scan *scan)
{
	char		close = scan->open[scan->depth - 1] == '{' ? '}' : ']';

	if (*scan->at != close)
		return scan_failed(scan, close == '}' ? "no comma or brace" :
						   "no comma or bracket");
	scan->at++;
	scan->depth--;
	scan->expected = EXPECT_COMMA_OR_END;
	return true;
}

static bool
scan_value(Scan *scan)
{
	switch (*scan->at)
	{
		case '"':
			return scan_string(scan);
		case '{':
			return open_bracket(scan, EXPECT_MEMBER_OR_END);
		case '[':
			return open_bracket(scan, EXPECT_VALUE_OR_END);
		case 't':
			return scan_word(scan, "true");
		case 'f':
			return scan_word(scan, "false");
		case 'n':
			return scan_word(scan, "null");
		case '-':
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
		case '8':
		case '9':
			return scan_number(scan);
		default:
			return scan_failed(scan, "no value");
	}
}

/* A member's name and its colon. */
static bool
scan_name(Scan *scan)
{
	if (!scan_string(scan))
		return false;
	skip_space(scan);
	if (*scan->at != ':')
		return scan_failed(scan, "no colon");
	scan->at++;
	scan->expected = EXPECT_VALUE;
	return true;
}

/* Takes the next bracket, comma, name or plain value. */
static bool
scan_next(Scan *scan)
{
	char		c = *scan->at;

	switch (scan->expected)
	{
		case EXPECT_MEMBER_OR_END:
			return c == '}' ? close_bracket(scan) : scan_name(scan);
		case EXPECT_MEMBER:
			return scan_name(scan);
		case EXPECT_VALUE_OR_END:
			return c == ']' ? close_bracket(scan) : scan_value(scan);
		case EXPECT_VALUE:
			return scan_value(scan);
		case EXPECT_COMMA_OR_END:
			if (c != ',')
				return close_bracket(scan);
			scan->at++;
			scan->expected = scan->open[scan->depth - 1] == '{' ?
				EXPECT_MEMBER : EXPECT_VALUE;
			return true;
	}
	return false;
}

static bool
check_json(Scan *scan, const char *text, size_t length, PageProblem *problem)
{
	scan->text = scan->at = text;
	scan->end = text + length;
	scan->expected = EXPECT_VALUE;
	scan->ntokens = 0;
	scan->odd_numbers = false;
	scan->depth = 0;
	scan->problem = problem;
	if (!check_text(text, length, problem))
		return false;
	do
	{
		skip_space(scan);
		if (!scan_next(scan))
			return false;
	} while (scan->depth > 0);
	skip_space(scan);
	if (scan->at != scan->end)
		return scan_failed(scan, "more than one value");
	return true;
}

/*
 * Pass 2: the tokens.
 */

/*
 * A token's size, which jsmn makes the number of its children, becomes the
 * first token outside it.  A member's value counts as inside its name, so that
 * a name leads to the next one.
 */
static void
link_tokens(Json *json)
{
	jsmntok_t  *tokens = json->tokens;

	for (int i = 0; i < json->ntokens; i++)
		tokens[i].size = i + 1;
	for (int i = json->ntokens - 1; i > 0; i--)
	{
		jsmntok_t  *parent = &tokens[tokens[i].parent];

		parent->size = Max(parent->size, tokens[i].size);
	}
}

/* The tokens of a text that is an object; free_json() frees them. */
static bool
tokenize(Json *json, const char *text, size_t length, PageProblem *problem)
{
	Scan		scan;
	jsmn_parser parser;

	if (!check_json(&scan, text, length, problem))
		return false;
	if (text[strspn(text, " \t\r\n")] != '{')
		return set_problem(problem, PAGE_NOT_A_PAGE,
						   pstrdup("body is JSON, but not an object"));
	if (scan.ntokens > (int) (MaxAllocSize / sizeof(jsmntok_t)))
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("body of %d tokens is too long",
									scan.ntokens));
	json->text = text;
	json->odd_numbers = scan.odd_numbers;
	json->ntokens = scan.ntokens;
	json->tokens = palloc(scan.ntokens * sizeof(jsmntok_t));
	jsmn_init(&parser);
	if (jsmn_parse(&parser, text, length,
				   json->tokens, scan.ntokens) != scan.ntokens)
	{
		pfree(json->tokens);
		return set_problem(problem, PAGE_NOT_JSON,
						   pstrdup("body is not JSON: jsmn cannot split it"));
	}
	link_tokens(json);
	return true;
}

static void
free_json(Json *json)
{
	pfree(json->tokens);
}

static const char *
token_text(const Json *json, int token)
{
	return json->text + json->tokens[token].start;
}

static int
token_length(const Json *json, int token)
{
	return json->tokens[token].end - json->tokens[token].start;
}

static bool
is_string(const Json *json, int token)
{
	return json->tokens[token].type == JSMN_STRING;
}

/* Is it null, true or false, or a number that begins like that? */
static bool
is_primitive(const Json *json, int token, char first)
{
	return json->tokens[token].type == JSMN_PRIMITIVE &&
		*token_text(json, token) == first;
}

/* Strings */

/*
 * The character of the \u escape at *at, which is moved behind it; 0 for those
 * that no text can hold: \u0000 and halves of surrogate pairs.
 */
static pg_wchar
read_unicode_escape(const char **at)
{
	pg_wchar	units[2] = {0, 0};
	int			nunits = 0;
	const char *next = *at;

	do
	{
		for (int i = 2; i < 6; i++)
			units[nunits] = units[nunits] << 4 | hex_value(next[i]);
		nunits++;
		next += 6;
	} while (nunits == 1 && is_utf16_surrogate_first(units[0]) &&
			 next[0] == '\\' && next[1] == 'u');

	*at += 6;
	if (is_utf16_surrogate_second(units[0]))
		return 0;
	if (!is_utf16_surrogate_first(units[0]))
		return units[0];
	if (!is_utf16_surrogate_second(units[1]))
		return 0;
	*at += 6;
	return surrogate_pair_to_codepoint(units[0], units[1]);
}

/* The character of a short escape such as \n. */
static char
read_short_escape(char letter)
{
	switch (letter)
	{
		case 'b':
			return '\b';
		case 'f':
			return '\f';
		case 'n':
			return '\n';
		case 'r':
			return '\r';
		case 't':
			return '\t';
		default:
			return letter;
	}
}

/* Is there an escape that jsonb cannot store? */
static bool
holds_bad_escape(const char *at, const char *end)
{
	while ((at = memchr(at, '\\', end - at)) != NULL)
	{
		if (at[1] != 'u')
			at += 2;
		else if (read_unicode_escape(&at) == 0)
			return true;
	}
	return false;
}

/*
 * Writes the characters that a string stands for, never more bytes than its
 * own, and returns how many.  Those that no text can hold become '?'.
 */
static int
decode_string(const Json *json, int token, char *to)
{
	const char *at = token_text(json, token);
	const char *end = at + token_length(json, token);
	char	   *start = to;

	while (at < end)
	{
		if (*at != '\\')
			*to++ = *at++;
		else if (at[1] != 'u')
		{
			*to++ = read_short_escape(at[1]);
			at += 2;
		}
		else
		{
			pg_wchar	c = read_unicode_escape(&at);

			unicode_to_utf8(c ? c : '?', (unsigned char *) to);
			to += pg_utf_mblen((unsigned char *) to);
		}
	}
	return to - start;
}

/* Fields */

static int
find_field(const Shape *shape, const char *name, size_t length)
{
	for (int i = 0; i < shape->nfields; i++)
	{
		const Field *field = &shape->fields[i];

		if (field->length == length && memcmp(field->name, name, length) == 0)
			return i;
	}
	return -1;
}

/* Which field a member's name means, -1 for one that is not read. */
static int
field_of_name(const Json *json, int name, const Shape *shape)
{
	const char *text = token_text(json, name);
	int			length = token_length(json, name);
	int			field = find_field(shape, text, length);
	char		decoded[MAX_SPELLED_NAME];

	if (field >= 0 || length > MAX_SPELLED_NAME ||
		memchr(text, '\\', length) == NULL)
		return field;
	return find_field(shape, decoded, decode_string(json, name, decoded));
}

/* The value's token for each field of the object, 0 for those not there. */
static void
find_values(const Json *json, int object, const Shape *shape, int *values)
{
	int			end = json->tokens[object].size;

	memset(values, 0, shape->nfields * sizeof(int));
	for (int name = object + 1; name < end; name = json->tokens[name].size)
	{
		int			field = field_of_name(json, name, shape);

		if (field >= 0)
			values[field] = name + 1;
	}
}

/* The integer, or PG_INT64_MIN or PG_INT64_MAX where it is out of range. */
static const char *
read_integer(const Json *json, int token, int64 *value)
{
	const char *at = token_text(json, token);
	const char *end = at + token_length(json, token);
	bool		negative = *at == '-';

	if (json->tokens[token].type != JSMN_PRIMITIVE)
		return not_integer;
	*value = 0;
	for (at += negative; at < end; at++)
	{
		int			digit = *at - '0';

		if (digit < 0 || digit > 9)
			return not_integer;
		if (pg_mul_s64_overflow(*value, 10, value) ||
			(negative ? pg_sub_s64_overflow(*value, digit, value) :
			 pg_add_s64_overflow(*value, digit, value)))
		{
			*value = negative ? PG_INT64_MIN : PG_INT64_MAX;
			return strspn(at, "0123456789") < (size_t) (end - at) ?
				not_integer : out_of_range;
		}
	}
	return NULL;
}

static const char *
check_string(const Json *json, int token)
{
	return is_string(json, token) ? NULL : "is not a string";
}

static const char *
check_boolean(const Json *json, int token)
{
	return is_primitive(json, token, 't') || is_primitive(json, token, 'f') ?
		NULL : "is not a boolean";
}

static const char *
check_integer(const Json *json, int token)
{
	int64		value;

	return read_integer(json, token, &value);
}

static const char *
check_cents(const Json *json, int token)
{
	int64		value;
	const char *complaint = read_integer(json, token, &value);

	if (complaint == not_integer)
		return "is not an integer number of cents";
	if (value <= -CENTS_BOUND || value >= CENTS_BOUND)
		return out_of_range;
	return NULL;
}

/* The number that so many digits make, -1 if they are none. */
static int
read_digits(const char *text, int count)
{
	int			value = 0;

	for (int i = 0; i < count; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (text[i] - '0');
	}
	return value;
}

/* YYYY-MM-DD, a day of the Gregorian calendar from year 1 on. */
static const char *
check_date(const Json *json, int token)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	static const char complaint[] = "is not a date as YYYY-MM-DD";
	char		date[6 * 10];
	int			year;
	int			month;
	int			day;
	bool		leap;

	if (!is_string(json, token) || token_length(json, token) > (int) sizeof(date) ||
		decode_string(json, token, date) != 10 ||
		date[4] != '-' || date[7] != '-')
		return complaint;
	year = read_digits(date, 4);
	month = read_digits(date + 5, 2);
	day = read_digits(date + 8, 2);
	if (year < 1 || month < 1 || month > 12 || day < 1)
		return complaint;
	leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return day <= days[month - 1] + (leap && month == 2) ? NULL : complaint;
}

static const char *
check_object(const Json *json, int token)
{
	return json->tokens[token].type == JSMN_OBJECT ? NULL : "is not an object";
}

static bool
is_array_of(const Json *json, int array, jsmntype_t type)
{
	if (json->tokens[array].type != JSMN_ARRAY)
		return false;
	for (int element = array + 1; element < json->tokens[array].size;
		 element = json->tokens[element].size)
	{
		if (json->tokens[element].type != type)
			return false;
	}
	return true;
}

static const char *
check_objects(const Json *json, int token)
{
	return is_array_of(json, token, JSMN_OBJECT) ?
		NULL : "is not an array of objects";
}

static const char *
check_strings(const Json *json, int token)
{
	return is_array_of(json, token, JSMN_STRING) ?
		NULL : "is not an array of strings";
}

static const Field metrics_fields[] = {
	FIELD("budget", check_cents, NULL),
	FIELD("currency", check_string, NULL),
	FIELD("is_autobid", check_boolean, NULL),
	FIELD("max_bid", check_cents, NULL),
	FIELD("billed_impressions", check_integer, NULL),
	FIELD("billed_clicks", check_integer, NULL),
	FIELD("ad_cost", check_cents, NULL),
	FIELD("fee_period", check_string, NULL)
};
static const Shape metrics_shape = SHAPE("program_metrics.", metrics_fields);

static const Field business_fields[] = {
	FIELD("yelp_business_id", check_string, NULL),
	FIELD("partner_business_id", check_string, NULL)
};
static const Shape business_shape = SHAPE("businesses[0].", business_fields);

/* The program_id is first of all, so that messages can tell it. */
static const Field program_fields[] = {
	FIELD("program_id", check_string, NULL),
	FIELD("program_type", check_string, NULL),
	FIELD("program_status", check_string, NULL),
	FIELD("program_pause_status", check_string, NULL),
	FIELD("start_date", check_date, NULL),
	FIELD("end_date", check_date, NULL),
	FIELD("program_metrics", check_object, &metrics_shape),
	FIELD("businesses", check_objects, &business_shape),
	FIELD("active_features", check_strings, NULL),
	FIELD("available_features", check_strings, NULL)
};
static const Shape program_shape = SHAPE("", program_fields);

enum PageField
{
	FIELD_TOTAL,
	FIELD_LIMIT,
	FIELD_PROGRAMS
};
static const Field page_fields[] = {
	FIELD("total", NULL, NULL),
	FIELD("limit", NULL, NULL),
	FIELD("payment_programs", NULL, NULL)
};
static const Shape page_shape = SHAPE("", page_fields);

/*
 * Pass 3: the programs.
 */

/* How many of a text's bytes are shown: at most so many, whole characters. */
static int
clip(const char *text, int length, int most)
{
	if (length <= most)
		return length;
	while (most > 0 && (text[most] & 0xC0) == 0x80)
		most--;
	return most;
}

static bool
bad_field(PageProblem *problem, const char *prefix, const char *name,
		  const char *complaint)
{
	return set_problem(problem, PAGE_NOT_A_PAGE,
					   psprintf("field \"%s%s\" %s", prefix, name, complaint));
}

/* Has each field the type that it needs?  Null will do for any. */
static bool
check_fields(const Json *json, const Shape *shape, const int *values,
			 PageProblem *problem)
{
	for (int i = 0; i < shape->nfields; i++)
	{
		const Field *field = &shape->fields[i];
		int			value = values[i];
		int			inner_values[MAX_FIELDS];
		const char *complaint;

		if (value == 0 || is_primitive(json, value, 'n'))
			continue;
		complaint = field->check(json, value);
		if (complaint)
			return bad_field(problem, shape->prefix, field->name, complaint);
		if (!field->inner)
			continue;
		if (json->tokens[value].type == JSMN_ARRAY)
			value++;			/* its first element, if it has any */
		if (value == json->tokens[values[i]].size)
			continue;
		find_values(json, value, field->inner, inner_values);
		if (!check_fields(json, field->inner, inner_values, problem))
			return false;
	}
	return true;
}

/* Is it a number that may not fit a numeric? */
static bool
is_odd_number(const Json *json, int token)
{
	const char *text = token_text(json, token);
	int			length = token_length(json, token);
	size_t		mantissa = strcspn(text, "eE,]} \t\r\n");

	if (json->tokens[token].type != JSMN_PRIMITIVE)
		return false;
	if (length > MAX_NUMBER_BYTES)
		return true;
	if (text[mantissa] != 'e' && text[mantissa] != 'E')
		return false;
	text += mantissa + 1;
	if (*text == '+' || *text == '-')
		text++;
	return strspn(text, "0123456789") > MAX_EXPONENT_DIGITS;
}

/* Can jsonb store the member? */
static const char *
check_member(const Json *json, int name)
{
	const jsmntok_t *tokens = json->tokens;

	if (holds_bad_escape(json->text + tokens[name].start,
						 json->text + tokens[name + 1].end))
		return bad_escape;
	for (int i = name + 1; json->odd_numbers && i < tokens[name].size; i++)
	{
		if (is_odd_number(json, i))
			return "holds a number that is out of range";
	}
	return NULL;
}

static bool
check_members(const Json *json, int object, PageProblem *problem)
{
	int			end = json->tokens[object].size;

	for (int name = object + 1; name < end; name = json->tokens[name].size)
	{
		const char *complaint = check_member(json, name);
		const char *text = token_text(json, name);

		if (complaint)
			return set_problem(problem, PAGE_NOT_A_PAGE,
							   psprintf("field \"%.*s\" %s",
										clip(text, token_length(json, name), MAX_SHOWN_NAME),
										text, complaint));
	}
	return true;
}

/* What is wrong with a program's id; where nothing is, the id itself. */
static const char *
read_id(const Json *json, int value, char **id)
{
	int			length = value ? token_length(json, value) : 0;

	if (value == 0)
		return "is missing";
	if (!is_string(json, value))
		return "is not a string";
	if (length == 0)
		return "is empty";
	if (length <= 6 * PAGE_MAX_ID_BYTES)
	{
		const char *text = token_text(json, value);
		char		decoded[6 * PAGE_MAX_ID_BYTES];

		if (holds_bad_escape(text, text + length))
			return bad_escape;
		length = decode_string(json, value, decoded);
		if (length <= PAGE_MAX_ID_BYTES)
		{
			*id = pnstrdup(decoded, length);
			return NULL;
		}
	}
	return "is longer than " CppAsString2(PAGE_MAX_ID_BYTES) " bytes";
}

static bool
read_program(PageProgram *program, const Json *json, int object, int position,
			 PageProblem *problem)
{
	const jsmntok_t *token = &json->tokens[object];
	int			values[MAX_FIELDS];
	const char *complaint;

	if (token->type != JSMN_OBJECT)
		return set_problem(problem, PAGE_NOT_A_PAGE,
						   psprintf("field \"payment_programs[%d]\" is not an object",
									position));
	find_values(json, object, &program_shape, values);
	complaint = read_id(json, values[0], &program->id);
	if (complaint)
		return set_problem(problem, PAGE_NOT_A_PAGE,
						   psprintf("field \"payment_programs[%d].program_id\" %s",
									position, complaint));
	if (!check_fields(json, &program_shape, values, problem) ||
		!check_members(json, object, problem))
	{
		problem->program_id = program->id;
		return false;
	}
	program->document = json->text + token->start;
	program->length = token->end - token->start;
	program->fingerprint =
		hash_bytes_extended((const unsigned char *) program->document,
							program->length, PAGE_FINGERPRINT_SEED);
	return true;
}

static bool
read_programs(ProgramPage *page, const Json *json, int array, PageProblem *problem)
{
	int			end = json->tokens[array].size;
	int			count = 0;

	for (int i = array + 1; i < end; i = json->tokens[i].size)
		count++;
	if (count > PAGE_MAX_TOTAL)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("page of %d programs is too long", count));
	page->programs = palloc(Max(count, 1) * sizeof(PageProgram));
	for (int i = array + 1; i < end; i = json->tokens[i].size)
	{
		if (!read_program(&page->programs[page->count], json, i, page->count,
						  problem))
			return false;
		page->count++;
	}
	return true;
}

static bool
read_total(ProgramPage *page, const Json *json, int value, PageProblem *problem)
{
	if (value == 0)
		return bad_field(problem, "", "total", "is missing");
	if (read_integer(json, value, &page->total) == not_integer)
		return bad_field(problem, "", "total", not_integer);
	if (page->total < 0)
		return bad_field(problem, "", "total", "is negative");
	if (page->total > PAGE_MAX_TOTAL)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("field \"total\" is over %d",
									PAGE_MAX_TOTAL));
	return true;
}

static bool
read_page(ProgramPage *page, const Json *json, PageProblem *problem)
{
	int			values[MAX_FIELDS];
	int			limit;
	int			programs;

	find_values(json, 0, &page_shape, values);
	limit = values[FIELD_LIMIT];
	programs = values[FIELD_PROGRAMS];
	if (!read_total(page, json, values[FIELD_TOTAL], problem))
		return false;
	if (limit == 0 || read_integer(json, limit, &page->limit) != NULL ||
		page->limit < 1)
		page->limit = -1;
	if (programs == 0)
		return bad_field(problem, "", "payment_programs", "is missing");
	if (json->tokens[programs].type != JSMN_ARRAY)
		return bad_field(problem, "", "payment_programs", "is not an array");
	return read_programs(page, json, programs, problem);
}

static void
clear_page(ProgramPage *page)
{
	for (int i = 0; i < page->count; i++)
		pfree(page->programs[i].id);
	if (page->programs)
		pfree(page->programs);
	memset(page, 0, sizeof(ProgramPage));
}

bool
page_read(ProgramPage *page, const char *text, size_t length, PageProblem *problem)
{
	Json		json;
	bool		success;

	memset(page, 0, sizeof(ProgramPage));
	memset(problem, 0, sizeof(PageProblem));
	if (!tokenize(&json, text, length, problem))
		return false;
	success = read_page(page, &json, problem);
	if (!success)
		clear_page(page);
	free_json(&json);
	return success;
}

/*
 * Errors of the API.
 */

enum AnswerField
{
	FIELD_ERROR,
	FIELD_ERRORS
};
static const Field answer_fields[] = {
	FIELD("error", NULL, NULL),
	FIELD("errors", NULL, NULL)
};
static const Shape answer_shape = SHAPE("", answer_fields);

enum ErrorField
{
	FIELD_ID,
	FIELD_CODE,
	FIELD_DESCRIPTION
};
static const Field error_fields[] = {
	FIELD("id", NULL, NULL),
	FIELD("code", NULL, NULL),
	FIELD("description", NULL, NULL)
};
static const Shape error_shape = SHAPE("", error_fields);

/* The error object in an answer, 0 if there is none. */
static int
find_error(const Json *json)
{
	int			values[MAX_FIELDS];
	int			error;
	int			errors;

	find_values(json, 0, &answer_shape, values);
	error = values[FIELD_ERROR];
	errors = values[FIELD_ERRORS];
	if (error && json->tokens[error].type == JSMN_OBJECT)
		return error;
	if (errors && json->tokens[errors].type == JSMN_ARRAY &&
		json->tokens[errors].size > errors + 1 &&
		json->tokens[errors + 1].type == JSMN_OBJECT)
		return errors + 1;
	return 0;
}

/*
 * Control characters become spaces, those that two bytes encode (U+0080 to
 * U+009F) too: a terminal may obey them.
 */
static void
blank_controls(char *text, int length)
{
	unsigned char *at = (unsigned char *) text;

	for (int i = 0; i < length; i++)
	{
		if (at[i] < ' ' || at[i] == 0x7F)
			at[i] = ' ';
		else if (at[i] == 0xC2 && at[i + 1] < 0xA0)
			at[i] = at[i + 1] = ' ';
	}
}

/* A string or a number as text for a message, NULL if it is neither. */
static char *
error_text(const Json *json, int value)
{
	char	   *text;
	int			length;

	if (value == 0 ||
		(!is_string(json, value) && read_digits(token_text(json, value), 1) < 0))
		return NULL;
	text = palloc(token_length(json, value) + 1);
	length = decode_string(json, value, text);
	length = clip(text, length, PAGE_MAX_ERROR_BYTES);
	blank_controls(text, length);
	while (length > 0 && text[length - 1] == ' ')
		length--;
	text[length] = '\0';
	if (length > 0)
		return text;
	pfree(text);
	return NULL;
}

void
page_read_error(const char *text, size_t length, char **id, char **description)
{
	Json		json;
	PageProblem problem;
	int			error;

	*id = NULL;
	*description = NULL;
	if (!tokenize(&json, text, length, &problem))
	{
		pfree(problem.message);
		return;
	}
	error = find_error(&json);
	if (error)
	{
		int			values[MAX_FIELDS];

		find_values(&json, error, &error_shape, values);
		*id = error_text(&json, values[FIELD_ID]);
		if (*id == NULL)
			*id = error_text(&json, values[FIELD_CODE]);
		*description = error_text(&json, values[FIELD_DESCRIPTION]);
	}
	free_json(&json);
}
