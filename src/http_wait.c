/*
 * http_wait.c
 *	  What a session keeps of libcurl from one sync to the next (connections,
 *	  TLS sessions, sockets), and how it waits for it.
 *
 * All calls that let libcurl do its work are in this file.  Signals are
 * blocked meanwhile: libcurl may start a thread to resolve a name, which
 * inherits the signal mask, so that the server's signal handlers never run in
 * it.
 *
 * Within one call, libcurl, the TLS library and the HTTP/2 library read on for
 * as long as the peer sends, and none of them need call us in between.
 * Therefore a timer interrupts a call that lasts, and its signal handler shuts
 * the sockets down, after which there is nothing more to read.  On Linux, the
 * handler runs in the backend's own thread only, never in one that resolves a
 * name.
 *
 * The sockets are in an epoll set, whose own descriptor is one of three events
 * of a WaitEventSet; the others are the latch and the postmaster's death.  A
 * socket that is closed leaves the epoll set by itself.  Where there is no
 * epoll, libcurl looks at its sockets every POLL_MS.
 *
 * A table tells which sockets are ours.  libcurl 7.88 closes a socket that
 * failed to connect without calling us: its count is released when the
 * descriptor is reused, when no more sockets are available, or at the end.
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/syscall.h>
#endif

#include "http_wait.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/pmsignal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"

/* How long closing connections may take before it becomes impolite */
#define MAX_CLOSE_US (20 * USECS_PER_MSEC)

/*
 * Driven by its sockets alone, libcurl does not notice that an address took
 * its share of connect_timeout, and never tries the next one.
 */
#define PUSH_US (200 * USECS_PER_MSEC)
#define ALL (-2)

/* How often to look at the sockets where there is no epoll */
#ifdef __linux__
#define POLL_MS INT_MAX
#else
#define POLL_MS 10
#endif

#define MIN_SOCKETS 64

/* Files that the server may open in addition to our sockets */
#define HEADROOM 2

/* Reads that empty a socket that was shut down: 64 MB */
#define MAX_DISCARDS 8192

/*
 * A tick is some time of the processor: a peer that keeps a call from
 * returning uses it up, but a busy machine or a suspended process does not.
 */
#define TICK_MS 10

/* Ticks before a call is looked at, and while it may keep others waiting */
#define UNWATCHED_TICKS 2
#define PATIENT_TICKS 100

/* How often connections are looked at between two syncs */
#define IDLE_S 5

typedef struct HttpSocket
{
	ino_t		inode;			/* detects reuse of the descriptor; 0: it is
								 * not ours, and not counted */
	int			wanted;			/* CURL_CSELECT_IN and _OUT, as libcurl said */
} HttpSocket;

HttpPool	http_pool = {.set = -1};

/* Indexed by file descriptor; the signal handler may look at any moment */
static HttpSocket *sockets;
static int	nsockets;

static sigset_t mask_before;

/* Used by the signal handler */
static int	tick_signal = SIGPROF;
static volatile sig_atomic_t calling;
static volatile sig_atomic_t idle;
static volatile sig_atomic_t ticking;
static volatile int call_ticks;
static volatile int64 call_limit;

void
http_wait_reject_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while fetching pages from the API.")));
}

/* ---- our sockets ---- */

static bool
make_room(int fd)
{
	int			size = Max(nsockets, MIN_SOCKETS);
	HttpSocket *old = sockets;
	HttpSocket *table;

	if (fd < nsockets)
		return true;
	while (size <= fd)
		size *= 2;
	table = calloc(size, sizeof(HttpSocket));
	if (table == NULL)
		return false;
	if (old)
		memcpy(table, old, nsockets * sizeof(HttpSocket));
	sockets = table;
	pg_compiler_barrier();
	nsockets = size;
	free(old);
	return true;
}

static bool
is_owned(int fd)
{
	return fd < nsockets && sockets[fd].inode != 0;
}

/* Is it ours, and still open? */
static bool
is_open(int fd)
{
	struct stat status;

	return is_owned(fd) && fstat(fd, &status) == 0 && status.st_ino == sockets[fd].inode;
}

