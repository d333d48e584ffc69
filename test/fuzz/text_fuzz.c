/*
 * text_fuzz.c
 *	  Arbitrary text for text_has_controls() and text_shown().
 *
 * The first byte of an input is the number of bytes to show at most.
 */
#include "postgres.h"

#include "text.h"

#include "fuzz.h"

/* Each character of the text that is not hidden is shown, in its place. */
static void
check_characters(const char *at, const char *shown)
{
	while (*shown != '\0')
	{
		int			length = pg_utf_mblen((const unsigned char *) at);
		bool		hidden = text_is_hidden(utf8_to_unicode((const unsigned char *) at));

		fuzz_check(hidden || strncmp(at, shown, length) == 0, "what need not be hidden is shown");
		for (; length > 0 && *shown != '\0'; length--, at++, shown++)
			fuzz_check(!hidden || *shown == ' ', "what is hidden is blank");
	}
}

/* If it is not UTF-8, only the bounds matter. */
static void
check_shown(const char *text, int max)
{
	int			length = strlen(text);
	char	   *shown = text_shown(text, length, max);
	int			shown_length = strlen(shown);

	fuzz_check(shown_length <= Min(length, max), "no more is shown than allowed");
	fuzz_check(shown_length == 0 || shown[shown_length - 1] != ' ', "no blanks are at the end");
	if (!fuzz_is_utf8(text, length))
		return;
	fuzz_check(strcmp(text_shown(shown, shown_length, max), shown) == 0,
			   "what was shown is shown unchanged");
	fuzz_check(!text_has_controls(shown, shown_length), "controls are not shown");
	fuzz_check(fuzz_is_utf8(shown, shown_length), "what is shown is UTF-8");
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
	fuzz_check(!fuzz_is_utf8(text, strlen(text)) ||
			   text_has_controls(text, strlen(text)) == fuzz_has_controls(text),
			   "controls are found");
	text_has_controls(text, size - 1);
	fuzz_free_all();
	return 0;
}
