/*
 * account.c
 *	  The options of servers and user mappings, and finding an account.
 *
 * One table says of each option where it belongs, what it may be and where
 * its value goes.  The validator and the look-up read the same table with the
 * same parser, so a value that was accepted once is understood the same way
 * ever after.
 */
#include "postgres.h"

#include <math.h>

#include "account.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "endpoint.h"
#include "sanitize.h"

#define WRAPPER_NAME	"yelp_sync"

/* Far more than anybody has, and little enough for keys and headers */
#define MAX_USERNAME_BYTES 255
#define MAX_PASSWORD_BYTES 1024

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_CHOICE,
	OPTION_BOOL,
	OPTION_INT,
	OPTION_REAL,
	OPTION_PERCENT,				/* with or without a sign */
	OPTION_BYTES,				/* stored as bytes */
	OPTION_DURATION				/* stored as milliseconds */
} OptionType;

/* Says what is wrong with a text, or NULL. */
typedef const char *(*OptionCheck) (const char *value);

typedef struct OptionRule
{
	const char *name;
	Oid			catalog;
	OptionType	type;
	size_t		field;			/* where in an Account the value goes */
	const char *initial;		/* default as a user would write it, or NULL */
	double		min;
	double		max;			/* range: bytes, milliseconds or as written */
	const char *range;			/* the range or the choices, for the message */
	OptionCheck check;
} OptionRule;

static const char *
check_username(const char *value)
{
	if (value[0] == '\0')
		return "must not be empty";
	if (strlen(value) > MAX_USERNAME_BYTES)
		return "must not be longer than " CppAsString2(MAX_USERNAME_BYTES) " bytes";
	if (value[0] == ' ' || value[strlen(value) - 1] == ' ')
		return "must not begin or end with a blank";
	if (text_has_controls(value, strlen(value)))
		return "must not contain a control character";
	if (strchr(value, ':') != NULL)
		return "must not contain a colon, which HTTP Basic authentication cannot carry";
	return NULL;
}

static const char *
check_password(const char *value)
{
	if (value[0] == '\0')
		return "must not be empty";
	if (strlen(value) > MAX_PASSWORD_BYTES)
		return "must not be longer than " CppAsString2(MAX_PASSWORD_BYTES) " bytes";
	return NULL;
}

static const char *
check_ca_file(const char *value)
{
	if (strlen(value) >= MAXPGPATH)
		return "must not be longer than a path may be";
	if (!is_absolute_path(value))
		return "must be an absolute path";
	return NULL;
}

#define SECOND 1000.0
#define HOUR (3600 * SECOND)
#define KILOBYTE 1024.0
#define MEGABYTE (1024 * KILOBYTE)

#define ON_SERVER(name) #name, ForeignServerRelationId
#define ON_MAPPING(name) #name, UserMappingRelationId
#define INTO(field) offsetof(Account, field)

