/*
 * program_fields.h
 *	  The members of a program that the extension reads, and their valid
 *	  values.
 *
 * Needs no server: memory is palloc'd in the current context, and no errors
 * are raised.
 */
#ifndef YELP_SYNC_PROGRAM_FIELDS_H
#define YELP_SYNC_PROGRAM_FIELDS_H

#include "json.h"

/* What is wrong with a number, worded like json_unstorable() */
extern const char program_not_integer[];
extern const char program_out_of_range[];

/*
 * Parses a number whose value is an integer, and returns what is wrong with
 * it: NULL, or one of the above.  If it is out of range, the integer is
 * PG_INT64_MIN or PG_INT64_MAX.
 */
extern const char *program_integer(const JsonToken *value, int64 *integer);

/*
 * The names of a program's fields whose values are not valid, separated by
 * commas; NULL if none.
 */
extern char *program_problems(const JsonToken *program);

#endif							/* YELP_SYNC_PROGRAM_FIELDS_H */
