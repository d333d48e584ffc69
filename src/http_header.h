/*
 * http_header.h
 *	  The lines of an answer's headers that matter here.
 *
 * Pure: nothing is allocated and nothing is raised, so that all of it can be
 * called from the callbacks of a library.
 */
#ifndef YELP_SYNC_HTTP_HEADER_H
#define YELP_SYNC_HTTP_HEADER_H

/* What was said in the headers of an answer, "" for nothing */
typedef struct HttpHeaders
{
	size_t		bytes;			/* of all lines */
	int			ncodings;		/* of content and transfer, to be undone */
	char		retry_after[64];
	char		date[64];
} HttpHeaders;

/* Takes one line of the headers; those of an interim answer are forgotten. */
extern void http_header_note(HttpHeaders *headers, const char *line, size_t length);

/* Are there more codings than one, or one that is unknown? */
extern bool http_header_is_miscoded(const HttpHeaders *headers);

#endif							/* YELP_SYNC_HTTP_HEADER_H */
