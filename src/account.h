/*
 * account.h
 *	  Look up accounts among servers and user mappings.
 */
#ifndef YELP_SYNC_ACCOUNT_H
#define YELP_SYNC_ACCOUNT_H

#include "nodes/pg_list.h"

#include "option.h"

/*
 * Finds the only account with this username that the current user may sync,
 * in the current memory context.  Raises 42704 if there is none, 42P08 if
 * there are several, and 42501 if there is one only on servers that the
 * current user may not use or whose owner is not trusted.
 */
extern Account *account_find(const char *username);

/*
 * Does the current user trust this server owner with its passwords?  Only the
 * user itself, superusers and the owner of the extension are trusted.
 */
extern bool account_trusts(Oid owner);

/*
 * All accounts on servers that the current user may use, as a list of Account
 * *.  A username that is mapped on several servers is listed once for each.
 */
extern List *account_list(void);

#endif							/* YELP_SYNC_ACCOUNT_H */
