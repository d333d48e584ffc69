/*
 * staging.c
 *	  The fetched programs as rows that spill to disk.
 */
#include "postgres.h"

#include "staging.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"

/* A set of the 64-bit hashes of ids, of which the highest bit marks the slot */
typedef struct SeenId
{
	uint64		hash:63;
	uint64		status:1;
} SeenId;

#define SH_PREFIX seen_ids
#define SH_ELEMENT_TYPE SeenId
#define SH_KEY_TYPE uint64
#define SH_KEY hash
#define SH_HASH_KEY(table, key) ((uint32) (key))
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define ID_HASH_MASK (PG_UINT64_MAX >> 1)

static TupleDesc
make_desc(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(ROW_COLUMNS);

	TupleDescInitEntry(desc, ROW_PROGRAM_ID, "program_id", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(desc, ROW_PROGRAM_ID, C_COLLATION_OID);
	TupleDescInitEntry(desc, ROW_FINGERPRINT, "fingerprint", INT8OID, -1, 0);
	TupleDescInitEntry(desc, ROW_DOCUMENT, "document", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, ROW_PAGE_OFFSET, "page_offset", INT8OID, -1, 0);
	TupleDescInitEntry(desc, ROW_PASS, "pass", INT4OID, -1, 0);
	TupleDescInitEntry(desc, ROW_POSITION, "position", INT4OID, -1, 0);
	TupleDescInitEntry(desc, ROW_PROBLEMS, "problems", TEXTOID, -1, 0);
	return compat_finish_tuple_desc(desc);
}

/* Text of the API in the server's encoding; raises where it has no such character. */
static Datum
text_datum(const char *utf8, int length)
{
	char	   *text = pg_any_to_server(utf8, length, PG_UTF8);

	if (text == utf8)
		return PointerGetDatum(cstring_to_text_with_len(utf8, length));
	return CStringGetTextDatum(text);
}

/* Where a program was found, for the context of an error */
typedef struct ProgramPlace
{
	const char *program_id;
	int64		offset;
	int			position;
	const char *username;
} ProgramPlace;

static void
add_program_context(void *arg)
{
	ProgramPlace *place = arg;

	errcontext("program \"%s\" on the page at offset " INT64_FORMAT
			   " of account \"%s\"", place->program_id, place->offset,
			   place->username);
}

static uint64
hash_id(text *id, uint64 seed)
{
	return hash_bytes_extended((unsigned char *) VARDATA_ANY(id),
							   VARSIZE_ANY_EXHDR(id), seed);
}

void
program_set_add(ProgramSet *set, text *id, int64 fingerprint)
{
	set->count++;
	set->digest ^= hash_id(id, 0) & ID_HASH_MASK;
	set->content ^= hash_id(id, (uint64) fingerprint);
}

/*
 * Counts the program; false if its id came before in this reading.  Two ids of
 * the same hash count as one: the set is then smaller than it is, which proves
 * nothing, and nothing is deleted.
 */
static bool
count_program(Staging *staging, text *id, uint64 fingerprint)
{
	uint64		hash = hash_id(id, 0) & ID_HASH_MASK;
	bool		found;

	seen_ids_insert(staging->seen, hash, &found);
	staging->set.content ^= hash_id(id, fingerprint);
	if (found)
		return false;
	staging->set.count++;
	staging->set.digest ^= hash;
	return true;
}

static void
note_problems(Staging *staging, Datum id, const char *problems)
{
	char	   *sentence;

	if (staging->with_problems++ > 0)
		return;
	sentence = psprintf("The first one is program \"%s\": %s.",
						TextDatumGetCString(id), problems);
	staging->first_problem = MemoryContextStrdup(staging->context, sentence);
}

/* True when the program is new in this reading. */
static bool
add_program(Staging *staging, const PageProgram *program, ProgramPlace *place)
{
	ErrorContextCallback callback = {error_context_stack, add_program_context, place};
	Datum		values[ROW_COLUMNS];
	bool		nulls[ROW_COLUMNS] = {false};

	error_context_stack = &callback;
	values[ROW_PROGRAM_ID - 1] = text_datum(program->id, strlen(program->id));
	values[ROW_FINGERPRINT - 1] = Int64GetDatum((int64) program->fingerprint);
	nulls[ROW_DOCUMENT - 1] = program->document == NULL;
	if (program->document)
		values[ROW_DOCUMENT - 1] = text_datum(program->document, program->length);
	values[ROW_PAGE_OFFSET - 1] = Int64GetDatum(place->offset);
	values[ROW_PASS - 1] = Int32GetDatum(staging->pass);
	values[ROW_POSITION - 1] = Int32GetDatum(place->position);
	nulls[ROW_PROBLEMS - 1] = program->problems == NULL;
	if (program->problems)
		values[ROW_PROBLEMS - 1] = CStringGetTextDatum(program->problems);
	error_context_stack = callback.previous;

	tuplestore_putvalues(staging->store, staging->desc, values, nulls);
	staging->pass_rows++;
	if (program->problems)
		note_problems(staging, values[ROW_PROGRAM_ID - 1], program->problems);
	return count_program(staging, DatumGetTextPP(values[ROW_PROGRAM_ID - 1]),
						 program->fingerprint);
}

int
staging_add_page(Staging *staging, const ProgramPage *page, int64 offset,
				 const char *username)
{
	int			fresh = 0;

	for (int i = 0; i < page->count; i++)
	{
		ProgramPlace place = {page->programs[i].id, offset, i, username};

		fresh += add_program(staging, &page->programs[i], &place);
	}
	return fresh;
}

void
staging_init(Staging *staging)
{
	memset(staging, 0, sizeof(Staging));
	staging->context = CurrentMemoryContext;
	staging->desc = make_desc();
	staging->store = tuplestore_begin_heap(true, false, work_mem);
}

void
staging_free(Staging *staging)
{
	tuplestore_end(staging->store);
}

void
staging_begin_pass(Staging *staging)
{
	staging->pass++;
	staging->pass_rows = staging->with_problems = 0;
	staging->first_problem = NULL;
	memset(&staging->set, 0, sizeof(ProgramSet));
	staging->seen = seen_ids_create(CurrentMemoryContext, 1024, NULL);
}

ProgramSet
staging_end_pass(Staging *staging)
{
	seen_ids_destroy(staging->seen);
	staging->seen = NULL;
	return staging->set;
}
