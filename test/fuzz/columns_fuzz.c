/*
 * columns_fuzz.c
 *	  Arbitrary text as a page whose programs are stored.
 *
 * PostgreSQL must accept each program that the page reader accepts: its
 * document as jsonb, and what this contains as the columns of yelp_programs.
 * Runs in a server (see in_server.c), in a database with the extension.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "program_page.h"

#include "fuzz.h"

/* The program's ID in jsonb, and all columns */
static const char query[] =
"SELECT $1::jsonb ->> 'program_id', c::text FROM yelp_sync_columns($1::jsonb) c";

static void
store_program(const PageProgram *program)
{
	static SPIPlanPtr plan;
	Oid			types[] = {TEXTOID};
	Datum		values[] = {
		PointerGetDatum(cstring_to_text_with_len(program->document, program->length))
	};
	char	   *id;

	if (plan == NULL)
	{
		plan = SPI_prepare(query, lengthof(types), types);
		SPI_keepplan(plan);
	}
	fuzz_check(SPI_execute_plan(plan, values, NULL, true, 0) == SPI_OK_SELECT &&
			   SPI_processed == 1, "a program is one row");
	id = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	fuzz_check(id && strcmp(id, program->id) == 0, "jsonb has the same program_id");
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = fuzz_text(data, size);
	ProgramPage page;
	JsonError	error;

	if (!program_page_read(&page, text, size, NULL, &error))
		return 0;
	PG_TRY();
	{
		SPI_connect();
		for (int i = 0; i < page.count; i++)
			store_program(&page.programs[i]);
		SPI_finish();
	}
	PG_CATCH();
	{
		EmitErrorReport();
		fuzz_check(false, "PostgreSQL accepts what the page reader accepts");
	}
	PG_END_TRY();
	return 0;
}
