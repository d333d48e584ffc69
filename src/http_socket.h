/*
 * http_socket.h
 *	  The sockets of a session: counted as the server's files, and waited for
 *	  together with the latch.
 *
 * Except for http_socket_wait, none of these functions raises errors, so that
 * they can be called from the callbacks of a library.
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
 * NULL if out of memory.  All sockets must be closed before http_socket_free.
 */
extern HttpSockets *http_socket_create(void);
extern void http_socket_free(HttpSockets *sockets);

/*
 * Open and close a socket that counts against max_files_per_process, like all
 * files of the server. http_socket_open returns -1 and sets errno, to EMFILE
 * if no descriptors are left.
 */
extern int	http_socket_open(HttpSockets *sockets, int domain, int type, int protocol);
extern int	http_socket_close(HttpSockets *sockets, int fd);

/* Was it opened by http_socket_open? */
extern bool http_socket_owns(HttpSockets *sockets, int fd);

/*
 * Sets the events to wait for on a socket, 0 for none.  A socket that was
 * opened by other code may be closed as soon as no events are wanted.  False
 * if out of memory.
 */
extern bool http_socket_watch(HttpSockets *sockets, int fd, int events);

/*
 * Waits until a socket is ready, the latch is set or the timeout (in
 * milliseconds) expires; returns the number of events.  Raises the errors of
 * CHECK_FOR_INTERRUPTS; exits if the postmaster has died.
 */
extern int	http_socket_wait(HttpSockets *sockets, long timeout, HttpSocketEvent *events,
							 int max_events);

#endif							/* YELP_SYNC_HTTP_SOCKET_H */
