/*
 * sync_all.h
 *	  Sync several accounts, each in its own transactions.
 */
#ifndef YELP_SYNC_SYNC_ALL_H
#define YELP_SYNC_SYNC_ALL_H

#include "nodes/pg_list.h"

/*
 * Syncs the accounts, a list of usernames as char *, in order of name.  Needs
 * a non-atomic SPI connection, and commits.  Failures are rolled back,
 * recorded and raised as WARNINGs, and listed by HV000 at the end.  A cancel
 * ends the whole call.
 */
extern void sync_all(List *usernames, Oid schema);

#endif							/* YELP_SYNC_SYNC_ALL_H */
