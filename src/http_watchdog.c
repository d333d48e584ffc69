/*
 * http_watchdog.c
 *	  Ends libcurl calls that a peer keeps from returning.
 *
 * Within one call, libcurl, the TLS library and the HTTP/2 library read on for
 * as long as the peer sends, and none of them need call us in between.
 * Therefore a timer interrupts a call that lasts, and its signal handler shuts
 * the sockets down, after which there is nothing more to read.
 *
 * On Linux, the handler runs in the backend's own thread only, never in one
 * that resolves a name.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "http_watchdog.h"

#include "compat.h"

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

static bool prepared;
static HttpShutSockets shut_sockets;
static sigset_t mask_before;

/* Used by the signal handler */
static int	tick_signal = SIGPROF;
static volatile sig_atomic_t calling;
static volatile sig_atomic_t idle;
static volatile sig_atomic_t ticking;
static volatile int call_ticks;
static volatile int64 call_limit;

/* ---- timers ---- */

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

/* ---- the signal handler ---- */

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

/* ---- for http_wait.c ---- */

void
http_watchdog_prepare(HttpShutSockets shut)
{
	struct sigaction action = {.sa_handler = tick,.sa_flags = SA_RESTART};

	if (prepared)
		return;
	shut_sockets = shut;
	sigfillset(&action.sa_mask);
	if (!make_timers() || sigaction(tick_signal, &action, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create a timer: %m"),
				 errhint("Raise the limit on pending signals (ulimit -i).")));
	prepared = true;
}

void
http_watchdog_start(int64 limit)
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

void
http_watchdog_stop(void)
{
	calling = false;
	sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

void
http_watchdog_idle(bool now_idle)
{
	if (!prepared)
		return;
	idle = now_idle;
	set_idle_timer(now_idle ? IDLE_S : 0);
}
