/*
 * sync_all.h
 *	  Syncs of several accounts, each in transactions of its own.
 */
#ifndef YELP_SYNC_SYNC_ALL_H
#define YELP_SYNC_SYNC_ALL_H

#include "nodes/pg_list.h"

/*
 * Syncs the accounts, a list of usernames as char *, one after the other by name.
 * Needs a non-atomic SPI connection, and commits.  What fails is rolled back and
 * recorded, and is a WARNING; at the end HV000 lists it.  A cancel ends all.
 */
extern void sync_all(List *usernames, Oid schema);

#endif							/* YELP_SYNC_SYNC_ALL_H */
