/*
 * json_text.h
 *	  JSON in C, without escaped quotes.
 */
#ifndef YELP_SYNC_JSON_TEXT_H
#define YELP_SYNC_JSON_TEXT_H

#include "lib/stringinfo.h"

/*
 * A text with the value for each "$", double quotes for single ones, and a NUL
 * byte for each "`".  A "^" marks a position and is left out.
 */
typedef struct MarkedText
{
	char	   *text;
	int			length;
	int			marked;			/* the byte behind the mark, from 1 */
} MarkedText;

static inline MarkedText
make_text(const char *from, const char *value)
{
	StringInfoData buffer;
	MarkedText	text = {0};

	initStringInfo(&buffer);
	for (; *from != '\0'; from++)
	{
		if (*from == '$')
			appendStringInfoString(&buffer, value);
		else
			appendStringInfoChar(&buffer, *from);
	}
	/* What follows the text is not zero, so that reading it is noticed */
	enlargeStringInfo(&buffer, 1);
	text.text = buffer.data;
	for (char *at = buffer.data; *at != '\0'; at++)
	{
		if (*at == '^')
			text.marked = text.length + 1;
		else
			text.text[text.length++] = *at == '\'' ? '"' : *at == '`' ? '\0' : *at;
	}
	text.text[text.length] = '\0';
	text.text[text.length + 1] = '"';
	return text;
}

static inline char *
json(const char *from)
{
	return make_text(from, "").text;
}

/* A text repeated between two others. */
static inline char *
repeated(const char *before, const char *text, int count, const char *after)
{
	StringInfoData result;

	initStringInfo(&result);
	appendStringInfoString(&result, before);
	enlargeStringInfo(&result, count * strlen(text));
	for (int i = 0; i < count; i++)
		appendStringInfoString(&result, text);
	appendStringInfoString(&result, after);
	return result.data;
}

#endif							/* YELP_SYNC_JSON_TEXT_H */
