/*
 * json.c
 *	  Scan and tokenize JSON.
 *
 * The scan checks a text against RFC 8259, because jsmn only tokenizes: even in
 * strict mode it accepts {"a"}, [1 2] and {}{}.  It also counts the tokens, so
 * that the memory for jsmn can be allocated at once, and limits the depth,
 * which jsmn climbs at every closing bracket.  The text is terminated by a NUL
 * byte and contains no others, and the grammar accepts none, so there is no
 * need to check for the end.
 *
 * A whole text can then be tokenized by jsmn, whose tokens are converted to
 * ours.
 */
#include "postgres.h"

#include "json.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

/* Encodings are verified in pieces, checking for interrupts in between. */
#define VERIFIED_BYTES (1024 * 1024)

/* ---- scanning ---- */

/*
 * The number of bytes at the start of the text that are valid UTF-8.  A piece
 * may end within a character, which has up to four bytes; the next one then
 * begins with it.
 */
static int
count_utf8(const char *text, int length)
{
	int			valid = 0;
	int			piece;
	int			verified;

	do
	{
		CHECK_FOR_INTERRUPTS();
		piece = Min(length - valid, VERIFIED_BYTES);
		verified = pg_encoding_verifymbstr(PG_UTF8, text + valid, piece);
		valid += verified;
	} while (valid < length && verified > 0 && verified > piece - 4);
	return valid;
}

bool
json_is_utf8(const char *text, int length)
{
	return count_utf8(text, length) == length;
}

/* Takes ownership of the message; returns NULL for the caller to return. */
static void *
fail(JsonError *error, JsonErrorKind kind, char *message)
{
	error->kind = kind;
	error->message = message;
	return NULL;
}

/*
 * The text is not JSON, because something else was expected at this position,
 * or because it is not even text.
 */
static const char *
broken(JsonScan *scan, const char *at, const char *what)
{
	int			valid = count_utf8(scan->text, scan->end - scan->text);

	if (scan->text + valid <= at && at < scan->end)
	{
		at = scan->text + valid;
		what = *at == '\0' ? "NUL" : "invalid UTF-8";
	}
	return fail(scan->error, JSON_BROKEN, at == scan->end ?
				psprintf("body is not JSON: truncated after %zu bytes",
						 (size_t) (at - scan->text)) :
				psprintf("body is not JSON: %s at byte %zu", what,
						 (size_t) (at - scan->text) + 1));
}

static inline const char *
skip_space(const char *at)
{
	while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
		at++;
	return at;
}

/* The value of a hexadecimal digit, or -1. */
static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *
scan_string(JsonScan *scan, const char *at)
{
	if (*at != '"')
		return broken(scan, at, "expected a string");
	at++;
	for (;;)
	{
		while ((unsigned char) *at >= ' ' && *at != '"' && *at != '\\')
			at++;
		if (*at == '"')
			return at + 1;
		if (*at != '\\')
			return broken(scan, at, "raw control character");
		if (at[1] == '\0' || strchr("\"\\/bfnrtu", at[1]) == NULL)
			return broken(scan, at, "invalid escape");
		for (int i = 2; at[1] == 'u' && i < 6; i++)
		{
			if (hex_value(at[i]) < 0)
				return broken(scan, at, "invalid escape");
		}
		at += 2;
	}
}

static const char *
scan_digits(JsonScan *scan, const char *at)
{
	if (*at < '0' || *at > '9')
		return broken(scan, at, "expected a digit");
	while (*at >= '0' && *at <= '9')
		at++;
	return at;
}

static const char *
scan_number(JsonScan *scan, const char *at)
{
	if (*at == '-')
		at++;
	at = *at == '0' ? at + 1 : scan_digits(scan, at);
	if (at && *at == '.')
		at = scan_digits(scan, at + 1);
	if (at && (*at == 'e' || *at == 'E'))
	{
		at++;
		if (*at == '+' || *at == '-')
			at++;
		at = scan_digits(scan, at);
	}
	return at;
}

static const char *
scan_word(JsonScan *scan, const char *at, const char *word)
{
	for (; *word != '\0'; word++, at++)
	{
		if (*at != *word)
			return broken(scan, at, "expected a value");
	}
	return at;
}

/*
 * Finds the end of an array or object that nobody is going to read, without
 * recursion: inside of it, only the strings are checked.
 */
