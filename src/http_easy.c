/*
 * http_easy.c
 *	  What libcurl is told of each request: limits, connection, credentials.
 */
#include "postgres.h"

#include "http_easy.h"

#include "compat.h"
#include "http_pool.h"

#define USER_AGENT "yelp_sync/1.0"

static void
set_limits(CURL *easy, const HttpSettings *settings)
{
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
					 (long) settings->connect_timeout);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) settings->timeout);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	compat_limit_curl(easy);
}

static void
set_connection(CURL *easy, const HttpSettings *settings)
{
	bool		tls = pg_strncasecmp(settings->endpoint, "https:", 6) == 0;

	/* Set even when there is none, or libcurl looks into the environment */
	curl_easy_setopt(easy, CURLOPT_PROXY, settings->proxy ? settings->proxy : "");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SOCKS5_AUTH, (long) CURLAUTH_BASIC);
	curl_easy_setopt(easy, CURLOPT_SHARE, http_pool.share);
	if (settings->ca_file)
	{
		curl_easy_setopt(easy, CURLOPT_CAINFO, settings->ca_file);
		curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, settings->ca_file);
	}
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
					 (long) (settings->http2 ? CURL_HTTP_VERSION_2TLS :
							 CURL_HTTP_VERSION_1_1));
	/* On plain HTTP it would make the requests wait for each other */
	if (settings->http2 && tls)
		curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
}

static void
set_credentials(CURL *easy, const HttpSettings *settings)
{
	curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
	curl_easy_setopt(easy, CURLOPT_USERNAME, settings->username);
	curl_easy_setopt(easy, CURLOPT_PASSWORD, settings->password);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, USER_AGENT);
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
}

CURL	   *
http_easy_create(const HttpSettings *settings)
{
	CURL	   *easy = curl_easy_init();

	if (easy == NULL)
		http_pool_reject_memory();
	set_limits(easy, settings);
	set_connection(easy, settings);
	set_credentials(easy, settings);
	return easy;
}
