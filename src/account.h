/*
 * account.h
 *	  The options of servers and user mappings, and finding an account.
 */
#ifndef YELP_SYNC_ACCOUNT_H
#define YELP_SYNC_ACCOUNT_H

#include "nodes/pg_list.h"

/* An account with every option that its server and user mapping set. */
typedef struct Account
{
	/* Whose programs */
	char	   *username;
	char	   *password;

	/* Which of them, and from where */
	char	   *server;			/* name of the foreign server */
	char	   *endpoint;
	char	   *program_status;
	char	   *ca_file;		/* NULL: the system's certificates */
	char	   *proxy;			/* NULL: none */
	char	   *http_version;

	/* How much at once */
	int			page_size;
	int			concurrency;
	int			max_page_bytes;

	/* How patiently; durations in milliseconds */
	int			connect_timeout;
	int			timeout;
	int			attempts;
	int			retry_delay;
	double		retry_factor;
	int			retry_max_delay;
	int			max_retry_after;
	bool		partial;

	/* When to believe that programs are gone */
	bool		trust_total;
	double		max_deleted;	/* percent of the stored programs */
} Account;

/*
 * Finds the one account with this username that the current user may sync,
 * in memory of the current context.  Raises 42704 when there is none and 42P08
 * when there are several.
 */
extern Account *account_find(const char *username);

/* All accounts that the current user may sync, as a list of Account *. */
extern List *account_list(void);

/*
 * Checks the options of one object, given as options and the catalog that
 * they are for.  Raises HV00D for an unknown option, HV024 for a wrong value
 * and 42501 where the current user may not set the option.
 */
extern void account_validate(List *options, Oid catalog);

#endif							/* YELP_SYNC_ACCOUNT_H */
