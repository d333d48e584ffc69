/*
 * account.h
 *	  Look up accounts among servers and user mappings, and add them.
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
 * All accounts on servers that the current user may use, as a list of Account
 * * by username and server.  A username that is mapped on several servers is
 * listed once for each.
 */
extern List *account_list(void);

/*
 * Creates a user mapping for the current user, and its server unless there is
 * one of that name; NULL: named like the account.  No error shows the
 * statement.  Raises 22004 if the username or password is NULL, 42710 if the
 * account exists, 42501 without the rights, and the errors of option_validate.
 */
extern void account_add(const char *username, const char *password,
						const char *server);

/*
 * The usernames, as char *, of all accounts that are mapped for the current
 * user, whether it may use their servers or not; there may be duplicates.
 */
extern List *account_usernames(void);

/* The same; raises 42704 if there are none. */
extern List *account_require_usernames(void);

#endif							/* YELP_SYNC_ACCOUNT_H */
