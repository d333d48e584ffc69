/*
 * http.h
 *	  Concurrent HTTP GET requests in a backend; each is a single attempt.
 */
#ifndef YELP_SYNC_HTTP_H
#define YELP_SYNC_HTTP_H

typedef struct HttpClient HttpClient;

/* Settings of a client; all strings must live as long as the client. */
typedef struct HttpSettings
{
	const char *endpoint;		/* prefix of all URLs */
	const char *username;		/* for Basic authentication, in UTF-8 */
	const char *password;
	const char *ca_file;		/* NULL: the system's certificates */
	const char *proxy;			/* NULL: none */
	const char *proxy_user;		/* in UTF-8; NULL: no authentication */
	const char *proxy_password;
	bool		http2;
	int			concurrency;	/* maximum number of requests in flight */
	int			connect_timeout;	/* milliseconds */
	int			timeout;		/* milliseconds, for the whole request */
	int			max_body;		/* bytes, after decompression */
} HttpSettings;

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
	HTTP_LARGE_BODY,			/* body exceeds max_body */
	HTTP_LARGE_HEADERS,			/* headers exceed a fixed limit */
	HTTP_NO_ROOM,				/* header too large, or out of memory */
	HTTP_BAD_CODING,			/* multiple codings, or an unknown one */
	HTTP_UNDECODABLE,			/* body does not match its coding */
	HTTP_NO_SOCKET,				/* out of file descriptors */
	HTTP_NO_BUFFER				/* given up: too many other bodies are
								 * buffered */
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
	int			status;			/* 0 if there is none */
	const char *body;			/* NUL-terminated */
	size_t		length;			/* of the body, in bytes */
	const char *content_type;	/* header value, or NULL */
	const char *retry_after;
	const char *date;
	const char *redirect;		/* redirect target, or NULL */
	int			os_error;		/* errno of a failed connection, or 0 */
} HttpResponse;

/*
 * Creates a client in the current memory context.  If the context is reset
 * because of an error or a cancel, all resources of the client are released,
 * including the session's connections.  Raises 53200 if out of memory.
 */
extern HttpClient *http_open(const HttpSettings *settings);

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

/* Returns a finished request, if there is one. */
extern bool http_next(HttpClient *client, HttpResponse *response);

/* Total size of all bodies as received, before any decompression. */
extern int64 http_received_bytes(const HttpClient *client);

#endif							/* YELP_SYNC_HTTP_H */
