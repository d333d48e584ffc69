/*
 * option.h
 *	  Options of servers and user mappings.
 */
#ifndef YELP_SYNC_OPTION_H
#define YELP_SYNC_OPTION_H

#include "nodes/pg_list.h"

/* An account with all options of its server and user mapping. */
typedef struct Account
{
	/* Whose programs */
	char	   *username;
	char	   *password;
	char	   *proxy_user;		/* NULL: no authentication */
	char	   *proxy_password;

	/* Which programs, and where from */
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

	/* Timeouts and retries; durations in milliseconds */
	int			connect_timeout;
	int			timeout;
	int			attempts;
	int			retry_delay;
	double		retry_factor;
	int			retry_max_delay;
	int			max_retry_after;
	bool		partial;

	/* When programs are considered gone */
	bool		trust_total;
	double		max_deleted;	/* percent of the stored programs */

	/* What to record */
	bool		record_changes;

	uint64		given;			/* bit mask of options: see option_is_given */
} Account;

/* Sets every option that has a default. */
extern void option_set_defaults(Account *account);

/*
 * Sets the stored options of an object, given its catalog.  Options that are
 * no longer supported are ignored.
 */
extern void option_set_stored(Account *account, List *options, Oid catalog);

/* Is the option set by the server or user mapping, even if to its default? */
extern bool option_is_given(const Account *account, const char *name);

/*
 * Validates the options of an object.  Raises HV00D for an unknown option,
 * HV024 for an invalid value, HV00J for a missing option and 42501 if the
 * current user may not set it.
 */
extern void option_validate(List *options, Oid catalog);

#endif							/* YELP_SYNC_OPTION_H */
