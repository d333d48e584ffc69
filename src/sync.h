/*
 * sync.h
 *	  Sync accounts: a single one, or several, each in transactions of its own.
 */
#ifndef YELP_SYNC_SYNC_H
#define YELP_SYNC_SYNC_H

#include "nodes/execnodes.h"

/* The setting yelp_sync.log_syncs */
extern bool sync_log;

/*
 * Fetches all programs of an account, merges them into the tables in this
 * schema, and adds the rows (action, program_id, changed) to the result.
 */
extern void sync_account(const char *username, Oid schema, ReturnSetInfo *changes);

/*
 * Syncs the accounts, a list of usernames as char *, in order of name.  Needs
 * a non-atomic SPI connection, and commits.  Failures are rolled back,
 * recorded and raised as WARNINGs, and listed by HV000 at the end.  A cancel
 * ends the whole call.
 */
extern void sync_all(List *usernames, Oid schema);

#endif							/* YELP_SYNC_SYNC_H */
