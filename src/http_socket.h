/*
 * http_socket.h
 *	  The sockets of a session: opened with the server's knowledge, and waited
 *	  for together with the latch.
 *
 * Apart from http_socket_wait nothing here raises an error, so that all of it can
 * be called from the callbacks of a library.
 */
#ifndef YELP_SYNC_HTTP_SOCKET_H
#define YELP_SYNC_HTTP_SOCKET_H

#include "storage/latch.h"

typedef struct HttpSockets HttpSockets;

typedef struct HttpSocketEvent
{
	int			fd;
	int			events;			/* WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE */
} HttpSocketEvent;

/*
 * NULL when there is no memory.  HttpSockets are closed by their users before
 * http_socket_free.
 */
extern HttpSockets *http_socket_create(void);
extern void http_socket_free(HttpSockets *sockets);

/*
 * Opens and closes a socket that counts against max_files_per_process, as all
 * files of the server do.  http_socket_open returns -1 and sets errno, to EMFILE
 * where the server has none to spare.
 */
extern int	http_socket_open(HttpSockets *sockets, int domain, int type, int protocol);
extern int	http_socket_close(HttpSockets *sockets, int fd);

/* Did http_socket_open open it? */
extern bool http_socket_owns(HttpSockets *sockets, int fd);

/*
 * Says what to wait for on a socket, 0 for nothing.  A socket that somebody
 * else opened may be closed as soon as nothing is waited for.  False when
 * there is no memory.
 */
extern bool http_socket_watch(HttpSockets *sockets, int fd, int events);

/*
 * Waits until a socket is ready, the latch is set or the time-out (in
 * milliseconds) is over; returns how many events there are.  Raises what
 * CHECK_FOR_INTERRUPTS raises; ends the process when the postmaster is dead.
 */
extern int	http_socket_wait(HttpSockets *sockets, long timeout, HttpSocketEvent *events,
							 int max_events);

#endif							/* YELP_SYNC_HTTP_SOCKET_H */
