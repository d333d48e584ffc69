/*
 * json_scan.c
 *	  Check whether a text is JSON.
 *
 * The text is checked against RFC 8259, because jsmn only tokenizes: even in
 * strict mode it accepts {"a"}, [1 2] and {}{}.  The scan also counts the
 * tokens, so that all the memory for jsmn can be allocated at once, and
 * limits the nesting depth, which jsmn climbs at every closing bracket.
 *
 * The text is terminated by a NUL byte and contains no others, and the
 * grammar accepts none, so there is no need to check for the end.
 */
#include "postgres.h"

#include "json_scan.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* Encodings are verified in pieces, checking for interrupts in between. */
#define VERIFIED_BYTES (1024 * 1024)

/* Takes ownership of the message; returns false for the caller to return. */
static bool
set_fault(JsonError *fault, JsonErrorKind kind, char *message)
{
	fault->kind = kind;
	fault->message = message;
	return false;
}

const char *
json_scan_failed(JsonScan *scan, const char *at, const char *what)
{
	size_t		position = at - scan->text;

	set_fault(scan->fault, JSON_BROKEN, at == scan->end ?
			  psprintf("body is not JSON: truncated after %zu bytes",
					   position) :
			  psprintf("body is not JSON: %s at byte %zu", what, position + 1));
	return NULL;
}

const char *
json_skip_space(const char *at)
{
	while (json_is_space(*at))
		at++;
	return at;
}

static const char *
scan_escape(JsonScan *scan, const char *at)
{
	if (at[1] == '\0' || strchr("\"\\/bfnrtu", at[1]) == NULL)
		return json_scan_failed(scan, at, "invalid escape");
	if (at[1] != 'u')
		return at + 2;
	for (int i = 2; i < 6; i++)
	{
		if (json_hex_value(at[i]) < 0)
			return json_scan_failed(scan, at, "invalid escape");
	}
	return at + 6;
}

static const char *
scan_string(JsonScan *scan, const char *at)
{
	if (*at != '"')
		return json_scan_failed(scan, at, "expected a string");
	at++;
	for (;;)
	{
		while ((unsigned char) *at >= ' ' && *at != '"' && *at != '\\')
			at++;
		if (*at == '"')
			return at + 1;
		if (*at != '\\')
			return json_scan_failed(scan, at, "raw control character");
		at = scan_escape(scan, at);
		if (at == NULL)
			return NULL;
	}
}

static const char *
scan_digits(JsonScan *scan, const char *at)
{
	if (*at < '0' || *at > '9')
		return json_scan_failed(scan, at, "expected a digit");
	while (*at >= '0' && *at <= '9')
		at++;
	return at;
}

static const char *
scan_number(JsonScan *scan, const char *at)
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
	if (at && at - start > JSON_MAX_NUMBER_BYTES)
		scan->odd_numbers = true;
	return at;
}

static const char *
scan_word(JsonScan *scan, const char *at, const char *word)
{
	for (; *word != '\0'; word++, at++)
	{
		if (*at != *word)
			return json_scan_failed(scan, at, "expected a value");
	}
	return at;
}

const char *
json_scan_name(JsonScan *scan, const char *at)
{
	scan->ntokens++;
	at = scan_string(scan, json_skip_space(at));
	if (at == NULL)
		return NULL;
	at = json_skip_space(at);
	return *at == ':' ? at + 1 : json_scan_failed(scan, at, "expected \":\"");
}

/* Members or elements, as long as a comma follows. */
static const char *
scan_items(JsonScan *scan, const char *at, bool named)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (named)
			at = json_scan_name(scan, at);
		if (at)
			at = json_scan_value(scan, at);
		if (at == NULL)
			return NULL;
		at = json_skip_space(at);
		if (*at != ',')
			return at;
		at++;
	}
}

/* An object or an array, from its opening to its closing bracket. */
static const char *
scan_list(JsonScan *scan, const char *at, char close)
{
	if (scan->depth == JSON_MAX_DEPTH)
	{
		set_fault(scan->fault, JSON_UNFIT,
				  psprintf("body is nested more than %d levels deep",
						   JSON_MAX_DEPTH));
		return NULL;
	}
	scan->depth++;
	at = json_skip_space(at + 1);
	if (*at != close)
		at = scan_items(scan, at, close == '}');
	if (at == NULL)
		return NULL;
	if (*at != close)
		return json_scan_failed(scan, at, close == '}' ? "expected \",\" or \"}\"" :
								"expected \",\" or \"]\"");
	scan->depth--;
	return at + 1;
}

const char *
json_scan_value(JsonScan *scan, const char *at)
{
	scan->ntokens++;
	at = json_skip_space(at);
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
				return json_scan_failed(scan, at, "expected a value");
			return scan_number(scan, at);
	}
}

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

bool
json_scan_begin(JsonScan *scan, const char *text, size_t length,
				JsonError *fault)
{
	memset(scan, 0, sizeof(JsonScan));
	scan->text = text;
	scan->end = text + length;
	scan->fault = fault;
	if (length > MaxAllocSize)
		return set_fault(fault, JSON_TOO_LONG,
						 psprintf("body of %zu bytes is too long", length));
	if (length == 0)
		return set_fault(fault, JSON_BROKEN,
						 pstrdup("body is not JSON: it is empty"));
	return true;
}

/* If the text is not JSON because it is not text, report that instead. */
static bool
set_encoding_fault(JsonScan *scan)
{
	int			length = scan->end - scan->text;
	int			valid = count_utf8(scan->text, length);

	if (valid == length)
		return false;
	pfree(scan->fault->message);
	return set_fault(scan->fault, JSON_BROKEN,
					 psprintf("body is not JSON: %s at byte %d",
							  scan->text[valid] == '\0' ? "NUL" : "invalid UTF-8",
							  valid + 1));
}

bool
json_scan_end(JsonScan *scan, const char *at)
{
	bool		is_object = *json_skip_space(scan->text) == '{';

	at = at ? json_skip_space(at) : NULL;
	if (at == scan->end && is_object)
		return true;
	if (at && at != scan->end)
		json_scan_failed(scan, at, "more than one value");
	else if (at)
		set_fault(scan->fault, JSON_UNFIT,
				  pstrdup("body is JSON, but not an object"));
	return set_encoding_fault(scan);
}
