/*
 * http_request.h
 *	  A single request: the libcurl callbacks while it is in flight, and its
 *	  result. Private to http.c.
 */
#ifndef YELP_SYNC_HTTP_REQUEST_H
#define YELP_SYNC_HTTP_REQUEST_H

#include <curl/curl.h>

#include "http.h"
#include "http_header.h"

/*
 * Failure recorded by a callback; for all others, there is libcurl's error
 * code
 */
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
	REQUEST_FAILED				/* together with the request that resolves */
} HttpRequestState;

/* Bodies received in whole or in part and not yet processed */
typedef struct HttpBuffers
{
	size_t		used;			/* size of all bodies */
	size_t		max_used;
	size_t		max_body;		/* maximum size of one body */
} HttpBuffers;

typedef struct HttpRequest
{
	int			slot;
	CURL	   *easy;			/* NULL until the slot is used */
	HttpRequestState state;
	HttpBuffers *buffers;		/* shared by all requests */

	/* How far it has come */
	bool		proxied;
	bool		https_proxy;
	bool		resolved;		/* the name is resolved */
	bool		connected;		/* connected, perhaps without TLS */
	bool		ready;			/* ready for use */

	/* The response */
	HttpHeaders headers;
	char	   *body;			/* malloc'd */
	size_t		length;
	size_t		capacity;

	/* What went wrong */
	bool		silent;			/* a kept connection timed out */
	CallbackError callback_error;
	char		message[CURL_ERROR_SIZE];
} HttpRequest;

/*
 * Creates the request's easy handle.  Raises 53200, or HV000 if libcurl does
 * not support an option; even then, http_request_free must be called.
 */
extern void http_request_prepare(HttpRequest *request, const HttpSettings *settings,
								 HttpBuffers *buffers);

/* Resets the request; a buffer of normal size is kept. */
extern void http_request_forget(HttpRequest *request);

/* Frees the handle and the buffer; never raises errors. */
extern void http_request_free(HttpRequest *request);

/* How far has it come? */
extern HttpStage http_request_stage(HttpRequest *request);

/*
 * Describes the result, given libcurl's error code.  Strings live until the
 * request is reset or restarted.  Raises 53200.
 */
extern void http_request_describe(HttpRequest *request, CURLcode code,
								  HttpResponse *response);

/* libcurl's socket callback for the multi handle: what to wait for */
extern int	http_request_watch_socket(CURL *easy, curl_socket_t fd, int what,
									  void *arg, void *known);

#endif							/* YELP_SYNC_HTTP_REQUEST_H */
