/*
 * row_security.h
 *	  Check what row-level security allows the current user to see and write.
 *
 * Policies filter silently: a sync that does not see all rows of its account,
 * or cannot change those it sees, would leave outdated rows.
 */
#ifndef YELP_SYNC_ROW_SECURITY_H
#define YELP_SYNC_ROW_SECURITY_H

#include "nodes/parsenodes.h"

/*
 * Does row-level security apply to the current user?  Raises 42501 if it does
 * and no policy allows the user one of these privileges (SELECT, INSERT,
 * UPDATE, DELETE) on any row.
 */
extern bool row_security_applies(Oid relid, AclMode rights);

/*
 * Raises 42501 if the table has more rows of the account than the number that
 * the current user sees.  Needs an SPI connection.
 */
extern void row_security_check_seen(Oid table, const char *username, int64 seen);

/* What the user can do about it, as a sentence. */
extern const char *row_security_hint(void);

#endif							/* YELP_SYNC_ROW_SECURITY_H */
