/*
 * text_test.c
 *	  Unit tests of text.c.
 */
#include "postgres.h"

#include "text.h"

#include "tap.h"

#define MAX_SHOWN 8

/* Texts, and how they are shown */
static const char *const texts[][2] = {
	{"a\x1b" "b", "a b"},
	{"a\x7f" "b", "a b"},
	{"a\xc2\x85" "b", "a  b"},
	{"a\xe2\x80\x8b" "b", "a   b"},
	{"a\xe2\x80\xae" "b", "a   b"},
	{"a\xef\xbb\xbf" "b", "a   b"},
	{"\xd8\x9b\xd8\x9d\xd8\xa7", "\xd8\x9b\xd8\x9d\xd8\xa7"},
	{"\xe2\x82\xac", "\xe2\x82\xac"},
	{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
	{"a\xe2\x80", "a\xe2\x80"},
	{"\xe2\x1b[2J", "\xe2 [2J"},
	{"12345678", "12345678"},
	{"1234567\xc3\xa9", "1234567"},
	{"12345678\x80", "1234567"},
	{"123 \x01\xc2\x85", "123"},
	{" ", ""},
};

/* Each kind of character, and its neighbors */
static const struct
{
	const char *kind;
	pg_wchar	characters[24];
}			kinds[] = {

	{"hidden", {0x01, 0x1F, 0x7F, 0x80, 0x9F, 0xAD, 0x61C, 0x180E, 0x200B, 0x200F, 0x2028, 0x202E,
	0x2060, 0x206F, 0xFEFF}},
	{"blank", {0x20, 0xA0, 0x1680, 0x2000, 0x200A, 0x202F, 0x205F, 0x3000}},
	{"plain", {0x21, 0x7E, 0xA1, 0xAC, 0xAE, 0x61B, 0x61D, 0x167F, 0x1681, 0x180D, 0x180F, 0x1FFF,
	0x2010, 0x2027, 0x2030, 0x205E, 0x2070, 0x2FFF, 0x3001, 0xFEFE, 0xFF00}},
};

int
main(void)
{
	for (int i = 0; i < (int) lengthof(texts); i++)
		tap_is_text(text_shown(texts[i][0], strlen(texts[i][0]), MAX_SHOWN), texts[i][1],
					"\"%s\" is shown", texts[i][1]);
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		for (const pg_wchar *c = kinds[i].characters; *c != 0; c++)
			tap_is_text(text_is_hidden(*c) ? "hidden" : text_is_blank(*c) ? "blank" : "plain",
						kinds[i].kind, "U+%04X", *c);
	}
	tap_ok(text_has_controls("a\xc2\x80", 3) && !text_has_controls("a\xc2\x80", 2),
		   "a control character of two bytes, and half of it");
	return tap_done();
}