static const char *
skip_list(JsonScan *scan, const char *at)
{
	int64		depth = 0;

	do
	{
		CHECK_FOR_INTERRUPTS();
		if (*at == '\0')
			return broken(scan, at, "expected a value");
		depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
		at = *at == '"' ? scan_string(scan, at) : at + 1;
		if (at == NULL)
			return NULL;
	} while (depth > 0);
	scan->too_deep = true;
	return at;
}

const char *
json_scan_list(JsonScan *scan, const char *at, JsonReader read, void *arg)
{
	bool		named = *at == '{';
	char		close = named ? '}' : ']';
	JsonToken	name = {.type = JSON_STRING,.size = 1};

	if (scan->depth == JSON_MAX_DEPTH)
		return skip_list(scan, at);
	at = skip_space(at + 1);
	if (*at == close)
		return at + 1;
	scan->depth++;
	for (;; at = skip_space(at + 1))
	{
		CHECK_FOR_INTERRUPTS();
		if (named)
		{
			scan->ntokens++;
			name.text = at + 1;
			at = scan_string(scan, at);
			if (at == NULL)
				return NULL;
			name.length = at - 1 - name.text;
			at = skip_space(at);
			if (*at != ':')
				return broken(scan, at, "expected \":\"");
			at = skip_space(at + 1);
		}
		at = read ? read(arg, &name, at) : json_scan_value(scan, at);
		if (at == NULL)
			return NULL;
		at = skip_space(at);
		if (*at == ',')
			continue;
		if (*at != close)
			return broken(scan, at, named ? "expected \",\" or \"}\"" :
						  "expected \",\" or \"]\"");
		scan->depth--;
		return at + 1;
	}
}

const char *
json_scan_value(JsonScan *scan, const char *at)
{
	scan->ntokens++;
	switch (*at)
	{
		case '"':
			return scan_string(scan, at);
		case '{':
		case '[':
			return json_scan_list(scan, at, NULL, NULL);
		case 't':
			return scan_word(scan, at, "true");
		case 'f':
			return scan_word(scan, at, "false");
		case 'n':
			return scan_word(scan, at, "null");
		default:
			if (*at != '-' && (*at < '0' || *at > '9'))
				return broken(scan, at, "expected a value");
			return scan_number(scan, at);
	}
}

bool
json_scan(JsonScan *scan, const char *text, size_t length, JsonReader read, void *arg,
		  JsonError *error)
{
	const char *start = skip_space(text);
	const char *at;

	Assert(length <= MaxAllocSize);
	memset(scan, 0, sizeof(JsonScan));
	scan->text = text;
	scan->end = text + length;
	scan->error = error;
	if (length == 0)
		return fail(error, JSON_BROKEN, pstrdup("body is not JSON: it is empty"));
	if (*start == '{')
	{
		scan->ntokens++;
		at = json_scan_list(scan, start, read, arg);
	}
	else
		at = json_scan_value(scan, start);
	if (at && *(at = skip_space(at)) != '\0')
		at = broken(scan, at, "more than one value");
	else if (at && at != scan->end)
		at = broken(scan, at, "NUL");
	else if (at && *start != '{')
		at = fail(error, JSON_UNFIT, pstrdup("body is JSON, but not an object"));
	return at != NULL;
}

/* ---- tokens ---- */

static JsonType
type_of(char first)
{
	if (first == 'f')
		return JSON_BOOLEAN;
	return first == '-' || (first >= '0' && first <= '9') ? JSON_NUMBER : (JsonType) first;
}

JsonToken
json_token(const char *text, const char *end)
{
	bool		quoted = *text == '"';
	JsonToken	token = {
		.text = text + quoted,
		.length = end - text - 2 * quoted,
		.size = 1,
		.type = type_of(*text)
	};

	return token;
}

