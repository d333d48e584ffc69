/*
 * endpoint.c
 *	  Which URLs we are willing to send a password to.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "endpoint.h"

#define MAX_URL_BYTES 2048

/* One part of the URL in buf; an empty string where it has none. */
static void
url_part(CURLU *url, CURLUPart what, char *buf, size_t size)
{
	char	   *part = NULL;

	buf[0] = '\0';
	if (curl_url_get(url, what, &part, 0) == CURLUE_OK)
		strlcpy(buf, part, size);
	curl_free(part);
}

static bool
has_part(CURLU *url, CURLUPart what)
{
	char		part[8];

	url_part(url, what, part, sizeof(part));
	return part[0] != '\0';
}

/* Does the host name this machine whatever the network says? */
static bool
is_loopback(const char *host)
{
	struct in_addr addr;

	if (inet_pton(AF_INET, host, &addr) == 1)
		return (ntohl(addr.s_addr) >> 24) == 127;
	return pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

static const char *
check_endpoint(CURLU *url)
{
	char		scheme[16];
	char		host[256];

	url_part(url, CURLUPART_SCHEME, scheme, sizeof(scheme));
	url_part(url, CURLUPART_HOST, host, sizeof(host));
	if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
		return "must not contain a user or a password";
	if (has_part(url, CURLUPART_QUERY) || has_part(url, CURLUPART_FRAGMENT))
		return "must not contain a query or a fragment";
	if (strcmp(scheme, "https") == 0)
		return NULL;
	if (strcmp(scheme, "http") == 0 && is_loopback(host))
		return NULL;
	return "must begin with https://, or with http:// for a loopback address";
}

static const char *
check_proxy(CURLU *url)
{
	char		scheme[16];
	char		path[8];

	url_part(url, CURLUPART_SCHEME, scheme, sizeof(scheme));
	url_part(url, CURLUPART_PATH, path, sizeof(path));
	if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
		return "must not contain a user or a password";
	/* To libcurl a path of socks5h://localhost is that of a unix socket */
	if (path[0] != '\0' && strcmp(path, "/") != 0)
		return "must not contain a path";
	if (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0 ||
		strcmp(scheme, "socks5") == 0 || strcmp(scheme, "socks5h") == 0)
		return NULL;
	return "must begin with http://, https://, socks5:// or socks5h://";
}

static const char *
check_url(const char *text, const char *(*check) (CURLU *url))
{
	CURLU	   *url = curl_url();
	const char *problem;

	if (url == NULL)
		return "could not be checked: out of memory";
	if (strlen(text) > MAX_URL_BYTES)
		problem = "must not be longer than " CppAsString2(MAX_URL_BYTES) " bytes";
	else if (strpbrk(text, "?#") != NULL)
		problem = "must not contain a query or a fragment";
	else if (strchr(text, '@') != NULL)
		problem = "must not contain a user or a password";
	else if (curl_url_set(url, CURLUPART_URL, text,
						  CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		problem = "must be an absolute URL";
	else
		problem = check(url);
	curl_url_cleanup(url);
	return problem;
}

const char *
endpoint_problem(const char *url)
{
	return check_url(url, check_endpoint);
}

const char *
proxy_problem(const char *url)
{
	return check_url(url, check_proxy);
}
