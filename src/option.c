/*
 * option.c
 *	  Options of the foreign-data wrapper, of servers and of user mappings.
 *
 * A table defines the object, the valid values and the target field of each
 * option.  The validator and the account look-up use the same table and
 * parser, so a value is always interpreted as it was when it was accepted.
 * The wrapper takes the options of servers, as defaults for all of them.
 *
 * A URL decides who receives a password.  libcurl takes it apart, the parts are
 * checked, and the URL that libcurl makes of them is what is sent: no other
 * parser could take something else for the host.
 *
 * A statement that sets options may contain a password, and the log shows the
 * statement and the context of an error.  Therefore all errors from this
 * file hide both, no matter which option they are about.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "option.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "text.h"

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_CHOICE,				/* stored as its index */
	OPTION_BOOL,
	OPTION_REAL,
	OPTION_INT
} OptionType;

/*
 * Returns an error message for a text, or NULL; may replace the text by its
 * normal form.
 */
typedef const char *(*OptionCheck) (char **value);

typedef struct OptionRule
{
	const char *name;
	Oid			catalog;
	OptionType	type;
	size_t		field;			/* offset of its field in Account */
	const char *initial;		/* default as a user would write it, or NULL */
	double		min;			/* for numbers, in the unit that is stored */
	double		max;
	int			unit;			/* of numbers, as for settings */
	const char *range;			/* valid values, for messages */
	const char *const *choices; /* ends with NULL */
	int			max_length;		/* for texts, in bytes */
	OptionCheck check;			/* for texts */
} OptionRule;

#define MAX_PASSWORD_LENGTH 1024
#define MAX_URL_LENGTH 2048

/* Any number or choice fits in this; longer values are not shown */
#define MAX_VALUE_LENGTH 64

/* Yelp's documented maximum for the parameter "limit" */
#define YELP_MAX_PAGE_SIZE 40

const char *const program_status_names[] =
{"PAST", "PAUSED", "CURRENT", "FUTURE", "ALL", NULL};

static const char *const on_gone_names[] = {"delete", "keep", NULL};
static const char *const http_versions[] = {"1.1", "2", NULL};

/*
 * Raises an error whose context and statement are not shown.  The context's
 * stack is restored by whoever catches the error.
 */
#define REFUSE(...) \
	do { \
		error_context_stack = NULL; \
		ereport(ERROR, (errhidestmt(true), __VA_ARGS__)); \
	} while (0)

/* ---- texts ---- */

static const char *
check_username(char **value)
{
	const unsigned char *at = (const unsigned char *) *value;
	pg_wchar	c = ' ';

	if (text_is_blank(utf8_to_unicode(at)))
		return "must not begin with whitespace";
	for (; *at != '\0'; at += pg_utf_mblen(at))
	{
		c = utf8_to_unicode(at);
		if (c == ':')
			return "must not contain a colon, which HTTP Basic authentication does not allow";
		if (text_is_hidden(c))
			return "must not contain control characters, line breaks or invisible characters";
	}
	if (**value == '\0')
		return "must not be empty";
	return text_is_blank(c) ? "must not end with whitespace" : NULL;
}

static const char *
check_not_empty(char **value)
{
	return **value == '\0' ? "must not be empty" : NULL;
}

/* A relative path would be looked up in the data directory. */
static const char *
check_file(char **value)
{
	return is_absolute_path(*value) ? NULL : "must be an absolute path";
}

/* ---- URLs ---- */

/* A part of a URL; libcurl's normal form may be longer than the text */
typedef char UrlPart[MAX_URL_LENGTH + 16];

