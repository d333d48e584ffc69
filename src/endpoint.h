/*
 * endpoint.h
 *	  Check which URLs may receive a password.
 */
#ifndef YELP_SYNC_ENDPOINT_H
#define YELP_SYNC_ENDPOINT_H

/*
 * Both return NULL for a valid URL, otherwise an error message without its
 * beginning, the option's name.  Both may raise 53200.
 */
extern const char *endpoint_problem(const char *url);
extern const char *proxy_problem(const char *url);

#endif							/* YELP_SYNC_ENDPOINT_H */
