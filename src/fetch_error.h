/*
 * fetch_error.h
 *	  What went wrong with a page, and what that means for the sync.
 */
#ifndef YELP_SYNC_FETCH_ERROR_H
#define YELP_SYNC_FETCH_ERROR_H

#include "http.h"
#include "program_page.h"

typedef enum FetchErrorKind
{
	FETCH_ERROR_RETRY,			/* another attempt may succeed */
	FETCH_ERROR_RATE,			/* refused for the rate of the requests */
	FETCH_ERROR_NO_ROOM,		/* given up for the sake of others */
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
	int64		offset;
	int			attempt;
	int			attempts;
} FetchErrorPlace;

/* UTF-8 from outside in the server's encoding; what it lacks becomes "?". */
extern char *fetch_error_text(const char *utf8);

/* True when the response is no page's text; says why. */
extern bool fetch_error_of_response(FetchError *error, const HttpResponse *response);

/* Why the text of a response is no page. */
extern void fetch_error_of_page(FetchError *error, const PageError *problem,
								const HttpResponse *response);

/* The API asked for a longer wait than is allowed, both in milliseconds. */
extern void fetch_error_of_wait(FetchError *error, int64 wait, int64 max_wait);

/* All of it as one message, without detail and hint. */
extern char *fetch_error_message(const FetchError *error, const FetchErrorPlace *place);

/* Raises it. */
extern void fetch_error_raise(const FetchError *error, const FetchErrorPlace *place);

#endif							/* YELP_SYNC_FETCH_ERROR_H */
