/*
 * columns.h
 *	  The columns of yelp_programs that are filled from a program's document.
 */
#ifndef YELP_SYNC_COLUMNS_H
#define YELP_SYNC_COLUMNS_H

/* The object that holds a column's member */
typedef enum ProgramPlace
{
	IN_PROGRAM,
	IN_METRICS,
	IN_BUSINESS					/* the first one */
} ProgramPlace;

/* A column and the JSON member with the same name */
typedef struct ProgramColumn
{
	const char *name;
	ProgramPlace place;
	Oid			type;			/* numeric: the member is in cents */
} ProgramColumn;

#define PROGRAM_COLUMNS 17

/* In the order of yelp_sync_values, whose last attribute is problems */
extern const ProgramColumn program_columns[PROGRAM_COLUMNS];

/* The members with these objects: the first business is in an array */
extern const char *const program_objects[];

#endif							/* YELP_SYNC_COLUMNS_H */
