/*
 * json_scan.h
 *	  Check whether a text is JSON.
 *
 * Needs no server except for CHECK_FOR_INTERRUPTS; errors are returned
 * instead of raised.
 */
#ifndef YELP_SYNC_JSON_SCAN_H
#define YELP_SYNC_JSON_SCAN_H

/* Maximum nesting depth; Yelp's pages have six levels. */
#define JSON_MAX_DEPTH		100

/* Digits that surely fit a numeric, whose limits are much higher */
#define JSON_MAX_NUMBER_BYTES	1000

typedef enum JsonErrorKind
{
	JSON_BROKEN,				/* not JSON according to RFC 8259 */
	JSON_UNFIT,					/* not an object, or nested too deeply */
	JSON_TOO_LONG				/* more bytes or values than allowed */
} JsonErrorKind;

typedef struct JsonError
{
	JsonErrorKind kind;
	char	   *message;		/* what is wrong, without a period */
} JsonError;

/*
 * A scan of NUL-terminated text.  A caller that scans only a part of the text
 * may reset the counters before it.
 */
typedef struct JsonScan
{
	const char *text;
	const char *end;
	int			depth;			/* current nesting depth */
	int			ntokens;		/* values, and names of members */
	bool		odd_numbers;	/* there is a long number or an exponent */
	JsonError  *fault;
} JsonScan;

/*
 * Is the size of the text supported?  False, with a fault, if it is empty or
 * too long.
 */
extern bool json_scan_begin(JsonScan *scan, const char *text, size_t length,
							JsonError *fault);

/*
 * These take the position where something must begin, and return the position
 * after it, or NULL after a fault: a value, or a member's name and colon,
 * preceded by optional whitespace.
 */
extern const char *json_scan_value(JsonScan *scan, const char *at);
extern const char *json_scan_name(JsonScan *scan, const char *at);

/* Sets a fault for this position: what was found or expected. */
extern const char *json_scan_failed(JsonScan *scan, const char *at,
									const char *what);

/*
 * The text has been scanned up to this position, or NULL after a fault.
 * False if it is not JSON.
 */
extern bool json_scan_end(JsonScan *scan, const char *at);

extern const char *json_skip_space(const char *at);

static inline bool
json_is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

extern bool json_is_utf8(const char *text, int length);

/* The value of a hexadecimal digit, or -1. */
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
