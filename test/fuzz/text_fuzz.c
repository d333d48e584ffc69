/*
 * text_fuzz.c
 *	  Any text at all to text_has_controls() and text_shown().
 *
 * The first byte of an input is how many bytes are to be shown at most.
 */
#include "postgres.h"

#include "text.h"

#include "mb/pg_wchar.h"

#include "fuzz.h"

static bool
is_utf8(const char *text)
{
	int			length = strlen(text);

	return pg_encoding_verifymbstr(PG_UTF8, text, length) == length;
}

/* Controls, and the characters of the classes Cf, Zl and Zp that are hidden. */
static bool
is_hidden(pg_wchar c)
{
	return c < ' ' || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C || c == 0x180E ||
		(c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
		(c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

/* Each character of the text that is not hidden is shown, in its place. */
static void
check_characters(const char *at, const char *shown)
{
	while (*shown != '\0')
	{
		int			length = pg_utf_mblen((const unsigned char *) at);
		bool		hidden = is_hidden(utf8_to_unicode((const unsigned char *) at));

		fuzz_check(hidden || strncmp(at, shown, length) == 0,
				   "what need not be hidden is shown");
		for (; length > 0 && *shown != '\0'; length--, at++, shown++)
			fuzz_check(!hidden || *shown == ' ', "what is hidden is blank");
	}
}

/* Of what is not UTF-8 no more is asked than to stay within bounds. */
static void
check_shown(const char *text, int most)
{
	int			length = strlen(text);
	char	   *shown = text_shown(text, length, most);
	int			shown_length = strlen(shown);

	fuzz_check(shown_length <= Min(length, most), "no more is shown than may be");
	fuzz_check(shown_length == 0 || shown[shown_length - 1] != ' ',
			   "no blanks are at the end");
	if (!is_utf8(text))
		return;
	fuzz_check(strcmp(text_shown(shown, shown_length, most), shown) == 0,
			   "what is shown is shown as it is");
	fuzz_check(!text_has_controls(shown, shown_length), "controls are not shown");
	fuzz_check(is_utf8(shown), "what is shown is UTF-8");
	check_characters(text, shown);
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text;

	if (size == 0)
		return 0;
	text = fuzz_text(data + 1, size - 1);

	check_shown(text, data[0]);
	text_has_controls(text, size - 1);

	fuzz_free_all();
	return 0;
}
