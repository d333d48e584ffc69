/*
 * http_pool.h
 *	  What is kept of libcurl from one sync to the next: connections, TLS
 *	  sessions and sockets.  Only http.c needs to know.
 */
#ifndef YELP_SYNC_HTTP_POOL_H
#define YELP_SYNC_HTTP_POOL_H

#include <curl/curl.h>

#include "compat.h"
#include "http_socket.h"

/* Each backend has one; all in malloc'd memory. */
typedef struct HttpPool
{
	CURLM	   *multi;			/* NULL: there is none now */
	CURLSH	   *share;
	HttpSockets *sockets;
	char	   *route;			/* where the connections lead, and through what */
	bool		out_of_memory;	/* found by a callback */
} HttpPool;

extern HttpPool http_pool;

/*
 * Makes the session fit for requests over a route, of which so many connections
 * are kept: the endpoint, and a proxy with its credentials.  libcurl tells
 * watch_socket what to wait for.  Raises 53200 where there is no memory.
 */
extern void http_pool_prepare(const char *route, int max_connections,
							  curl_socket_callback watch_socket);

/* Closes all connections; never raises. */
extern void http_pool_destroy(void);

/*
 * Waits for sockets, for the latch, for libcurl's own timers or until the
 * deadline (by clock_us), then lets libcurl work on what happened.  Raises
 * what CHECK_FOR_INTERRUPTS raises, and 53200.
 */
extern void http_pool_wait(int64 deadline);

/* Lets libcurl work on what has been asked of it since. */
extern void http_pool_pump(void);

/*
 * Is the call of libcurl to be cut short because a signal waits for its end?
 * For libcurl's callbacks.
 */
extern bool http_pool_is_interrupted(void);

/* Raises what a code of libcurl's means, 53200 where it ran out of memory. */
extern void http_pool_check(CURLMcode code);

/* Raises 53200. */
COMPAT_NORETURN extern void http_pool_reject_memory(void);

#endif							/* YELP_SYNC_HTTP_POOL_H */
