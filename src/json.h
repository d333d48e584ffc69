/*
 * json.h
 *	  Parse and validate JSON, producing tokens.
 *
 * Needs no server except for CHECK_FOR_INTERRUPTS: memory is palloc'd in the
 * current context, and errors are returned instead of raised.
 */
#ifndef YELP_SYNC_JSON_H
#define YELP_SYNC_JSON_H

#include "json_scan.h"

/*
 * Maximum number of tokens of a text, which limits the memory that they use
 * here, 3 MB, and in PostgreSQL's own JSON parser.  Yelp's programs have 60.
 */
#define JSON_MAX_TOKENS		65536

/*
 * Maximum number of bytes that a string uses to represent one byte, as \uXXXX
 */
#define JSON_SPELLED_BYTES 6

/* Maximum length of the text that a string is compared with, in bytes */
#define JSON_MAX_COMPARED 32

typedef enum JsonType
{
	JSON_OBJECT,
	JSON_ARRAY,
	JSON_STRING,				/* also the name of a member */
	JSON_NUMBER,
	JSON_BOOLEAN,
	JSON_NULL
} JsonType;

/*
 * A value or the name of a member.  Its children follow it immediately; the
 * child of a name is the value.  So these are the members of an object:
 *
 *	   for (name = object + 1; name < object + object->size; name += name->size)
 *		   ... name + 1 is the value ...
 */
typedef struct JsonToken
{
	const char *text;			/* as spelled, without quotes; no NUL */
	int			length;			/* length of the text in bytes */
	int			size;			/* number of tokens, including children */
	JsonType	type;
	bool		odd;			/* contains a number that may not fit
								 * numeric */
	bool		bad_utf8;		/* contains a string that is not UTF-8 */
} JsonToken;

/* Reusable memory for the tokens of a text; initially all zero. */
typedef struct JsonTokens
{
	JsonToken  *tokens;
	void	   *parsed;			/* the tokens as produced by jsmn */
	int			capacity;
} JsonTokens;

/* The text of a value that has been scanned. */
typedef struct JsonText
{
	const char *text;
	size_t		length;
	int			ntokens;		/* at most JSON_MAX_TOKENS */
	bool		odd_numbers;
} JsonText;

/*
 * The tokens of a value; the first one is the parent of all others.  They
 * point into the text, and are valid until the next call.  NULL if jsmn and
 * json_scan.c disagree.
 */
extern const JsonToken *json_tokenize(JsonTokens *tokens, const JsonText *value);

extern void json_free(JsonTokens *tokens);

/*
 * The tokens of NUL-terminated text of the given length in bytes; the first
 * one is an object and the parent of all others.  NULL if the text is
 * something else, with the reason in the fault.
 */
extern const JsonToken *json_read(JsonTokens *tokens, const char *text,
								  size_t length, JsonError *fault);

/*
 * Writes the decoded string, in UTF-8 and without a terminating NUL, and
 * returns its length in bytes, which never exceeds that of the encoded
 * string.  Characters that text cannot contain become '?'.
 */
extern int	json_decode(const JsonToken *string, char *to);

/* Does the string, or the name of a member, decode to this text? */
extern bool json_string_is(const JsonToken *string, const char *text,
						   size_t length);

/*
 * The value of the object's member with this name, the last one if there are
 * several; NULL if there is none.
 */
extern const JsonToken *json_member(const JsonToken *object, const char *name);

/*
 * The reason why jsonb cannot store the token and its children, as "contains
 * ..."; NULL if it can.
 */
extern const char *json_unstorable(const JsonToken *token);

#endif							/* YELP_SYNC_JSON_H */
