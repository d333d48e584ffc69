/*
 * no_server.h
 *	  Stubs for what modules use from the server.
 *
 * palloc and related functions are in PostgreSQL's client libraries.
 */
#ifndef YELP_SYNC_NO_SERVER_H
#define YELP_SYNC_NO_SERVER_H

#include <signal.h>

extern volatile sig_atomic_t InterruptPending;

volatile sig_atomic_t InterruptPending = false;

void		ProcessInterrupts(void);

void
ProcessInterrupts(void)
{
}

#endif							/* YELP_SYNC_NO_SERVER_H */
