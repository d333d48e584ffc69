/*
 * fetch_error.h
 *	  What went wrong with a page, and what that means for the sync.
 */
#ifndef YELP_SYNC_FETCH_ERROR_H
#define YELP_SYNC_FETCH_ERROR_H

#include "compat.h"
#include "http.h"
#include "program_page.h"

typedef enum FetchErrorKind
{
	FETCH_ERROR_RETRY,			/* another attempt may succeed */
	FETCH_ERROR_RATE,			/* refused for the rate of the requests */
	FETCH_ERROR_OVERLOAD,		/* refused because there is too much to do */
	FETCH_ERROR_DENIED,			/* refused for the credentials, it seems */
	FETCH_ERROR_NO_SOCKET,		/* given up until others have ended */
	FETCH_ERROR_NO_BUFFER,		/* given up until others have been read */
	FETCH_ERROR_FINAL,			/* this page cannot be had */
	FETCH_ERROR_FATAL			/* and no other would fare better */
} FetchErrorKind;

/* The texts are in the server's encoding and in the current context. */
typedef struct FetchError
{
	FetchErrorKind kind;
	int			sqlstate;
	const char *message;		/* what happened: lower case, no period */
	const char *stage;
	char	   *detail;			/* a sentence, or NULL */
	const char *hint;			/* a sentence, or NULL */
} FetchError;

/* Where it happened. */
typedef struct FetchErrorPlace
{
	const char *username;
	const char *url;
	int64		offset;
	int			attempt;
	int			attempts;
} FetchErrorPlace;

/* UTF-8 from outside in the server's encoding; what it lacks becomes "?". */
extern char *fetch_error_text(const char *text);

/*
 * True when the response is no page's text; says why.  Where the credentials
 * were accepted before, a denial is no longer about them.
 */
extern bool fetch_error_of_response(FetchError *error, const HttpResponse *response,
									bool accepted_before);

/* Why the text of a response is no page. */
extern void fetch_error_of_page(FetchError *error, const PageError *problem,
								const HttpResponse *response);

/* The API asked for a longer wait than is allowed, both in milliseconds. */
extern void fetch_error_of_wait(FetchError *error, int64 wait, int64 max_wait);

/* The message and the detail, which names the URL. */
extern char *fetch_error_message(const FetchError *error, const FetchErrorPlace *place);
extern char *fetch_error_detail(const FetchError *error, const FetchErrorPlace *place);

/* Raises it. */
COMPAT_NORETURN extern void fetch_error_raise(const FetchError *error,
											  const FetchErrorPlace *place);

#endif							/* YELP_SYNC_FETCH_ERROR_H */
