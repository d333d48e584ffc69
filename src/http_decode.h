/*
 * http_decode.h
 *	  Decode the body of a response. Private to http.c.
 */
#ifndef YELP_SYNC_HTTP_DECODE_H
#define YELP_SYNC_HTTP_DECODE_H

#include "http.h"

/*
 * Decodes a body with these headers Transfer-Encoding and Content-Encoding,
 * NULL if missing, up to a size in bytes: at most gzip, and for its transfer
 * chunks.  What is decoded is NUL-terminated and in the current memory
 * context, which has all that is allocated; else, body is left alone.  Returns
 * HTTP_ANSWERED, HTTP_BAD_CODING, HTTP_UNDECODABLE or HTTP_LARGE_BODY; raises
 * 53200, and the errors of CHECK_FOR_INTERRUPTS.
 */
extern HttpError http_decode(const char *transfer, const char *coding, const char *data,
							 size_t length, size_t max_length, const char **body,
							 size_t *body_length);

#endif							/* YELP_SYNC_HTTP_DECODE_H */
