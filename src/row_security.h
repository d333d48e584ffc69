/*
 * row_security.h
 *	  What row-level security lets the current user see and write of a table.
 *
 * Policies filter in silence: a sync that does not see all rows of its account, or
 * may not change those it sees, would leave what is stale.
 */
#ifndef YELP_SYNC_ROW_SECURITY_H
#define YELP_SYNC_ROW_SECURITY_H

#include "nodes/parsenodes.h"

/*
 * Does row-level security apply to the current user there?  Raises 42501 where it
 * does and no policy lets the user exercise one of these rights (SELECT, INSERT,
 * UPDATE, DELETE) on any row at all.
 */
extern bool row_security_applies(Oid relid, AclMode rights);

/*
 * Raises 42501 if the table has more rows of the account than these, which the
 * current user sees.  Needs an SPI connection.
 */
extern void row_security_check_seen(Oid table, const char *username, int64 seen);

/* What to do about it, as a sentence. */
extern const char *row_security_hint(void);

#endif							/* YELP_SYNC_ROW_SECURITY_H */
