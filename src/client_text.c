/*
 * client_text.c
 *	  Messages with text that the client's encoding may lack characters for.
 */
#include "postgres.h"

#include "client_text.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

static bool
is_ascii(const char *text)
{
	for (; *text; text++)
	{
		if (IS_HIGHBIT_SET(*text))
			return false;
	}
	return true;
}

/* How many bytes of the text can be converted; all if none are left. */
static int
convertible(Oid conversion, const char *text, int length)
{
	int			size = length * MAX_CONVERSION_GROWTH + 1;
	unsigned char *converted = palloc(size);
	int			done = pg_do_encoding_conversion_buf(conversion, GetDatabaseEncoding(),
													 pg_get_client_encoding(),
													 (unsigned char *) unconstify(char *, text),
													 length, converted, size, true);

	pfree(converted);
	return done;
}

/*
 * PostgreSQL converts nothing from SQL_ASCII, but checks that the result is
 * valid.
 */
static const char *
checked_text(const char *text)
{
	char	   *copy;

	if (pg_verify_mbstr(pg_get_client_encoding(), text, strlen(text), true))
		return text;
	copy = pstrdup(text);
	for (char *at = copy; *at; at++)
	{
		if (IS_HIGHBIT_SET(*at))
			*at = '?';
	}
	return copy;
}

static const char *
converted_text(const char *text, Oid conversion)
{
	const char *end = text + strlen(text);
	StringInfoData fit;

	initStringInfo(&fit);
	while (text < end)
	{
		int			done = convertible(conversion, text, end - text);

		appendBinaryStringInfo(&fit, text, done);
		text += done;
		if (text < end)
		{
			appendStringInfoChar(&fit, '?');
			text += Min(pg_mblen(text), end - text);
		}
	}
	return fit.data;
}

const char *
client_text(const char *text)
{
	int			server = GetDatabaseEncoding();
	int			client = pg_get_client_encoding();
	Oid			conversion;

	if (text == NULL || client == server || client == PG_SQL_ASCII || is_ascii(text))
		return text;
	if (server == PG_SQL_ASCII)
		return checked_text(text);
	conversion = FindDefaultConversionProc(server, client);
	return OidIsValid(conversion) ? converted_text(text, conversion) : text;
}
