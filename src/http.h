/*
 * http.h
 *	  Many HTTP GET requests at once inside a backend; each is one attempt.
 */
#ifndef YELP_SYNC_HTTP_H
#define YELP_SYNC_HTTP_H

typedef struct HttpClient HttpClient;

/* How to ask; the texts must live as long as the client. */
typedef struct HttpSettings
{
	const char *endpoint;		/* the URL that all requests begin with */
	const char *username;		/* for Basic authentication, in UTF-8 */
	const char *password;
	const char *ca_file;		/* NULL: the system's certificates */
	const char *proxy;			/* NULL: none */
	const char *proxy_user;		/* in UTF-8; NULL: it asks for none */
	const char *proxy_password;
	bool		http2;
	int			concurrency;	/* requests in flight at most */
	int			connect_timeout;	/* milliseconds */
	int			timeout;		/* milliseconds, the whole request */
	int			max_body;		/* bytes, after decompression */
} HttpSettings;

typedef enum HttpError
{
	HTTP_ANSWERED = 0,			/* with whatever status */
	HTTP_UNREACHABLE,			/* no address, no connection, no TLS */
	HTTP_BAD_CA_FILE,			/* we know nobody */
	HTTP_UNTRUSTED,				/* the certificate is by nobody we know */
	HTTP_WRONG_HOST,			/* it is for another host */
	HTTP_UNTRUSTED_PROXY,		/* the same of the proxy's certificate */
	HTTP_WRONG_PROXY,
	HTTP_DENIED_BY_PROXY,		/* it wants other credentials, or any */
	HTTP_BROKEN,				/* time-out, reset, cut answer */
	HTTP_LARGE_BODY,			/* over the limit that was set */
	HTTP_LARGE_HEADERS,			/* they exceed a fixed limit */
	HTTP_NO_ROOM,				/* for a header: too long, or no memory */
	HTTP_BAD_CODING,			/* several codings, or an unknown one */
	HTTP_UNDECODABLE,			/* the body is not in the coding that it names */
	HTTP_NO_SOCKET,				/* out of file descriptors */
	HTTP_NO_BUFFER				/* given up: too many other bodies wait */
} HttpError;

typedef enum HttpStage
{
	HTTP_RESOLVE,				/* the name of the host */
	HTTP_CONNECT,
	HTTP_TLS,
	HTTP_SEND,
	HTTP_RECEIVE
} HttpStage;

/* What happened to a request; the texts live until the next call of http_next. */
typedef struct HttpResponse
{
	int			slot;
	HttpError	failure;
	HttpStage	stage;			/* how far it came */
	const char *message;		/* what went wrong, where something did */
	bool		timed_out;
	bool		lost_kept;		/* a connection from before ended under it */
	bool		refused;		/* a new connection was refused or reset */
	int			status;			/* 0 where none came */
	const char *body;			/* NUL-terminated */
	size_t		length;			/* of the body in bytes */
	const char *content_type;	/* a header's value, or NULL */
	const char *retry_after;
	const char *date;
	const char *redirect;		/* where the answer points to, or NULL */
	int			os_error;		/* errno of a failed connection, or 0 */
} HttpResponse;

/*
 * Makes a client in the current memory context.  When the context goes, by an
 * error or a cancel, all that the client holds goes with it, the session's
 * connections included.  Raises 53200 where there is no memory.
 */
extern HttpClient *http_open(const HttpSettings *settings);

/*
 * Gives everything back but the connections, which the session's next client
 * takes; not even these where one has gone silent.
 */
extern void http_close(HttpClient *client);

/* Gives back what an error left open, if anything; never raises. */
extern void http_release(void);

/*
 * Starts a request.  The slot, 0 to concurrency - 1, is the caller's name for
 * it, free until then.  A new connection is one that no request went over yet:
 * those that are kept may have died unseen.
 */
extern void http_start(HttpClient *client, int slot, const char *url,
					   bool new_connection);

/* Abandons a request that is under way. */
extern void http_abandon(HttpClient *client, int slot);

/*
 * Waits until something happened to a request, or until the deadline (by
 * clock_us).  Raises what CHECK_FOR_INTERRUPTS raises.
 */
extern void http_wait(HttpClient *client, int64 deadline);

/* Takes a finished request, if there is one. */
extern bool http_next(HttpClient *client, HttpResponse *response);

/* Bytes of all bodies that came, as they came: compressed where they were. */
extern int64 http_received_bytes(const HttpClient *client);

#endif							/* YELP_SYNC_HTTP_H */
