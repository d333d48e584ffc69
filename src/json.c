/*
 * json.c
 *	  From a text to checked JSON, as tokens.
 *
 * A text is read in two passes.
 *
 * 1. scan_text() holds it to RFC 8259, because jsmn only tokenizes: even
 *	  strict it takes {"a"}, [1 2] and {}{} for JSON.  It counts the tokens, so
 *	  that jsmn gets all the memory it needs at once, and bounds the nesting,
 *	  which jsmn climbs anew at every closing bracket.
 * 2. tokenize() has jsmn split it, and makes our tokens of jsmn's.
 */
#include "postgres.h"

#include "json.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

/* What a numeric surely holds: its own bounds are far off */
#define MAX_NUMBER_BYTES	1000
#define MAX_EXPONENT_DIGITS 4

/* The state of the first pass */
typedef struct Scan
{
	const char *text;
	const char *end;
	int			depth;
	int			ntokens;
	bool		bad_utf8;		/* there is invalid UTF-8 somewhere */
	bool		odd_numbers;	/* some number is long or has an exponent */
	JsonError  *fault;
} Scan;

/* Takes over the message; false for the caller to return. */
static bool
set_fault(JsonError *fault, JsonErrorKind kind, char *message)
{
	fault->kind = kind;
	fault->message = message;
	return false;
}

static bool
too_long(JsonError *fault, size_t length)
{
	return set_fault(fault, JSON_TOO_LONG,
					 psprintf("body of %zu bytes is too long", length));
}

/*
 * Pass 1: is it JSON?
 *
 * Each scan_ function takes the place where something must begin, and returns
 * the one behind it, or NULL after a fault.  The text ends with a NUL byte and
 * has none within, and no rule accepts one: so nothing here needs to look for
 * the end.
 */

static const char *
scan_failed(Scan *scan, const char *at, const char *what)
{
	size_t		position = at - scan->text;

	set_fault(scan->fault, JSON_BROKEN, at == scan->end ?
			  psprintf("body is not JSON: it breaks off after %zu bytes",
					   position) :
			  psprintf("body is not JSON: %s at byte %zu", what, position + 1));
	return NULL;
}

static const char *
skip_space(const char *at)
{
	while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
		at++;
	return at;
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

static const char *
scan_escape(Scan *scan, const char *at)
{
	if (at[1] == '\0' || strchr("\"\\/bfnrtu", at[1]) == NULL)
		return scan_failed(scan, at, "no escape");
	if (at[1] != 'u')
		return at + 2;
	for (int i = 2; i < 6; i++)
	{
		if (hex_value(at[i]) < 0)
			return scan_failed(scan, at, "no escape");
	}
	return at + 6;
}

static const char *
scan_string(Scan *scan, const char *at)
{
	if (*at != '"')
		return scan_failed(scan, at, "no string");
	at++;
	for (;;)
	{
		while ((unsigned char) *at >= ' ' && *at != '"' && *at != '\\')
			at++;
		if (*at == '"')
			return at + 1;
		if (*at != '\\')
			return scan_failed(scan, at, "raw control character");
		at = scan_escape(scan, at);
		if (at == NULL)
			return NULL;
	}
}

static const char *
scan_digits(Scan *scan, const char *at)
{
	if (*at < '0' || *at > '9')
		return scan_failed(scan, at, "no digit");
	while (*at >= '0' && *at <= '9')
		at++;
	return at;
}

static const char *
scan_number(Scan *scan, const char *at)
{
	const char *start = at;

	if (*at == '-')
		at++;
	at = *at == '0' ? at + 1 : scan_digits(scan, at);
	if (at && *at == '.')
		at = scan_digits(scan, at + 1);
	if (at && (*at == 'e' || *at == 'E'))
	{
		scan->odd_numbers = true;
		at++;
		if (*at == '+' || *at == '-')
			at++;
		at = scan_digits(scan, at);
	}
	if (at && at - start > MAX_NUMBER_BYTES)
		scan->odd_numbers = true;
	return at;
}

static const char *
scan_word(Scan *scan, const char *at, const char *word)
{
	for (; *word != '\0'; word++, at++)
	{
		if (*at != *word)
			return scan_failed(scan, at, "no value");
	}
	return at;
}

/* The name of a member and its colon. */
static const char *
scan_name(Scan *scan, const char *at)
{
	scan->ntokens++;
	at = scan_string(scan, skip_space(at));
	if (at == NULL)
		return NULL;
	at = skip_space(at);
	return *at == ':' ? at + 1 : scan_failed(scan, at, "no colon");
}

static const char *scan_value(Scan *scan, const char *at);

/* Members or elements, up to where no comma follows. */
static const char *
scan_items(Scan *scan, const char *at, bool named)
{
	for (;;)
	{
		if (named)
			at = scan_name(scan, at);
		if (at)
			at = scan_value(scan, at);
		if (at == NULL)
			return NULL;
		at = skip_space(at);
		if (*at != ',')
			return at;
		at++;
	}
}

/* An object or an array, from its opening bracket to the closing one. */
static const char *
scan_list(Scan *scan, const char *at, char close)
{
	if (scan->depth == JSON_MAX_DEPTH)
	{
		set_fault(scan->fault, JSON_UNFIT,
				  psprintf("body nests deeper than %d levels",
						   JSON_MAX_DEPTH));
		return NULL;
	}
	scan->depth++;
	at = skip_space(at + 1);
	if (*at != close)
		at = scan_items(scan, at, close == '}');
	if (at == NULL)
		return NULL;
	if (*at != close)
		return scan_failed(scan, at, close == '}' ? "no comma or brace" :
						   "no comma or bracket");
	scan->depth--;
	return at + 1;
}

static const char *
scan_value(Scan *scan, const char *at)
{
	scan->ntokens++;
	at = skip_space(at);
	switch (*at)
	{
		case '"':
			return scan_string(scan, at);
		case '{':
			return scan_list(scan, at, '}');
		case '[':
			return scan_list(scan, at, ']');
		case 't':
			return scan_word(scan, at, "true");
		case 'f':
			return scan_word(scan, at, "false");
		case 'n':
			return scan_word(scan, at, "null");
		default:
			if (*at != '-' && (*at < '0' || *at > '9'))
				return scan_failed(scan, at, "no value");
			return scan_number(scan, at);
	}
}

bool
json_is_utf8(const char *text, int length)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, length) == length;
}

