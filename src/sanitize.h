/*
 * sanitize.h
 *	  Make external text suitable for messages.
 */
#ifndef YELP_SYNC_SANITIZE_H
#define YELP_SYNC_SANITIZE_H

/* Does UTF-8 of this length in bytes contain a control character? */
extern bool text_has_controls(const char *text, int length);

/*
 * UTF-8 for display: up to the given number of bytes in whole characters,
 * without control, bidirectional or invisible characters, and without
 * trailing whitespace.  Palloc'd.
 */
extern char *text_shown(const char *text, int length, int most);

#endif							/* YELP_SYNC_SANITIZE_H */
