/*
 * http_easy.h
 *	  What libcurl is told of each request.  Only http*.c need to know.
 */
#ifndef YELP_SYNC_HTTP_EASY_H
#define YELP_SYNC_HTTP_EASY_H

#include <curl/curl.h>

#include "http.h"

/*
 * Sets an option, or raises an error: a request that went out without it could
 * ask for something else, or trust somebody else.
 */
#define CURL_SET(easy, option, value) \
	http_easy_check(curl_easy_setopt(easy, option, value), #option)

/* Raises 53200 or HV000 where libcurl refused an option. */
extern void http_easy_check(CURLcode code, const char *option);

/* Sets all options but the callbacks.  Raises as CURL_SET does. */
extern void http_easy_configure(CURL *easy, const HttpSettings *settings);

#endif							/* YELP_SYNC_HTTP_EASY_H */
