/*
 * columns.c
 *	  SQL functions that map a program's document to columns, and compare them.
 *
 * The table below is the only list of these columns, beside the SQL type
 * yelp_sync_values.
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
#include "utils/numeric.h"
#include "utils/typcache.h"

/* Symbols needed by the server; all others stay private to the library */
#pragma GCC visibility push(default)

PG_FUNCTION_INFO_V1(yelp_sync_columns);
PG_FUNCTION_INFO_V1(yelp_sync_changed);

#pragma GCC visibility pop

/* Amounts in cents that fit numeric(14,2) are less than this */
#define CENTS_BOUND INT64CONST(100000000000000)

/* The object that holds a column's member */
typedef enum ProgramPlace
{
	IN_PROGRAM,
	IN_METRICS,
	IN_BUSINESS					/* the first one */
} ProgramPlace;

/* The members with these objects; the businesses are an array */
static const char *const program_objects[] = {
	[IN_PROGRAM] = NULL,
	[IN_METRICS] = "program_metrics",
	[IN_BUSINESS] = "businesses"
};

/*
 * The columns, and JSON members with the same names, in the order of
 * yelp_sync_values, whose last attribute is problems.
 */
static const struct
{
	const char *name;
	ProgramPlace place;
	Oid			type;			/* numeric: the member is in cents */
}			program_columns[] =

{
	{"program_type", IN_PROGRAM, TEXTOID},
	{"program_status", IN_PROGRAM, TEXTOID},
	{"program_pause_status", IN_PROGRAM, TEXTOID},
	{"start_date", IN_PROGRAM, DATEOID},
	{"end_date", IN_PROGRAM, DATEOID},
	{"yelp_business_id", IN_BUSINESS, TEXTOID},
	{"partner_business_id", IN_BUSINESS, TEXTOID},
	{"budget", IN_METRICS, NUMERICOID},
	{"max_bid", IN_METRICS, NUMERICOID},
	{"ad_cost", IN_METRICS, NUMERICOID},
	{"currency", IN_METRICS, TEXTOID},
	{"fee_period", IN_METRICS, TEXTOID},
	{"is_autobid", IN_METRICS, BOOLOID},
	{"billed_impressions", IN_METRICS, INT8OID},
	{"billed_clicks", IN_METRICS, INT8OID},
	{"active_features", IN_PROGRAM, TEXTARRAYOID},
	{"available_features", IN_PROGRAM, TEXTARRAYOID}
};

#define PROGRAM_COLUMNS ((int) lengthof(program_columns))

/* ---- converting members ---- */

