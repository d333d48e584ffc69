/*
 * json.c
 *	  Parse and validate JSON, producing tokens.
 *
 * A text is parsed in two passes: json_scan.c checks the grammar and counts
 * the tokens; then jsmn tokenizes it, and its tokens are converted to ours.
 */
#include "postgres.h"

#include "json.h"

#include "mb/pg_wchar.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS
#include <jsmn.h>

#define MIN_CAPACITY 256

/* An exponent with this many digits fits a numeric */
#define MAX_EXPONENT_DIGITS 4

/*
 * Tokens.
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
	const char *end = token->text + token->length;
	const char *exponent = token->text + strspn(token->text, "-.0123456789");

	exponent += strspn(exponent, "eE+-");
	return token->type == JSON_NUMBER &&
		(token->length > JSON_MAX_NUMBER_BYTES ||
		 end - exponent > MAX_EXPONENT_DIGITS);
}

/* The parent of a member's value is its name. */
static void
copy_tokens(JsonToken *tokens, const jsmntok_t *parsed, const JsonText *value)
{
	bool		bad_utf8 = !json_is_utf8(value->text, (int) value->length);

	for (int i = 0; i < value->ntokens; i++)
	{
		JsonToken  *token = &tokens[i];

		token->text = value->text + parsed[i].start;
		token->length = parsed[i].end - parsed[i].start;
		token->type = type_of(&parsed[i], token->text);
		token->size = 1;
		token->odd = value->odd_numbers && is_odd_number(token);
		token->bad_utf8 = bad_utf8 && token->type == JSON_STRING &&
			!json_is_utf8(token->text, token->length);
	}
	for (int i = value->ntokens - 1; i > 0; i--)
	{
		JsonToken  *parent = &tokens[parsed[i].parent];

		parent->size += tokens[i].size;
		parent->odd |= tokens[i].odd;
		parent->bad_utf8 |= tokens[i].bad_utf8;
	}
}

void
json_free(JsonTokens *tokens)
{
	if (tokens->capacity > 0)
	{
		pfree(tokens->tokens);
		pfree(tokens->parsed);
	}
	memset(tokens, 0, sizeof(JsonTokens));
}

static void
make_room(JsonTokens *tokens, int ntokens)
{
	int			capacity = Max(tokens->capacity, MIN_CAPACITY);

	if (ntokens <= tokens->capacity)
		return;
	while (capacity < ntokens)
		capacity *= 2;
	json_free(tokens);
	tokens->tokens = palloc(capacity * sizeof(JsonToken));
	tokens->parsed = palloc(capacity * sizeof(jsmntok_t));
	tokens->capacity = capacity;
}

const JsonToken *
json_tokenize(JsonTokens *tokens, const JsonText *value)
{
	jsmn_parser parser;

	Assert(value->ntokens <= JSON_MAX_TOKENS);
	make_room(tokens, value->ntokens);
	jsmn_init(&parser);
	if (jsmn_parse(&parser, value->text, value->length, tokens->parsed,
				   value->ntokens) != value->ntokens)
		return NULL;
	copy_tokens(tokens->tokens, tokens->parsed, value);
	return tokens->tokens;
}

static const JsonToken *
reject(JsonError *fault, JsonErrorKind kind, char *message)
{
	fault->kind = kind;
	fault->message = message;
	return NULL;
}

const JsonToken *
json_read(JsonTokens *tokens, const char *text, size_t length,
		  JsonError *fault)
{
	JsonText	value = {.text = text,.length = length};
	JsonScan	scan;
	const JsonToken *json;

	if (!json_scan_begin(&scan, text, length, fault) ||
		!json_scan_end(&scan, json_scan_value(&scan, text)))
		return NULL;
	if (scan.ntokens > JSON_MAX_TOKENS)
		return reject(fault, JSON_TOO_LONG,
					  psprintf("body contains more than %d values",
							   JSON_MAX_TOKENS));
	value.ntokens = scan.ntokens;
	value.odd_numbers = scan.odd_numbers;
	json = json_tokenize(tokens, &value);
	return json ? json :
		reject(fault, JSON_BROKEN,
			   pstrdup("body is not JSON: jsmn could not tokenize it"));
}

/*
 * Strings.
 */

/* The UTF-16 code unit of a \u escape. */
static pg_wchar
read_unit(const char *escape)
{
	pg_wchar	unit = 0;

	for (int i = 2; i < 6; i++)
		unit = unit << 4 | json_hex_value(escape[i]);
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

bool
json_string_is(const JsonToken *string, const char *text, size_t length)
{
	char		decoded[JSON_MAX_COMPARED * JSON_SPELLED_BYTES];

	Assert(length <= JSON_MAX_COMPARED);
	if (string->length == (int) length)
		return memcmp(string->text, text, length) == 0;
	return string->length > (int) length &&
		string->length <= (int) length * JSON_SPELLED_BYTES &&
		memchr(string->text, '\\', string->length) != NULL &&
		json_decode(string, decoded) == (int) length &&
		memcmp(decoded, text, length) == 0;
}

const JsonToken *
json_member(const JsonToken *object, const char *name)
{
	const JsonToken *end = object + object->size;
	const JsonToken *value = NULL;

	for (const JsonToken *at = object + 1; at < end; at += at->size)
	{
		if (json_string_is(at, name, strlen(name)))
			value = at + 1;
	}
	return value;
}

/* Is there an escape for a character that text cannot contain? */
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

const char *
json_unstorable(const JsonToken *token)
{
	const JsonToken *last = token + token->size - 1;

	if (holds_bad_escape(token->text, last->text + last->length))
		return "contains \\u0000 or an unpaired surrogate, which text cannot contain";
	if (token->bad_utf8)
		return "contains invalid UTF-8";
	if (token->odd)
		return "contains a number that is out of range";
	return NULL;
}
