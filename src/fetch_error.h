/*
 * fetch_error.h
 *	  Describe what went wrong with a page, and what that means for the sync.
 */
#ifndef YELP_SYNC_FETCH_ERROR_H
#define YELP_SYNC_FETCH_ERROR_H

#include "compat.h"
#include "http.h"
#include "program_page.h"

typedef enum FetchErrorKind
{
	FETCH_ERROR_RETRY,			/* another attempt may succeed */
	FETCH_ERROR_RATE,			/* rejected because of the request rate */
	FETCH_ERROR_OVERLOAD,		/* rejected because the API is overloaded */
	FETCH_ERROR_DENIED,			/* rejected because of the credentials, it
								 * seems */
	FETCH_ERROR_NO_SOCKET,		/* postponed until other requests have ended */
	FETCH_ERROR_FINAL,			/* this page cannot be fetched */
	FETCH_ERROR_FATAL			/* and neither can any other */
} FetchErrorKind;

/* All texts are UTF-8 and in the current memory context. */
typedef struct FetchError
{
	FetchErrorKind kind;
	int			sqlstate;
	const char *message;		/* what happened, without a period */
	const char *stage;
	char	   *detail;			/* a sentence, or NULL */
	const char *hint;			/* a sentence, or NULL */
} FetchError;

/* Where it happened */
typedef struct FetchErrorPlace
{
	const char *username;
	const char *url;
	int64		offset;
	int			attempt;
	int			attempts;
} FetchErrorPlace;

/* Maximum length of the API's own words in messages, in bytes */
#define API_ERROR_MAX_BYTES 200

/* The API's own words, without control characters; NULL if missing */
typedef struct ApiError
{
	char	   *id;				/* for example RATE_LIMIT */
	char	   *description;
} ApiError;

/*
 * Reads the API's error from NUL-terminated text of the given length in bytes;
 * false if there is none.  Any text is accepted.
 */
extern bool fetch_error_read_api(ApiError *error, const char *text, size_t length);

/*
 * True if the response is not the text of a page, or 204, which stands for an
 * empty one; describes why.  If the
 * credentials were accepted before, 401 and 403 are not about them.
 */
extern bool fetch_error_of_response(FetchError *error, const HttpResponse *response,
									bool accepted_before);

/* Describes why the text of a response is not a page. */
extern void fetch_error_of_page(FetchError *error, const JsonError *problem,
								const HttpResponse *response);

/* The API asked for a longer wait than allowed; both are in milliseconds. */
extern void fetch_error_of_wait(FetchError *error, int64 wait, int64 max_wait);

/* The message, and the detail, which includes the URL. */
extern char *fetch_error_message(const FetchError *error, const FetchErrorPlace *place);
extern char *fetch_error_detail(const FetchError *error, const FetchErrorPlace *place);

/* Raises the error. */
COMPAT_NORETURN extern void fetch_error_raise(const FetchError *error,
											  const FetchErrorPlace *place);

#endif							/* YELP_SYNC_FETCH_ERROR_H */