static Datum
text_of(const JsonbValue *string)
{
	return PointerGetDatum(cstring_to_text_with_len(string->val.string.val,
													string->val.string.len));
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/* An array of strings. */
static bool
read_texts(const JsonbValue *value, Datum *array)
{
	JsonbContainer *list = value->val.binary.data;
	Datum	   *texts;
	int			count;

	if (!is_array(value))
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

/*
 * A date of the form YYYY-MM-DD, as Yelp documents it.  The input function of
 * the type would also take "today" or "infinity".
 */
static bool
read_date(const JsonbValue *value, Datum *date)
{
	static const char form[] = "0000-00-00";
	const char *text = value->val.string.val;
	int			year;
	int			month;
	int			day;

	if (value->type != jbvString || value->val.string.len != (int) strlen(form))
		return false;
	for (int i = 0; form[i] != '\0'; i++)
	{
		if (form[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != '-')
			return false;
	}
	year = (text[0] - '0') * 1000 + (text[1] - '0') * 100 + (text[2] - '0') * 10 + text[3] - '0';
	month = (text[5] - '0') * 10 + text[6] - '0';
	day = (text[8] - '0') * 10 + text[9] - '0';
	if (year < 1 || month < 1 || month > MONTHS_PER_YEAR ||
		day < 1 || day > day_tab[isleap(year)][month - 1])
		return false;
	*date = DateADTGetDatum(date2j(year, month, day) - POSTGRES_EPOCH_JDATE);
	return true;
}

/* A number with an integral value in this range. */
static bool
read_integer(const JsonbValue *value, int64 least, int64 most, int64 *integer)
{
	Datum		number;

	if (value->type != jbvNumeric)
		return false;
	number = NumericGetDatum(value->val.numeric);
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, number,
										 NumericGetDatum(int64_to_numeric(least)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, number,
										 NumericGetDatum(int64_to_numeric(most)))))
		return false;
	/* This rounds, so compare */
	*integer = DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
	return DatumGetBool(DirectFunctionCall2(numeric_eq, number,
											NumericGetDatum(int64_to_numeric(*integer))));
}

/* Converts a member to the type of a column; false if that is impossible. */
static bool
read_member(const JsonbValue *value, Oid type, Datum *datum)
{
	int64		integer;

	switch (type)
	{
		case TEXTOID:
			if (value->type != jbvString)
				return false;
			*datum = text_of(value);
			return true;
		case BOOLOID:
			if (value->type != jbvBool)
				return false;
			*datum = BoolGetDatum(value->val.boolean);
			return true;
		case TEXTARRAYOID:
			return read_texts(value, datum);
		case DATEOID:
			return read_date(value, datum);
		case INT8OID:
			if (!read_integer(value, PG_INT64_MIN, PG_INT64_MAX, &integer))
				return false;
			*datum = Int64GetDatum(integer);
			return true;
		case NUMERICOID:
			if (!read_integer(value, 1 - CENTS_BOUND, CENTS_BOUND - 1, &integer))
				return false;
			*datum = NumericGetDatum(int64_div_fast_to_numeric(integer, 2));
			return true;
	}
	elog(ERROR, "unexpected column type %u", type);
}

/* ---- a document as a row ---- */

static void
add_problem(ArrayBuildState * *problems, ProgramPlace place, const char *name)
{
	if (place != IN_PROGRAM)
		name = psprintf("%s%s.%s", program_objects[place], place == IN_BUSINESS ? "[0]" : "", name);
	*problems = accumArrayResult(*problems, CStringGetTextDatum(name), false, TEXTOID,
								 CurrentMemoryContext);
}

/* Finds a member of an object that is not null; the caller gives the memory. */
static bool
find_member(JsonbContainer *object, const char *name, JsonbValue *member)
{
	return object != NULL &&
		getKeyJsonValueFromContainer(object, name, strlen(name), member) != NULL &&
		member->type != jbvNull;
}

/* The object in this place, or NULL; each of the businesses must be one. */
static JsonbContainer *
find_object(JsonbContainer *program, ProgramPlace place, ArrayBuildState * *problems)
{
	JsonbContainer *object = NULL;
	JsonbValue	value;
	bool		valid;

	if (!find_member(program, program_objects[place], &value))
		return NULL;
	if (place == IN_METRICS && is_object(&value))
		return value.val.binary.data;
	valid = place == IN_BUSINESS && is_array(&value);
	for (int i = 0; valid && i < (int) JsonContainerSize(value.val.binary.data); i++)
	{
		JsonbValue *business = getIthJsonbValueFromContainer(value.val.binary.data, i);

		valid = is_object(business);
		if (valid && i == 0)
			object = business->val.binary.data;
	}
	if (!valid)
		add_problem(problems, IN_PROGRAM, program_objects[place]);
	return valid ? object : NULL;
}

/* The function's row type, which lives as long as the query. */
static TupleDesc
result_desc(FunctionCallInfo fcinfo)
{
	FmgrInfo   *function = fcinfo->flinfo;
	MemoryContext caller = MemoryContextSwitchTo(function->fn_mcxt);
	TupleDesc	desc = function->fn_extra;

	if (desc == NULL)
	{
		bool		valid;

		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		/* The owner of the type can alter it */
		valid = desc->natts == PROGRAM_COLUMNS + 1 &&
			TupleDescAttr(desc, PROGRAM_COLUMNS)->atttypid == TEXTARRAYOID;
		for (int i = 0; valid && i < PROGRAM_COLUMNS; i++)
			valid = TupleDescAttr(desc, i)->atttypid == program_columns[i].type;
		if (!valid)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type yelp_sync_values has been altered"),
					 errhint("Drop the extension and create it again; this keeps the tables, but drops servers and user mappings.")));
		function->fn_extra = desc;
	}
	MemoryContextSwitchTo(caller);
	return desc;
}

