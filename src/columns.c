/*
 * columns.c
 *	  What the SQL function yelp_sync_columns() calls, since SQL is slow at it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

/* What the server looks for; all else stays within the library */
#pragma GCC visibility push(default)

PG_FUNCTION_INFO_V1(yelp_sync_texts);

#pragma GCC visibility pop

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
