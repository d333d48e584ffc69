/*
 * option.c
 *	  Options of servers and user mappings.
 *
 * A table defines the object, the valid values and the target field of each
 * option.  The validator and the account look-up use the same table and
 * parser, so a value is always interpreted as it was when it was accepted.
 *
 * A statement that sets options may contain a password, and the log shows the
 * statement and the context of an error.  Therefore all messages from this
 * file hide both, no matter which option they are about.
 */
#include "postgres.h"

#include <math.h>

#include "option.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "endpoint.h"
#include "sanitize.h"

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_CHOICE,
	OPTION_BOOL,
	OPTION_INT,
	OPTION_REAL,
	OPTION_PERCENT,				/* with or without a percent sign */
	OPTION_BYTES,				/* stored as bytes */
	OPTION_DURATION				/* stored as milliseconds */
} OptionType;

/* Returns an error message for a text, or NULL. */
typedef const char *(*OptionCheck) (const char *value);

typedef struct OptionRule
{
	const char *name;
	Oid			catalog;
	OptionType	type;
	size_t		field;			/* offset of its field in Account */
	const char *initial;		/* default as a user would write it, or NULL */
	double		min;			/* for numbers: bytes, milliseconds or as
								 * written */
	double		max;
	const char *range;			/* min to max, for messages */
	const char *choices;		/* "a, b, c" */
	int			max_length;		/* for texts, in bytes */
	OptionCheck check;			/* for texts */
} OptionRule;

#define MAX_USERNAME_LENGTH 255
#define MAX_PASSWORD_LENGTH 1024
#define MAX_URL_LENGTH 2048

/* Any number or choice fits in this; longer values are not shown */
#define MAX_VALUE_LENGTH 64

/* Yelp's documented maximum for the parameter "limit" */
#define YELP_MAX_PAGE_SIZE 40

/*
 * Invisible characters, or those that change the order in which others are
 * shown: zero-width characters and bidirectional controls.
 */
