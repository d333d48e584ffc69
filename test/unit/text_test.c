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

/* Each character of a class, and its neighbors. */
static void
check_classes(void)
{
	static const pg_wchar hidden[] = {
		0x01, 0x1F, 0x7F, 0x80, 0x9F, 0xAD, 0x61C, 0x180E, 0x200B, 0x200F, 0x2028, 0x202E, 0x2060,
		0x206F, 0xFEFF
	};
	static const pg_wchar blank[] = {
		0x20, 0xA0, 0x1680, 0x2000, 0x200A, 0x202F, 0x205F, 0x3000
	};
	static const pg_wchar plain[] = {
		0x21, 0x7E, 0xA1, 0xAC, 0xAE, 0x61B, 0x61D, 0x167F, 0x1681, 0x180D, 0x180F, 0x1FFF, 0x2010,
		0x2027, 0x2030, 0x205E, 0x2070, 0x2FFF, 0x3001, 0xFEFE, 0xFF00
	};

	for (int i = 0; i < (int) lengthof(hidden); i++)
		tap_ok(text_is_hidden(hidden[i]), "U+%04X is hidden", hidden[i]);
	for (int i = 0; i < (int) lengthof(blank); i++)
		tap_ok(text_is_blank(blank[i]) && !text_is_hidden(blank[i]), "U+%04X is blank", blank[i]);
	for (int i = 0; i < (int) lengthof(plain); i++)
		tap_ok(!text_is_blank(plain[i]) && !text_is_hidden(plain[i]), "U+%04X is neither", plain[i]);
}

int
main(void)
{
	check_replaced("escape", "\x1b", 1);
	check_replaced("delete", "\x7f", 1);
	check_replaced("next line, U+0085", "\xc2\x85", 2);
	check_replaced("zero-width space, U+200B", "\xe2\x80\x8b", 3);
	check_replaced("right-to-left override, U+202E", "\xe2\x80\xae", 3);
	check_replaced("byte order mark, U+FEFF", "\xef\xbb\xbf", 3);
	check_kept("Arabic", "\xd8\x9b\xd8\x9d\xd8\xa7");
	check_kept("euro sign", "\xe2\x82\xac");
	check_kept("a character of four bytes", "\xf0\x9f\x98\x80");
	tap_ok(strcmp(text_shown("a\xe2\x80", 3, 64), "a\xe2\x80") == 0,
		   "a character that is cut off is not read beyond its end");
	tap_ok(strcmp(text_shown("\xe2\x1b[2J", 5, 64), "\xe2 [2J") == 0,
		   "a control character in a broken one is not shown");
	tap_ok(text_has_controls("a\xc2\x80", 3) && !text_has_controls("a\xc2\x80", 2),
		   "a control character of two bytes, and half of it");
	check_classes();
	return tap_done();
}