static void
forget_socket(int fd)
{
	if (sockets[fd].inode != 0)
		ReleaseExternalFD();
	sockets[fd].inode = 0;
	sockets[fd].wanted = 0;
}

/*
 * Counts a socket, if that leaves enough descriptors for files that the
 * server opens without reserving them, such as WAL files.
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
acquire_socket(void)
{
	if (acquire_with_headroom())
		return true;
	for (int fd = 0; fd < nsockets; fd++)
	{
		if (!is_open(fd))
			forget_socket(fd);
	}
	return acquire_with_headroom();
}

/*
 * What has arrived could still be read after a shutdown, at least on Linux,
 * and can be megabytes; no more is accepted.  Closing it later resets the
 * connection: a peer whose window was full would otherwise not notice.
 */
static void
shut_socket(int fd)
{
	static const struct linger none = {.l_onoff = 1};
	char		discarded[8192];
	int			nreads = 0;

	(void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	(void) shutdown(fd, SHUT_RDWR);
	while (nreads++ < MAX_DISCARDS &&
		   recv(fd, discarded, sizeof(discarded), MSG_DONTWAIT) > 0)
		;
}

/*
 * Shuts down all sockets, or only those that the peer has closed; returns how
 * many remain.
 */
static int
shut_sockets(bool all)
{
	int			nopen = 0;

	for (int fd = 0; fd < nsockets; fd++)
	{
		if (!is_open(fd))
			continue;
#ifdef POLLRDHUP
		if (!all)
		{
			struct pollfd closed = {.fd = fd,.events = POLLRDHUP};

			if (poll(&closed, 1, 0) <= 0)
			{
				nopen++;
				continue;
			}
		}
#else
		if (!all)
			continue;
#endif
		shut_socket(fd);
	}
	return nopen;
}

/* ---- the watchdog ---- */

#ifdef __linux__

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static timer_t tick_timer;		/* by the thread's processor time */
static timer_t idle_timer;

static bool
make_timers(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID};
	struct sigaction action;

	/* PostgreSQL uses no real-time signals, but another library may */
	for (tick_signal = SIGRTMIN;
		 sigaction(tick_signal, NULL, &action) == 0 && action.sa_handler != SIG_DFL;
		 tick_signal++)
		;
	event.sigev_signo = tick_signal;
	event.sigev_notify_thread_id = (pid_t) syscall(SYS_gettid);
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &tick_timer) != 0)
		return false;
	if (timer_create(CLOCK_MONOTONIC, &event, &idle_timer) == 0)
		return true;
	timer_delete(tick_timer);
	return false;
}

static void
set_tick_timer(void)
{
	static const struct itimerspec once = {.it_value.tv_nsec = TICK_MS * 1000 * 1000};

	(void) timer_settime(tick_timer, 0, &once, NULL);
}

static void
set_idle_timer(time_t seconds)
{
	struct itimerspec once = {.it_value.tv_sec = seconds};

	(void) timer_settime(idle_timer, 0, &once, NULL);
}

#else							/* no timers of threads, and none between two
								 * syncs */

#define make_timers() true
#define set_idle_timer(seconds) ((void) (seconds))

static void
set_tick_timer(void)
{
	static const struct itimerval once = {.it_value.tv_usec = TICK_MS * 1000};

	(void) setitimer(ITIMER_PROF, &once, NULL);
}

#endif

/*
 * Is a signal pending that must not wait?  The one that the postmaster's death
 * sends is SIGPWR on Linux.  Other backends may wait for an answer to SIGUSR1,
 * for example those that drop a database, but most do not.
 */
static bool
is_wanted(void)
{
	static const int signals[] = {
		SIGINT, SIGTERM, SIGQUIT,
#ifdef SIGPWR
		SIGPWR
#endif
	};
	sigset_t	pending;

	if (sigpending(&pending) != 0)
		return false;
	for (int i = 0; i < (int) lengthof(signals); i++)
	{
		if (sigismember(&pending, signals[i]))
			return true;
	}
	return call_ticks >= PATIENT_TICKS && sigismember(&pending, SIGUSR1);
}

/*
 * The timer ticks on between calls that follow each other closely: to set it
 * for each would cost more than most of them do.
 */
