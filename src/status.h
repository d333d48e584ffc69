/*
 * status.h
 *	  One row per account: whether it is mapped, and how its syncs went.
 */
#ifndef YELP_SYNC_STATUS_H
#define YELP_SYNC_STATUS_H

#include "fmgr.h"

/*
 * Returns the rows of yelp_sync_status, whose tables are in the schema: what
 * the current user maps, and what it may read of the tables.
 */
extern void status_list(FunctionCallInfo fcinfo, Oid schema);

#endif							/* YELP_SYNC_STATUS_H */
