/*
 * sanitize.h
 *	  Text that came from outside, made fit for messages.
 */
#ifndef YELP_SYNC_SANITIZE_H
#define YELP_SYNC_SANITIZE_H

/* Is there a control character in UTF-8 of this length in bytes? */
extern bool text_has_controls(const char *text, int length);

/*
 * UTF-8 as it may be shown: at most so many bytes in whole characters, without
 * control, bidirectional and invisible characters, and without blanks at its
 * end.  Palloc'd.
 */
extern char *text_shown(const char *text, int length, int most);

#endif							/* YELP_SYNC_SANITIZE_H */
