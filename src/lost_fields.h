/*
 * lost_fields.h
 *	  Fields that are gone from every program of an account at once.
 */
#ifndef YELP_SYNC_LOST_FIELDS_H
#define YELP_SYNC_LOST_FIELDS_H

#include "program_columns.h"

/* In how many programs of a sync each column changed; zero at first */
typedef struct LostFields
{
	int64		changed[PROGRAM_COLUMNS];
} LostFields;

/* Notes the columns that changed in a program, a text[]. */
extern void lost_fields_note(LostFields *fields, Datum columns);

/*
 * The fields that had been there in several of the account's programs, and now
 * are in none, as text; NULL where there are none.  Needs an SPI connection; the
 * schema is quoted.
 */
extern char *lost_fields_find(const LostFields *fields, const char *schema,
							  const char *username);

#endif							/* YELP_SYNC_LOST_FIELDS_H */