char *
json_encoding_error(const char *text, int length)
{
	int			valid = pg_encoding_verifymbstr(PG_UTF8, text, length);

	return psprintf("body is not JSON: %s at byte %d",
					text[valid] == '\0' ? "NUL" : "invalid UTF-8", valid + 1);
}

/* Is it of a size that jsmn can count?  NUL bytes fail the scan. */
static bool
check_text(Scan *scan, size_t length)
{
	if (length > MaxAllocSize)
		return too_long(scan->fault, length);
	if (length == 0)
		return set_fault(scan->fault, JSON_BROKEN,
						 pstrdup("body is not JSON: it is empty"));
	scan->bad_utf8 = !json_is_utf8(scan->text, (int) length);
	return true;
}

static bool
scan_text(Scan *scan)
{
	const char *at;

	if (!check_text(scan, scan->end - scan->text))
		return false;
	at = scan_value(scan, scan->text);
	if (scan->bad_utf8 && (at == NULL || skip_space(at) != scan->end ||
						   *skip_space(scan->text) != '{'))
		return set_fault(scan->fault, JSON_BROKEN,
						 json_encoding_error(scan->text, scan->end - scan->text));
	if (at == NULL)
		return false;
	at = skip_space(at);
	if (at != scan->end)
		return scan_failed(scan, at, "more than one value") != NULL;
	if (*skip_space(scan->text) != '{')
		return set_fault(scan->fault, JSON_UNFIT,
						 pstrdup("body is JSON, but not an object"));
	return true;
}

/*
 * Pass 2: the tokens.
 */

static JsonType
type_of(const jsmntok_t *token, const char *text)
{
	if (token->type == JSMN_STRING)
		return JSON_STRING;
	switch (*text)
	{
		case '{':
			return JSON_OBJECT;
		case '[':
			return JSON_ARRAY;
		case 't':
		case 'f':
			return JSON_BOOLEAN;
		case 'n':
			return JSON_NULL;
		default:
			return JSON_NUMBER;
	}
}

/* Is it a number that may not fit a numeric? */
static bool
is_odd_number(const JsonToken *token)
{
	const char *end = token->text +token->length;
	const char *exponent = token->text +strspn(token->text, "-.0123456789");

	exponent += strspn(exponent, "eE+-");
	return token->type == JSON_NUMBER &&
		(token->length > MAX_NUMBER_BYTES ||
		 end - exponent > MAX_EXPONENT_DIGITS);
}

