/*
 * http_easy.h
 *	  What libcurl is told of each request.  Only http.c needs to know.
 */
#ifndef YELP_SYNC_HTTP_EASY_H
#define YELP_SYNC_HTTP_EASY_H

#include <curl/curl.h>

#include "http.h"

/*
 * An easy handle with all settings and no callbacks, which the caller frees.
 * Raises 53200 where there is no memory.
 */
extern CURL *http_easy_create(const HttpSettings *settings);

#endif							/* YELP_SYNC_HTTP_EASY_H */
