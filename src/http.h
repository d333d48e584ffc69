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
	HTTP_UNREACHABLE,			/* name resolution, connection or TLS failed */
	HTTP_BAD_CA_FILE,			/* no certificate authorities */
	HTTP_UNTRUSTED,				/* certificate of an unknown authority */
	HTTP_WRONG_HOST,			/* certificate for another host */
	HTTP_UNTRUSTED_PROXY,		/* the same for the proxy's certificate */
	HTTP_WRONG_PROXY,
	HTTP_DENIED_BY_PROXY,		/* proxy requires other or any credentials */
	HTTP_BROKEN,				/* timeout, reset, truncated response */
	HTTP_LARGE_BODY,			/* body exceeds max_page_bytes */
	HTTP_LARGE_HEADERS,			/* headers exceed a fixed limit */
	HTTP_NO_ROOM,				/* header too large, or out of memory */
	HTTP_BAD_CODING,			/* multiple codings, or an unknown one */
	HTTP_UNDECODABLE,			/* body does not match its coding */
	HTTP_NO_SOCKET				/* out of file descriptors */
} HttpError;

typedef enum HttpStage
{
	HTTP_RESOLVE,				/* resolving the host name */
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
	bool		timed_out;
	bool		lost_kept;		/* a kept connection was closed by the peer */
	bool		refused;		/* a new connection was refused or reset */
	bool		plain;			/* the endpoint is http, not https */
	bool		down;			/* the host was already unreachable for another
								 * account of the same statement */
	int			status;			/* 0 if there is none */
	const char *body;			/* NUL-terminated */
	size_t		length;			/* of the body, in bytes */
	const char *content_type;	/* header value, or NULL */
	const char *retry_after;
	const char *date;
	const char *rate_reset;		/* RateLimit-Reset or X-RateLimit-Reset */
	const char *redirect;		/* redirect target, or NULL */
	int			os_error;		/* errno of a failed connection, or 0 */
} HttpResponse;

/*
 * Creates a client in the current memory context; the account must live as
 * long.  If the context is reset because of an error or a cancel, all
 * resources of the client are released, including the session's connections.
 * Raises 53200 if out of memory, 53000 if out of file descriptors or timers.
 */
extern HttpClient *http_open(const Account *account);

/*
 * Releases all resources except for the connections, which the session's next
 * client reuses; if one of them has gone silent, all are closed.
 */
extern void http_close(HttpClient *client);

/* Releases whatever an error left open; never raises errors. */
extern void http_release(void);

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
 * Returns a finished request, if there is one.  Raises 53200 and the errors
 * of CHECK_FOR_INTERRUPTS.
 */
extern bool http_next(HttpClient *client, HttpResponse *response);

/* Total size of all bodies as received, before any decompression. */
extern int64 http_received_bytes(const HttpClient *client);

#endif							/* YELP_SYNC_HTTP_H */
