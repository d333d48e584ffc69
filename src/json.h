/*
 * json.h
 *	  Scan and tokenize JSON.
 *
 * Needs no server except for CHECK_FOR_INTERRUPTS: memory is palloc'd in the
 * current context, and errors are returned instead of raised.
 */
#ifndef YELP_SYNC_JSON_H
#define YELP_SYNC_JSON_H

/* Maximum nesting depth; Yelp's pages have six levels. */
#define JSON_MAX_DEPTH		100

/*
 * Maximum number of values and names of a text, which limits the memory that
 * they use here, 3 MB, and in PostgreSQL's own JSON parser.  Yelp's programs
 * have 60.
 */
#define JSON_MAX_TOKENS		65536

/*
 * Maximum number of digits of a number as numeric spells it, without an
 * exponent; also what the exponents of a value may add to its text, beyond
 * JSON_MAX_GROWTH times its length.
 */
#define JSON_MAX_DIGITS		1000
#define JSON_MAX_GROWTH		4

/*
 * Maximum number of bytes that a string uses to represent one byte, as \uXXXX
 */
#define JSON_SPELLED_BYTES 6

/* Maximum length of the text that a string is compared with, in bytes */
#define JSON_MAX_COMPARED 32

typedef enum JsonErrorKind
{
	JSON_BROKEN,				/* not JSON according to RFC 8259: perhaps
								 * damaged in transit */
	JSON_UNFIT,					/* JSON, but not what was expected */
	JSON_TOO_LARGE				/* more than allowed */
} JsonErrorKind;

typedef struct JsonError
{
	JsonErrorKind kind;
	char	   *message;		/* what is wrong, without a period */
} JsonError;

/* By the first character of most of them */
typedef enum JsonType
{
	JSON_OBJECT = '{',
	JSON_ARRAY = '[',
	JSON_STRING = '"',			/* also the name of a member */
	JSON_NUMBER = '0',
	JSON_BOOLEAN = 't',
	JSON_NULL = 'n'
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
} JsonToken;

/*
 * A scan of NUL-terminated text.  Who scans only a part of it may reset
 * ntokens and too_deep before.
 */
typedef struct JsonScan
{
	const char *text;
	const char *end;
	int			depth;			/* current nesting depth */
	int			ntokens;		/* values, and names of members */
	bool		too_deep;		/* exceeds JSON_MAX_DEPTH */
	JsonError  *error;
} JsonScan;

/*
 * Scans an element, or the value of the member with this name, which begins at
 * a position.  Returns its end, or NULL after an error.
 */
typedef const char *(*JsonReader) (void *arg, const JsonToken *name, const char *at);

/*
 * Checks that NUL-terminated text of the given length in bytes is a JSON
 * object, calling the reader for each of its members.  False after an error,
 * which is described.
 */
extern bool json_scan(JsonScan *scan, const char *text, size_t length,
					  JsonReader read, void *arg, JsonError *error);

/*
 * These scan the value, or the array or object, that begins at a position, and
 * return its end, or NULL after an error.  The reader is called for each
 * element or member.
 */
extern const char *json_scan_value(JsonScan *scan, const char *at);
extern const char *json_scan_list(JsonScan *scan, const char *at, JsonReader read, void *arg);

/* A value that has been scanned as a single token, without its children. */
extern JsonToken json_token(const char *text, const char *end);

/*
 * The tokens of a whole text of the given length in bytes, palloc'd; the first
 * one is the parent of all others, and they point into the text.  NULL if it
 * is not a JSON object in UTF-8, or too large or too deep.
 */
extern const JsonToken *json_read(const char *text, size_t length);

extern bool json_is_utf8(const char *text, int length);

/*
 * Writes the decoded string, in UTF-8 and without a terminating NUL, and
 * returns its length in bytes, which never exceeds that of the encoded
 * string.  Characters that text cannot contain become '?'.
 */
extern int	json_decode(const JsonToken *string, char *to);

/* Does the string, or the name of a member, decode to this text? */
extern bool json_string_is(const JsonToken *string, const char *text);

/*
 * The value of the object's member with this name, the last one if there are
 * several; NULL if there is none.
 */
extern const JsonToken *json_member(const JsonToken *object, const char *name);

/*
 * The reason why jsonb cannot store the value that has been scanned between
 * these positions, or the member, as "contains ..."; NULL if it can.
 */
extern const char *json_unstorable(const char *text, const char *end);

#endif							/* YELP_SYNC_JSON_H */