const JsonToken *
json_read(const char *text, size_t length)
{
	JsonScan	scan;
	JsonError	error;
	jsmn_parser parser;
	jsmntok_t  *parsed;
	JsonToken  *tokens;

	if (!json_scan(&scan, text, length, NULL, NULL, &error) ||
		scan.ntokens > JSON_MAX_TOKENS || !json_is_utf8(text, length))
		return NULL;
	parsed = palloc(scan.ntokens * sizeof(jsmntok_t));
	jsmn_init(&parser);
	/* If it is too deep, jsmn finds more tokens than were counted */
	if (jsmn_parse(&parser, text, length, parsed, scan.ntokens) != scan.ntokens)
		return NULL;
	tokens = palloc(scan.ntokens * sizeof(JsonToken));
	for (int i = 0; i < scan.ntokens; i++)
	{
		const char *at = text + parsed[i].start;

		tokens[i].text = at;
		tokens[i].length = parsed[i].end - parsed[i].start;
		tokens[i].type = parsed[i].type == JSMN_STRING ? JSON_STRING : type_of(*at);
		tokens[i].size = 1;
	}
	/* The parent of a member's value is its name */
	for (int i = scan.ntokens - 1; i > 0; i--)
		tokens[parsed[i].parent].size += tokens[i].size;
	pfree(parsed);
	return tokens;
}

/* ---- strings ---- */

/* The UTF-16 code unit of a \u escape. */
static pg_wchar
read_unit(const char *escape)
{
	pg_wchar	unit = 0;

	for (int i = 2; i < 6; i++)
		unit = unit << 4 | hex_value(escape[i]);
	return unit;
}

/*
 * The character of the \u escape at *at, which is advanced past it; 0 for
 * those that text cannot contain: \u0000 and unpaired surrogates.
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

int
json_decode(const JsonToken *string, char *to)
{
	static const char letters[] = "bfnrt";
	const char *at = string->text;
	const char *end = at + string->length;
	char	   *start = to;

	while (at < end)
	{
		if (*at != '\\')
			*to++ = *at++;
		else if (at[1] != 'u')
		{
			const char *letter = strchr(letters, at[1]);

			*to++ = letter ? "\b\f\n\r\t"[letter - letters] : at[1];
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

bool
json_string_is(const JsonToken *string, const char *text)
{
	char		decoded[JSON_MAX_COMPARED * JSON_SPELLED_BYTES];
	int			length = strlen(text);

	Assert(length <= JSON_MAX_COMPARED);
	if (string->length == length)
		return memcmp(string->text, text, length) == 0;
	return string->length > length && string->length <= length * JSON_SPELLED_BYTES &&
		json_decode(string, decoded) == length && memcmp(decoded, text, length) == 0;
}

const JsonToken *
json_member(const JsonToken *object, const char *name)
{
	const JsonToken *end = object + object->size;
	const JsonToken *value = NULL;

	for (const JsonToken *at = object + 1; at < end; at += at->size)
	{
		if (json_string_is(at, name))
			value = at + 1;
	}
	return value;
}

/* ---- what jsonb can store ---- */

/* Is there an escape for a character that text cannot contain? */
static bool
has_bad_escape(const char *at, const char *end)
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
 * The number of digits that a number's exponent adds to its plain spelling,
 * which is how numeric shows it; not exact if it is more than JSON_MAX_DIGITS.
 */
static int
exponent_digits(const char *at, const char *end)
{
	int			digits = 0;

	while (at < end && (*at | 0x20) != 'e')
		at++;
	for (at++; at < end && digits <= JSON_MAX_DIGITS; at++)
	{
		if (*at != '+' && *at != '-')
			digits = digits * 10 + *at - '0';
	}
	return digits;
}

const char *
json_unstorable(const char *text, const char *end)
{
	int64		growth = 0;

	if (has_bad_escape(text, end))
		return "contains \\u0000 or an unpaired surrogate, which text cannot contain";
	if (!json_is_utf8(text, end - text))
		return "contains invalid UTF-8";
	for (const char *at = text; at < end; at++)
	{
		if (*at == '"')
		{
			for (at++; *at != '"'; at++)
				at += *at == '\\';
		}
		else if (*at == '-' || (*at >= '0' && *at <= '9'))
		{
			size_t		length = strspn(at, "+-.0123456789eE");
			int			digits = exponent_digits(at, at + length);

			if (length + digits > JSON_MAX_DIGITS)
				return "contains a number of more than " CppAsString2(JSON_MAX_DIGITS) " digits";
			growth += digits;
			at += length - 1;
		}
	}
	if (growth > JSON_MAX_DIGITS + JSON_MAX_GROWTH * (end - text))
		return "contains too many exponents";
	return NULL;
}
