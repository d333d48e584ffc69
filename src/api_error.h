/*
 * api_error.h
 *	  What the API says of an error in the body of its answer.
 *
 * Needs no server: memory is palloc'd in the current context, nothing is raised.
 */
#ifndef YELP_SYNC_API_ERROR_H
#define YELP_SYNC_API_ERROR_H

/* The longest text that is handed out, in bytes */
#define API_ERROR_MAX_BYTES 200

/* UTF-8 without control characters, NULL where the API says nothing of it */
typedef struct ApiError
{
	char	   *id;				/* RATE_LIMIT, say */
	char	   *description;
} ApiError;

/*
 * Reads an error from NUL-terminated text of the given length in bytes; false
 * where there is none in it.  Any text will do.
 */
extern bool api_error_read(ApiError *error, const char *text, size_t length);

#endif							/* YELP_SYNC_API_ERROR_H */
