/*
 * text.c
 *	  Make text from outside suitable for messages.
 */
#include "postgres.h"

#include "text.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"

bool
text_is_blank(pg_wchar c)
{
	return c == ' ' || c == 0xA0 || c == 0x1680 ||
		(c >= 0x2000 && c <= 0x200A) || c == 0x202F || c == 0x205F ||
		c == 0x3000;
}

static bool
is_control(pg_wchar c)
{
	return c < ' ' || (c >= 0x7F && c < 0xA0);
}

/*
 * Soft hyphen, zero-width characters, line and paragraph separators, and
 * bidirectional controls (Unicode Standard Annex 9).
 */
bool
text_is_hidden(pg_wchar c)
{
	return is_control(c) || c == 0xAD || c == 0x61C || c == 0x180E ||
		(c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
		(c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

/*
 * The character at a position, and its length; U+FFFD of a single byte if it
 * is not whole.
 */
static pg_wchar
character_at(const char *at, const char *end, int *length)
{
	*length = pg_utf_mblen((const unsigned char *) at);
	for (int i = 1; i < *length; i++)
	{
		if (at + i >= end || (at[i] & 0xC0) != 0x80)
		{
			*length = 1;
			return 0xFFFD;
		}
	}
	return utf8_to_unicode((const unsigned char *) at);
}

bool
text_has_controls(const char *text, int length)
{
	const char *end = text + length;

	for (const char *at = text; at < end; at += length)
	{
		if (is_control(character_at(at, end, &length)))
			return true;
	}
	return false;
}

char	   *
text_shown(const char *text, int length, int max)
{
	char	   *shown;
	char	   *end;

	if (length > max)
	{
		while (max > 0 && (text[max] & 0xC0) == 0x80)
			max--;
		length = max;
	}
	shown = pnstrdup(text, length);
	end = shown + strlen(shown);
	for (char *at = shown; at < end; at += length)
	{
		if (text_is_hidden(character_at(at, end, &length)))
			memset(at, ' ', length);
	}
	while (end > shown && end[-1] == ' ')
		*--end = '\0';
	return shown;
}

const char *
client_text(const char *text)
{
	int			client = pg_get_client_encoding();
	Oid			conversion;
	StringInfoData fit;
	int			length;

	if (text == NULL || client == PG_UTF8 || client == PG_SQL_ASCII)
		return text;
	conversion = FindDefaultConversionProc(PG_UTF8, client);
	initStringInfo(&fit);
	for (; *text != '\0'; text += length)
	{
		unsigned char converted[MAX_MULTIBYTE_CHAR_LEN * MAX_CONVERSION_GROWTH + 1];

		length = pg_mblen(text);
		if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, client,
										  (unsigned char *) unconstify(char *, text),
										  length, converted, sizeof(converted),
										  true) == length)
			appendBinaryStringInfo(&fit, text, length);
		else
			appendStringInfoChar(&fit, '?');
	}
	return fit.data;
}
