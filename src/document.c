/*
 * document.c
 *	  SQL functions used by the merge to read a program's document.
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

#include "client_text.h"
#include "program_columns.h"

/* Symbols needed by the server; all others stay private to the library */
#pragma GCC visibility push(default)

PG_FUNCTION_INFO_V1(yelp_sync_document);
PG_FUNCTION_INFO_V1(yelp_sync_columns);

#pragma GCC visibility pop

/* ---- document as jsonb ---- */

/*
 * Is the error about the document's content, not about the state of the
 * server?  An escape for a character that does not exist in the server's
 * encoding is reported as "not supported".
 */
static bool
is_about_content(int sqlstate)
{
	int			category = ERRCODE_TO_CATEGORY(sqlstate);

	return category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		category == ERRCODE_FEATURE_NOT_SUPPORTED;
}

/*
 * A document that PostgreSQL's JSON input rejects is reported as an API
 * error.
 */
static void
reject_document(FunctionCallInfo fcinfo, const ErrorData *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION),
			 errmsg("could not store program \"%s\" from the page at offset " INT64_FORMAT
					": %s",
					client_text(text_to_cstring(PG_GETARG_TEXT_PP(1))), PG_GETARG_INT64(2),
					client_text(error->message)),
			 error->detail ? errdetail_internal("%s", client_text(error->detail)) : 0));
}

/* Context reset after each call, because parsing JSON leaves much garbage. */
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
 * yelp_sync_document(document text, program_id text, page_offset bigint)
 * returns jsonb
 *
 * The error is raised again immediately, so no subtransaction is needed.
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

/* ---- document members as columns ---- */

/* Column types; cents are converted to units of the currency */
static const Oid column_types[] = {
	[COLUMN_TEXT] = TEXTOID,
	[COLUMN_TEXTS] = TEXTARRAYOID,
	[COLUMN_DATE] = DATEOID,
	[COLUMN_CENTS] = NUMERICOID,
	[COLUMN_INTEGER] = INT8OID,
	[COLUMN_BOOLEAN] = BOOLOID
};

StaticAssertDecl(lengthof(column_types) == PROGRAM_COLUMN_TYPES,
				 "each kind of column has a type");

/* Is the member listed in problems, which may be NULL? */
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

/* Finds a member of an object, or NULL; the caller provides the memory. */
static JsonbValue *
find_member(JsonbContainer *object, const char *name, JsonbValue *member)
{
	return getKeyJsonValueFromContainer(object, name, strlen(name), member);
}

/* The objects that contain the members; NULL if missing. */
static void
find_objects(Jsonb *program, ArrayType *problems, JsonbContainer **objects)
{
	JsonbValue	value;
	JsonbValue *found;

	objects[IN_PROGRAM] = &program->root;
	objects[IN_METRICS] = object_in(find_member(&program->root,
												program_objects[IN_METRICS], &value));
	objects[IN_BUSINESS] = NULL;
	found = find_member(&program->root, program_objects[IN_BUSINESS], &value);
	if (found && found->type == jbvBinary &&
		JsonContainerIsArray(found->val.binary.data) &&
		!is_problem(problems, "", program_objects[IN_BUSINESS]))
		objects[IN_BUSINESS] =
			object_in(getIthJsonbValueFromContainer(found->val.binary.data, 0));
}

static Datum
text_of(const JsonbValue *string)
{
	return PointerGetDatum(cstring_to_text_with_len(string->val.string.val,
													string->val.string.len));
}

/* Converts a JSON array of strings; false if it is something else. */
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

static bool
read_date(const JsonbValue *value, Datum *date)
{
	int			year;
	int			month;
	int			day;

	if (value->type != jbvString || value->val.string.len != 10 ||
		!program_date(value->val.string.val, &year, &month, &day))
		return false;
	*date = DateADTGetDatum(date2j(year, month, day) - POSTGRES_EPOCH_JDATE);
	return true;
}

/* Converts a number with an integral value. */
static bool
read_integer(const JsonbValue *value, Datum *integer)
{
	if (value->type != jbvNumeric)
		return false;
	*integer = DirectFunctionCall1(numeric_int8, NumericGetDatum(value->val.numeric));
	return true;
}

/* Converts an amount in cents to units of the currency. */
static bool
read_cents(const JsonbValue *value, Datum *amount)
{
	if (!read_integer(value, amount))
		return false;
	*amount = NumericGetDatum(int64_div_fast_to_numeric(DatumGetInt64(*amount), 2));
	return true;
}

/* Converts a member to the column's type; false if it is NULL. */
static bool
read_column(const JsonbValue *value, ProgramColumnType type, Datum *datum)
{
	switch (type)
	{
		case COLUMN_TEXT:
			if (value->type == jbvString)
				*datum = text_of(value);
			return value->type == jbvString;
		case COLUMN_BOOLEAN:
			if (value->type == jbvBool)
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

/* The owner of the type can alter it, so check it. */
static void
check_desc(TupleDesc desc)
{
	bool		valid = desc->natts == PROGRAM_COLUMNS + 1 &&
		TupleDescAttr(desc, PROGRAM_COLUMNS)->atttypid == TEXTARRAYOID;

	for (int i = 0; valid && i < PROGRAM_COLUMNS; i++)
		valid = TupleDescAttr(desc, i)->atttypid == column_types[program_columns[i].type];
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type yelp_sync_values has been altered"),
				 errhint("Drop the extension and create it again; this keeps the tables, but drops servers and user mappings.")));
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
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		check_desc(desc);
		function->fn_extra = desc;
	}
	MemoryContextSwitchTo(caller);
	return desc;
}

/*
 * yelp_sync_columns(program jsonb, problems text[]) returns yelp_sync_values
 *
 * Returns NULL for NULL.  Anybody can call this with any arguments.
 */
Datum
yelp_sync_columns(PG_FUNCTION_ARGS)
{
	ArrayType  *problems = PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1);
	JsonbContainer *objects[PROGRAM_PLACES];
	Datum		values[PROGRAM_COLUMNS + 1];
	bool		nulls[PROGRAM_COLUMNS + 1];
	Jsonb	   *program;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	program = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(program))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("program is not a JSON object")));
	find_objects(program, problems, objects);
	for (int i = 0; i < PROGRAM_COLUMNS; i++)
	{
		const ProgramColumn *column = &program_columns[i];
		JsonbContainer *object = objects[column->place];
		JsonbValue	value;

		nulls[i] = object == NULL ||
			find_member(object, column->name, &value) == NULL ||
			is_problem(problems, program_prefixes[column->place], column->name) ||
			!read_column(&value, column->type, &values[i]);
	}
	nulls[PROGRAM_COLUMNS] = problems == NULL;
	values[PROGRAM_COLUMNS] = PointerGetDatum(problems);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(result_desc(fcinfo), values, nulls)));
}
