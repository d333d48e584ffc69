/*
 * http_socket.c
 *	  The sockets of a session: counted as the server's files, and waited for
 *	  together with the latch.
 *
 * A table indexed by file descriptor has the events wanted for each socket
 * and the events that the wait event set waits for.  The two are synchronized
 * right before a wait.  Events can be added to a set and modified, but not
 * removed.  Therefore a connection that is idle between two requests stays in
 * the set, and the set is rebuilt only when one of its sockets is closed,
 * when an idle one becomes ready, or when it is full.
 *
 * libcurl 7.88 closes a socket that failed to connect without calling us.
 * Its count is released when the descriptor is reused, when no more sockets
 * are available, or at the end.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http_socket.h"

#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"

/* The latch and postmaster death */
#define FIXED_EVENTS 2

#define MIN_CAPACITY 64

/* Files that the server may open in addition to our sockets */
#define HEADROOM 2

typedef struct HttpSocket
{
	bool		owned;			/* opened by http_socket_open, and counted */
	ino_t		inode;			/* detects reuse of the descriptor */
	int			wanted;			/* events to wait for */
	int			watched;			/* events that the set waits for */
	int			position;		/* in the set, if watched is not 0 */
} HttpSocket;

struct HttpSockets
{
	/* Indexed by file descriptor */
	HttpSocket *table;
	int			size;

	/* Sockets whose wanted events changed since the last wait */
	int		   *changed;
	int			nchanged;
	int			changed_size;

	/* The wait event set; NULL if it must be rebuilt */
	WaitEventSet *set;
	int			capacity;
	int			used;
	bool		stale;			/* has sockets that must be removed */
};

HttpSockets *
http_socket_create(void)
{
	return calloc(1, sizeof(HttpSockets));
}

void
http_socket_free(HttpSockets *sockets)
{
	if (sockets->set)
		FreeWaitEventSet(sockets->set);
	for (int fd = 0; fd < sockets->size; fd++)
	{
		if (sockets->table[fd].owned)
			ReleaseExternalFD();
	}
	free(sockets->table);
	free(sockets->changed);
	free(sockets);
}

static bool
make_room(HttpSockets *sockets, int fd)
{
	int			size = Max(sockets->size, MIN_CAPACITY);
	HttpSocket *table;

	if (fd < sockets->size)
		return true;
	while (size <= fd)
		size *= 2;
	table = realloc(sockets->table, size * sizeof(HttpSocket));
	if (table == NULL)
		return false;
	memset(table + sockets->size, 0, (size - sockets->size) * sizeof(HttpSocket));
	sockets->table = table;
	sockets->size = size;
	return true;
}

/* The socket is about to be closed, or may be closed at any time. */
static void
forget(HttpSockets *sockets, int fd)
{
	if (sockets->table[fd].watched != 0)
		sockets->stale = true;
	memset(&sockets->table[fd], 0, sizeof(HttpSocket));
}

/* Is the socket that we opened with this descriptor still open? */
static bool
is_open(HttpSockets *sockets, int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && status.st_ino == sockets->table[fd].inode;
}

/* Releases the count of a socket that was closed without notice. */
static void
release_if_lost(HttpSockets *sockets, int fd)
{
	if (!sockets->table[fd].owned || is_open(sockets, fd))
		return;
	ReleaseExternalFD();
	forget(sockets, fd);
}

/*
 * Counts a socket, if that leaves enough descriptors for files that the
 * server opens without reserving them (such as WAL files) and for a new wait
 * event set.
 */
static bool
acquire_with_headroom(void)
{
	int			acquired = 0;
	bool		enough;

	while (acquired < 1 + HEADROOM && AcquireExternalFD())
		acquired++;
	enough = acquired == 1 + HEADROOM;
	for (int i = enough ? 1 : 0; i < acquired; i++)
		ReleaseExternalFD();
	return enough;
}

static bool
acquire_count(HttpSockets *sockets)
{
	if (acquire_with_headroom())
		return true;
	for (int fd = 0; fd < sockets->size; fd++)
		release_if_lost(sockets, fd);
	return acquire_with_headroom();
}

/*
 * A descriptor that we believed to be open was closed without notice. libcurl
 * may mistake the new socket for the old one, and not say again what it waits
 * for.
 */
static void
note_open(HttpSockets *sockets, int fd)
{
	HttpSocket *sock = &sockets->table[fd];
	struct stat status;

	if (sock->owned)
		ReleaseExternalFD();
	if (sock->watched != 0)
		sockets->stale = true;
	sock->watched = 0;
	sock->owned = true;
	sock->inode = fstat(fd, &status) == 0 ? status.st_ino : 0;
}