static void
tick(pg_attribute_unused() int number)
{
	int			saved_errno = errno;

	ticking = false;
	if (calling)
	{
		call_ticks++;
		if (call_ticks >= UNWATCHED_TICKS && (clock_us() >= call_limit || is_wanted()))
			(void) shut_sockets(true);
		ticking = true;
		set_tick_timer();
	}
	else if (idle && shut_sockets(false) > 0)
		set_idle_timer(IDLE_S);
	errno = saved_errno;
}

static void
prepare_watchdog(void)
{
	static bool prepared = false;
	struct sigaction action = {.sa_handler = tick,.sa_flags = SA_RESTART};

	if (prepared)
		return;
	sigfillset(&action.sa_mask);
	if (!make_timers() || sigaction(tick_signal, &action, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create a timer: %m"),
				 errhint("Raise the limit on pending signals (ulimit -i).")));
	prepared = true;
}

/*
 * Until end_call, blocks all signals and watches over a libcurl call.  If it
 * lasts until the limit (by clock_us), or until a signal is pending that ends
 * the statement, and at least some milliseconds of processor time, all sockets
 * are shut down.
 */
static void
begin_call(int64 limit)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, tick_signal);
	sigprocmask(SIG_SETMASK, &all, &mask_before);
	call_ticks = 0;
	call_limit = limit;
	calling = true;
	if (!ticking)
	{
		ticking = true;
		set_tick_timer();
	}
}

static void
end_call(void)
{
	calling = false;
	sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

/*
 * Is the session between two syncs?  Then connections that the peer closes
 * are shut down some seconds later.
 */
static void
set_idle(bool now_idle)
{
	idle = now_idle;
	if (http_pool.multi)
		set_idle_timer(now_idle ? IDLE_S : 0);
}

/* ---- the set of sockets to wait for ---- */

/* Sets what to wait for on a socket, 0 for nothing; false if out of memory. */
static bool
change_set(pg_attribute_unused() int fd, pg_attribute_unused() int wanted)
{
#ifdef __linux__
	struct epoll_event event = {.data.fd = fd};

	if (wanted & CURL_CSELECT_IN)
		event.events |= EPOLLIN;
	if (wanted & CURL_CSELECT_OUT)
		event.events |= EPOLLOUT;
	if (wanted == 0)
		(void) epoll_ctl(http_pool.set, EPOLL_CTL_DEL, fd, &event);
	else
		return epoll_ctl(http_pool.set, EPOLL_CTL_MOD, fd, &event) == 0 ||
			epoll_ctl(http_pool.set, EPOLL_CTL_ADD, fd, &event) == 0;
#endif
	return true;
}

/* ---- libcurl's callbacks: raise no errors ---- */

/*
 * The descriptor may be that of a socket that was closed without notice.
 * libcurl may mistake the new one for it, and not say again what it waits for.
 */
int
http_wait_open_socket(const struct curl_sockaddr *address)
{
	struct stat status;
	int			wanted;
	int			fd;

	if (!acquire_socket())
		return -1;
	fd = socket(address->family, address->socktype, address->protocol);
	if (fd < 0 || !make_room(fd) || fstat(fd, &status) != 0)
	{
		if (fd >= 0)
			close(fd);
		ReleaseExternalFD();
		return -1;
	}
	(void) fcntl(fd, F_SETFD, FD_CLOEXEC);
	wanted = sockets[fd].wanted;
	forget_socket(fd);
	sockets[fd].wanted = wanted;
	sockets[fd].inode = status.st_ino;
	if (wanted != 0 && !change_set(fd, wanted))
		http_pool.out_of_memory = true;
	return fd;
}

int
http_wait_close_socket(pg_attribute_unused() void *arg, curl_socket_t fd)
{
	if (fd < nsockets)
		forget_socket(fd);
	return close(fd);
}

/*
 * libcurl waits to read from a socket as soon as it is connected.  Its own
 * socket pairs are watched as well, and closed without notice.
 */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, pg_attribute_unused() void *arg,
			 pg_attribute_unused() void *known)
{
	int			wanted = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		wanted |= CURL_CSELECT_IN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		wanted |= CURL_CSELECT_OUT;
	if (wanted != 0 && is_owned(fd) && !is_open(fd))
		forget_socket(fd);
	if (is_owned(fd))
	{
		sockets[fd].wanted = wanted;
		if (wanted & CURL_CSELECT_IN)
			http_pool.connected(easy);
	}
	if (!change_set(fd, wanted))
		http_pool.out_of_memory = true;
	return 0;
}

