/*
 * option.h
 *	  Options of the foreign-data wrapper, of servers and of user mappings.
 */
#ifndef YELP_SYNC_OPTION_H
#define YELP_SYNC_OPTION_H

#include "nodes/pg_list.h"

/* Maximum length of a username, in bytes */
#define MAX_USERNAME_LENGTH 255

/* Which programs the API lists; the order is that of program_status_names */
typedef enum ProgramStatus
{
	PROGRAM_STATUS_PAST,
	PROGRAM_STATUS_PAUSED,
	PROGRAM_STATUS_CURRENT,
	PROGRAM_STATUS_FUTURE,
	PROGRAM_STATUS_ALL
} ProgramStatus;

/* As the API spells them; ends with NULL */
extern const char *const program_status_names[];

/* What to do with programs that are gone */
typedef enum OnGone
{
	ON_GONE_DELETE,
	ON_GONE_KEEP
} OnGone;

typedef enum HttpVersion
{
	HTTP_VERSION_1_1,
	HTTP_VERSION_2
} HttpVersion;

/* An account with all options of its server and user mapping. */
typedef struct Account
{
	/* Whose programs */
	char	   *username;
	char	   *password;
	char	   *proxy_user;		/* NULL: no authentication */
	char	   *proxy_password;

	/* Which programs, and where from; URLs as normalized by libcurl */
	char	   *server;			/* name of the foreign server */
	char	   *endpoint;
	ProgramStatus program_status;
	char	   *ca_file;		/* NULL: the system's certificates */
	char	   *proxy;			/* NULL: none */
	HttpVersion http_version;

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
	OnGone		on_gone;

	/* What to record */
	bool		record_changes;
} Account;

/* Sets every option that has a default. */
extern void option_set_defaults(Account *account);

/*
 * Sets the stored options of an object, given its catalog.  Options that are
 * no longer supported are ignored.  Raises the errors of option_validate for
 * values that were stored without a validator, or sets only texts, as they are
 * if they are invalid.
 */
extern void option_set_stored(Account *account, List *options, Oid catalog,
							  bool texts_only);

/*
 * Validates the options of an object.  Raises HV00D for an unknown option,
 * HV024 for an invalid value, HV00J for a missing option and 42501 if the
 * current user may not set it.
 */
extern void option_validate(List *options, Oid catalog);

/* The ALTER SERVER command that sets an option, for a hint. */
extern char *option_command(const char *server, const char *option,
							const char *value);

#endif							/* YELP_SYNC_OPTION_H */
