/*
 * no_server.h
 *	  What modules take from the server, where there is none.
 *
 * palloc and its like come from PostgreSQL's libraries for clients.
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
