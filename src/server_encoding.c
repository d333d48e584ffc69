/*
 * server_encoding.c
 *	  Check whether the characters of a text exist in the server's encoding.
 *
 * PostgreSQL's own conversions raise an error for the first character that
 * does not.  As that should only affect a single program, check it first.
 */
#include "postgres.h"

#include "server_encoding.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

/* The function that converts UTF-8 to the server's encoding, if needed */
static Oid	conversion = InvalidOid;

void
server_encoding_prepare(void)
{
	int			encoding = GetDatabaseEncoding();

	if (encoding != PG_UTF8 && encoding != PG_SQL_ASCII)
		conversion = FindDefaultConversionProc(PG_UTF8, encoding);
}

static bool
has_text(const char *utf8, int length)
{
	unsigned char *converted;
	int			done;

	if (!OidIsValid(conversion))
		return true;
	converted = palloc((Size) length * MAX_CONVERSION_GROWTH + 1);
	done = pg_do_encoding_conversion_buf(conversion, PG_UTF8, GetDatabaseEncoding(),
										 (unsigned char *) unconstify(char *, utf8),
										 length, converted,
										 length * MAX_CONVERSION_GROWTH + 1, true);
	pfree(converted);
	return done == length;
}

static bool
has_character(pg_wchar character)
{
	unsigned char utf8[MAX_MULTIBYTE_CHAR_LEN + 1];

	if (character < 0x80)
		return true;
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return false;
	unicode_to_utf8(character, utf8);
	return has_text((char *) utf8, pg_utf_mblen(utf8));
}

/* The four digits of an escape, in text that is valid JSON. */
static pg_wchar
escaped_unit(const char *digits)
{
	char		copy[5];

	strlcpy(copy, digits, sizeof(copy));
	return (pg_wchar) strtoul(copy, NULL, 16);
}

/* The character of the escape at a position, and its length as spelled. */
static pg_wchar
escaped_character(const char *at, const char *end, int *spelled)
{
	pg_wchar	first = escaped_unit(at + 2);

	*spelled = 6;
	if (!is_utf16_surrogate_first(first) || end - at < 12 ||
		at[6] != '\\' || at[7] != 'u')
		return first;
	*spelled = 12;
	return surrogate_pair_to_codepoint(first, escaped_unit(at + 8));
}

static bool
has_escapes(const char *json, int length)
{
	const char *end = json + length;

	for (const char *at = json; (at = memchr(at, '\\', end - at)) != NULL;)
	{
		int			spelled = 2;

		if (at[1] == 'u' && !has_character(escaped_character(at, end, &spelled)))
			return false;
		at += spelled;
	}
	return true;
}

bool
server_encoding_has(const char *json, int length)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return true;
	return has_text(json, length) && has_escapes(json, length);
}
