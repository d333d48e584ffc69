/*
 * program_fields.h
 *	  The members of a program that the extension reads, and what they must
 *	  hold.
 *
 * Needs no server: memory is palloc'd in the current context, and nothing is
 * raised.
 */
#ifndef YELP_SYNC_PROGRAM_FIELDS_H
#define YELP_SYNC_PROGRAM_FIELDS_H

#include "json.h"

/* What is wrong with a number, as json_unstorable() says it */
extern const char program_not_integer[];
extern const char program_out_of_range[];

/*
 * Reads a number that is whole by value, and says what is wrong with it: NULL,
 * or one of the above.  Where it is out of range the integer is PG_INT64_MIN or
 * PG_INT64_MAX.
 */
extern const char *program_integer(const JsonToken *value, int64 *integer);

/*
 * The names of a program's fields that do not hold what they must, separated by
 * commas; NULL where there are none.
 */
extern char *program_problems(const JsonToken *program);

#endif							/* YELP_SYNC_PROGRAM_FIELDS_H */