static const OptionRule rules[] =
{
	{ON_SERVER(endpoint), OPTION_TEXT, INTO(endpoint),
	"https://partner-api.yelp.com/programs/v1", 0, 0, NULL, endpoint_problem},
	{ON_SERVER(program_status), OPTION_CHOICE, INTO(program_status),
	"ALL", 0, 0, "PAST, PAUSED, CURRENT, FUTURE, ALL", NULL},
	{ON_SERVER(page_size), OPTION_INT, INTO(page_size),
	"20", 1, 100, "1 to 100", NULL},
	{ON_SERVER(concurrency), OPTION_INT, INTO(concurrency),
	"100", 1, 1000, "1 to 1000", NULL},
	{ON_SERVER(connect_timeout), OPTION_DURATION, INTO(connect_timeout),
	"10s", 1, HOUR, "1ms to 1h", NULL},
	{ON_SERVER(timeout), OPTION_DURATION, INTO(timeout),
	"30s", 1, HOUR, "1ms to 1h", NULL},
	{ON_SERVER(attempts), OPTION_INT, INTO(attempts),
	"3", 1, 10, "1 to 10", NULL},
	{ON_SERVER(retry_delay), OPTION_DURATION, INTO(retry_delay),
	"1s", 1, HOUR, "1ms to 1h", NULL},
	{ON_SERVER(retry_factor), OPTION_REAL, INTO(retry_factor),
	"2.0", 1, 100, "1 to 100", NULL},
	{ON_SERVER(retry_max_delay), OPTION_DURATION, INTO(retry_max_delay),
	"10s", 1, HOUR, "1ms to 1h", NULL},
	{ON_SERVER(max_retry_after), OPTION_DURATION, INTO(max_retry_after),
	"2min", 0, 24 * HOUR, "0 to 24h", NULL},
	{ON_SERVER(http_version), OPTION_CHOICE, INTO(http_version),
	"1.1", 0, 0, "1.1, 2", NULL},
	{ON_SERVER(ca_file), OPTION_TEXT, INTO(ca_file),
	NULL, 0, 0, NULL, check_ca_file},
	{ON_SERVER(proxy), OPTION_TEXT, INTO(proxy),
	NULL, 0, 0, NULL, proxy_problem},
	{ON_SERVER(max_page_bytes), OPTION_BYTES, INTO(max_page_bytes),
	"16MB", KILOBYTE, 256 * MEGABYTE, "1kB to 256MB", NULL},
	{ON_SERVER(partial), OPTION_BOOL, INTO(partial),
	"off", 0, 0, "on, off", NULL},
	{ON_SERVER(trust_total), OPTION_BOOL, INTO(trust_total),
	"on", 0, 0, "on, off", NULL},
	{ON_SERVER(max_deleted), OPTION_PERCENT, INTO(max_deleted),
	"50%", 0, 100, "0% to 100%", NULL},
	{ON_MAPPING(username), OPTION_TEXT, INTO(username),
	NULL, 0, 0, NULL, check_username},
	{ON_MAPPING(password), OPTION_TEXT, INTO(password),
	NULL, 0, 0, NULL, check_password},
};

#define ACCOUNT_FIELD(account, rule, type) \
	((type *) ((char *) (account) + (rule)->field))

static const OptionRule *
find_rule(const char *name, Oid catalog)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].catalog == catalog && strcmp(rules[i].name, name) == 0)
			return &rules[i];
	}
	return NULL;
}

/*
 * For an ereport about the options of a user mapping: the statement holds a
 * password, so it goes to the log neither as such nor in a context.
 */
static int
hide_secrets(Oid catalog)
{
	if (catalog == UserMappingRelationId)
	{
		errhidestmt(true);
		errhidecontext(true);
	}
	return 0;
}

/*
 * What is wrong with a value, as an error.  The value itself is left out: this
 * is also said of passwords.
 */
static void
reject_value(const OptionRule *rule, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("option \"%s\" %s", rule->name, problem),
			 hide_secrets(rule->catalog)));
}

static void
reject_range(const OptionRule *rule, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", rule->name, value),
			 errdetail("Valid values are: %s.", rule->range),
			 hint ? errhint("%s", hint) : 0));
}

/* Is the value one of the choices, which are listed as "a, b, c"? */
static bool
is_choice(const char *value, const char *choices)
{
	size_t		len = strlen(value);

	for (const char *at = choices; at != NULL;)
	{
		size_t		choice_len = strcspn(at, ",");

		if (choice_len == len && strncmp(at, value, len) == 0)
			return true;
		at = at[choice_len] == ',' ? at + choice_len + 2 : NULL;
	}
	return false;
}

/* A percentage without its sign. */
static char *
without_percent_sign(const char *value)
{
	size_t		length = strlen(value);

	if (length > 1 && value[length - 1] == '%')
		length--;
	return pnstrdup(value, length);
}

