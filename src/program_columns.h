/*
 * program_columns.h
 *	  The columns of yelp_programs that are filled from a program's document.
 *
 * Pure: needs no server.
 */
#ifndef YELP_SYNC_PROGRAM_COLUMNS_H
#define YELP_SYNC_PROGRAM_COLUMNS_H

/* The location of a column's member in a program */
typedef enum ProgramPlace
{
	IN_PROGRAM,
	IN_METRICS,
	IN_BUSINESS					/* the first business */
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

/* A column and the JSON member with the same name */
typedef struct ProgramColumn
{
	const char *name;
	ProgramPlace place;
	ProgramColumnType type;
} ProgramColumn;

#define PROGRAM_COLUMNS 17

/*
 * In the order of the SQL type yelp_sync_values, whose last attribute is
 * problems
 */
extern const ProgramColumn program_columns[PROGRAM_COLUMNS];

/*
 * The object with the members, or an array of such objects; NULL for the
 * program itself.
 */
extern const char *const program_objects[PROGRAM_PLACES];

/* Prefixes of the member names in the column problems, by location */
extern const char *const program_prefixes[PROGRAM_PLACES];

/*
 * Parses 10 bytes as YYYY-MM-DD; false unless they are a valid Gregorian date
 * from year 1 on.
 */
extern bool program_date(const char *text, int *year, int *month, int *day);

#endif							/* YELP_SYNC_PROGRAM_COLUMNS_H */
