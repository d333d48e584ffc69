/*
 * http.h
 *	  Concurrent HTTP GET requests in a backend; each is a single attempt.
 */
#ifndef YELP_SYNC_HTTP_H
#define YELP_SYNC_HTTP_H

#include "option.h"

typedef struct HttpClient HttpClient;

typedef enum HttpError
{
	HTTP_ANSWERED = 0,			/* with any status */
	HTTP_BROKEN,				/* no connection, or a truncated response */
	HTTP_TIMED_OUT,
	HTTP_REFUSED,				/* a new connection was refused or reset */
	HTTP_LOST,					/* a kept connection was closed by the peer */
	HTTP_DOWN,					/* unreachable, as it was for another account
								 * of the same statement */
	HTTP_BAD_CA_FILE,			/* no certificate authorities */
	HTTP_UNTRUSTED,				/* certificate of an unknown authority */
	HTTP_WRONG_HOST,			/* certificate for another host */
	HTTP_UNTRUSTED_PROXY,		/* the same for the proxy's certificate */
	HTTP_WRONG_PROXY,
	HTTP_DENIED_BY_PROXY,		/* proxy requires other or any credentials */
	HTTP_LARGE_BODY,			/* body exceeds max_page_bytes */
	HTTP_LARGE_HEADERS,			/* headers exceed a fixed limit */
	HTTP_NO_ROOM,				/* header too large, or out of memory */
	HTTP_BAD_CODING,			/* multiple codings, or an unknown one */
	HTTP_UNDECODABLE,			/* body does not match its coding */
	HTTP_NO_SOCKET				/* out of file descriptors */
} HttpError;

typedef enum HttpStage
{
	HTTP_RESOLVE = 0,			/* resolving the host name */
	HTTP_CONNECT,
	HTTP_TLS,
	HTTP_SEND,
	HTTP_RECEIVE
} HttpStage;

/* The result of a request; strings live until the next call of http_next. */
typedef struct HttpResponse
{
	int			slot;
	HttpError	failure;
	HttpStage	stage;			/* last stage reached */
	const char *message;		/* error message, if any */
	int			status;			/* 0 if there is none */
	const char *body;			/* NUL-terminated */
	size_t		length;			/* of the body, in bytes */
	const char *content_type;	/* header value, or NULL */
	const char *retry_after;
	const char *date;
	const char *rate_reset;		/* RateLimit-Reset or X-RateLimit-Reset */
	const char *redirect;		/* redirect target, or NULL */
} HttpResponse;

static inline bool
http_is_https(const char *url)
{
	return pg_strncasecmp(url, "https:", 6) == 0;
}

/*
 * Creates a client in the current memory context; the account must live as
 * long.  Raises 53200 if out of memory, 53000 if out of file descriptors or
 * timers.
 */
extern HttpClient *http_open(const Account *account);

/*
 * Releases all resources except for the connections, which the session's next
 * client reuses; if one of them has gone silent, all are closed.  Returns the
 * total size of all bodies as received, before any decompression.
 */
extern int64 http_close(HttpClient *client);

/*
 * Releases whatever an error left open, including the session's connections;
 * never raises errors.
 */
extern void http_release(void);

/*
 * May a request be started now?  Until the name is resolved, only one at a
 * time: for others, libcurl would start a thread each.
 */
extern bool http_may_start(const HttpClient *client);

/*
 * Starts a request.  The slot, from 0 to concurrency - 1, identifies it and
 * must be free.  A new connection is one that no request has used yet,
 * because kept ones may have been closed without notice.
 */
extern void http_start(HttpClient *client, int slot, const char *url,
					   bool new_connection);

/* Abandons a request in flight. */
extern void http_abandon(HttpClient *client, int slot);

/*
 * Waits for activity on a request, or until the deadline (by clock_us).
 * Raises the errors of CHECK_FOR_INTERRUPTS.
 */
extern void http_wait(HttpClient *client, int64 deadline);

/*
 * Returns a finished request, or NULL if there is none.  Raises 53200 and the
 * errors of CHECK_FOR_INTERRUPTS.
 */
extern const HttpResponse *http_next(HttpClient *client);

#endif							/* YELP_SYNC_HTTP_H */
