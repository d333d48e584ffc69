/*
 * json.h
 *	  From a text to checked JSON, as tokens.
 *
 * Needs no server but for CHECK_FOR_INTERRUPTS: memory is palloc'd in the
 * current context, faults are returned and never raised.
 */
#ifndef YELP_SYNC_JSON_H
#define YELP_SYNC_JSON_H

#include "json_scan.h"

/*
 * The most tokens that are made of one text, which bounds the memory that they
 * take here, 3 MB, and in PostgreSQL's own reader of JSON.  A program of Yelp's
 * has 60.
 */
#define JSON_MAX_TOKENS		65536

/* The most bytes in which a string may spell one byte, as \uXXXX */
#define JSON_SPELLED_BYTES 6

/* The longest text that a string is compared with, in bytes */
#define JSON_MAX_COMPARED 32

typedef enum JsonType
{
	JSON_OBJECT,
	JSON_ARRAY,
	JSON_STRING,				/* the name of a member, too */
	JSON_NUMBER,
	JSON_BOOLEAN,
	JSON_NULL
} JsonType;

/*
 * A value or the name of a member.  What it holds comes right behind it: a name
 * holds the value.  So these are the members of an object:
 *
 *	   for (name = object + 1; name < object + object->size; name += name->size)
 *		   ... name + 1 is the value ...
 */
typedef struct JsonToken
{
	const char *text;			/* as it is spelled; no quotes, no NUL */
	int			length;			/* of the text in bytes */
	int			size;			/* in tokens: itself and what it holds */
	JsonType	type;
	bool		odd;			/* holds a number that may not fit numeric */
	bool		bad_utf8;		/* holds a string that is not UTF-8 */
} JsonToken;

/* Memory for the tokens of one text after the other; all zero at first. */
typedef struct JsonTokens
{
	JsonToken  *tokens;
	void	   *parsed;			/* the same as jsmn makes them */
	int			capacity;
} JsonTokens;

/* A value's text as it was scanned. */
typedef struct JsonText
{
	const char *text;
	size_t		length;
	int			ntokens;		/* at most JSON_MAX_TOKENS */
	bool		odd_numbers;
} JsonText;

/*
 * The tokens of a value, of which the first holds all others.  They point into
 * the text, and last until the next call.  NULL where jsmn finds others than
 * json_scan.c.
 */
extern const JsonToken *json_tokenize(JsonTokens *tokens, const JsonText *value);

extern void json_free(JsonTokens *tokens);

/*
 * The tokens of NUL-terminated text of the given length in bytes, of which the
 * first is an object and holds all others.  NULL where it is no such text: the
 * fault says why.
 */
extern const JsonToken *json_read(JsonTokens *tokens, const char *text,
								  size_t length, JsonError *fault);

/*
 * Writes the characters that a string stands for, in UTF-8 and without a NUL
 * byte, and returns how many bytes they have: never more than it is spelled
 * with.  Those that no text can hold become '?'.
 */
extern int	json_decode(const JsonToken *string, char *to);

/* Does the string, or the name of a member, stand for this text? */
extern bool json_string_is(const JsonToken *string, const char *text,
						   size_t length);

/*
 * The value of the object's member of this name, of several the last one; NULL
 * where there is none.
 */
extern const JsonToken *json_member(const JsonToken *object, const char *name);

/*
 * What jsonb cannot store of the token and all that it holds, as "holds ...";
 * NULL if it can store everything.
 */
extern const char *json_unstorable(const JsonToken *token);

#endif							/* YELP_SYNC_JSON_H */
