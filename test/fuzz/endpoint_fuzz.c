/*
 * endpoint_fuzz.c
 *	  Any text at all as the URL of the API or of a proxy.
 *
 * What endpoint_problem() and proxy_problem() accept is looked at again in the
 * way that libcurl does it in a transfer: it must lead where it says it does,
 * and carry nothing that nobody asked for.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "endpoint.h"

#include "fuzz.h"

/* ---- what raises an error where memory runs out, which it does not here ---- */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"

bool
errstart_cold(int elevel, const char *domain)
{
	abort();
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	abort();
}

int
errcode(int sqlerrcode)
{
	abort();
}

int
errmsg(const char *fmt,...)
{
	abort();
}

int
errdetail(const char *fmt,...)
{
	abort();
}

#pragma GCC diagnostic pop

/* ---- the URL as libcurl takes it ---- */

#define QUERY "offset=0&limit=20&program_status=ALL"

/* A part of the URL, palloc'd, or NULL where it has none. */
static char *
get_part(CURLU *url, CURLUPart what)
{
	char	   *part = NULL;
	char	   *copy = NULL;

	if (curl_url_get(url, what, &part, 0) == CURLUE_OK)
		copy = pstrdup(part);
	curl_free(part);
	return copy;
}

/* Is it the host of the URL's text, as it is written there? */
static bool
is_written(const char *host, const char *text)
{
	const char *start = strstr(text, "://") + strlen("://");
	size_t		length = strlen(host);

	return pg_strncasecmp(start, host, length) == 0 &&
		(start[length] == '\0' || strchr(":/?", start[length]));
}

static bool
is_loopback(const char *host)
{
	struct in_addr address;

	return pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
		(inet_pton(AF_INET, host, &address) == 1 &&
		 (ntohl(address.s_addr) & 0xFF000000) == 0x7F000000);
}

static void
check_port(CURLU *url)
{
	char	   *port = get_part(url, CURLUPART_PORT);

	if (port)
		fuzz_check(strtol(port, NULL, 10) >= 1 && strtol(port, NULL, 10) <= 65535,
				   "a port is one");
}

static CURLU *
parse(const char *text)
{
	CURLU	   *url = curl_url();

	fuzz_check(url != NULL, "there is memory");
	fuzz_check(curl_url_set(url, CURLUPART_URL, text,
							CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK,
			   "libcurl takes the URL");
	fuzz_check(!get_part(url, CURLUPART_USER) && !get_part(url, CURLUPART_PASSWORD) &&
			   !get_part(url, CURLUPART_OPTIONS) && !get_part(url, CURLUPART_FRAGMENT),
			   "there is no user, password or fragment");
	check_port(url);
	return url;
}

static void
check_endpoint(const char *text)
{
	char	   *page = psprintf("%s?" QUERY, text);
	CURLU	   *url = parse(page);
	char	   *scheme = get_part(url, CURLUPART_SCHEME);
	char	   *host = get_part(url, CURLUPART_HOST);

	fuzz_check(strcmp(get_part(url, CURLUPART_QUERY), QUERY) == 0,
			   "the query is ours alone");
	if (strcmp(scheme, "https") != 0)
		fuzz_check(strcmp(scheme, "http") == 0 && is_loopback(host) &&
				   is_written(host, text),
				   "without TLS a password stays on this machine");
	curl_url_cleanup(url);
}

static void
check_proxy(const char *text)
{
	CURLU	   *url = parse(text);
	char	   *scheme = get_part(url, CURLUPART_SCHEME);
	char	   *path = get_part(url, CURLUPART_PATH);

	fuzz_check(strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0 ||
			   strcmp(scheme, "socks5") == 0 || strcmp(scheme, "socks5h") == 0,
			   "a proxy is of a kind that is known");
	fuzz_check(path == NULL || strcmp(path, "/") == 0, "a proxy has no path");
	curl_url_cleanup(url);
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = fuzz_text(data, size);
	const char *problem = endpoint_problem(text);

	fuzz_check(problem == NULL || problem[0] != '\0', "a problem is said");
	if (problem == NULL)
		check_endpoint(text);
	problem = proxy_problem(text);
	fuzz_check(problem == NULL || problem[0] != '\0', "a problem is said");
	if (problem == NULL)
		check_proxy(text);

	fuzz_free_all();
	return 0;
}
