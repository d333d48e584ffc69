/*
 * history.h
 *	  The history of syncs, yelp_sync_runs, and of programs,
 *	  yelp_program_changes, and what they tell about each account.
 *
 * They decide about nothing but how many pages to ask for at once, and cannot
 * fail a sync: there is a WARNING, and it goes on.
 */
#ifndef YELP_SYNC_HISTORY_H
#define YELP_SYNC_HISTORY_H

#include "fetch.h"
#include "merge.h"

/*
 * What the account is expected to list, by its previous sync; -1 programs if
 * there was none.  After a partial sync, nothing is known about an untrusted
 * total.  Needs an SPI connection, as history_add does.
 */
extern FetchExpected history_expected(const Merge *merge, bool trust_total);

/*
 * Adds a row, and the changes that the merge has collected: all or, if that
 * fails, none.  A sync that failed has an error instead of programs.
 */
extern void history_add(Merge *merge, const Fetched *fetched, const ErrorData *error);

/*
 * Adds the rows of yelp_sync_status, whose tables are in the schema: what the
 * current user maps, and what it may read of the tables.
 */
extern void history_status(ReturnSetInfo *result, Oid schema);

#endif							/* YELP_SYNC_HISTORY_H */