/* Takes a URL apart, and replaces it by its normal form. */
static const char *
normalize_url(char **value, UrlPart scheme, UrlPart host, UrlPart path)
{
	static const CURLUPart whats[] = {CURLUPART_URL, CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PATH};
	UrlPart		url;
	char	   *const parts[] = {url, scheme, host, path};
	CURLU	   *parser;
	CURLUcode	code = CURLUE_OUT_OF_MEMORY;

	for (const char *at = *value; *at != '\0'; at++)
	{
		if ((unsigned char) *at <= ' ' || (unsigned char) *at >= 0x7F)
			return "must not contain spaces, control characters or non-ASCII characters";
	}
	parser = curl_url();
	if (parser)
		code = curl_url_set(parser, CURLUPART_URL, *value,
							CURLU_NON_SUPPORT_SCHEME | CURLU_DISALLOW_USER);
	for (int i = 0; code == CURLUE_OK && i < (int) lengthof(parts); i++)
	{
		char	   *part = NULL;

		code = curl_url_get(parser, whats[i], &part, 0);
		if (code == CURLUE_OK && strlcpy(parts[i], part, sizeof(UrlPart)) >= sizeof(UrlPart))
			code = CURLUE_MALFORMED_INPUT;
		curl_free(part);
	}
	curl_url_cleanup(parser);
	if (code == CURLUE_OUT_OF_MEMORY)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while checking a URL.")));
	if (code == CURLUE_USER_NOT_ALLOWED || (code == CURLUE_OK && strpbrk(url, "?#")))
		return "must not contain a user, a password, a query or a fragment";
	if (code != CURLUE_OK)
		return "must be an absolute URL with a valid host and port";
	*value = pstrdup(url);
	return NULL;
}

/* Is the host, as normalized by libcurl, certainly this machine? */
static bool
is_loopback(const char *host)
{
	struct in_addr addr;

	if (inet_pton(AF_INET, host, &addr) == 1)
		return (ntohl(addr.s_addr) >> 24) == 127;
	return pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

static const char *
check_endpoint(char **value)
{
	UrlPart		scheme,
				host,
				path;
	const char *problem = normalize_url(value, scheme, host, path);

	if (problem)
		return problem;
	if (strcmp(scheme, "https") == 0 ||
		(strcmp(scheme, "http") == 0 && is_loopback(host)))
		return NULL;
	return "must begin with https://, or with http:// for a loopback address";
}

static const char *
check_proxy(char **value)
{
	UrlPart		scheme,
				host,
				path;
	const char *problem = normalize_url(value, scheme, host, path);

	if (problem)
		return problem;
	/* libcurl interprets socks5h://localhost/path as a Unix-domain socket */
	if (strcmp(path, "/") != 0)
		return "must not contain a path";
	if (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0 ||
		strcmp(scheme, "socks5") == 0 || strcmp(scheme, "socks5h") == 0)
		return NULL;
	return "must begin with http://, https://, socks5:// or socks5h://";
}

/* ---- the options ---- */

#define SECOND 1000.0
#define HOUR (3600 * SECOND)
#define KILOBYTE 1024.0
#define MEGABYTE (1024 * KILOBYTE)

#define ON_SERVER(option) \
	.name = #option, .catalog = ForeignServerRelationId, \
	.field = offsetof(Account, option)
#define ON_MAPPING(option) \
	.name = #option, .catalog = UserMappingRelationId, \
	.field = offsetof(Account, option)
#define DURATION(from, to, text) \
	.type = OPTION_INT, .unit = GUC_UNIT_S, \
	.min = from, .max = to, .range = text
#define NUMBER(kind, from, to) \
	.type = kind, .min = from, .max = to, .range = #from " to " #to
#define CHOICE(names, text) .type = OPTION_CHOICE, .choices = names, .range = text
#define BOOLEAN .type = OPTION_BOOL, .range = "on, off"
#define TEXT(length, function) \
	.type = OPTION_TEXT, .max_length = length, .check = function

/* *INDENT-OFF* */
static const OptionRule rules[] =
{
	{ON_SERVER(endpoint), TEXT(MAX_URL_LENGTH, check_endpoint),
	.initial = "https://partner-api.yelp.com/programs/v1"},
	{ON_SERVER(program_status), CHOICE(program_status_names,
									   "PAST, PAUSED, CURRENT, FUTURE, ALL"),.initial = "ALL"},
	{ON_SERVER(page_size), NUMBER(OPTION_INT, 2, 100),.initial = "20"},
	{ON_SERVER(concurrency), NUMBER(OPTION_INT, 1, 1000),.initial = "100"},
	{ON_SERVER(connect_timeout), DURATION(1, HOUR, "1ms to 1h"),
	.initial = "10s"},
	{ON_SERVER(timeout), DURATION(1, HOUR, "1ms to 1h"),.initial = "30s"},
	{ON_SERVER(attempts), NUMBER(OPTION_INT, 1, 10),.initial = "3"},
	{ON_SERVER(retry_delay), DURATION(1, HOUR, "1ms to 1h"),.initial = "1s"},
	{ON_SERVER(retry_factor), NUMBER(OPTION_REAL, 1, 100),.initial = "2.0"},
	{ON_SERVER(retry_max_delay), DURATION(1, HOUR, "1ms to 1h"),
	.initial = "10s"},
	{ON_SERVER(max_retry_after), DURATION(0, 24 * HOUR, "0 to 24h"),
	.initial = "2min"},
	{ON_SERVER(http_version), CHOICE(http_versions, "1.1, 2"),
	.initial = "1.1"},
	{ON_SERVER(ca_file), TEXT(MAXPGPATH - 1, check_file)},
	{ON_SERVER(proxy), TEXT(MAX_URL_LENGTH, check_proxy)},
	{ON_SERVER(max_page_bytes),.type = OPTION_INT,.unit = GUC_UNIT_BYTE,
		.min = KILOBYTE,.max = 256 * MEGABYTE,.range = "1kB to 256MB",
	.initial = "4MB"},
	{ON_SERVER(partial), BOOLEAN,.initial = "off"},
	{ON_SERVER(trust_total), BOOLEAN,.initial = "on"},
	{ON_SERVER(max_deleted),.type = OPTION_REAL,.min = 0,.max = 100,
	.range = "0% to 100%",.initial = "50%"},
	{ON_SERVER(on_gone), CHOICE(on_gone_names, "delete, keep"),
	.initial = "delete"},
	{ON_SERVER(record_changes), BOOLEAN,.initial = "off"},
	{ON_MAPPING(username), TEXT(MAX_USERNAME_LENGTH, check_username)},
	{ON_MAPPING(password), TEXT(MAX_PASSWORD_LENGTH, check_not_empty)},
	{ON_MAPPING(proxy_user), TEXT(MAX_USERNAME_LENGTH, check_username)},
	{ON_MAPPING(proxy_password), TEXT(MAX_USERNAME_LENGTH, check_not_empty)},
};

/* *INDENT-ON* */

#define ACCOUNT_FIELD(account, rule, type) \
	((type *) ((char *) (account) + (rule)->field))

static Oid
rules_catalog(Oid catalog)
{
	return catalog == ForeignDataWrapperRelationId ? ForeignServerRelationId : catalog;
}

static const OptionRule *
find_rule(const char *name, Oid catalog)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].catalog == rules_catalog(catalog) &&
			strcmp(rules[i].name, name) == 0)
			return &rules[i];
	}
	return NULL;
}

