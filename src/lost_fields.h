/*
 * lost_fields.h
 *	  Detect fields that disappeared from all programs of an account at once.
 */
#ifndef YELP_SYNC_LOST_FIELDS_H
#define YELP_SYNC_LOST_FIELDS_H

#include "columns.h"

/* Number of programs of a sync in which each column changed; initially zero */
typedef struct LostFields
{
	int64		changed[PROGRAM_COLUMNS];
} LostFields;

/* Notes the columns that changed in a program, a text[]. */
extern void lost_fields_note(LostFields *fields, Datum columns);

/*
 * The fields that several of the account's programs had before and that none
 * has now, as text; NULL if there are none.  Needs an SPI connection; the
 * schema is quoted.
 */
extern char *lost_fields_find(const LostFields *fields, const char *schema,
							  const char *username);

#endif							/* YELP_SYNC_LOST_FIELDS_H */
