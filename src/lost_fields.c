/*
 * lost_fields.c
 *	  Fields that are gone from every program of an account at once.
 *
 * Where an API renames a field, no program is odd by itself: its column merely
 * becomes NULL, in all of them.  So for each column that changed in several
 * programs it is looked whether any program still has the field.  As a rule the
 * first one has.
 */
#include "postgres.h"

#include "lost_fields.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* In a single program a field comes and goes. */
#define MIN_PROGRAMS 2

/* The field of a column, and the object that holds it, or NULL */
static const struct
{
	const char *column;
	const char *object;
	const char *path;
}			fields[] =
{
	{"program_type", NULL, "{program_type}"},
	{"program_status", NULL, "{program_status}"},
	{"program_pause_status", NULL, "{program_pause_status}"},
	{"start_date", NULL, "{start_date}"},
	{"end_date", NULL, "{end_date}"},
	{"yelp_business_id", "businesses", "{businesses,0,yelp_business_id}"},
	{"partner_business_id", "businesses", "{businesses,0,partner_business_id}"},
	{"budget", "program_metrics", "{program_metrics,budget}"},
	{"max_bid", "program_metrics", "{program_metrics,max_bid}"},
	{"ad_cost", "program_metrics", "{program_metrics,ad_cost}"},
	{"currency", "program_metrics", "{program_metrics,currency}"},
	{"fee_period", "program_metrics", "{program_metrics,fee_period}"},
	{"is_autobid", "program_metrics", "{program_metrics,is_autobid}"},
	{"billed_impressions", "program_metrics", "{program_metrics,billed_impressions}"},
	{"billed_clicks", "program_metrics", "{program_metrics,billed_clicks}"},
	{"active_features", NULL, "{active_features}"},
	{"available_features", NULL, "{available_features}"},
};

StaticAssertDecl(lengthof(fields) <= lengthof(((LostFields *) NULL)->changed),
				 "each column has a count");

static void
note_column(LostFields *lost, const char *column, int length)
{
	for (int i = 0; i < (int) lengthof(fields); i++)
	{
		if ((int) strlen(fields[i].column) == length &&
			memcmp(fields[i].column, column, length) == 0)
			lost->changed[i]++;
	}
}

void
lost_fields_note(LostFields *lost, Datum columns)
{
	ArrayType  *list = DatumGetArrayTypeP(columns);
	Datum	   *names;
	int			count;

	deconstruct_array(list, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &count);
	for (int i = 0; i < count; i++)
		note_column(lost, VARDATA_ANY(DatumGetPointer(names[i])),
					VARSIZE_ANY_EXHDR(DatumGetPointer(names[i])));
	/* The context is that of the whole statement */
	pfree(names);
	if ((Pointer) list != DatumGetPointer(columns))
		pfree(list);
}

/* Has any of the account's programs something at this path? */
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

char *
lost_fields_find(const LostFields *lost, const char *schema, const char *username)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < (int) lengthof(fields); i++)
	{
		const char *object = fields[i].object;

		if (lost->changed[i] < MIN_PROGRAMS ||
			is_anywhere(fields[i].path, schema, username))
			continue;
		if (object && is_anywhere(psprintf("{%s}", object), schema, username))
			add_name(&names, psprintf("%s.%s", object, fields[i].column));
		else
			add_name(&names, object ? object : fields[i].column);
	}
	return names.len > 0 ? names.data : NULL;
}
