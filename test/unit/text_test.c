/*
 * text_test.c
 *	  Unit tests of text.c.
 */
#include "postgres.h"

#include "text.h"

#include "tap.h"

static void
check_replaced(const char *name, const char *character, int length)
{
	char		text[16];
	char	   *shown;
	bool		blank = true;

	snprintf(text, sizeof(text), "a%sb", character);
	shown = text_shown(text, strlen(text), 64);
	for (int i = 1; i <= length; i++)
		blank = blank && shown[i] == ' ';
	tap_ok(strlen(character) == (size_t) length && blank && shown[0] == 'a' &&
		   strcmp(shown + length + 1, "b") == 0, "%s is not shown", name);
}

static void
check_kept(const char *name, const char *text)
{
	tap_ok(strcmp(text_shown(text, strlen(text), 64), text) == 0,
		   "%s is shown", name);
}

int
main(void)
{
	check_replaced("escape", "\x1b", 1);
	check_replaced("delete", "\x7f", 1);
	check_replaced("next line, U+0085", "\xc2\x85", 2);
	check_replaced("Arabic letter mark, U+061C", "\xd8\x9c", 2);
	check_replaced("zero-width space, U+200B", "\xe2\x80\x8b", 3);
	check_replaced("zero-width joiner, U+200D", "\xe2\x80\x8d", 3);
	check_replaced("left-to-right mark, U+200E", "\xe2\x80\x8e", 3);
	check_replaced("right-to-left mark, U+200F", "\xe2\x80\x8f", 3);
	check_replaced("line separator, U+2028", "\xe2\x80\xa8", 3);
	check_replaced("paragraph separator, U+2029", "\xe2\x80\xa9", 3);
	check_replaced("left-to-right embedding, U+202A", "\xe2\x80\xaa", 3);
	check_replaced("right-to-left override, U+202E", "\xe2\x80\xae", 3);
	check_replaced("word joiner, U+2060", "\xe2\x81\xa0", 3);
	check_replaced("left-to-right isolate, U+2066", "\xe2\x81\xa6", 3);
	check_replaced("pop directional isolate, U+2069", "\xe2\x81\xa9", 3);
	check_replaced("byte order mark, U+FEFF", "\xef\xbb\xbf", 3);
	check_kept("no-break space", "a\xc2\xa0z");
	check_kept("Arabic", "\xd8\x9b\xd8\x9d\xd8\xa7");
	check_kept("hyphen, U+2010", "a\xe2\x80\x90z");
	check_kept("horizontal ellipsis, U+2026", "a\xe2\x80\xa6z");
	check_kept("euro sign", "\xe2\x82\xac");
	check_kept("a character of four bytes", "\xf0\x9f\x98\x80");
	tap_ok(strcmp(text_shown("a\xe2\x80", 3, 64), "a\xe2\x80") == 0,
		   "a character that is cut off is not read beyond its end");
	return tap_done();
}