/* ---- the pool ---- */

static void
check_multi(CURLMcode code)
{
	if (code == CURLM_OUT_OF_MEMORY)
		http_wait_reject_memory();
	if (code != CURLM_OK)
		elog(ERROR, "libcurl failed: %s", curl_multi_strerror(code));
}

void
http_wait_destroy(void)
{
	HttpPool	closed = {
		.route = http_pool.route,.down_in = http_pool.down_in,.set = -1
	};

	set_idle(false);
	if (http_pool.multi)
	{
		/* A peer may still be sending */
		begin_call(clock_us() + MAX_CLOSE_US);
		curl_multi_cleanup(http_pool.multi);
		end_call();
	}
	if (http_pool.share)
		curl_share_cleanup(http_pool.share);
	for (int fd = 0; fd < nsockets; fd++)
		forget_socket(fd);
	if (http_pool.events)
		FreeWaitEventSet(http_pool.events);
	if (http_pool.set >= 0)
	{
		close(http_pool.set);
		ReleaseExternalFD();
	}
	curl_slist_free_all(http_pool.headers);
	http_pool = closed;
}

static void
create_pool(void)
{
	static bool initialized = false;
	int			acquired = 0;

	prepare_watchdog();
	/* Do not allow our TLS session keys to be exported */
	unsetenv("SSLKEYLOGFILE");
	if (!initialized && curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		http_wait_reject_memory();
	initialized = true;
	http_pool.share = curl_share_init();
	http_pool.multi = curl_multi_init();
	http_pool.headers = curl_slist_append(NULL, "Accept-Encoding: gzip");
	if (http_pool.share == NULL || http_pool.multi == NULL || http_pool.headers == NULL ||
		curl_share_setopt(http_pool.share, CURLSHOPT_SHARE,
						  CURL_LOCK_DATA_SSL_SESSION) == CURLSHE_NOMEM)
		http_wait_reject_memory();
	check_multi(compat_multi_quick_exit(http_pool.multi));
	check_multi(curl_multi_setopt(http_pool.multi, CURLMOPT_SOCKETFUNCTION, watch_socket));

	/*
	 * The two sets take a descriptor each.  PostgreSQL's own error for its
	 * one would be an internal one.
	 */
	while (acquired < 2 && AcquireExternalFD())
		acquired++;
#ifdef __linux__
	if (acquired == 2)
		http_pool.set = epoll_create1(EPOLL_CLOEXEC);
#endif
	for (int i = http_pool.set >= 0 ? 1 : 0; i < acquired; i++)
		ReleaseExternalFD();
	if (acquired < 2 || (POLL_MS == INT_MAX && http_pool.set < 0))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("out of file descriptors"),
				 errhint("Raise max_files_per_process.")));
	http_pool.events = compat_create_wait_event_set(3);
	AddWaitEventToSet(http_pool.events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(http_pool.events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (http_pool.set >= 0)
		AddWaitEventToSet(http_pool.events, WL_SOCKET_READABLE, http_pool.set, NULL, NULL);
}

/*
 * Connections over another route are not kept: they would count against the
 * sockets available to this one, and libcurl would reuse a proxy's tunnel
 * without checking the credentials that opened it.
 */
void
http_wait_prepare(const char *route, int max_connections)
{
	set_idle(false);
	if (http_pool.route == NULL || strcmp(http_pool.route, route) != 0)
	{
		http_wait_destroy();
		free(http_pool.route);
		http_pool.down_in = 0;
		http_pool.route = strdup(route);
		if (http_pool.route == NULL)
			http_wait_reject_memory();
	}
	if (http_pool.multi == NULL)
		create_pool();
	check_multi(curl_multi_setopt(http_pool.multi, CURLMOPT_MAXCONNECTS,
								  (long) max_connections));
}

void
http_wait_rest(void)
{
	set_idle(true);
}

void
http_wait_add(CURL *easy)
{
	check_multi(curl_multi_add_handle(http_pool.multi, easy));
}

/* May close the request's connection, which a peer may keep from returning. */
void
http_wait_remove(CURL *easy)
{
	begin_call(clock_us() + MAX_CLOSE_US);
	curl_multi_remove_handle(http_pool.multi, easy);
	end_call();
}

/* ---- waiting ---- */

/*
 * The time when a libcurl call must have returned: when the first request must
 * have ended, or the statement.
 */
static int64
next_limit(void)
{
	static const TimeoutId timeouts[] = COMPAT_ENDING_TIMEOUTS;
	int64		limit = http_pool.deadline;

	for (int i = 0; i < (int) lengthof(timeouts); i++)
	{
		if (get_timeout_active(timeouts[i]))
			limit = Min(limit, clock_us() + get_timeout_finish_time(timeouts[i]) -
						GetCurrentTimestamp());
	}
	return limit;
}

/* Lets libcurl process an event, or if fd is ALL, everything. */
static CURLMcode
run_curl(curl_socket_t fd, int what)
{
	CURLMcode	code;
	int			running;

	begin_call(next_limit());
	if (fd == ALL)
		code = compat_run_all(http_pool.multi, &running);
	else
		code = curl_multi_socket_action(http_pool.multi, fd, what, &running);
	end_call();
	return code;
}

void
http_wait_resume(CURL *easy)
{
	begin_call(next_limit());
	(void) curl_easy_pause(easy, CURLPAUSE_CONT);
	end_call();
}

static long
curl_timer(void)
{
	long		timeout = -1;

	check_multi(curl_multi_timeout(http_pool.multi, &timeout));
	return timeout;
}

static void
check_run(CURLMcode code)
{
	if (http_pool.out_of_memory)
		http_wait_reject_memory();
	check_multi(code);
}

/* Lets libcurl process what is due without any event. */
static void
pump(void)
{
	CURLMcode	code = CURLM_OK;

	if (!InterruptPending && curl_timer() == 0)
		code = run_curl(CURL_SOCKET_TIMEOUT, 0);
	if (code == CURLM_OK && !InterruptPending && http_pool.connecting &&
		clock_us() - http_pool.pushed_at > PUSH_US)
	{
		http_pool.pushed_at = clock_us();
		code = run_curl(ALL, 0);
	}
	check_run(code);
}

/*
 * Lets libcurl process the events one by one, so that interrupts are noticed
 * in between.  Events that remain will be reported again.
 */
static void
take_events(void)
{
#ifdef __linux__
	struct epoll_event events[64];
	int			count = epoll_wait(http_pool.set, events, lengthof(events), 0);

	for (int i = 0; i < count && !InterruptPending; i++)
	{
		int			ready = 0;

		if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			ready |= CURL_CSELECT_IN;
		if (events[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			ready |= CURL_CSELECT_OUT;
		check_run(run_curl(events[i].data.fd, ready));
	}
#else
	check_run(run_curl(ALL, 0));
#endif
}

/*
 * Milliseconds to wait at most, rounded up so that the deadline has then
 * passed.  A past deadline may be any number.
 */
static long
wait_time(int64 deadline)
{
	long		timer = curl_timer();
	int64		now = clock_us();
	int64		left = deadline > now ? deadline - now : 0;

	if (http_pool.connecting)
		left = Min(left, PUSH_US);
	left = left / USECS_PER_MSEC + (left % USECS_PER_MSEC > 0);
	return (long) Min(Min(left, POLL_MS), timer < 0 ? INT_MAX : timer);
}

void
http_wait_until(int64 deadline)
{
	WaitEvent	event;

	/* Converting text to another encoding reads the catalogs */
	InvalidateCatalogSnapshotConditionally();
	if (WaitEventSetWait(http_pool.events, wait_time(deadline), &event, 1,
						 compat_wait_event()) == 1 && (event.events & WL_LATCH_SET))
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	take_events();
	pump();
	/* It may be why the sockets were shut, and then nothing has arrived */
	if (!PostmasterIsAlive())
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("terminating connection due to unexpected postmaster exit")));
}
