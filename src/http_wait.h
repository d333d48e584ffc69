/*
 * http_wait.h
 *	  What a session keeps of libcurl from one sync to the next (connections,
 *	  TLS sessions, sockets), and how it waits for it. Private to http.c.
 */
#ifndef YELP_SYNC_HTTP_WAIT_H
#define YELP_SYNC_HTTP_WAIT_H

#include <curl/curl.h>

#include "compat.h"

/* There is one per backend, in malloc'd memory. */
typedef struct HttpPool
{
	CURLM	   *multi;			/* NULL: none at present */
	CURLSH	   *share;
	struct curl_slist *headers; /* to add to each request */
	char	   *route;			/* where the connections lead, and the proxy;
								 * kept when they are closed */
	TimestampTz down_in;		/* start of the statement in which the route
								 * was down, or 0 */
	void		(*connected) (CURL *easy);	/* called during a libcurl call
											 * when a request's socket is
											 * connected */
	bool		out_of_memory;	/* set by a callback */
	int64		deadline;		/* of the request that must end first (by
								 * clock_us) */
	bool		connecting;		/* is any request still connecting? */

	/* Private to http_wait.c */
	int			set;			/* descriptor of the sockets to wait for, or
								 * -1 */
	WaitEventSet *events;		/* that set, the latch and the postmaster */
	int64		pushed_at;		/* see PUSH_US in http_wait.c */
} HttpPool;

extern HttpPool http_pool;

/*
 * Prepares the session for requests over a route, which is the endpoint and a
 * proxy with its credentials; up to the given number of connections is kept.
 * After an error, http_wait_destroy must be called.
 * Raises 53200 if out of memory, and 53000 if out of descriptors or timers.
 */
extern void http_wait_prepare(const char *route, int max_connections);

/* The sync is over: its connections are kept. */
extern void http_wait_rest(void);

/* Closes all connections; never raises errors. */
extern void http_wait_destroy(void);

/* Begin and end a request.  Ending it never raises errors. */
extern void http_wait_add(CURL *easy);
extern void http_wait_remove(CURL *easy);

/* Goes on with a paused request; never raises errors. */
extern void http_wait_resume(CURL *easy);

/*
 * Waits for sockets, the latch, libcurl's own timers or the deadline (by
 * clock_us), then lets libcurl process what happened.  Raises 53200, and the
 * errors of CHECK_FOR_INTERRUPTS.
 */
extern void http_wait_until(int64 deadline);

/*
 * For libcurl's callbacks: open and close a socket that counts against
 * max_files_per_process, like all files of the server.  Opening returns -1
 * and sets errno, to EMFILE if no descriptors are left.
 */
extern int	http_wait_open_socket(const struct curl_sockaddr *address);
extern int	http_wait_close_socket(void *arg, curl_socket_t fd);

/* Raises 53200. */
COMPAT_NORETURN extern void http_wait_reject_memory(void);

#endif							/* YELP_SYNC_HTTP_WAIT_H */
