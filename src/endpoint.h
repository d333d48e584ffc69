/*
 * endpoint.h
 *	  Which URLs we are willing to send a password to.
 */
#ifndef YELP_SYNC_ENDPOINT_H
#define YELP_SYNC_ENDPOINT_H

/*
 * Both return NULL for a URL that is fit for its purpose, else what is wrong
 * with it, as the end of a sentence that begins with the option's name.  Both
 * raise 53200.
 */
extern const char *endpoint_problem(const char *url);
extern const char *proxy_problem(const char *url);

#endif							/* YELP_SYNC_ENDPOINT_H */
