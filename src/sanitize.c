/*
 * sanitize.c
 *	  Make external text suitable for messages.
 */
#include "postgres.h"

#include "sanitize.h"

/*
 * Is this three-byte character invisible, or does it change how others are
 * displayed: zero-width characters, line and paragraph separators, and
 * bidirectional controls (Unicode Standard Annex 9)?
 */
static bool
is_invisible(uint32 code)
{
	return (code >= 0x200B && code <= 0x200F) ||
		(code >= 0x2028 && code <= 0x202E) ||
		code == 0x2060 || (code >= 0x2066 && code <= 0x2069) ||
		code == 0xFEFF;
}

/*
 * The length of the control character at a position, or 0.  U+0080 to U+009F,
 * encoded in two bytes, can also affect terminals.
 */
static int
control_length(const char *text, const char *end)
{
	unsigned char first = text[0];

	if (first < ' ' || first == 0x7F)
		return 1;
	return first == 0xC2 && end - text >1 && (unsigned char) text[1] < 0xA0 ? 2 : 0;
}

/*
 * The same for all characters that are not shown, including the two-byte
 * U+061C.
 */
static int
hidden_length(const char *text, const char *end)
{
	const unsigned char *at = (const unsigned char *) text;

	if (end - text >= 2 && at[0] == 0xD8 && at[1] == 0x9C)
		return 2;
	if (end - text >= 3 && (at[0] & 0xF0) == 0xE0 &&
		is_invisible((at[0] & 0x0F) << 12 | (at[1] & 0x3F) << 6 | (at[2] & 0x3F)))
		return 3;
	return control_length(text, end);
}

bool
text_has_controls(const char *text, int length)
{
	for (const char *at = text; at < text +length; at++)
	{
		if (control_length(at, text +length) > 0)
			return true;
	}
	return false;
}

/*
 * How many bytes of a text to show: up to the given number, in whole
 * characters.
 */
static int
clip(const char *text, int length, int most)
{
	if (length <= most)
		return length;
	while (most > 0 && (text[most] & 0xC0) == 0x80)
		most--;
	return most;
}

char	   *
text_shown(const char *text, int length, int most)
{
	char	   *shown = pnstrdup(text, clip(text, length, most));
	char	   *end = shown + strlen(shown);

	for (char *at = shown; at < end; at++)
		memset(at, ' ', hidden_length(at, end));
	while (end > shown && end[-1] == ' ')
		*--end = '\0';
	return shown;
}
