/*
 * account.h
 *	  Finding an account among the servers and user mappings.
 */
#ifndef YELP_SYNC_ACCOUNT_H
#define YELP_SYNC_ACCOUNT_H

#include "nodes/pg_list.h"

#include "option.h"

/*
 * Finds the one account with this username that the current user may sync,
 * in memory of the current context.  Raises 42704 when there is none, 42P08 when
 * there are several, and 42501 when there is one only on servers that the
 * current user may not use or that belong to somebody it need not trust.
 */
extern Account *account_find(const char *username);

/*
 * May the current user leave it to this owner of a server where its passwords go?
 * Only to itself, to superusers and to the owner of the extension.
 */
extern bool account_trusts(Oid owner);

/*
 * All accounts on servers that the current user may use, as a list of Account *.
 * A username that is mapped on several of them is there several times.
 */
extern List *account_list(void);

#endif							/* YELP_SYNC_ACCOUNT_H */
