/*
 * http_pool.h
 *	  The libcurl state that is kept from one sync to the next: connections,
 *	  TLS sessions and sockets. Private to http.c.
 */
#ifndef YELP_SYNC_HTTP_POOL_H
#define YELP_SYNC_HTTP_POOL_H

#include <curl/curl.h>

#include "compat.h"
#include "http_socket.h"

/* There is one per backend, in malloc'd memory. */
typedef struct HttpPool
{
	CURLM	   *multi;			/* NULL: none at present */
	CURLSH	   *share;
	HttpSockets *sockets;
	char	   *route;			/* where the connections lead, and the proxy */
	bool		out_of_memory;	/* set by a callback */
} HttpPool;

extern HttpPool http_pool;

/*
 * Prepares the session for requests over a route, which is the endpoint and a
 * proxy with its credentials; up to the given number of connections is kept.
 * libcurl calls watch_socket to say what to wait for.  Raises 53200 if out of
 * memory.
 */
extern void http_pool_prepare(const char *route, int max_connections,
							  curl_socket_callback watch_socket);

/* Closes all connections; never raises errors. */
extern void http_pool_destroy(void);

/*
 * Waits for sockets, the latch, libcurl's own timers or the deadline (by
 * clock_us), then lets libcurl process what happened.  Raises 53200, and the
 * errors of CHECK_FOR_INTERRUPTS.
 */
extern void http_pool_wait(int64 deadline);

/* Lets libcurl process what was requested since the last call. */
extern void http_pool_pump(void);

/*
 * Should the current libcurl call be cut short because of a pending signal?
 * For use in libcurl's callbacks.
 */
extern bool http_pool_is_interrupted(void);

/* Raises an error for a libcurl error code; 53200 if it ran out of memory. */
extern void http_pool_check(CURLMcode code);

/* Raises 53200. */
COMPAT_NORETURN extern void http_pool_reject_memory(void);

#endif							/* YELP_SYNC_HTTP_POOL_H */
