/*
 * fetch_error.h
 *	  Describe what went wrong with a page, and what that means for the sync.
 */
#ifndef YELP_SYNC_FETCH_ERROR_H
#define YELP_SYNC_FETCH_ERROR_H

#include <time.h>

#include "compat.h"
#include "http.h"
#include "program_page.h"

typedef enum FetchErrorKind
{
	/* Another attempt may succeed */
	FETCH_ERROR_RETRY,
	FETCH_ERROR_TIMED_OUT,
	FETCH_ERROR_RATE,			/* rejected because of the request rate */
	FETCH_ERROR_OVERLOAD,		/* rejected because the API is overloaded */
	FETCH_ERROR_LOST,			/* a kept connection failed, and not the API */
	FETCH_ERROR_DENIED,			/* rejected because of the credentials, it
								 * seems */
	FETCH_ERROR_NO_SOCKET,		/* postponed until other requests have ended */

	/* None may */
	FETCH_ERROR_FINAL,			/* this page cannot be fetched */
	FETCH_ERROR_FATAL			/* and neither can any other */
} FetchErrorKind;

/* All texts are UTF-8 and in the current memory context. */
typedef struct FetchError
{
	FetchErrorKind kind;
	int64		wait;			/* that the API asks for, in microseconds; -1:
								 * none */
	int			sqlstate;
	const char *message;		/* what happened, without a period */
	const char *stage;
	char	   *detail;			/* a sentence, or NULL */
	const char *hint;			/* a sentence, or NULL */
} FetchError;

/* Maximum length of each of the API's own words in messages, in bytes */
#define API_ERROR_MAX_BYTES 200

/*
 * The API's error in NUL-terminated text of the given length in bytes, as
 * "ID": description, without control characters; or only one of both.  NULL if
 * there is none.  Any text is accepted.
 */
extern char *fetch_error_api_words(const char *text, size_t length);

/*
 * The wait that a response asks for in microseconds, at most ten years; -1 if
 * it is missing, unreadable or not in the future.  Retry-After (RFC 9110,
 * section 10.2.3) has seconds or a date, which is relative to the response's
 * own Date, because the API's clock may be wrong; or else to now, the time of
 * day.  In its place, a 429 may say when the limit is reset: in seconds, or an
 * epoch in seconds or milliseconds.  That is ignored if it is more than
 * max_reset ahead.
 */
extern int64 fetch_error_requested_wait(const HttpResponse *response, int64 max_reset,
										time_t now);

/*
 * True if the response is not a page, or 204, which stands for an empty one;
 * describes why.  The problem is that of its text, or NULL.  If the
 * credentials were accepted before, 401 and 403 are not about them.
 */
extern bool fetch_error_of_response(FetchError *error, const Account *account,
									const HttpResponse *response,
									const JsonError *problem, bool accepted_before);

/*
 * Adds to the message and the detail where it happened, in the current memory
 * context.
 */
extern void fetch_error_locate(FetchError *error, const Account *account, const char *url,
							   int64 offset, int attempt);

/* Raises the error. */
COMPAT_NORETURN extern void fetch_error_raise(const FetchError *error);

#endif							/* YELP_SYNC_FETCH_ERROR_H */