/* A number in the option's own unit: bytes, milliseconds, percent or none. */
static double
parse_number(const OptionRule *rule, const char *value)
{
	const char *hint = NULL;
	double		real = 0;
	int			integer = 0;
	bool		valid;

	switch (rule->type)
	{
		case OPTION_DURATION:
			/* a bare number is seconds */
			valid = parse_real(value, &real, GUC_UNIT_S, &hint);
			real *= SECOND;
			break;
		case OPTION_BYTES:
			valid = parse_int(value, &integer, GUC_UNIT_BYTE, &hint);
			real = integer;
			break;
		case OPTION_PERCENT:
			valid = parse_real(without_percent_sign(value), &real, 0, &hint);
			break;
		case OPTION_INT:
			valid = parse_int(value, &integer, 0, &hint);
			real = integer;
			break;
		default:
			valid = parse_real(value, &real, 0, &hint);
			break;
	}
	if (!valid || isnan(real) || real < rule->min || real > rule->max)
		reject_range(rule, value, hint);
	return real;
}

/* Checks a value and puts it where it belongs in the account. */
static void
set_option(Account *account, const OptionRule *rule, const char *value)
{
	switch (rule->type)
	{
		case OPTION_CHOICE:
			if (!is_choice(value, rule->range))
				reject_range(rule, value, NULL);
			*ACCOUNT_FIELD(account, rule, char *) = pstrdup(value);
			break;
		case OPTION_TEXT:
			{
				const char *problem = rule->check(value);

				if (problem)
					reject_value(rule, problem);
				*ACCOUNT_FIELD(account, rule, char *) = pstrdup(value);
				break;
			}
		case OPTION_BOOL:
			if (!parse_bool(value, ACCOUNT_FIELD(account, rule, bool)))
				reject_range(rule, value, NULL);
			break;
		case OPTION_REAL:
		case OPTION_PERCENT:
			*ACCOUNT_FIELD(account, rule, double) = parse_number(rule, value);
			break;
		case OPTION_INT:
		case OPTION_BYTES:
		case OPTION_DURATION:
			*ACCOUNT_FIELD(account, rule, int) = rint(parse_number(rule, value));
			break;
	}
}

static void
set_defaults(Account *account)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].initial)
			set_option(account, &rules[i], rules[i].initial);
	}
}

/* Sets what stored options say; what is unknown by now is passed over. */
static void
set_stored_options(Account *account, List *options, Oid catalog)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const OptionRule *rule = find_rule(def->defname, catalog);

		if (rule)
			set_option(account, rule, defGetString(def));
	}
}

static void
reject_unknown(const char *name, Oid catalog)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].catalog == catalog)
			appendStringInfo(&valid, "%s%s", valid.len ? ", " : "",
							 rules[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 hide_secrets(catalog),
			 valid.len ?
			 errhint("Valid options here are: %s.", valid.data) :
			 errhint("There are no valid options here.")));
}

static void
require_file_rights(const char *option)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option),
				 errdetail("It makes the server read a file."),
				 errhint("Only roles with the privileges of \"pg_read_server_files\" may set it.")));
}

void
account_validate(List *options, Oid catalog)
{
	Account		account = {0};
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const OptionRule *rule = find_rule(def->defname, catalog);

		if (rule == NULL)
			reject_unknown(def->defname, catalog);
		set_option(&account, rule, defGetString(def));
	}

	if (account.ca_file)
		require_file_rights("ca_file");
	if (account.proxy && account.endpoint &&
		pg_strncasecmp(account.endpoint, "http:", 5) == 0)
		reject_value(find_rule("proxy", catalog),
					 "cannot be used with an http endpoint, which is a loopback address");
	if (catalog == UserMappingRelationId &&
		(account.username == NULL || account.password == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s\" is required on a user mapping",
						account.username ? "password" : "username"),
				 hide_secrets(catalog),
				 errhint("Use OPTIONS (username '...', password '...').")));
}

/* The options of the user's mapping on the server; false when there is none. */
static bool
get_mapping_options(Oid userid, Oid serverid, List **options)
{
	HeapTuple	tuple;
	Datum		datum;
	bool		isnull;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
							ObjectIdGetDatum(userid),
							ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							Anum_pg_user_mapping_umoptions, &isnull);
	*options = isnull ? NIL : untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return true;
}

