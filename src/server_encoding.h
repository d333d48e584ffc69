/*
 * server_encoding.h
 *	  Whether the server's encoding has the characters of a text.
 */
#ifndef YELP_SYNC_SERVER_ENCODING_H
#define YELP_SYNC_SERVER_ENCODING_H

/* Looks up how to convert UTF-8 to it; to be called in a transaction, before the
 * next function. */
extern void server_encoding_prepare(void);

/*
 * Has it all characters of this JSON text in UTF-8, those included that are
 * spelled as escapes?  The length is in bytes.
 */
extern bool server_encoding_has(const char *json, int length);

#endif							/* YELP_SYNC_SERVER_ENCODING_H */
