/*
 * lost_fields.c
 *	  Detect fields that disappeared from all programs of an account at once.
 *
 * If an API renames a field, no individual program is malformed: the column
 * merely becomes NULL in all of them.  So for each column that changed in
 * several programs, check whether any program still has the field.  Usually
 * the first one does.
 */
#include "postgres.h"

#include "lost_fields.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* In a single program, fields may come and go. */
#define MIN_PROGRAMS 2

static void
note_column(LostFields *fields, const char *column, int length)
{
	for (int i = 0; i < PROGRAM_COLUMNS; i++)
	{
		const char *name = program_columns[i].name;

		if ((int) strlen(name) == length && memcmp(name, column, length) == 0)
			fields->changed[i]++;
	}
}

void
lost_fields_note(LostFields *fields, Datum columns)
{
	ArrayType  *list = DatumGetArrayTypeP(columns);
	Datum	   *names;
	int			count;

	deconstruct_array(list, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &count);
	for (int i = 0; i < count; i++)
		note_column(fields, VARDATA_ANY(DatumGetPointer(names[i])),
					VARSIZE_ANY_EXHDR(DatumGetPointer(names[i])));
	/* The memory context lives as long as the whole statement */
	pfree(names);
	if ((Pointer) list != DatumGetPointer(columns))
		pfree(list);
}

/* Does any of the account's programs have something at this path? */
static bool
is_anywhere(const char *path, const char *schema, const char *username)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(username), CStringGetTextDatum(path)};
	char	   *sql = psprintf("SELECT FROM %s.yelp_programs p"
							   " WHERE p.username OPERATOR(pg_catalog.=) $1"
							   "  AND (p.data OPERATOR(pg_catalog.#>) $2::pg_catalog.text[]) IS NOT NULL"
							   " LIMIT 1", schema);

	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	return SPI_processed > 0;
}

static void
add_name(StringInfo names, const char *name)
{
	/* An object's name stands for all of its fields */
	if (strstr(names->data, psprintf("\"%s\"", name)) == NULL)
		appendStringInfo(names, "%s\"%s\"", names->len > 0 ? ", " : "", name);
}

/*
 * The path of the column's member, as text[]; for an array, in its first
 * object.
 */
static char *
path_of(const ProgramColumn *column)
{
	const char *object = program_objects[column->place];

	if (object == NULL)
		return psprintf("{%s}", column->name);
	return psprintf("{%s,%s%s}", object, column->place == IN_BUSINESS ? "0," : "",
					column->name);
}

char *
lost_fields_find(const LostFields *fields, const char *schema, const char *username)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < PROGRAM_COLUMNS; i++)
	{
		const ProgramColumn *column = &program_columns[i];
		const char *object = program_objects[column->place];

		if (fields->changed[i] < MIN_PROGRAMS ||
			is_anywhere(path_of(column), schema, username))
			continue;
		if (object && is_anywhere(psprintf("{%s}", object), schema, username))
			add_name(&names, psprintf("%s.%s", object, column->name));
		else
			add_name(&names, object ? object : column->name);
	}
	return names.len > 0 ? names.data : NULL;
}