/* ---- values ---- */

static void
reject_range(const OptionRule *rule, const char *value, const char *hint)
{
	REFUSE(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
		   errmsg("invalid value for option \"%s\": \"%s\"", rule->name,
				  text_shown(value, strlen(value), MAX_VALUE_LENGTH)),
		   errdetail("Valid values are: %s.", rule->range),
		   hint ? errhint("%s", hint) : 0);
}

static int
parse_choice(const OptionRule *rule, const char *value)
{
	for (int i = 0; rule->choices[i]; i++)
	{
		if (pg_strcasecmp(rule->choices[i], value) == 0)
			return i;
	}
	reject_range(rule, value, NULL);
	return 0;
}

/* A number in the unit that is stored: bytes, milliseconds, percent or none. */
static double
parse_number(const OptionRule *rule, const char *value)
{
	size_t		length = strlen(value);
	const char *hint = NULL;
	double		number = 0;
	bool		valid;

	if (length > 0 && value[length - 1] == '%' && strchr(rule->range, '%'))
		length--;
	valid = parse_real(pnstrdup(value, length), &number, rule->unit, &hint);
	if (rule->unit == GUC_UNIT_S)
	{
		number *= SECOND;
		if (hint == NULL)
			hint = "A number without a unit is in seconds; milliseconds need their unit, as in '500ms'.";
	}
	if (!valid || number < rule->min || number > rule->max)
		reject_range(rule, value, hint);
	return number;
}

/*
 * Checks a value and stores it in the account.  Errors do not show a text,
 * because it may be a password.
 */
