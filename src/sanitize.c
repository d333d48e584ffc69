/*
 * sanitize.c
 *	  Text that came from outside, made fit for messages.
 */
#include "postgres.h"

#include "sanitize.h"

/*
 * The length of the control character at a place, 0 if there is none.  Two
 * bytes encode U+0080 to U+009F, which a terminal may obey as well.
 */
static int
control_length(const char *text, const char *end)
{
	unsigned char first = text[0];

	if (first < ' ' || first == 0x7F)
		return 1;
	return first == 0xC2 && end - text >1 && (unsigned char) text[1] < 0xA0 ? 2 : 0;
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

/* How many of a text's bytes are shown: at most so many, whole characters. */
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
		memset(at, ' ', control_length(at, end));
	while (end > shown && end[-1] == ' ')
		*--end = '\0';
	return shown;
}
