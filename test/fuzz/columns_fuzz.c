/*
 * columns_fuzz.c
 *	  Any text at all as a page whose programs are stored.
 *
 * PostgreSQL must take each program that the page reader accepts: its document
 * as jsonb, and what this holds as the columns of yelp_programs.  Runs in a server
 * (see in_server.c), in a database with the extension.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "program_page.h"

#include "fuzz.h"

/*
 * The program's id in jsonb, and all columns.
 */
static const char query[] =
"SELECT $1::jsonb ->> 'program_id', c::text"
" FROM yelp_sync_columns($1::jsonb) c";

static SPIPlanPtr
prepare_query(void)
{
	static SPIPlanPtr plan;
	Oid			types[] = {TEXTOID};

	if (plan == NULL)
	{
		plan = SPI_prepare(query, lengthof(types), types);
		SPI_keepplan(plan);
	}
	return plan;
}

static void
store_program(const PageProgram *program)
{
	Datum		values[] = {
		PointerGetDatum(cstring_to_text_with_len(program->document, program->length))
	};
	char	   *id;

	fuzz_check(SPI_execute_plan(prepare_query(), values, NULL, true, 0) == SPI_OK_SELECT &&
			   SPI_processed == 1, "a program is one row");
	id = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	fuzz_check(id && strcmp(id, program->id) == 0, "jsonb has the same program_id");
}

static void
store_page(const ProgramPage *page)
{
	PG_TRY();
	{
		SPI_connect();
		for (int i = 0; i < page->count; i++)
			store_program(&page->programs[i]);
		SPI_finish();
	}
	PG_CATCH();
	{
		EmitErrorReport();
		fuzz_check(false, "PostgreSQL takes what the page reader accepts");
	}
	PG_END_TRY();
}

int
LLVMFuzzerTestOneInput(const uint8_t * data, size_t size)
{
	char	   *text = fuzz_text(data, size);
	ProgramPage page;
	JsonError	problem;

	if (program_page_read(&page, text, size, NULL, &problem))
		store_page(&page);
	return 0;
}
