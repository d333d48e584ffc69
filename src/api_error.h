/*
 * api_error.h
 *	  Extract the API's error message from the body of a response.
 *
 * Needs no server: memory is palloc'd in the current context, and no errors
 * are raised.
 */
#ifndef YELP_SYNC_API_ERROR_H
#define YELP_SYNC_API_ERROR_H

/* Maximum length of the returned texts, in bytes */
#define API_ERROR_MAX_BYTES 200

/* UTF-8 without control characters; NULL if the API does not provide it */
typedef struct ApiError
{
	char	   *id;				/* for example RATE_LIMIT */
	char	   *description;
} ApiError;

/*
 * Reads an error from NUL-terminated text of the given length in bytes; false
 * if there is none.  Any text is accepted.
 */
extern bool api_error_read(ApiError *error, const char *text, size_t length);

#endif							/* YELP_SYNC_API_ERROR_H */
