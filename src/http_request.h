/*
 * http_request.h
 *	  One request: what libcurl calls us for while it is under way, and what
 *	  became of it.  Only http.c needs to know.
 */
#ifndef YELP_SYNC_HTTP_REQUEST_H
#define YELP_SYNC_HTTP_REQUEST_H

#include <curl/curl.h>

#include "http.h"
#include "http_header.h"

/* What a callback found; libcurl's own code tells the rest */
typedef enum CallbackError
{
	CALLBACK_OK = 0,
	CALLBACK_NO_SOCKET,
	CALLBACK_LARGE_BODY,
	CALLBACK_NO_BUFFER,
	CALLBACK_LARGE_HEADERS,
	CALLBACK_NO_MEMORY,
	CALLBACK_CODINGS,
	CALLBACK_INTERRUPTED
} CallbackError;

typedef enum HttpRequestState
{
	REQUEST_FREE = 0,
	REQUEST_HELD,				/* until the name is resolved */
	REQUEST_RUNNING,
	REQUEST_FAILED				/* together with the one that resolved */
} HttpRequestState;

/* Bodies that have come, in whole or in part, and that are not yet read */
typedef struct HttpBuffers
{
	size_t		used;			/* bytes of all bodies */
	size_t		max_used;
	size_t		max_body;		/* bytes of one */
} HttpBuffers;

typedef struct HttpRequest
{
	int			slot;
	CURL	   *easy;			/* NULL until the slot is used */
	HttpRequestState state;
	HttpBuffers *buffers;		/* that all requests share */

	/* How far it has come */
	bool		proxied;
	bool		https_proxy;
	bool		resolved;		/* the name is known */
	bool		connected;		/* there is a connection, perhaps without TLS */
	bool		ready;			/* it can be used */

	/* The answer */
	HttpHeaders headers;
	char	   *body;			/* malloc'd */
	size_t		length;
	size_t		capacity;

	/* What went wrong */
	bool		silent;			/* a connection from before timed out */
	CallbackError callback_error;
	char		message[CURL_ERROR_SIZE];
} HttpRequest;

/*
 * Gives the request its easy handle.  Raises 53200, or HV000 where libcurl
 * lacks what is asked of it; then http_request_free still has to be called.
 */
extern void http_request_prepare(HttpRequest *request, const HttpSettings *settings,
								 HttpBuffers *buffers);

/* Makes it as good as new; a buffer of a usual size is kept. */
extern void http_request_forget(HttpRequest *request);

/* Gives handle and buffer back; never raises. */
extern void http_request_free(HttpRequest *request);

/* How far has it come? */
extern HttpStage http_request_stage(HttpRequest *request);

/*
 * What became of it, by libcurl's code.  The texts live until it is forgotten
 * or started again.  Raises 53200.
 */
extern void http_request_describe(HttpRequest *request, CURLcode code,
								  HttpResponse *response);

/* libcurl's callback for the multi handle: what to wait for on a socket */
extern int	http_request_watch_socket(CURL *easy, curl_socket_t fd, int what,
									  void *arg, void *known);

#endif							/* YELP_SYNC_HTTP_REQUEST_H */
