/*
 * json.h
 *	  From a text to checked JSON, as tokens.
 *
 * Needs no server: memory is palloc'd in the current context, faults are
 * returned and never raised.
 */
#ifndef YELP_SYNC_JSON_H
#define YELP_SYNC_JSON_H

/* The deepest nesting that is followed; Yelp's pages have six levels. */
#define JSON_MAX_DEPTH		100

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

typedef enum JsonErrorKind
{
	JSON_BROKEN,				/* no JSON text, says RFC 8259 */
	JSON_UNFIT,					/* no object, or one that nests too deep */
	JSON_TOO_LONG				/* more than a palloc can hold */
} JsonErrorKind;

typedef struct JsonError
{
	JsonErrorKind kind;
	char	   *message;		/* what is wrong, lower case, no period */
} JsonError;

/*
 * The tokens of NUL-terminated text of the given length in bytes, of which the
 * first is an object and holds all others; to be freed with pfree().  NULL
 * where it is no such text: the fault says why.  They point into the text.
 */
extern JsonToken *json_read(const char *text, size_t length,
							JsonError *fault);

extern bool json_is_utf8(const char *text, int length);

/* Where a text that is not UTF-8 breaks that, as a message. */
extern char *json_encoding_error(const char *text, int length);

/*
 * Writes the characters that a string stands for, in UTF-8 and without a NUL
 * byte, and returns how many bytes they have: never more than it is spelled
 * with.  Those that no text can hold become '?'.
 */
extern int	json_decode(const JsonToken *string, char *to);

/*
 * What jsonb cannot store of the token and all that it holds, as "holds ...";
 * NULL if it can store everything.
 */
extern const char *json_unstorable(const JsonToken *token);

#endif							/* YELP_SYNC_JSON_H */
