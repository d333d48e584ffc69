/*
 * document.c
 *	  What the merge's SQL calls to read a program's document.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* What the server looks for; all else stays within the library */
#pragma GCC visibility push(default)

PG_FUNCTION_INFO_V1(yelp_sync_document);
PG_FUNCTION_INFO_V1(yelp_sync_columns);

#pragma GCC visibility pop

/* ---- a document as jsonb ---- */

/*
 * Errors that are about the document's content, not about the server's state;
 * an escape that the server's encoding has no character for is "not supported".
 */
static bool
is_about_content(int sqlstate)
{
	int			category = ERRCODE_TO_CATEGORY(sqlstate);

	return category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		category == ERRCODE_FEATURE_NOT_SUPPORTED;
}

/* What PostgreSQL's own JSON input cannot hold is an error of the API's. */
static void
reject_document(FunctionCallInfo fcinfo, const ErrorData *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION),
			 errmsg("could not store program \"%s\" from the page at offset " INT64_FORMAT
					": %s",
					text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_INT64(2),
					error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0));
}

/* The memory of one call after the other: to read JSON leaves much behind. */
static MemoryContext
scratch_context(FmgrInfo *flinfo)
{
	if (flinfo->fn_extra == NULL)
		flinfo->fn_extra = AllocSetContextCreate(flinfo->fn_mcxt,
												 "yelp_sync document",
												 ALLOCSET_DEFAULT_SIZES);
	return flinfo->fn_extra;
}

/*
 * yelp_sync_document(document text, program_id text, page_offset bigint) returns jsonb
 *
 * An error is raised anew at once, so no subtransaction is needed.
 */
