/*
 * client_text.h
 *	  Messages with text that the client's encoding may lack characters for.
 */
#ifndef YELP_SYNC_CLIENT_TEXT_H
#define YELP_SYNC_CLIENT_TEXT_H

/*
 * The text, which is in the server's encoding, with a question mark for each
 * character that does not exist in the client's: a message with such a
 * character would raise an error instead of being sent.  NULL stays NULL.
 * Needs a transaction; the result is the argument or palloc'd.
 */
extern const char *client_text(const char *text);

#endif							/* YELP_SYNC_CLIENT_TEXT_H */
