/*
 * json_scan.h
 *	  Is a text JSON?
 *
 * Needs no server but for CHECK_FOR_INTERRUPTS; faults are returned and never
 * raised.
 */
#ifndef YELP_SYNC_JSON_SCAN_H
#define YELP_SYNC_JSON_SCAN_H

/* The deepest nesting that is followed; Yelp's pages have six levels. */
#define JSON_MAX_DEPTH		100

/* What a numeric surely holds: its own bounds are far off */
#define JSON_MAX_NUMBER_BYTES	1000

typedef enum JsonErrorKind
{
	JSON_BROKEN,				/* no JSON text, says RFC 8259 */
	JSON_UNFIT,					/* no object, or one that nests too deep */
	JSON_TOO_LONG				/* more bytes or values than are read */
} JsonErrorKind;

typedef struct JsonError
{
	JsonErrorKind kind;
	char	   *message;		/* what is wrong, lower case, no period */
} JsonError;

/*
 * A scan of NUL-terminated text.  Whoever has it go over a part of the text may
 * reset what it counts before.
 */
typedef struct JsonScan
{
	const char *text;
	const char *end;
	int			depth;			/* lists and objects around what comes next */
	int			ntokens;		/* values, and names of members */
	bool		odd_numbers;	/* some number is long or has an exponent */
	JsonError  *fault;
} JsonScan;

/*
 * Is the text of a size that can be counted, and not empty?  False with a fault
 * if it is not.
 */
extern bool json_scan_begin(JsonScan *scan, const char *text, size_t length,
							JsonError *fault);

/*
 * These take the place where something must begin, and return the one behind
 * it, or NULL after a fault: a value, or a member's name with its colon, with
 * white space before it.
 */
extern const char *json_scan_value(JsonScan *scan, const char *at);
extern const char *json_scan_name(JsonScan *scan, const char *at);

/* A fault at this place: what is there, or rather not. */
extern const char *json_scan_failed(JsonScan *scan, const char *at,
									const char *what);

/*
 * The text has been scanned up to here, or there was a fault: NULL.  False
 * where it is no JSON text.
 */
extern bool json_scan_end(JsonScan *scan, const char *at);

extern const char *json_skip_space(const char *at);

static inline bool
json_is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

extern bool json_is_utf8(const char *text, int length);

/* The value of a hexadecimal digit, -1 if it is none. */
static inline int
json_hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

#endif							/* YELP_SYNC_JSON_SCAN_H */