static void
set_option(Account *account, const OptionRule *rule, const char *value, bool texts_only)
{
	int			limit = rule->max_length ? rule->max_length : MAX_VALUE_LENGTH;
	const char *problem;

	if (texts_only && rule->type != OPTION_TEXT)
		return;
	if (!texts_only && strlen(value) > (size_t) limit)
		REFUSE(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			   errmsg("option \"%s\" must not be longer than %d bytes",
					  rule->name, limit));
	switch (rule->type)
	{
		case OPTION_TEXT:
			*ACCOUNT_FIELD(account, rule, char *) = pstrdup(value);
			problem = rule->check(ACCOUNT_FIELD(account, rule, char *));
			if (problem && !texts_only)
				REFUSE(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					   errmsg("option \"%s\" %s", rule->name, problem));
			break;
		case OPTION_CHOICE:
			*ACCOUNT_FIELD(account, rule, int) = parse_choice(rule, value);
			break;
		case OPTION_BOOL:
			if (!parse_bool(value, ACCOUNT_FIELD(account, rule, bool)))
				reject_range(rule, value, NULL);
			break;
		case OPTION_REAL:
			*ACCOUNT_FIELD(account, rule, double) = parse_number(rule, value);
			break;
		case OPTION_INT:
			*ACCOUNT_FIELD(account, rule, int) = (int) parse_number(rule, value);
			break;
	}
}

void
option_set_defaults(Account *account)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].initial)
			set_option(account, &rules[i], rules[i].initial, false);
	}
}

void
option_set_stored(Account *account, List *options, Oid catalog, bool texts_only)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const OptionRule *rule = find_rule(def->defname, catalog);

		if (rule)
			set_option(account, rule, defGetString(def), texts_only);
	}
}

char	   *
option_command(const char *server, const char *option, const char *value)
{
	/* The server may have been dropped during the sync */
	const ForeignServer *found = GetForeignServerByName(server, true);
	const char *action = "ADD";
	ListCell   *cell;

	foreach(cell, found ? found->options : NIL)
	{
		if (strcmp(lfirst_node(DefElem, cell)->defname, option) == 0)
			action = "SET";
	}
	return psprintf("ALTER SERVER %s OPTIONS (%s %s '%s');",
					quote_identifier(server), action, option, value);
}

/* ---- the validator ---- */

static void
require_option(const char *value, const char *name, const char *when,
			   const char *options)
{
	if (value == NULL)
		REFUSE(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
			   errmsg("option \"%s\" is required %s", name, when),
			   errhint("Use OPTIONS (%s).", options));
}

static void
check_mapping(const Account *account)
{
	static const char *const options = "username '...', password '...'";
	static const char *const proxy = "proxy_user '...', proxy_password '...'";

	require_option(account->username, "username", "on a user mapping", options);
	require_option(account->password, "password", "on a user mapping", options);
	if (account->proxy_user)
		require_option(account->proxy_password, "proxy_password", "with proxy_user", proxy);
	if (account->proxy_password)
		require_option(account->proxy_user, "proxy_user", "with proxy_password", proxy);
}

static void
check_server(const Account *account)
{
	if (account->ca_file &&
		!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		REFUSE(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			   errmsg("permission denied to set option \"ca_file\""),
			   errdetail("The option makes the server read a file."),
			   errhint("Only roles with privileges of the \"pg_read_server_files\" role may set this option."));
	if (account->proxy && account->endpoint &&
		strncmp(account->endpoint, "http:", 5) == 0)
		REFUSE(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			   errmsg("option \"proxy\" cannot be used with an http endpoint, which is a loopback address"));
	if (account->page_size > YELP_MAX_PAGE_SIZE)
		ereport(NOTICE,
				(errmsg("option \"page_size\" is greater than %d, the maximum that Yelp documents",
						YELP_MAX_PAGE_SIZE)));
}

void
option_validate(List *options, Oid catalog)
{
	Account		account = {0};
	StringInfoData valid;
	ListCell   *cell;

	initStringInfo(&valid);
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].catalog == rules_catalog(catalog))
			appendStringInfo(&valid, "%s%s", valid.len ? ", " : "", rules[i].name);
	}
	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const OptionRule *rule = find_rule(def->defname, catalog);

		if (rule == NULL)
			REFUSE(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				   errmsg("invalid option \"%s\"",
						  text_shown(def->defname, strlen(def->defname), NAMEDATALEN)),
				   valid.len ?
				   errhint("Valid options in this context are: %s.", valid.data) :
				   errhint("There are no valid options in this context."));
		set_option(&account, rule, defGetString(def), false);
	}
	if (catalog == UserMappingRelationId)
		check_mapping(&account);
	else
		check_server(&account);
}
