/*
 * server_encoding.h
 *	  Check whether the characters of a text exist in the server's encoding.
 */
#ifndef YELP_SYNC_SERVER_ENCODING_H
#define YELP_SYNC_SERVER_ENCODING_H

/*
 * Looks up the conversion from UTF-8; must be called in a transaction, before
 * the next function.
 */
extern void server_encoding_prepare(void);

/*
 * Do all characters of this JSON text in UTF-8 exist in it, including those
 * spelled as escapes?  The length is in bytes.
 */
extern bool server_encoding_has(const char *json, int length);

#endif							/* YELP_SYNC_SERVER_ENCODING_H */
