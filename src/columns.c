/*
 * columns.c
 *	  Implements the SQL function yelp_sync_differences(): which columns
 *	  differ.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/typcache.h"

/* Symbols needed by the server; all others stay private to the library */
#pragma GCC visibility push(default)

PG_FUNCTION_INFO_V1(yelp_sync_differences);

#pragma GCC visibility pop

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
 * yelp_sync_differences(stored yelp_sync_values, new yelp_sync_values)
 * returns text[]
 *
 * Compares the binary images, which is sufficient because each of these types
 * has only one representation per value.
 */
Datum
yelp_sync_differences(PG_FUNCTION_ARGS)
{
	HeapTupleHeader stored = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(stored),
											  HeapTupleHeaderGetTypMod(stored));
	Datum	   *old_values = palloc(desc->natts * sizeof(Datum));
	Datum	   *new_values = palloc(desc->natts * sizeof(Datum));
	bool	   *old_nulls = palloc(desc->natts * sizeof(bool));
	bool	   *new_nulls = palloc(desc->natts * sizeof(bool));
	Datum	   *names = palloc(desc->natts * sizeof(Datum));
	int			count = 0;

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
			names[count++] = CStringGetTextDatum(NameStr(column->attname));
	}
	ReleaseTupleDesc(desc);
	PG_RETURN_ARRAYTYPE_P(construct_array(names, count, TEXTOID, -1, false,
										  TYPALIGN_INT));
}