/* The account that a user's mapping on a server stands for, or NULL. */
static Account *
load_account(ForeignServer *server, Oid userid)
{
	Account    *account;
	List	   *options;

	if (!get_mapping_options(userid, server->serverid, &options))
		return NULL;

	account = palloc0(sizeof(Account));
	set_defaults(account);
	set_stored_options(account, server->options, ForeignServerRelationId);
	set_stored_options(account, options, UserMappingRelationId);
	account->server = server->servername;
	if (account->username == NULL || account->password == NULL)
		return NULL;			/* made before the wrapper had a validator */
	return account;
}

/* The servers of our wrapper, by Oid. */
static List *
our_servers(void)
{
	Oid			wrapper = get_foreign_data_wrapper_oid(WRAPPER_NAME, false);
	Relation	catalog = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false,
										  NULL, 0, NULL);
	List	   *servers = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (server->srvfdw == wrapper)
			servers = lappend_oid(servers, server->oid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return servers;
}

static List *
matching_accounts(List *accounts, const char *username)
{
	List	   *matches = NIL;
	ListCell   *cell;

	foreach(cell, accounts)
	{
		Account    *account = lfirst(cell);

		if (strcmp(account->username, username) == 0)
			matches = lappend(matches, account);
	}
	return matches;
}

/*
 * On each server that the user may use, the user's own mapping goes before that
 * of PUBLIC.  No server goes before another: a role that makes one, and maps
 * somebody's account on it, makes that account ambiguous and does not win.
 */
List	   *
account_list(void)
{
	List	   *accounts = NIL;
	List	   *servers = our_servers();
	ListCell   *cell;

	foreach(cell, servers)
	{
		ForeignServer *server = GetForeignServer(lfirst_oid(cell));
		Account    *account;

		if (!compat_server_usage(server->serverid, GetUserId()))
			continue;
		account = load_account(server, GetUserId());
		if (account == NULL)
			account = load_account(server, InvalidOid);
		if (account)
			accounts = lappend(accounts, account);
	}
	return accounts;
}

/* The account may be there, on a server without USAGE. */
static void
reject_unusable(const char *username)
{
	List	   *servers = our_servers();
	ListCell   *cell;

	foreach(cell, servers)
	{
		ForeignServer *server = GetForeignServer(lfirst_oid(cell));
		Account    *own = load_account(server, GetUserId());

		if (own && strcmp(own->username, username) == 0)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER,
						   server->servername);
	}
}

static void
reject_missing(const char *username)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no account \"%s\" for user \"%s\"", username,
					GetUserNameFromId(GetUserId(), false)),
			 errdetail("No server of the foreign-data wrapper \"%s\" on which this user has USAGE has a user mapping with this username.",
					   WRAPPER_NAME),
			 errhint("Create one: CREATE USER MAPPING FOR CURRENT_USER SERVER ... OPTIONS (username %s, password '...');",
					 quote_literal_cstr(username))));
}

static void
reject_ambiguous(const char *username, List *matches)
{
	StringInfoData servers;
	ListCell   *cell;

	initStringInfo(&servers);
	foreach(cell, matches)
		appendStringInfo(&servers, "%s\"%s\"", servers.len ? ", " : "",
						 ((Account *) lfirst(cell))->server);
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
			 errmsg("account \"%s\" is mapped on several servers", username),
			 errdetail("The servers are %s.", servers.data),
			 errhint("Drop all user mappings for it but one, or revoke USAGE on the other servers.")));
}

Account    *
account_find(const char *username)
{
	List	   *matches = matching_accounts(account_list(), username);

	if (matches == NIL)
	{
		reject_unusable(username);
		reject_missing(username);
	}
	if (list_length(matches) > 1)
		reject_ambiguous(username, matches);
	return linitial(matches);
}