/*
 * yelp_sync_columns(program jsonb) returns yelp_sync_values
 *
 * A field that cannot be converted is NULL, and problems names it.  A field
 * that is missing or null is just NULL.
 */
Datum
yelp_sync_columns(PG_FUNCTION_ARGS)
{
	Jsonb	   *program = PG_GETARG_JSONB_P(0);
	ArrayBuildState *problems = NULL;
	JsonbContainer *objects[IN_BUSINESS + 1] = {&program->root};
	Datum		values[PROGRAM_COLUMNS + 1];
	bool		nulls[PROGRAM_COLUMNS + 1];

	if (!JB_ROOT_IS_OBJECT(program))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("program is not a JSON object")));
	for (ProgramPlace place = IN_METRICS; place <= IN_BUSINESS; place++)
		objects[place] = find_object(&program->root, place, &problems);
	for (int i = 0; i < PROGRAM_COLUMNS; i++)
	{
		ProgramPlace place = program_columns[i].place;
		const char *name = program_columns[i].name;
		JsonbValue	member;

		nulls[i] = true;
		if (!find_member(objects[place], name, &member))
			continue;
		nulls[i] = !read_member(&member, program_columns[i].type, &values[i]);
		if (nulls[i])
			add_problem(&problems, place, name);
	}
	nulls[PROGRAM_COLUMNS] = problems == NULL;
	if (problems)
		values[PROGRAM_COLUMNS] = makeArrayResult(problems, CurrentMemoryContext);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result_desc(fcinfo), values, nulls)));
}

/* ---- differences ---- */

static void
deform(HeapTupleHeader row, TupleDesc desc, Datum *values, bool *nulls)
{
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(row),
		.t_data = row,
	};

	heap_deform_tuple(&tuple, desc, values, nulls);
}

/*
 * yelp_sync_changed(stored yelp_sync_values, new yelp_sync_values,
 *					 stored_data jsonb, data jsonb) returns text[]
 *
 * The names of the columns that differ; if none does, "data" if the documents
 * do.  Compares the binary images of the columns, because each of these types
 * has only one representation per value.
 */
Datum
yelp_sync_changed(PG_FUNCTION_ARGS)
{
	HeapTupleHeader stored = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(stored),
											  HeapTupleHeaderGetTypMod(stored));
	Datum	   *old_values = palloc(desc->natts * sizeof(Datum));
	Datum	   *new_values = palloc(desc->natts * sizeof(Datum));
	bool	   *old_nulls = palloc(desc->natts * sizeof(bool));
	bool	   *new_nulls = palloc(desc->natts * sizeof(bool));
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	deform(stored, desc, old_values, old_nulls);
	deform(PG_GETARG_HEAPTUPLEHEADER(1), desc, new_values, new_nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		bool		same = old_nulls[i] == new_nulls[i];

		if (same && !old_nulls[i])
			same = datum_image_eq(old_values[i], new_values[i],
								  column->attbyval, column->attlen);
		if (!same)
			accumArrayResult(names, CStringGetTextDatum(NameStr(column->attname)), false,
							 TEXTOID, CurrentMemoryContext);
	}
	ReleaseTupleDesc(desc);
	if (names->nelems == 0 &&
		compareJsonbContainers(&PG_GETARG_JSONB_P(2)->root, &PG_GETARG_JSONB_P(3)->root) != 0)
		accumArrayResult(names, CStringGetTextDatum("data"), false, TEXTOID, CurrentMemoryContext);
	PG_RETURN_DATUM(makeArrayResult(names, CurrentMemoryContext));
}
