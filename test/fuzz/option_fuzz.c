/*
 * option_fuzz.c
 *	  Arbitrary values for each option.
 *
 * The first byte of an input selects the option, the rest is its value.  Runs
 * in a server (see in_server.c), because its functions parse numbers.  A URL
 * that is accepted is parsed again as libcurl does it in a transfer: it must
 * lead where it seems to, and have no other parts.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <math.h>

#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "nodes/makefuncs.h"
#include "utils/memutils.h"

#include "option.h"
#include "text.h"

#include "fuzz.h"

/* An option; the field and the bounds of a number */
typedef struct FuzzOption
{
	const char *name;
	Oid			catalog;
	size_t		field;
	double		min;
	double		max;
	bool		is_real;
	const char *unit;			/* of a number without one */
} FuzzOption;

#define INTEGER(name, min, max, unit) \
	{#name, ForeignServerRelationId, offsetof(Account, name), min, max, false, unit}
#define REAL(name, min, max, unit) \
	{#name, ForeignServerRelationId, offsetof(Account, name), min, max, true, unit}
#define SERVER(name) {#name, ForeignServerRelationId, 0, 0, 0, false, NULL}
#define MAPPING(name) {#name, UserMappingRelationId, 0, 0, 0, false, NULL}

#define HOUR 3600000

/* The corpus refers to them by position */
static const FuzzOption options[] = {
	INTEGER(page_size, 2, 100, NULL),
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
	SERVER(endpoint), SERVER(proxy), SERVER(program_status), SERVER(http_version), SERVER(ca_file),
	SERVER(partial), SERVER(trust_total), SERVER(record_changes),
	MAPPING(username), MAPPING(password), MAPPING(proxy_user), MAPPING(proxy_password),
};

static List *
list_of(const char *name, const char *value)
{
	return list_make1(makeDefElem((char *) name, (Node *) makeString((char *) value), -1));
}

/* Those of a user mapping come with all others of it. */
static List *
options_with(const FuzzOption *option, const char *value)
{
	static const char *const others[][2] = {
		{"username", "acme"}, {"password", "s3cret"}, {"proxy_user", "carol"}, {"proxy_password", "pr0xy"}
	};
	List	   *list = list_of(option->name, value);

	if (option->catalog != UserMappingRelationId)
		return list;
	for (int i = 0; i < (int) lengthof(others); i++)
	{
		if (strcmp(others[i][0], option->name) != 0)
			list = list_concat(list, list_of(others[i][0], others[i][1]));
	}
	return list;
}

static void
check_message(const char *message)
{
	fuzz_check(message[0] != '\0' && fuzz_is_utf8(message, strlen(message)) &&
			   !text_has_controls(message, strlen(message)),
			   "an error is UTF-8 without control characters");
}

static void
check_error(const FuzzOption *option, const char *value, const ErrorData *error)
{
	fuzz_check(error->sqlerrcode == ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
			   "an invalid value has its SQLSTATE");
	fuzz_check(strstr(error->message, psprintf("\"%s\"", option->name)) != NULL,
			   "an error names the option");
	check_message(error->message);
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

/* The number that a valid value sets. */
static double
number_of(const FuzzOption *option, const char *value)
{
	Account		account = {0};
	char	   *field = (char *) &account + option->field;

	option_set_stored(&account, list_of(option->name, value), option->catalog, false);
	return option->is_real ? *(double *) field : *(int *) field;
}

/* With a unit, the server's parser itself rounds halves of a millisecond. */
static void
check_same(const FuzzOption *option, const char *value, double number)
{
	fuzz_check(is_valid(option, value) &&
			   fabs(number_of(option, value) - number) <= (option->is_real ? 0 : 1),
			   "another spelling sets the same number");
}

static void
check_number(const FuzzOption *option, const char *value)
{
	double		number = number_of(option, value);

	fuzz_check(number >= option->min && number <= option->max, "a number is within its bounds");
	/* If it can be longer; and ".5MB" must not begin with whitespace */
	if (strlen(value) > 60 || !isdigit((unsigned char) value[0]))
		return;
	check_same(option, psprintf(" %s", value), number);
	if (option->unit && strspn(value, "0123456789.") == strlen(value))
		check_same(option, psprintf("%s%s", value, option->unit), number);
}

/* ---- the URL as libcurl takes it ---- */

#define QUERY "offset=0&limit=20&program_status=ALL"

/* Is a part of the URL one of these?  A missing one is empty. */
static bool
part_is(CURLU *url, CURLUPart what, const char *const *allowed)
{
	char	   *part = NULL;
	bool		found = false;

	if (curl_url_get(url, what, &part, 0) != CURLUE_OK)
		part = NULL;
	for (; *allowed; allowed++)
		found |= strcmp(part ? part : "", *allowed) == 0;
	curl_free(part);
	return found;
}

#define PART_IS(what, ...) part_is(url, CURLUPART_##what, (const char *[]) {__VA_ARGS__, NULL})

static bool
is_loopback(CURLU *url)
{
	struct in_addr address;
	char	   *host = NULL;
	bool		is_address;

	if (curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		return false;
	is_address = inet_pton(AF_INET, host, &address) == 1 &&
		(ntohl(address.s_addr) & 0xFF000000) == 0x7F000000;
	is_address |= pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
	curl_free(host);
	return is_address;
}

static void
check_url(const FuzzOption *option, const char *value)
{
	bool		is_proxy = strcmp(option->name, "proxy") == 0;
	Account		account = {0};
	CURLU	   *url = curl_url();

	option_set_stored(&account, list_of(option->name, value), option->catalog, false);
	fuzz_check(url && curl_url_set(url, CURLUPART_URL, is_proxy ? account.proxy :
								   psprintf("%s?" QUERY, account.endpoint),
								   CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK,
			   "libcurl accepts the URL");
	fuzz_check(PART_IS(USER, "") && PART_IS(PASSWORD, "") && PART_IS(FRAGMENT, ""),
			   "there is no user, password or fragment");
	fuzz_check(PART_IS(QUERY, is_proxy ? "" : QUERY), "the query is only ours");
	if (is_proxy)
		fuzz_check(PART_IS(SCHEME, "http", "https", "socks5", "socks5h") && PART_IS(PATH, "", "/"),
				   "a proxy is of a known kind, and has no path");
	else
		fuzz_check(PART_IS(SCHEME, "https") || (PART_IS(SCHEME, "http") && is_loopback(url)),
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
	if (!fuzz_is_utf8(value, strlen(value)) || !is_valid(option, value))
		return 0;
	if (option->max > 0)
		check_number(option, value);
	if (strcmp(option->name, "endpoint") == 0 || strcmp(option->name, "proxy") == 0)
		check_url(option, value);
	return 0;
}
