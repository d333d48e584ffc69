/*
 * option.h
 *	  The options of servers and user mappings.
 */
#ifndef YELP_SYNC_OPTION_H
#define YELP_SYNC_OPTION_H

#include "nodes/pg_list.h"

/* An account with every option that its server and user mapping set. */
typedef struct Account
{
	/* Whose programs */
	char	   *username;
	char	   *password;
	char	   *proxy_user;		/* NULL: the proxy asks for none */
	char	   *proxy_password;

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

	/* What to keep of what changed */
	bool		record_changes;

	uint64		given;			/* a bit for each option: see option_is_given */
} Account;

/* Sets every option that has a default. */
extern void option_set_defaults(Account *account);

/*
 * Sets what the stored options of one object say, given the catalog that the
 * object is in.  Options that are no longer known are passed over.
 */
extern void option_set_stored(Account *account, List *options, Oid catalog);

/* Does its server or user mapping set the option, be it to the default? */
extern bool option_is_given(const Account *account, const char *name);

/*
 * Checks the options of one object when they are set.  Raises HV00D for an
 * unknown option, HV024 for a wrong value, HV00J for one that is missing and
 * 42501 where the current user may not set it.
 */
extern void option_validate(List *options, Oid catalog);

#endif							/* YELP_SYNC_OPTION_H */
