/*
 * http_decode.h
 *	  Decode the body of a response. Private to http.c.
 */
#ifndef YELP_SYNC_HTTP_DECODE_H
#define YELP_SYNC_HTTP_DECODE_H

typedef struct HttpDecoder HttpDecoder;

typedef enum HttpDecoded
{
	DECODED,
	DECODE_BROKEN,				/* not gzip, or cut off */
	DECODE_LARGE
} HttpDecoded;

/* Creates a decoder in the current memory context. */
extern HttpDecoder *http_decode_create(void);

/*
 * Decodes a body of gzip members, up to a size in bytes.  The text is
 * NUL-terminated and lives until the next call.  Raises 53200, and the errors
 * of CHECK_FOR_INTERRUPTS.
 */
extern HttpDecoded http_decode_gzip(HttpDecoder *decoder, const char *data, size_t length,
									size_t max_length, const char **body,
									size_t *body_length);

#endif							/* YELP_SYNC_HTTP_DECODE_H */
