/*
 * sockets.h
 *	  The sockets of a session: opened with the server's knowledge, and waited
 *	  for together with the latch.
 *
 * Apart from sockets_wait nothing here raises an error, so that all of it can
 * be called from the callbacks of a library.
 */
#ifndef YELP_SYNC_SOCKETS_H
#define YELP_SYNC_SOCKETS_H

#include "storage/latch.h"

typedef struct Sockets Sockets;

typedef struct SocketEvent
{
	int			fd;
	int			events;			/* WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE */
} SocketEvent;

/*
 * NULL when there is no memory.  Sockets are closed by their users before
 * sockets_free.
 */
extern Sockets *sockets_create(void);
extern void sockets_free(Sockets *sockets);

/*
 * Opens and closes a socket that counts against max_files_per_process, as all
 * files of the server do.  sockets_open returns -1 and sets errno, to EMFILE
 * where the server has none to spare.
 */
extern int	sockets_open(Sockets *sockets, int domain, int type, int protocol);
extern int	sockets_close(Sockets *sockets, int fd);

/* Did sockets_open open it? */
extern bool sockets_owns(Sockets *sockets, int fd);

/*
 * Says what to wait for on a socket, 0 for nothing.  A socket that somebody
 * else opened may be closed as soon as nothing is waited for.  False when
 * there is no memory.
 */
extern bool sockets_watch(Sockets *sockets, int fd, int events);

/*
 * Waits until a socket is ready, the latch is set or the time-out (in
 * milliseconds) is over; returns how many events there are.  Raises what
 * CHECK_FOR_INTERRUPTS raises; ends the process when the postmaster is dead.
 */
extern int	sockets_wait(Sockets *sockets, long timeout, SocketEvent *events,
						 int max_events);

#endif							/* YELP_SYNC_SOCKETS_H */
