/*
 * document.c
 *	  What the merge's SQL calls to read a program's document.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

/* What the server looks for; all else stays within the library */
#pragma GCC visibility push(default)

PG_FUNCTION_INFO_V1(yelp_sync_document);
PG_FUNCTION_INFO_V1(yelp_sync_texts);

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

/*
 * yelp_sync_texts(list jsonb) returns text[]
 *
 * A JSON array of strings as an array; NULL for anything else.
 */
Datum
yelp_sync_texts(PG_FUNCTION_ARGS)
{
	Jsonb	   *list = PG_GETARG_JSONB_P(0);
	int			count = JB_ROOT_COUNT(list);
	Datum	   *texts;

	if (!JB_ROOT_IS_ARRAY(list) || JB_ROOT_IS_SCALAR(list))
		PG_RETURN_NULL();
	texts = palloc(Max(count, 1) * sizeof(Datum));
	for (int i = 0; i < count; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(&list->root, i);

		if (value->type != jbvString)
			PG_RETURN_NULL();
		texts[i] = PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
															value->val.string.len));
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(texts, count, TEXTOID, -1, false,
										  TYPALIGN_INT));
}
