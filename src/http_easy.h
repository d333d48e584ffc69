/*
 * http_easy.h
 *	  The libcurl options of a request. Private to http*.c.
 */
#ifndef YELP_SYNC_HTTP_EASY_H
#define YELP_SYNC_HTTP_EASY_H

#include <curl/curl.h>

#include "http.h"

/*
 * Sets an option, or raises an error: without it, the request could ask for
 * something else, or trust the wrong host.
 */
#define CURL_SET(easy, option, value) \
	http_easy_check(curl_easy_setopt(easy, option, value), #option)

/* Raises 53200 or HV000 if libcurl rejected an option. */
extern void http_easy_check(CURLcode code, const char *option);

/*
 * Sets all options except the callbacks.  Raises the same errors as CURL_SET.
 */
extern void http_easy_configure(CURL *easy, const HttpSettings *settings);

#endif							/* YELP_SYNC_HTTP_EASY_H */
