/*
 * text.h
 *	  Make text from outside suitable for messages.
 *
 * All text is UTF-8, as databases are.
 */
#ifndef YELP_SYNC_TEXT_H
#define YELP_SYNC_TEXT_H

#include "mb/pg_wchar.h"

/* Is the character a space of any width? */
extern bool text_is_blank(pg_wchar c);

/*
 * Is the character a control character, invisible, or does it change how
 * others are displayed?
 */
extern bool text_is_hidden(pg_wchar c);

/* Does a text of this length in bytes contain a control character? */
extern bool text_has_controls(const char *text, int length);

/*
 * The text for display: up to the given number of bytes in whole characters,
 * with spaces instead of hidden characters, and without trailing whitespace.
 * The text need not be valid.  Palloc'd.
 */
extern char *text_shown(const char *text, int length, int max);

/*
 * The text with a question mark for each character that does not exist in the
 * client's encoding: a message with such a character would raise an error
 * instead of being sent.  NULL stays NULL.  Needs a transaction; the result is
 * the argument or palloc'd.
 */
extern const char *client_text(const char *text);

#endif							/* YELP_SYNC_TEXT_H */