int
http_socket_open(HttpSockets *sockets, int domain, int type, int protocol)
{
	int			fd;

	if (!acquire_count(sockets))
		return -1;
	fd = socket(domain, type, protocol);
	if (fd < 0 || !make_room(sockets, fd))
	{
		if (fd >= 0)
			close(fd);
		ReleaseExternalFD();
		return -1;
	}
	(void) fcntl(fd, F_SETFD, FD_CLOEXEC);
	note_open(sockets, fd);
	return fd;
}

int
http_socket_close(HttpSockets *sockets, int fd)
{
	if (http_socket_owns(sockets, fd))
		ReleaseExternalFD();
	if (fd < sockets->size)
		forget(sockets, fd);
	return close(fd);
}

bool
http_socket_owns(HttpSockets *sockets, int fd)
{
	return fd < sockets->size && sockets->table[fd].owned;
}

static bool
note_change(HttpSockets *sockets, int fd)
{
	if (sockets->nchanged == sockets->changed_size)
	{
		int			size = Max(sockets->changed_size * 2, MIN_CAPACITY);
		int		   *changed = realloc(sockets->changed, size * sizeof(int));

		if (changed == NULL)
			return false;
		sockets->changed = changed;
		sockets->changed_size = size;
	}
	sockets->changed[sockets->nchanged++] = fd;
	return true;
}

bool
http_socket_watch(HttpSockets *sockets, int fd, int events)
{
	if (!make_room(sockets, fd))
		return false;
	if (events != 0)
		release_if_lost(sockets, fd);	/* the descriptor was reused by another
										 * file */
	if (events == 0 && !sockets->table[fd].owned)
	{
		forget(sockets, fd);
		return true;
	}
	sockets->table[fd].wanted = events;
	return events == 0 || note_change(sockets, fd);
}

static void
add_to_set(HttpSockets *sockets, int fd)
{
	HttpSocket *sock = &sockets->table[fd];

	sock->position = AddWaitEventToSet(sockets->set, sock->wanted, fd, NULL, NULL);
	sock->watched = sock->wanted;
	sockets->used++;
}

static int
count_wanted(HttpSockets *sockets)
{
	int			count = 0;

	for (int fd = 0; fd < sockets->size; fd++)
		count += sockets->table[fd].wanted != 0;
	return count;
}

/* A set uses a descriptor: PostgreSQL's own error would be an internal one. */
static void
require_descriptor(void)
{
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("out of file descriptors"),
				 errhint("Raise max_files_per_process.")));
	ReleaseExternalFD();
}

static void
make_set(HttpSockets *sockets)
{
	if (sockets->set)
		FreeWaitEventSet(sockets->set);
	sockets->set = NULL;
	sockets->capacity = Max(2 * (count_wanted(sockets) + FIXED_EVENTS),
							MIN_CAPACITY);
	require_descriptor();
	sockets->set = compat_create_wait_event_set(sockets->capacity);
	sockets->used = FIXED_EVENTS;
	sockets->stale = false;
	AddWaitEventToSet(sockets->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(sockets->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int fd = 0; fd < sockets->size; fd++)
	{
		sockets->table[fd].watched = 0;
		if (sockets->table[fd].wanted)
			add_to_set(sockets, fd);
	}
}

/* Updates the set with the changes; false if it is full. */
static bool
update_set(HttpSockets *sockets)
{
	for (int i = 0; i < sockets->nchanged; i++)
	{
		int			fd = sockets->changed[i];
		HttpSocket *sock = &sockets->table[fd];

		if (sock->wanted == 0 || sock->wanted == sock->watched)
			continue;
		if (sock->watched != 0)
		{
			ModifyWaitEvent(sockets->set, sock->position, sock->wanted, NULL);
			sock->watched = sock->wanted;
		}
		else if (sockets->used < sockets->capacity)
			add_to_set(sockets, fd);
		else
			return false;
	}
	return true;
}

static void
prepare_set(HttpSockets *sockets)
{
	if (sockets->set == NULL || sockets->stale || !update_set(sockets))
		make_set(sockets);
	sockets->nchanged = 0;
}

int
http_socket_wait(HttpSockets *sockets, long timeout, HttpSocketEvent *events, int max_events)
{
	WaitEvent	occurred[64];
	int			noccurred;
	int			nevents = 0;

	prepare_set(sockets);
	noccurred = WaitEventSetWait(sockets->set, timeout, occurred,
								 Min(max_events, (int) lengthof(occurred)),
								 compat_wait_event());
	for (int i = 0; i < noccurred; i++)
	{
		int			fd = occurred[i].fd;

		if (occurred[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (sockets->table[fd].wanted == 0)
			sockets->stale = true;
		else
		{
			events[nevents].fd = fd;
			events[nevents++].events = occurred[i].events;
		}
	}
	CHECK_FOR_INTERRUPTS();
	return nevents;
}
