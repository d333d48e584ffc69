/*
 * curl_compat.h
 *	  Differences between libcurl versions.
 *
 * All tests of LIBCURL_VERSION_NUM are in this file.
 */
#ifndef YELP_SYNC_CURL_COMPAT_H
#define YELP_SYNC_CURL_COMPAT_H

#include <curl/curl.h>

/*
 * libcurl's error for too many or too long headers; before 8.6, it is the
 * same as for out of memory.
 */
#if LIBCURL_VERSION_NUM >= 0x080600
#define COMPAT_CURLE_TOO_LARGE CURLE_TOO_LARGE
#else
#define COMPAT_CURLE_TOO_LARGE CURLE_OUT_OF_MEMORY
#endif

/* Allow no protocols other than HTTP and HTTPS. */
static inline CURLcode
compat_limit_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS,
							(long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/*
 * Do not wait for a thread that is still resolving a name when a transfer is
 * abandoned or, from 8.20 on, where the threads belong to the multi handle,
 * when that is destroyed.
 */
static inline CURLcode
compat_quick_exit(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075700
	return curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#else
	(void) easy;
	return CURLE_OK;
#endif
}

/* Runs all transfers, and says anew which sockets to wait for. */
static inline CURLMcode
compat_run_all(CURLM *multi, int *running)
{
	CURLMcode	code;

#if LIBCURL_VERSION_NUM >= 0x075700
	CURL_IGNORE_DEPRECATION(code = curl_multi_socket_all(multi, running);)
#else
	code = curl_multi_socket_all(multi, running);
#endif
	return code;
}

static inline CURLMcode
compat_multi_quick_exit(CURLM *multi)
{
#if LIBCURL_VERSION_NUM >= 0x081400
	return curl_multi_setopt(multi, CURLMOPT_QUICK_EXIT, 1L);
#else
	(void) multi;
	return CURLM_OK;
#endif
}

#endif							/* YELP_SYNC_CURL_COMPAT_H */
