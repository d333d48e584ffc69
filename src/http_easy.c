/*
 * http_easy.c
 *	  The libcurl options of a request: limits, connection, credentials.
 */
#include "postgres.h"

#include "http_easy.h"

#include "curl_compat.h"
#include "http_pool.h"

#define USER_AGENT "yelp_sync/" YELP_SYNC_VERSION

/* Size of the receive buffer: fits a typical page */
#define RECEIVED_BYTES (32 * 1024)

void
http_easy_check(CURLcode code, const char *option)
{
	if (code == CURLE_OK)
		return;
	if (code == CURLE_OUT_OF_MEMORY)
		http_pool_reject_memory();
	ereport(ERROR,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("could not set libcurl option %s: %s", option,
					curl_easy_strerror(code)),
			 errdetail("The library is %s.", curl_version())));
}

static void
set_limits(CURL *easy, const HttpSettings *settings)
{
	CURL_SET(easy, CURLOPT_NOSIGNAL, 1L);
	CURL_SET(easy, CURLOPT_BUFFERSIZE, (long) RECEIVED_BYTES);
	CURL_SET(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long) settings->connect_timeout);
	CURL_SET(easy, CURLOPT_TIMEOUT_MS, (long) settings->timeout);
	CURL_SET(easy, CURLOPT_FOLLOWLOCATION, 0L);
	http_easy_check(compat_limit_protocols(easy), "CURLOPT_PROTOCOLS");
	http_easy_check(compat_quick_exit(easy), "CURLOPT_QUICK_EXIT");
}

static void
set_connection(CURL *easy, const HttpSettings *settings)
{
	bool		tls = pg_strncasecmp(settings->endpoint, "https:", 6) == 0;

	/* If unset, libcurl would look at the environment */
	CURL_SET(easy, CURLOPT_PROXY, settings->proxy ? settings->proxy : "");
	CURL_SET(easy, CURLOPT_NOPROXY, "");
	CURL_SET(easy, CURLOPT_PROXYAUTH, (long) CURLAUTH_BASIC);
	if (settings->proxy && settings->proxy_user)
	{
		CURL_SET(easy, CURLOPT_PROXYUSERNAME, settings->proxy_user);
		CURL_SET(easy, CURLOPT_PROXYPASSWORD, settings->proxy_password);
	}
	CURL_SET(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	CURL_SET(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	CURL_SET(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	CURL_SET(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	CURL_SET(easy, CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	CURL_SET(easy, CURLOPT_SOCKS5_AUTH, (long) CURLAUTH_BASIC);
	CURL_SET(easy, CURLOPT_SHARE, http_pool.share);
	if (settings->ca_file)
	{
		CURL_SET(easy, CURLOPT_CAINFO, settings->ca_file);
		CURL_SET(easy, CURLOPT_PROXY_CAINFO, settings->ca_file);
	}
	CURL_SET(easy, CURLOPT_HTTP_VERSION,
			 (long) (settings->http2 ? CURL_HTTP_VERSION_2TLS :
					 CURL_HTTP_VERSION_1_1));
	/* On plain HTTP, this would serialize the requests */
	if (settings->http2 && tls)
		CURL_SET(easy, CURLOPT_PIPEWAIT, 1L);
}

static void
set_credentials(CURL *easy, const HttpSettings *settings)
{
	CURL_SET(easy, CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
	CURL_SET(easy, CURLOPT_USERNAME, settings->username);
	CURL_SET(easy, CURLOPT_PASSWORD, settings->password);
	CURL_SET(easy, CURLOPT_USERAGENT, USER_AGENT);
	CURL_SET(easy, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
}

void
http_easy_configure(CURL *easy, const HttpSettings *settings)
{
	set_limits(easy, settings);
	set_connection(easy, settings);
	set_credentials(easy, settings);
}