/* A member's value counts as within its name, which is its parent. */
static void
copy_tokens(JsonToken *tokens, const jsmntok_t *parsed, const Scan *scan)
{
	for (int i = 0; i < scan->ntokens; i++)
	{
		tokens[i].text = scan->text +parsed[i].start;
		tokens[i].length = parsed[i].end - parsed[i].start;
		tokens[i].type = type_of(&parsed[i], tokens[i].text);
		tokens[i].size = 1;
		tokens[i].odd = scan->odd_numbers && is_odd_number(&tokens[i]);
		tokens[i].bad_utf8 = scan->bad_utf8 && tokens[i].type == JSON_STRING &&
			!json_is_utf8(tokens[i].text, tokens[i].length);
	}
	for (int i = scan->ntokens - 1; i > 0; i--)
	{
		tokens[parsed[i].parent].size += tokens[i].size;
		tokens[parsed[i].parent].odd |= tokens[i].odd;
		tokens[parsed[i].parent].bad_utf8 |= tokens[i].bad_utf8;
	}
}

static JsonToken *
tokenize(const Scan *scan)
{
	size_t		length = scan->end - scan->text;
	int			ntokens = scan->ntokens;
	jsmn_parser parser;
	jsmntok_t  *parsed;
	JsonToken  *tokens = NULL;

	if (ntokens > (int) (MaxAllocSize / sizeof(JsonToken)))
	{
		too_long(scan->fault, length);
		return NULL;
	}
	parsed = palloc(ntokens * sizeof(jsmntok_t));
	jsmn_init(&parser);
	if (jsmn_parse(&parser, scan->text, length, parsed, ntokens) == ntokens)
	{
		tokens = palloc(ntokens * sizeof(JsonToken));
		copy_tokens(tokens, parsed, scan);
	}
	else
		set_fault(scan->fault, JSON_BROKEN,
				  pstrdup("body is not JSON: jsmn cannot split it"));
	pfree(parsed);
	return tokens;
}

JsonToken  *
json_read(const char *text, size_t length, JsonError *fault)
{
	Scan		scan = {
		.text = text,
		.end = text +length,
		.fault = fault
		};

		return scan_text(&scan) ? tokenize(&scan) : NULL;
	}

/*
 * Strings.
 */

/* The UTF-16 code unit that the \u escape stands for. */
	static pg_wchar
		read_unit(const char *escape)
	{
		pg_wchar	unit = 0;

		for (int i = 2; i < 6; i++)
			unit = unit << 4 | hex_value(escape[i]);
		return unit;
	}

/*
 * The character of the \u escape at *at, which is moved behind it; 0 for those
 * that no text can hold: \u0000 and halves of surrogate pairs.
 */
	static pg_wchar
		read_unicode_escape(const char **at)
	{
		pg_wchar	first = read_unit(*at);
		pg_wchar	second;

		*at += 6;
		if (is_utf16_surrogate_second(first))
			return 0;
		if (!is_utf16_surrogate_first(first))
			return first;
		if ((*at)[0] != '\\' || (*at)[1] != 'u')
			return 0;
		second = read_unit(*at);
		if (!is_utf16_surrogate_second(second))
			return 0;
		*at += 6;
		return surrogate_pair_to_codepoint(first, second);
	}

/* The character of a short escape such as \n. */
	static char
				read_short_escape(char letter)
	{
		static const char letters[] = "bfnrt";
		const char *found = strchr(letters, letter);

					return found ? "\b\f\n\r\t"[found - letters] : letter;
	}

	int
				json_decode(const JsonToken *string, char *to)
	{
		const char *at = string->text;
		const char *end = at + string->length;
		char	   *start = to;

		while		(at < end)
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

/* Is there an escape that no text can hold? */
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

	const char *json_unstorable(const JsonToken *token)
	{
		const JsonToken *last = token + token->size - 1;

		if			(holds_bad_escape(token->text, last->text +last->length))
						return "holds \\u0000 or half a surrogate pair, which no text can hold";
		if (token->bad_utf8)
						return "holds invalid UTF-8";
		if			(token->odd)
						return "holds a number that is out of range";
					return NULL;
	}
