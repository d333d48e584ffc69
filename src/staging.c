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

/* A hash set of ID hashes */
typedef struct SeenId
{
	uint64		hash:61;
	uint64		pass:2;			/* the last one in which the ID arrived */
	uint64		status:1;		/* of the slot */
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

#define SEEN_HASH(id_hash) ((id_hash) >> 3)

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
	return compat_finish_tuple_desc(desc);
}

static Datum
text_datum(const char *utf8, int length)
{
	return PointerGetDatum(cstring_to_text_with_len(utf8, length));
}

/* Where a program was found, for error contexts */
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

/* Counts a program; false if it already arrived in this reading. */
static bool
count_program(Staging *staging, uint64 id_hash, uint64 fingerprint, int last_pass)
{
	staging->arrived++;
	staging->programs += last_pass == 0;
	if (last_pass == staging->pass)
	{
		staging->set.content ^= fingerprint_of_program(id_hash, fingerprint);
		return false;
	}
	program_set_add(&staging->set, id_hash, fingerprint);
	return true;
}

/*
 * The same for a program that is not stored.  Two IDs with the same hash
 * count as one: the set is then too small, so nothing is proved and nothing
 * is deleted.
 */
static bool
count_new(Staging *staging, uint64 id_hash, uint64 fingerprint)
{
	bool		found;
	SeenId	   *seen = seen_ids_insert(staging->seen, SEEN_HASH(id_hash), &found);
	int			last_pass = found ? seen->pass : 0;

	seen->pass = staging->pass;
	return count_program(staging, id_hash, fingerprint, last_pass);
}

static bool
count_stored(Staging *staging, KnownMark *mark, uint64 id_hash,
			 uint64 fingerprint, int64 offset)
{
	bool		fresh = count_program(staging, id_hash, fingerprint, mark->pass);

	staging->stored += fresh;
	mark->offset = Min(fresh ? offset : Max(offset, mark->offset), KNOWN_MAX_OFFSET);
	mark->pass = staging->pass;
	return fresh;
}

static void
add_row(Staging *staging, Datum id, const PageProgram *program, Datum document,
		const ProgramPlace *place)
{
	Datum		values[ROW_COLUMNS];
	bool		nulls[ROW_COLUMNS] = {false};

	values[ROW_PROGRAM_ID - 1] = id;
	values[ROW_FINGERPRINT - 1] = Int64GetDatum((int64) program->fingerprint);
	values[ROW_DOCUMENT - 1] = document;
	nulls[ROW_DOCUMENT - 1] = document == (Datum) 0;
	values[ROW_PAGE_OFFSET - 1] = Int64GetDatum(place->offset);
	values[ROW_PASS - 1] = Int32GetDatum(staging->pass);
	values[ROW_POSITION - 1] = Int32GetDatum(place->position);
	tuplestore_putvalues(staging->store, staging->desc, values, nulls);
	staging->count++;
}

/*
 * An unchanged program needs no row, unless it must override one with another
 * text, which has a row.
 */
static bool
add_stored(Staging *staging, const PageProgram *program, const ProgramPlace *place)
{
	KnownMark  *mark = known_mark(staging->known, program->id_hash);

	if (mark->staged)
		add_row(staging, text_datum(program->id, strlen(program->id)), program,
				(Datum) 0, place);
	return count_stored(staging, mark, program->id_hash, program->fingerprint,
						place->offset);
}

/*
 * A program whose text differs from the stored one, if any.  If it already
 * arrived unchanged in this reading, the later one is used, so that needs a
 * row now.
 */
static bool
add_altered(Staging *staging, KnownMark *mark, Datum id, uint64 id_hash,
			const PageProgram *program, Datum document, const ProgramPlace *place)
{
	if (mark->pass == staging->pass && !mark->staged)
	{
		PageProgram stored = {.fingerprint = program->fingerprint};
		ProgramPlace stored_place = {.offset = mark->offset,.position = -1};

		add_row(staging, id, &stored, (Datum) 0, &stored_place);
	}
	add_row(staging, id, program, document, place);
	mark->staged = true;
	return count_stored(staging, mark, id_hash, program->fingerprint, place->offset);
}

/* True if the program is new in this reading. */
static bool
add_program(Staging *staging, const PageProgram *program, ProgramPlace *place)
{
	ErrorContextCallback callback = {error_context_stack, add_program_context, place};
	uint64		id_hash;
	KnownMark  *mark;
	Datum		id;
	Datum		document;
	bool		fresh;

	if (program->document == NULL)
		return add_stored(staging, program, place);

	error_context_stack = &callback;
	id = text_datum(program->id, strlen(program->id));
	document = text_datum(program->document, program->length);
	error_context_stack = callback.previous;

	id_hash = fingerprint_of_id(VARDATA_ANY(DatumGetPointer(id)),
								VARSIZE_ANY_EXHDR(DatumGetPointer(id)));
	mark = known_mark(staging->known, id_hash);
	if (mark)
		fresh = add_altered(staging, mark, id, id_hash, program, document, place);
	else
	{
		add_row(staging, id, program, document, place);
		fresh = count_new(staging, id_hash, program->fingerprint);
	}
	pfree(DatumGetPointer(document));
	return fresh;
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
staging_init(Staging *staging, Known *known)
{
	memset(staging, 0, sizeof(Staging));
	staging->context = CurrentMemoryContext;
	staging->known = known;
	staging->desc = make_desc();
	staging->store = tuplestore_begin_heap(true, false, work_mem);
	staging->seen = seen_ids_create(CurrentMemoryContext, 1024, NULL);
}

void
staging_free(Staging *staging)
{
	tuplestore_end(staging->store);
}

void
staging_begin_pass(Staging *staging)
{
	Assert(staging->pass < KNOWN_MAX_PASS);
	staging->pass++;
	staging->arrived = staging->stored = 0;
	memset(&staging->set, 0, sizeof(ProgramSet));
}

ProgramSet
staging_end_pass(Staging *staging)
{
	return staging->set;
}

void
staging_finish(Staging *staging)
{
	seen_ids_destroy(staging->seen);
	staging->seen = NULL;
}
