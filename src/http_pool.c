/*
 * http_pool.c
 *	  The libcurl state that is kept from one sync to the next: connections,
 *	  TLS sessions and sockets.
 *
 * All calls that let libcurl do its work are in this file.  Signals are
 * blocked during these calls: libcurl may start a thread to resolve a name,
 * which inherits the signal mask, so that the server's signal handlers never
 * run in it.
 */
#include "postgres.h"

#include <signal.h>

#include "http_pool.h"

#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "compat.h"
#include "curl_compat.h"

/*
 * Minimum duration of a libcurl call before pending signals cut it short:
 * most signals do not require that.
 */
#define UNINTERRUPTED_US (20 * USECS_PER_MSEC)

HttpPool	http_pool;

/* Time of the last libcurl call, by clock_us */
static int64 action_started;

void
http_pool_destroy(void)
{
	if (http_pool.multi)
		curl_multi_cleanup(http_pool.multi);
	if (http_pool.share)
		curl_share_cleanup(http_pool.share);
	if (http_pool.sockets)
		http_socket_free(http_pool.sockets);
	free(http_pool.route);
	memset(&http_pool, 0, sizeof(http_pool));
}

void
http_pool_reject_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while fetching pages from the API.")));
}

void
http_pool_check(CURLMcode code)
{
	if (code == CURLM_OUT_OF_MEMORY)
		http_pool_reject_memory();
	if (code != CURLM_OK)
		elog(ERROR, "libcurl failed: %s", curl_multi_strerror(code));
}

/*
 * Without these settings, libcurl could block the backend or wait needlessly.
 */
static void
check_option(CURLMcode code)
{
	if (code != CURLM_OK)
		http_pool_destroy();
	http_pool_check(code);
}

/* False if out of memory. */
static bool
make_handles(const char *route)
{
	http_pool.route = strdup(route);
	http_pool.sockets = http_socket_create();
	http_pool.share = curl_share_init();
	http_pool.multi = curl_multi_init();
	return http_pool.route && http_pool.sockets && http_pool.share && http_pool.multi &&
		curl_share_setopt(http_pool.share, CURLSHOPT_SHARE,
						  CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_NOMEM;
}

static void
create_pool(const char *route)
{
	static bool initialized = false;

	/* Do not allow our TLS session keys to be exported */
	unsetenv("SSLKEYLOGFILE");
	if (!initialized && curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		http_pool_reject_memory();
	initialized = true;

	if (!make_handles(route))
	{
		http_pool_destroy();
		http_pool_reject_memory();
	}
	check_option(compat_multi_quick_exit(http_pool.multi));
}

/*
 * Connections over another route are not kept: they would count against the
 * sockets available to this one, and libcurl would reuse a proxy's tunnel
 * without checking the credentials that opened it.
 */
void
http_pool_prepare(const char *route, int max_connections,
				  curl_socket_callback watch_socket)
{
	if (http_pool.multi && strcmp(http_pool.route, route) != 0)
		http_pool_destroy();
	if (http_pool.multi == NULL)
		create_pool(route);
	check_option(curl_multi_setopt(http_pool.multi, CURLMOPT_SOCKETFUNCTION,
								   watch_socket));
	check_option(curl_multi_setopt(http_pool.multi, CURLMOPT_MAXCONNECTS,
								   (long) max_connections));
}

/* Milliseconds until libcurl wants to be called, or -1. */
static long
curl_timer(void)
{
	long		timeout = -1;

	http_pool_check(curl_multi_timeout(http_pool.multi, &timeout));
	return timeout;
}

/*
 * While signals are blocked, nothing else shows that a timeout has passed.  A
 * pending SIGALRM does not: client_connection_check_interval, for example,
 * does not end a statement.
 */
static bool
is_timed_out(void)
{
	static const TimeoutId timeouts[] = COMPAT_ENDING_TIMEOUTS;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < (int) lengthof(timeouts); i++)
	{
		if (get_timeout_active(timeouts[i]) && now >= get_timeout_finish_time(timeouts[i]))
			return true;
	}
	return false;
}

bool
http_pool_is_interrupted(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGQUIT};
	sigset_t	pending;

	if (clock_us() - action_started < UNINTERRUPTED_US)
		return false;
	if (QueryCancelPending || ProcDiePending || is_timed_out())
		return true;
	if (sigpending(&pending) != 0)
		return false;
	for (int i = 0; i < (int) lengthof(signals); i++)
	{
		if (sigismember(&pending, signals[i]))
			return true;
	}
	return false;
}

/* Calls a libcurl function that does its work; must not raise errors. */
static CURLMcode
run_action(curl_socket_t fd, int what)
{
	CURLMcode	code;
	int			running;
	sigset_t	all;
	sigset_t	before;

	action_started = clock_us();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	code = curl_multi_socket_action(http_pool.multi, fd, what, &running);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return code;
}

/*
 * Lets libcurl process the events one by one, checking for interrupts first,
 * because a single event can involve decompressing megabytes.  Events that
 * remain will be reported again.
 */
static CURLMcode
run_curl(const HttpSocketEvent *events, int nevents)
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
	if (code == CURLM_OK && !InterruptPending && curl_timer() == 0)
		code = run_action(CURL_SOCKET_TIMEOUT, 0);
	return code;
}

static void
pump_events(const HttpSocketEvent *events, int nevents)
{
	CURLMcode	code = run_curl(events, nevents);

	if (http_pool.out_of_memory)
		http_pool_reject_memory();
	http_pool_check(code);
}

void
http_pool_pump(void)
{
	pump_events(NULL, 0);
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

	left = left / USECS_PER_MSEC + (left % USECS_PER_MSEC > 0);
	return (long) Min(left, timer < 0 ? INT_MAX : timer);
}

void
http_pool_wait(int64 deadline)
{
	HttpSocketEvent events[64];
	int			nevents;

	/* Converting text to another encoding reads the catalogs */
	InvalidateCatalogSnapshotConditionally();
	nevents = http_socket_wait(http_pool.sockets, wait_time(deadline),
							   events, lengthof(events));
	pump_events(events, nevents);
}
