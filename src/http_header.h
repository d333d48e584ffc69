/*
 * http_header.h
 *	  Parse the response headers that are needed.
 *
 * Pure: does not allocate memory or raise errors, so that it can be called
 * from the callbacks of a library.
 */
#ifndef YELP_SYNC_HTTP_HEADER_H
#define YELP_SYNC_HTTP_HEADER_H

/* Headers of a response; "" if missing */
typedef struct HttpHeaders
{
	size_t		bytes;			/* size of all lines */
	int			ncodings;		/* content and transfer codings to decode */
	char		retry_after[64];
	char		date[64];
} HttpHeaders;

/* Adds a header line; discards those of an interim response. */
extern void http_header_note(HttpHeaders *headers, const char *line, size_t length);

/* Is there more than one coding, or an unknown one? */
extern bool http_header_is_miscoded(const HttpHeaders *headers);

#endif							/* YELP_SYNC_HTTP_HEADER_H */