static bool
is_invisible(pg_wchar c)
{
	return c == 0xAD || c == 0x61C || c == 0x180E || c == 0xFEFF ||
		(c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
		(c >= 0x2060 && c <= 0x206F);
}

static bool
is_blank(pg_wchar c)
{
	return c == ' ' || c == 0xA0 || c == 0x1680 ||
		(c >= 0x2000 && c <= 0x200A) || c == 0x202F || c == 0x205F ||
		c == 0x3000;
}

static bool
is_control(pg_wchar c)
{
	return c < ' ' || (c >= 0x7F && c < 0xA0);
}

/*
 * The character at a position; in encodings other than UTF8, non-ASCII bytes
 * count as letters.
 */
static pg_wchar
character_at(const char *at, int *length)
{
	*length = 1;
	if (!IS_HIGHBIT_SET(*at))
		return (unsigned char) *at;
	if (GetDatabaseEncoding() != PG_UTF8)
		return 'x';
	*length = pg_utf_mblen((const unsigned char *) at);
	return utf8_to_unicode((const unsigned char *) at);
}

static const char *
check_username(const char *value)
{
	bool		ends_blank = false;
	int			length;

	if (value[0] == '\0')
		return "must not be empty";
	for (const char *at = value; *at != '\0'; at += length)
	{
		pg_wchar	c = character_at(at, &length);

		if (c == ':')
			return "must not contain a colon, which HTTP Basic authentication does not allow";
		if (is_control(c) || is_invisible(c))
			return "must not contain control characters, line breaks or invisible characters";
		ends_blank = is_blank(c);
		if (at == value && ends_blank)
			return "must not begin with whitespace";
	}
	return ends_blank ? "must not end with whitespace" : NULL;
}

static const char *
check_not_empty(const char *value)
{
	return value[0] == '\0' ? "must not be empty" : NULL;
}

/* A relative path would be looked up in the data directory. */
static const char *
check_file(const char *value)
{
	return is_absolute_path(value) ? NULL : "must be an absolute path";
}

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
	.type = OPTION_DURATION, .min = from, .max = to, .range = text
#define NUMBER(kind, from, to) \
	.type = kind, .min = from, .max = to, .range = #from " to " #to
#define CHOICE(list) .type = OPTION_CHOICE, .choices = list
#define BOOLEAN .type = OPTION_BOOL, .choices = "on, off"
#define TEXT(length, function) \
	.type = OPTION_TEXT, .max_length = length, .check = function

/* *INDENT-OFF* */
static const OptionRule rules[] =
{
	{ON_SERVER(endpoint), TEXT(MAX_URL_LENGTH, endpoint_problem),
		.initial = "https://partner-api.yelp.com/programs/v1"},
	{ON_SERVER(program_status), CHOICE("PAST, PAUSED, CURRENT, FUTURE, ALL"),
		.initial = "ALL"},
	{ON_SERVER(page_size), NUMBER(OPTION_INT, 1, 100), .initial = "20"},
	{ON_SERVER(concurrency), NUMBER(OPTION_INT, 1, 1000), .initial = "100"},
	{ON_SERVER(connect_timeout), DURATION(1, HOUR, "1ms to 1h"),
		.initial = "10s"},
	{ON_SERVER(timeout), DURATION(1, HOUR, "1ms to 1h"), .initial = "30s"},
	{ON_SERVER(attempts), NUMBER(OPTION_INT, 1, 10), .initial = "3"},
	{ON_SERVER(retry_delay), DURATION(1, HOUR, "1ms to 1h"), .initial = "1s"},
	{ON_SERVER(retry_factor), NUMBER(OPTION_REAL, 1, 100), .initial = "2.0"},
	{ON_SERVER(retry_max_delay), DURATION(1, HOUR, "1ms to 1h"),
		.initial = "10s"},
	{ON_SERVER(max_retry_after), DURATION(0, 24 * HOUR, "0 to 24h"),
		.initial = "2min"},
	{ON_SERVER(http_version), CHOICE("1.1, 2"), .initial = "1.1"},
	{ON_SERVER(ca_file), TEXT(MAXPGPATH - 1, check_file)},
	{ON_SERVER(proxy), TEXT(MAX_URL_LENGTH, proxy_problem)},
	{ON_SERVER(max_page_bytes), .type = OPTION_BYTES, .min = KILOBYTE,
		.max = 256 * MEGABYTE, .range = "1kB to 256MB", .initial = "4MB"},
	{ON_SERVER(partial), BOOLEAN, .initial = "off"},
	{ON_SERVER(trust_total), BOOLEAN, .initial = "on"},
	{ON_SERVER(max_deleted), .type = OPTION_PERCENT, .min = 0, .max = 100,
		.range = "0% to 100%", .initial = "50%"},
	{ON_SERVER(record_changes), BOOLEAN, .initial = "off"},
	{ON_MAPPING(username), TEXT(MAX_USERNAME_LENGTH, check_username)},
	{ON_MAPPING(password), TEXT(MAX_PASSWORD_LENGTH, check_not_empty)},
	{ON_MAPPING(proxy_user), TEXT(MAX_USERNAME_LENGTH, check_username)},
	{ON_MAPPING(proxy_password), TEXT(MAX_USERNAME_LENGTH, check_not_empty)},
};
/* *INDENT-ON* */

StaticAssertDecl(lengthof(rules) <= 64, "each option has a bit");

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

/* ---- errors ---- */

/*
 * Removes the error's context, which includes the statement if a function ran
 * it.  The stack is restored by whoever catches the error.
 */
static void
drop_context(void)
{
	error_context_stack = NULL;
}

/* Rejects a value without showing it, because it may be a password. */
static void
reject_value(const OptionRule *rule, const char *problem)
{
	drop_context();
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("option \"%s\" %s", rule->name, problem),
			 errhidestmt(true)));
}

static void
check_length(const OptionRule *rule, const char *value)
{
	int			limit = rule->max_length ? rule->max_length : MAX_VALUE_LENGTH;

	if (strlen(value) > (size_t) limit)
		reject_value(rule, psprintf("must not be longer than %d bytes", limit));
}

static void
reject_range(const OptionRule *rule, const char *value, const char *hint)
{
	drop_context();
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", rule->name,
					text_has_controls(value, strlen(value)) ?
					text_shown(value, strlen(value), MAX_VALUE_LENGTH) : value),
			 errdetail("Valid values are: %s.",
					   rule->range ? rule->range : rule->choices),
			 hint ? errhint("%s", hint) : 0,
			 errhidestmt(true)));
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
	drop_context();
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"",
					text_shown(name, strlen(name), NAMEDATALEN)),
			 valid.len ?
			 errhint("Valid options in this context are: %s.", valid.data) :
			 errhint("There are no valid options in this context."),
			 errhidestmt(true)));
}