Datum
yelp_sync_document(PG_FUNCTION_ARGS)
{
	MemoryContext scratch = scratch_context(fcinfo->flinfo);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	char	   *document = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum		data = (Datum) 0;

	PG_TRY();
	{
		data = DirectFunctionCall1(jsonb_in, CStringGetDatum(document));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!is_about_content(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		reject_document(fcinfo, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	data = datumCopy(data, false, -1);
	MemoryContextReset(scratch);
	return data;
}

/* ---- its members as columns ---- */

/* Where in a program a column's member is */
typedef enum ColumnPlace
{
	IN_PROGRAM,
	IN_METRICS,
	IN_BUSINESS,				/* the first one */
	PLACES
} ColumnPlace;

typedef enum ColumnType
{
	COLUMN_TEXT,
	COLUMN_TEXTS,
	COLUMN_DATE,
	COLUMN_CENTS,
	COLUMN_INTEGER,
	COLUMN_BOOLEAN
} ColumnType;

/* A column and the member of its name */
typedef struct Column
{
	const char *name;
	ColumnPlace place;
	ColumnType	type;
} Column;

/* The names of members in the column problems begin so */
static const char *const prefixes[PLACES] = {
	[IN_METRICS] = "program_metrics.",
	[IN_PROGRAM] = "",
	[IN_BUSINESS] = "businesses[0]."
};

/* In the order of the type yelp_sync_values, where problems comes last */
static const Column columns[] = {
	{"program_type", IN_PROGRAM, COLUMN_TEXT},
	{"program_status", IN_PROGRAM, COLUMN_TEXT},
	{"program_pause_status", IN_PROGRAM, COLUMN_TEXT},
	{"start_date", IN_PROGRAM, COLUMN_DATE},
	{"end_date", IN_PROGRAM, COLUMN_DATE},
	{"yelp_business_id", IN_BUSINESS, COLUMN_TEXT},
	{"partner_business_id", IN_BUSINESS, COLUMN_TEXT},
	{"budget", IN_METRICS, COLUMN_CENTS},
	{"max_bid", IN_METRICS, COLUMN_CENTS},
	{"ad_cost", IN_METRICS, COLUMN_CENTS},
	{"currency", IN_METRICS, COLUMN_TEXT},
	{"fee_period", IN_METRICS, COLUMN_TEXT},
	{"is_autobid", IN_METRICS, COLUMN_BOOLEAN},
	{"billed_impressions", IN_METRICS, COLUMN_INTEGER},
	{"billed_clicks", IN_METRICS, COLUMN_INTEGER},
	{"active_features", IN_PROGRAM, COLUMN_TEXTS},
	{"available_features", IN_PROGRAM, COLUMN_TEXTS}
};

#define COLUMNS ((int) lengthof(columns))

/* Is the member named among the problems, which may be NULL? */
static bool
is_problem(ArrayType *problems, const char *prefix, const char *name)
{
	size_t		length = strlen(prefix);
	Datum	   *fields;
	int			count;

	if (problems == NULL)
		return false;
	deconstruct_array(problems, TEXTOID, -1, false, TYPALIGN_INT, &fields, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		const char *field = TextDatumGetCString(fields[i]);

		if (strncmp(field, prefix, length) == 0 && strcmp(field + length, name) == 0)
			return true;
	}
	return false;
}

static JsonbContainer *
object_in(const JsonbValue *value)
{
	return value && value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data) ? value->val.binary.data : NULL;
}

/* The objects that members are in, NULL where there is none. */
static void
find_objects(Jsonb *program, ArrayType *problems, JsonbContainer **objects)
{
	JsonbValue	value;
	JsonbValue *found;

	objects[IN_PROGRAM] = &program->root;
	found = getKeyJsonValueFromContainer(&program->root, "program_metrics",
										 strlen("program_metrics"), &value);
	objects[IN_METRICS] = object_in(found);
	found = getKeyJsonValueFromContainer(&program->root, "businesses",
										 strlen("businesses"), &value);
	objects[IN_BUSINESS] = NULL;
	if (found && found->type == jbvBinary &&
		JsonContainerIsArray(found->val.binary.data) &&
		!is_problem(problems, "", "businesses"))
		objects[IN_BUSINESS] =
			object_in(getIthJsonbValueFromContainer(found->val.binary.data, 0));
}

static Datum
text_of(const JsonbValue *string)
{
	return PointerGetDatum(cstring_to_text_with_len(string->val.string.val,
													string->val.string.len));
}

/* A JSON array of strings as an array; false if it is something else. */
static bool
read_texts(const JsonbValue *value, Datum *array)
{
	JsonbContainer *list = value->val.binary.data;
	Datum	   *texts;
	int			count;

	if (value->type != jbvBinary || !JsonContainerIsArray(list))
		return false;
	count = JsonContainerSize(list);
	texts = palloc(Max(count, 1) * sizeof(Datum));
	for (int i = 0; i < count; i++)
	{
		JsonbValue *string = getIthJsonbValueFromContainer(list, i);

		if (string->type != jbvString)
			return false;
		texts[i] = text_of(string);
	}
	*array = PointerGetDatum(construct_array(texts, count, TEXTOID, -1, false,
											 TYPALIGN_INT));
	return true;
}

/* The number that so many digits make. */
static int
read_digits(const char *digits, int count)
{
	int			number = 0;

	for (int i = 0; i < count; i++)
		number = number * 10 + (digits[i] - '0');
	return number;
}

/* A day as YYYY-MM-DD, which program_fields.c has checked. */
static bool
read_date(const JsonbValue *value, Datum *date)
{
	const char *text = value->val.string.val;

	if (value->type != jbvString || value->val.string.len != 10)
		return false;
	*date = DateADTGetDatum(date2j(read_digits(text, 4), read_digits(text + 5, 2),
								   read_digits(text + 8, 2)) - POSTGRES_EPOCH_JDATE);
	return true;
}

/* A number that is whole by value. */
static bool
read_integer(const JsonbValue *value, Datum *integer)
{
	if (value->type != jbvNumeric)
		return false;
	*integer = DirectFunctionCall1(numeric_int8, NumericGetDatum(value->val.numeric));
	return true;
}

/* An amount in cents as one in units of the currency. */
static bool
read_cents(const JsonbValue *value, Datum *amount)
{
	if (!read_integer(value, amount))
		return false;
	*amount = NumericGetDatum(int64_div_fast_to_numeric(DatumGetInt64(*amount), 2));
	return true;
}

/* What the member is as a column; false if that is NULL. */
static bool
read_column(const JsonbValue *value, ColumnType type, Datum *datum)
{
	switch (type)
	{
		case COLUMN_TEXT:
			if (value->type == jbvString)
				*datum = text_of(value);
			return value->type == jbvString;
		case COLUMN_BOOLEAN:
			*datum = BoolGetDatum(value->val.boolean);
			return value->type == jbvBool;
		case COLUMN_TEXTS:
			return read_texts(value, datum);
		case COLUMN_DATE:
			return read_date(value, datum);
		case COLUMN_CENTS:
			return read_cents(value, datum);
		case COLUMN_INTEGER:
			return read_integer(value, datum);
	}
	return false;
}

/* The function's row type; it lives as long as the query. */
static TupleDesc
result_desc(FunctionCallInfo fcinfo)
{
	FmgrInfo   *function = fcinfo->flinfo;
	MemoryContext caller = MemoryContextSwitchTo(function->fn_mcxt);
	TupleDesc	desc = function->fn_extra;

	if (desc == NULL)
	{
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
			desc->natts != COLUMNS + 1)
			elog(ERROR, "function yelp_sync_columns() returns another type than yelp_sync_values");
		function->fn_extra = desc;
	}
	MemoryContextSwitchTo(caller);
	return desc;
}

/*
 * yelp_sync_columns(program jsonb, problems text[]) returns yelp_sync_values
 */
Datum
yelp_sync_columns(PG_FUNCTION_ARGS)
{
	Jsonb	   *program = PG_GETARG_JSONB_P(0);
	ArrayType  *problems = PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1);
	JsonbContainer *objects[PLACES];
	Datum		values[COLUMNS + 1];
	bool		nulls[COLUMNS + 1];

	find_objects(program, problems, objects);
	for (int i = 0; i < COLUMNS; i++)
	{
		const Column *column = &columns[i];
		JsonbContainer *object = objects[column->place];
		JsonbValue	value;

		nulls[i] = object == NULL ||
			getKeyJsonValueFromContainer(object, column->name, strlen(column->name),
										 &value) == NULL ||
			is_problem(problems, prefixes[column->place], column->name) ||
			!read_column(&value, column->type, &values[i]);
	}
	nulls[COLUMNS] = problems == NULL;
	values[COLUMNS] = PointerGetDatum(problems);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result_desc(fcinfo), values, nulls)));
}
