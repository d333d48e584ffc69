/*
 * endpoint.c
 *	  Check which URLs may receive a password.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "endpoint.h"

/*
 * The part of a URL between "//" and the path: host, port and user
 * information.
 */
typedef struct Authority
{
	const char *start;
	size_t		length;
} Authority;

/*
 * Finds the authority. libcurl also accepts a scheme with a single slash, so
 * a "://" later in the URL does not delimit the scheme.
 */
static Authority
find_authority(const char *url)
{
	const char *colon = url + strcspn(url, ":/");
	Authority	authority = {NULL, 0};

	if (strncmp(colon, "://", strlen("://")) == 0)
	{
		authority.start = colon + strlen("://");
		authority.length = strcspn(authority.start, "/");
	}
	return authority;
}

/* Copies the host as spelled, including an IPv6 address's brackets. */
static void
copy_host(Authority authority, char *buf, size_t size)
{
	const char *end = authority.start;

	if (*end == '[')
		end += strcspn(end, "]/") + 1;
	else
		end += strcspn(end, ":/");
	buf[0] = '\0';
	if ((size_t) (end - authority.start) < size)
		strlcpy(buf, authority.start, end - authority.start + 1);
}

/*
 * Is the host certainly this machine?  Only the usual spellings are accepted,
 * because libraries disagree about what "127.1" or "0177.0.0.1" means.
 */
static bool
is_loopback(const char *host)
{
	struct in_addr addr;

	if (inet_pton(AF_INET, host, &addr) == 1)
		return (ntohl(addr.s_addr) >> 24) == 127;
	return pg_strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

/* ---- the text, before any library interprets it ---- */

static bool
has_odd_character(const char *url)
{
	for (const char *at = url; *at != '\0'; at++)
	{
		if ((unsigned char) *at <= ' ' || (unsigned char) *at >= 0x7F)
			return true;
	}
	return false;
}

static bool
authority_has(Authority authority, char c)
{
	return memchr(authority.start, c, authority.length) != NULL;
}

static const char *
check_text(const char *url, Authority authority)
{
	if (has_odd_character(url))
		return "must not contain spaces, control characters or non-ASCII characters";
	if (strchr(url, '\\') != NULL)
		return "must not contain a backslash";
	if (strpbrk(url, "?#") != NULL)
		return "must not contain a query or a fragment";
	if (authority.length == 0)
		return "must be an absolute URL";
	if (authority_has(authority, '@'))
		return "must not contain a user or a password";
	if (authority_has(authority, '%'))
		return "must not contain a percent sign in its host";
	return NULL;
}

/* ---- the parts ---- */

typedef struct Url
{
	CURLU	   *parts;			/* as parsed by libcurl */
	Authority	authority;
	bool		out_of_memory;
} Url;

/* Copies one part of the URL; an empty string if it is missing. */
static void
url_part(Url *url, CURLUPart what, char *buf, size_t size)
{
	char	   *part = NULL;
	CURLUcode	code = curl_url_get(url->parts, what, &part, 0);

	buf[0] = '\0';
	if (code == CURLUE_OK)
		strlcpy(buf, part, size);
	url->out_of_memory |= code == CURLUE_OUT_OF_MEMORY;
	curl_free(part);
}

/* A colon must be followed by a port, and that must not be 0. */
static bool
has_bad_port(Url *url)
{
	char		port[16];

	url_part(url, CURLUPART_PORT, port, sizeof(port));
	if (url->authority.start[url->authority.length - 1] == ':')
		return true;
	return port[0] != '\0' && strspn(port, "0") == strlen(port);
}

static const char *
check_endpoint(Url *url)
{
	char		scheme[16];
	char		host[256];

	url_part(url, CURLUPART_SCHEME, scheme, sizeof(scheme));
	copy_host(url->authority, host, sizeof(host));
	if (strcmp(scheme, "https") == 0)
		return NULL;
	if (strcmp(scheme, "http") == 0 && is_loopback(host))
		return NULL;
	return "must begin with https://, or with http:// for a loopback address";
}

static const char *
check_proxy(Url *url)
{
	char		scheme[16];
	const char *path = url->authority.start + url->authority.length;

	url_part(url, CURLUPART_SCHEME, scheme, sizeof(scheme));
	/* libcurl interprets socks5h://localhost/path as a Unix-domain socket */
	if (strcmp(path, "") != 0 && strcmp(path, "/") != 0)
		return "must not contain a path";
	if (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0 ||
		strcmp(scheme, "socks5") == 0 || strcmp(scheme, "socks5h") == 0)
		return NULL;
	return "must begin with http://, https://, socks5:// or socks5h://";
}

static const char *
check_parts(Url *url, const char *text, const char *(*check) (Url *url))
{
	CURLUcode	code = curl_url_set(url->parts, CURLUPART_URL, text,
									CURLU_NON_SUPPORT_SCHEME);

	url->out_of_memory = code == CURLUE_OUT_OF_MEMORY;
	if (code != CURLUE_OK)
		return "must be an absolute URL";
	if (has_bad_port(url))
		return "must have a port from 1 to 65535 after the colon";
	return check(url);
}

static void
reject_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while checking a URL.")));
}

static const char *
check_url(const char *text, const char *(*check) (Url *url))
{
	Url			url = {.authority = find_authority(text)};
	const char *problem = check_text(text, url.authority);

	if (problem)
		return problem;
	url.parts = curl_url();
	if (url.parts == NULL)
		reject_memory();
	problem = check_parts(&url, text, check);
	curl_url_cleanup(url.parts);
	if (url.out_of_memory)
		reject_memory();
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
