/*
 * http_watchdog.h
 *	  Ends libcurl calls that a peer keeps from returning. Private to
 *	  http_wait.c.
 */
#ifndef YELP_SYNC_HTTP_WATCHDOG_H
#define YELP_SYNC_HTTP_WATCHDOG_H

/*
 * Shuts down all sockets, or only those that the peer has closed; returns how
 * many remain.  Called by a signal handler, perhaps between any two
 * instructions.
 */
typedef int (*HttpShutSockets) (bool all);

/* Prepares the process; raises 53000 if it can have no timer. */
extern void http_watchdog_prepare(HttpShutSockets shut);

/*
 * Until http_watchdog_stop, blocks all signals and watches over a call.  If it
 * lasts until the limit (by clock_us), or until a signal is pending that ends
 * the statement, and at least some milliseconds of processor time, all sockets
 * are shut down.  Never raises errors.
 */
extern void http_watchdog_start(int64 limit);
extern void http_watchdog_stop(void);

/*
 * Is the session between two syncs?  Then connections that the peer closes
 * are shut down some seconds later.
 */
extern void http_watchdog_idle(bool idle);

#endif							/* YELP_SYNC_HTTP_WATCHDOG_H */
