/*
 * curl_compat.h
 *	  What differs between versions of libcurl.
 *
 * Every test of LIBCURL_VERSION_NUM is in this file.
 */
#ifndef YELP_SYNC_CURL_COMPAT_H
#define YELP_SYNC_CURL_COMPAT_H

#include <curl/curl.h>

/*
 * What libcurl calls too many or too long headers: before 8.6 it does not tell
 * them from a lack of memory.
 */
#if LIBCURL_VERSION_NUM >= 0x080600
#define COMPAT_CURLE_TOO_LARGE CURLE_TOO_LARGE
#else
#define COMPAT_CURLE_TOO_LARGE CURLE_OUT_OF_MEMORY
#endif

/* No other protocols than HTTP and HTTPS. */
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
 * No wait for a thread that still resolves a name: when a transfer is given
 * up, and from 8.20 on, where the threads are the multi handle's, with that.
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
