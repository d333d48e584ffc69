/*
 * failure.h
 *	  What went wrong with a page, and what that means for the sync.
 */
#ifndef YELP_SYNC_FAILURE_H
#define YELP_SYNC_FAILURE_H

#include "http.h"
#include "page.h"

typedef enum FailureKind
{
	FAILURE_RETRY,				/* another attempt may succeed */
	FAILURE_RATE,				/* refused for the rate of the requests */
	FAILURE_NO_ROOM,			/* given up for the sake of others */
	FAILURE_FINAL,				/* this page cannot be had */
	FAILURE_FATAL				/* and no other would fare better */
} FailureKind;

/* The texts are in the server's encoding and in the current context. */
typedef struct Failure
{
	FailureKind kind;
	int			sqlstate;
	const char *message;		/* what happened: lower case, no period */
	const char *stage;
	char	   *detail;			/* a sentence, or NULL */
	const char *hint;			/* a sentence, or NULL */
} Failure;

/* Where it happened. */
typedef struct FailurePlace
{
	const char *username;
	int64		offset;
	int			attempt;
	int			attempts;
} FailurePlace;

/* True when the response is no page's text; says why. */
extern bool failure_of_response(Failure *failure, const HttpResponse *response);

/* Why the text of a response is no page. */
extern void failure_of_page(Failure *failure, const PageProblem *problem,
							const HttpResponse *response);

/* The API asked for a longer wait than is allowed, both in milliseconds. */
extern void failure_of_wait(Failure *failure, int64 wait, int64 max_wait);

/* All of it as one message, without detail and hint. */
extern char *failure_message(const Failure *failure, const FailurePlace *place);

/* Raises it. */
extern void failure_raise(const Failure *failure, const FailurePlace *place);

#endif							/* YELP_SYNC_FAILURE_H */
