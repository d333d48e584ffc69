/*
 * session.c
 *	  What is kept of libcurl from one sync to the next: connections, TLS
 *	  sessions and sockets.
 *
 * All calls that let libcurl work are in this file.  Signals are blocked
 * meanwhile: libcurl may start a thread to resolve a name, which inherits the
 * mask, so that none of the server's handlers ever runs on it.
 */
#include "postgres.h"

#include <signal.h>

#include "session.h"

#include "miscadmin.h"

#include "clock.h"

Session		session;

void
session_destroy(void)
{
	if (session.multi)
		curl_multi_cleanup(session.multi);
	if (session.share)
		curl_share_cleanup(session.share);
	if (session.sockets)
		sockets_free(session.sockets);
	free(session.endpoint);
	memset(&session, 0, sizeof(session));
}

void
session_reject_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("libcurl could not make a handle.")));
}

static void
create_session(const char *endpoint)
{
	static bool initialized = false;

	if (!initialized && curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		session_reject_memory();
	initialized = true;

	session.endpoint = strdup(endpoint);
	session.sockets = sockets_create();
	session.share = curl_share_init();
	session.multi = curl_multi_init();
	if (!session.endpoint || !session.sockets || !session.share || !session.multi)
	{
		session_destroy();
		session_reject_memory();
	}
	curl_share_setopt(session.share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
}

/*
 * Connections to another endpoint are not kept: they would count against the
 * sockets that this one may have.
 */
void
session_prepare(const char *endpoint, int max_connections,
				curl_socket_callback watch_socket)
{
	if (session.multi && strcmp(session.endpoint, endpoint) != 0)
		session_destroy();
	if (session.multi == NULL)
		create_session(endpoint);
	curl_multi_setopt(session.multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(session.multi, CURLMOPT_MAXCONNECTS,
					  (long) max_connections);
}

/* Milliseconds until libcurl wants to be called, or -1. */
static long
curl_timer(void)
{
	long		timeout = -1;

	curl_multi_timeout(session.multi, &timeout);
	return timeout;
}

/* One call that lets libcurl work; nothing in it may raise an error. */
static CURLMcode
run_action(curl_socket_t fd, int what)
{
	CURLMcode	code;
	int			running;
	sigset_t	all;
	sigset_t	before;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	code = curl_multi_socket_action(session.multi, fd, what, &running);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return code;
}

/*
 * Lets libcurl work on the events, one after the other; an interrupt comes
 * first, for one of them can mean megabytes to decompress.  What is left then
 * will be told again.
 */
static CURLMcode
run_curl(const SocketEvent *events, int nevents)
{
	CURLMcode	code = CURLM_OK;

	for (int i = 0; i < nevents && code == CURLM_OK && !InterruptPending; i++)
	{
		int			what = 0;

		if (events[i].events & WL_SOCKET_READABLE)
			what |= CURL_CSELECT_IN;
		if (events[i].events & WL_SOCKET_WRITEABLE)
			what |= CURL_CSELECT_OUT;
		code = run_action(events[i].fd, what);
	}
	if (code == CURLM_OK && curl_timer() == 0)
		code = run_action(CURL_SOCKET_TIMEOUT, 0);
	return code;
}

static void
pump_events(const SocketEvent *events, int nevents)
{
	CURLMcode	code = run_curl(events, nevents);

	if (session.out_of_memory)
		session_reject_memory();
	if (code != CURLM_OK)
		elog(ERROR, "libcurl failed: %s", curl_multi_strerror(code));
}

void
session_pump(void)
{
	pump_events(NULL, 0);
}

/* Milliseconds to wait at most, rounded up so that the time has come then. */
static long
wait_time(int64 deadline)
{
	long		timer = curl_timer();
	int64		left = Max(deadline - clock_us(), 0);

	left = (left + USECS_PER_MSEC - 1) / USECS_PER_MSEC;
	return (long) Min(left, timer < 0 ? INT_MAX : timer);
}

void
session_wait(int64 deadline)
{
	SocketEvent events[64];
	int			nevents = sockets_wait(session.sockets, wait_time(deadline),
									   events, lengthof(events));

	pump_events(events, nevents);
}
