/*
 * option_fuzz.c
 *	  Any value at all for each option.
 *
 * The first byte of an input says which option, the rest is its value.  Runs in
 * a server (see in_server.c), since its functions parse numbers.  A URL that is
 * accepted is parsed once more as libcurl does it in a transfer: it must lead
 * where it says it does, and carry nothing that nobody asked for.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <math.h>

#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "utils/memutils.h"

#include "option.h"
#include "text.h"

#include "fuzz.h"

/* An option, and where a number goes with the bounds that the README gives */
typedef struct FuzzOption
{
	const char *name;
	Oid			catalog;
	size_t		field;
	double		min;
	double		max;
	bool		is_real;
	const char *unit;			/* what a number without one is taken for */
} FuzzOption;

#define INTEGER(name, min, max, unit) \
	{#name, ForeignServerRelationId, offsetof(Account, name), min, max, false, unit}
#define REAL(name, min, max, unit) \
	{#name, ForeignServerRelationId, offsetof(Account, name), min, max, true, unit}
#define TEXT(name, catalog) {#name, catalog, 0, 0, 0, false, NULL}

#define HOUR 3600000

static const FuzzOption options[] = {
	INTEGER(page_size, 1, 100, NULL),
	INTEGER(concurrency, 1, 1000, NULL),
	INTEGER(attempts, 1, 10, NULL),
	INTEGER(max_page_bytes, 1024, 268435456, "B"),
	INTEGER(connect_timeout, 1, HOUR, "s"),
	INTEGER(timeout, 1, HOUR, "s"),
	INTEGER(retry_delay, 1, HOUR, "s"),
	INTEGER(retry_max_delay, 1, HOUR, "s"),
	INTEGER(max_retry_after, 0, 24 * HOUR, "s"),
	REAL(retry_factor, 1, 100, NULL),
	REAL(max_deleted, 0, 100, "%"),
	TEXT(endpoint, ForeignServerRelationId),
	TEXT(proxy, ForeignServerRelationId),
	TEXT(program_status, ForeignServerRelationId),
	TEXT(http_version, ForeignServerRelationId),
	TEXT(ca_file, ForeignServerRelationId),
	TEXT(partial, ForeignServerRelationId),
	TEXT(trust_total, ForeignServerRelationId),
	TEXT(record_changes, ForeignServerRelationId),
	TEXT(username, UserMappingRelationId),
	TEXT(password, UserMappingRelationId),
	TEXT(proxy_user, UserMappingRelationId),
	TEXT(proxy_password, UserMappingRelationId)
};

static List *
list_of(const char *name, const char *value)
{
	return list_make1(makeDefElem((char *) name, (Node *) makeString((char *) value), -1));
}

/* A user mapping with all of its options, one of them with the value. */
static List *
mapping_with(const char *name, const char *value)
{
	static const char *const usual[][2] = {
		{"username", "acme"}, {"password", "s3cret"},
		{"proxy_user", "carol"}, {"proxy_password", "pr0xy"}
	};
	List	   *list = NIL;

	for (int i = 0; i < (int) lengthof(usual); i++)
		list = list_concat(list, list_of(usual[i][0], strcmp(usual[i][0], name) == 0 ?
										 value : usual[i][1]));
	return list;
}

static List *
options_with(const FuzzOption *option, const char *value)
{
	if (option->catalog == UserMappingRelationId)
		return mapping_with(option->name, value);
	return list_of(option->name, value);
}

static void
check_message(const char *message)
{
	int			length = message ? strlen(message) : 0;

	fuzz_check(length > 0, "an error says something");
	fuzz_check(pg_verify_mbstr(PG_UTF8, message, length, true), "an error is UTF-8");
	fuzz_check(!text_has_controls(message, length), "an error has no control characters");
}

static void
check_error(const FuzzOption *option, const char *value, const ErrorData *error)
{
	char	   *quoted = psprintf("\"%s\"", option->name);

	fuzz_check(error->sqlerrcode == ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
			   "a wrong value has the SQLSTATE of one");
	check_message(error->message);
	fuzz_check(strstr(error->message, quoted) != NULL, "an error names the option");
	if (error->detail)
		check_message(error->detail);
	if (error->hint)
		check_message(error->hint);
	/* A short one may be part of any word */
	if (strstr(option->name, "password") && strlen(value) > 40)
		fuzz_check(strstr(error->message, value) == NULL, "a password is not shown");
}

/* Does the validator accept the value? */
static bool
is_valid(const FuzzOption *option, const char *value)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool valid = true;

	PG_TRY();
	{
		option_validate(options_with(option, value), option->catalog);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		check_error(option, value, error);
		valid = false;
	}
	PG_END_TRY();
	return valid;
}

/* The number that a value which is valid sets. */
static double
number_of(const FuzzOption *option, const char *value)
{
	Account		account = {0};
	char	   *field = (char *) &account + option->field;

	option_set_stored(&account, list_of(option->name, value), option->catalog);
	return option->is_real ? *(double *) field : *(int *) field;
}

static void
check_same(const FuzzOption *option, const char *value, double number)
{
	/* With a unit, the server's parser rounds halves of a millisecond itself */
	double		tolerance = option->is_real ? 0 : 1;

	fuzz_check(is_valid(option, value) &&
			   fabs(number_of(option, value) - number) <= tolerance,
			   "another spelling sets the same number");
}

static void
check_number(const FuzzOption *option, const char *value)
{
	double		number = number_of(option, value);
	bool		is_bare = strspn(value, "0123456789.") == strlen(value);

	fuzz_check(number >= option->min && number <= option->max,
			   "a number is within its bounds");
	/* No room for more; and ".5MB" must not begin with whitespace */
	if (strlen(value) > 60 || !isdigit((unsigned char) value[0]))
		return;
	check_same(option, psprintf(" %s", value), number);
	if (option->unit && is_bare)
		check_same(option, psprintf("%s%s", value, option->unit), number);
}

/* ---- the URL as libcurl takes it ---- */

#define QUERY "offset=0&limit=20&program_status=ALL"

/* A part of the URL, palloc'd, or "" where it has none. */
static char *
get_part(CURLU *url, CURLUPart what)
{
	char	   *part = NULL;
	char	   *copy = pstrdup("");

	if (curl_url_get(url, what, &part, 0) == CURLUE_OK)
		copy = pstrdup(part);
	curl_free(part);
	return copy;
}

static bool
is_loopback(const char *host)
{
	struct in_addr address;

	return pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
		(inet_pton(AF_INET, host, &address) == 1 &&
		 (ntohl(address.s_addr) & 0xFF000000) == 0x7F000000);
}

static bool
is_one_of(const char *text, const char *list)
{
	return strstr(list, psprintf(" %s ", text)) != NULL;
}

static void
check_url(const FuzzOption *option, const char *value)
{
	bool		is_proxy = strcmp(option->name, "proxy") == 0;
	Account		account = {0};
	CURLU	   *url = curl_url();
	char	   *scheme;

	option_set_stored(&account, list_of(option->name, value), option->catalog);
	fuzz_check(url && curl_url_set(url, CURLUPART_URL, is_proxy ? account.proxy :
								   psprintf("%s?" QUERY, account.endpoint),
								   CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK,
			   "libcurl takes the URL");
	fuzz_check(strcmp(get_part(url, CURLUPART_USER), "") == 0 &&
			   strcmp(get_part(url, CURLUPART_PASSWORD), "") == 0 &&
			   strcmp(get_part(url, CURLUPART_FRAGMENT), "") == 0,
			   "there is no user, password or fragment");
	fuzz_check(strcmp(get_part(url, CURLUPART_QUERY), is_proxy ? "" : QUERY) == 0,
			   "the query is ours alone");
	scheme = get_part(url, CURLUPART_SCHEME);
	if (is_proxy)
		fuzz_check(is_one_of(scheme, " http https socks5 socks5h ") &&
				   is_one_of(get_part(url, CURLUPART_PATH), "  / "),
				   "a proxy is of a kind that is known, and has no path");
	else
		fuzz_check(strcmp(scheme, "https") == 0 ||
				   (strcmp(scheme, "http") == 0 && is_loopback(get_part(url, CURLUPART_HOST))),
				   "without TLS a password stays on this machine");
	curl_url_cleanup(url);
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	const FuzzOption *option;
	char	   *value;

	if (size == 0)
		return 0;
	option = &options[data[0] % lengthof(options)];
	value = fuzz_text(data + 1, size - 1);
	if (!pg_verify_mbstr(PG_UTF8, value, strlen(value), true) ||
		!is_valid(option, value))
		return 0;
	if (option->max > 0)
		check_number(option, value);
	if (strcmp(option->name, "endpoint") == 0 || strcmp(option->name, "proxy") == 0)
		check_url(option, value);
	return 0;
}
