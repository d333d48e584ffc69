/*
 * program_columns.h
 *	  The columns of yelp_programs that a program's document fills.
 *
 * Pure: needs no server.
 */
#ifndef YELP_SYNC_PROGRAM_COLUMNS_H
#define YELP_SYNC_PROGRAM_COLUMNS_H

/* Where in a program a column's member is */
typedef enum ProgramPlace
{
	IN_PROGRAM,
	IN_METRICS,
	IN_BUSINESS					/* the first one */
} ProgramPlace;

#define PROGRAM_PLACES (IN_BUSINESS + 1)

typedef enum ProgramColumnType
{
	COLUMN_TEXT,
	COLUMN_TEXTS,
	COLUMN_DATE,
	COLUMN_CENTS,
	COLUMN_INTEGER,
	COLUMN_BOOLEAN
} ProgramColumnType;

#define PROGRAM_COLUMN_TYPES (COLUMN_BOOLEAN + 1)

/* A column and the member of its name */
typedef struct ProgramColumn
{
	const char *name;
	ProgramPlace place;
	ProgramColumnType type;
} ProgramColumn;

#define PROGRAM_COLUMNS 17

/* In the order of the SQL type yelp_sync_values, where problems comes last */
extern const ProgramColumn program_columns[PROGRAM_COLUMNS];

/* The object that holds the members of a place, or an array of them; NULL for a program itself. */
extern const char *const program_objects[PROGRAM_PLACES];

/* How the names of members in the column problems begin, by their place */
extern const char *const program_prefixes[PROGRAM_PLACES];

/*
 * Reads 10 bytes as YYYY-MM-DD: false unless they are a day of the Gregorian
 * calendar from year 1 on.
 */
extern bool program_date(const char *text, int *year, int *month, int *day);

#endif							/* YELP_SYNC_PROGRAM_COLUMNS_H */
