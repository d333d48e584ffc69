/*
 * in_server.c
 *	  Runs a fuzz target that needs a server process.
 *
 * The target and this file are one library, whose functions are called by SQL
 * (see test/fuzz/run and test/t/030_corpus.pl).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "fuzz.h"

/* All other functions are hidden: the extension has some of the same names */
#pragma GCC visibility push(default)

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fuzz_input);
#ifdef WITH_LIBFUZZER
PG_FUNCTION_INFO_V1(fuzz);
#endif

#pragma GCC visibility pop

/* The memory that an input takes is freed after it. */
static int
run_input(const uint8_t * data, size_t size)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "fuzz input",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	LLVMFuzzerTestOneInput(data, size);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return 0;
}

/* fuzz_input(input bytea) returns void */
Datum
fuzz_input(PG_FUNCTION_ARGS)
{
	bytea	   *input = PG_GETARG_BYTEA_PP(0);

	run_input((const uint8_t *) VARDATA_ANY(input), VARSIZE_ANY_EXHDR(input));
	PG_RETURN_VOID();
}

#ifdef WITH_LIBFUZZER

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*run) (const uint8_t * data, size_t size));

/* fuzz(VARIADIC arguments text[]) returns void: libFuzzer's main(), does not return */
Datum
fuzz(PG_FUNCTION_ARGS)
{
	Datum	   *arguments;
	int			count;
	char	  **argv;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT,
					  &arguments, NULL, &count);
	argv = palloc0((count + 2) * sizeof(char *));
	argv[0] = "fuzz";
	for (int i = 0; i < count; i++)
		argv[i + 1] = TextDatumGetCString(arguments[i]);
	count++;
	LLVMFuzzerRunDriver(&count, &argv, run_input);
	PG_RETURN_VOID();
}

#endif							/* WITH_LIBFUZZER */