static void
reject_incomplete(const char *missing, const char *where, const char *options)
{
	drop_context();
	ereport(ERROR,
			(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
			 errmsg("option \"%s\" is required %s", missing, where),
			 errhint("Use OPTIONS (%s).", options),
			 errhidestmt(true)));
}

static void
require_credentials(const Account *account)
{
	static const char *const mapping = "on a user mapping";
	static const char *const options = "username '...', password '...'";
	static const char *const proxy_options = "proxy_user '...', proxy_password '...'";

	if (account->username == NULL)
		reject_incomplete("username", mapping, options);
	if (account->password == NULL)
		reject_incomplete("password", mapping, options);
	if (account->proxy_user && account->proxy_password == NULL)
		reject_incomplete("proxy_password", "with proxy_user", proxy_options);
	if (account->proxy_password && account->proxy_user == NULL)
		reject_incomplete("proxy_user", "with proxy_password", proxy_options);
}

static void
require_file_rights(const char *option)
{
	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		return;
	drop_context();
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to set option \"%s\"", option),
			 errdetail("The option makes the server read a file."),
			 errhint("Only roles with privileges of the \"pg_read_server_files\" role may set this option."),
			 errhidestmt(true)));
}

/* ---- values ---- */

/* Is the value one of the choices, a list like "a, b, c"? */
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

/* A percentage without the percent sign. */
static char *
without_percent_sign(const char *value)
{
	size_t		length = strlen(value);

	if (length > 1 && value[length - 1] == '%')
		length--;
	return pnstrdup(value, length);
}

/* Is the value a number without a unit? */
static bool
is_bare_number(const char *value)
{
	return value[0] != '\0' && value[strspn(value, "0123456789. ")] == '\0';
}

/* A number in the option's unit: bytes, milliseconds, percent or none. */
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
			valid = parse_real(value, &real, GUC_UNIT_S, &hint);
			real *= SECOND;
			if (is_bare_number(value))
				hint = "A number without a unit is in seconds; milliseconds need their unit, as in '500ms'.";
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

/* Checks a value and stores it in the account. */
static void
set_option(Account *account, const OptionRule *rule, const char *value)
{
	const char *problem;

	check_length(rule, value);
	switch (rule->type)
	{
		case OPTION_CHOICE:
			if (!is_choice(value, rule->choices))
				reject_range(rule, value, NULL);
			*ACCOUNT_FIELD(account, rule, char *) = pstrdup(value);
			break;
		case OPTION_TEXT:
			problem = rule->check(value);
			if (problem)
				reject_value(rule, problem);
			*ACCOUNT_FIELD(account, rule, char *) = pstrdup(value);
			break;
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

void
option_set_defaults(Account *account)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].initial)
			set_option(account, &rules[i], rules[i].initial);
	}
}

void
option_set_stored(Account *account, List *options, Oid catalog)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = lfirst_node(DefElem, cell);
		const OptionRule *rule = find_rule(def->defname, catalog);

		if (rule == NULL)
			continue;
		set_option(account, rule, defGetString(def));
		account->given |= UINT64CONST(1) << (rule - rules);
	}
}

bool
option_is_given(const Account *account, const char *name)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (strcmp(rules[i].name, name) == 0)
			return (account->given >> i & 1) != 0;
	}
	return false;
}

/* ---- the validator ---- */

/* Warns about values that are valid, but probably not intended. */
static void
advise(const Account *account)
{
	ErrorContextCallback *context = error_context_stack;

	drop_context();
	if (account->page_size > YELP_MAX_PAGE_SIZE)
		ereport(NOTICE,
				(errmsg("option \"page_size\" is greater than %d, the maximum that Yelp documents",
						YELP_MAX_PAGE_SIZE),
				 errhidestmt(true)));
	if (account->endpoint &&
		account->endpoint[strlen(account->endpoint) - 1] == '/')
		ereport(NOTICE,
				(errmsg("option \"endpoint\" ends with a slash, which is sent as is"),
				 errhint("The URL of Yelp's API has no trailing slash."),
				 errhidestmt(true)));
	error_context_stack = context;
}

void
option_validate(List *options, Oid catalog)
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
	if (catalog == UserMappingRelationId)
		require_credentials(&account);
	advise(&account);
}
