/*
 * programs.c
 *	  All programs of an account that are stored or were received: which of
 *	  them are new, changed or no longer listed.
 *
 * A hash table has an entry of 16 bytes for each of them, so it takes 32 MB
 * for a million.  Before the listing is read, the IDs and fingerprints of the
 * stored programs are entered; then each program that arrives finds there
 * whether it is stored, and with which text.  Only those whose text differs
 * become rows, in tuplestores that spill to disk.
 *
 * Two IDs with the same hash count as one.  The listing then has fewer
 * programs than its total, so that nothing is proved and nothing is deleted.
 */
#include "postgres.h"

#include "programs.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "statement.h"

typedef enum ProgramState
{
	PROGRAM_NEW,
	PROGRAM_STORED,
	PROGRAM_GONE				/* stored, but marked as gone */
} ProgramState;

typedef struct Program
{
	uint64		fingerprint;	/* of the text received last, or stored; 0:
								 * unknown */
	uint64		id:58;			/* part of the ID's hash */
	uint64		reading:2;		/* the last one with it, or 0 */
	uint64		state:2;		/* ProgramState */
	uint64		taken:1;		/* its row was taken */
	uint64		status:1;		/* of the slot in the hash table */
} Program;

StaticAssertDecl(sizeof(Program) == 16, "a million programs need 32 MB");
StaticAssertDecl(PROGRAMS_MAX_READINGS < 1 << 2, "an entry must hold every reading");

#define SH_PREFIX program_table
#define SH_ELEMENT_TYPE Program
#define SH_KEY_TYPE uint64
#define SH_KEY id
#define SH_HASH_KEY(table, key) ((uint32) (key))
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define ID_OF(id_hash) ((id_hash) >> 6)

/*
 * The table is made for the expected number of programs, because growing
 * leaves holes in memory.  The number may be anything: at most 32 MB are
 * wasted.
 */
#define MIN_EXPECTED 1024
#define MAX_EXPECTED 1500000
#define EXPECTED(programs) Min(Max(programs, MIN_EXPECTED), MAX_EXPECTED)

/* ---- the stored programs ---- */

/* The ID in the row's first column; the table's owner can allow nulls. */
static uint64
hash_id(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		datum = slot_getattr(slot, ROW_PROGRAM_ID, &isnull);
	text	   *id;

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"program_id\" of table \"yelp_programs\" contains null values"),
				 errhint("Delete these rows, and make (username, program_id) the primary key again.")));
	id = DatumGetTextPP(datum);
	return fingerprint_of_id(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id));
}

static uint64
fingerprint_in(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		fingerprint = slot_getattr(slot, ROW_FINGERPRINT, &isnull);

	return isnull ? 0 : (uint64) DatumGetInt64(fingerprint);
}

static bool
is_marked_gone(TupleTableSlot *slot)
{
	bool		isnull;

	(void) slot_getattr(slot, ROW_FINGERPRINT + 1, &isnull);
	return !isnull;
}

/*
 * A program that is gone has to be written when it is listed again, even if
 * its text is the same, so its fingerprint does not count.
 */
static void
enter_row(TupleTableSlot *slot, void *arg)
{
	Programs   *programs = arg;
	bool		gone = is_marked_gone(slot);
	bool		found;
	Program    *program = program_table_insert(programs->table, ID_OF(hash_id(slot)), &found);

	program->fingerprint = gone ? 0 : fingerprint_in(slot);
	program->reading = 0;
	program->state = gone ? PROGRAM_GONE : PROGRAM_STORED;
	program->taken = false;
	programs->stored += !gone;
}

static bool
is_listed(const Programs *programs, const Program *program)
{
	return program->reading > 0 && (int) program->reading >= programs->first_reading;
}

/* Rows that others have added meanwhile are none of ours. */
static void
keep_if_unlisted(TupleTableSlot *slot, void *arg)
{
	Programs   *programs = arg;
	Program    *program = program_table_lookup(programs->table, ID_OF(hash_id(slot)));

	if (program && program->state == PROGRAM_STORED && !is_listed(programs, program))
		tuplestore_puttupleslot(programs->unlisted, slot);
}

static void
compare_row(TupleTableSlot *slot, void *arg)
{
	Programs   *programs = arg;
	Program    *program = program_table_lookup(programs->table, ID_OF(hash_id(slot)));

	if (program && is_listed(programs, program))
		programs->right += !is_marked_gone(slot) &&
			(program->fingerprint == 0 || program->fingerprint == fingerprint_in(slot));
	else if (program && program->state == PROGRAM_STORED)
		programs->left += !is_marked_gone(slot);
}

static void
read_rows(Programs *programs, const Tables *tables, const char *username,
		  const char *columns, StatementReceive receive, bool latest)
{
	Statement	statement = {
		.purpose = psprintf("reading %s.yelp_programs", tables->schema),
		.sql = psprintf("SELECT %s FROM %s%s.yelp_programs"
						" WHERE username OPERATOR(pg_catalog.=) $1",
						columns, tables->partitioned ? "" : "ONLY ", tables->schema),
		.receive = receive,
		.arg = programs,
	};
	int			level = NewGUCNestLevel();

	statement_add(&statement, TEXTOID, CStringGetTextDatum(username));
	/* A bitmap takes several times work_mem, and little is enough */
	local_setting("work_mem", "256kB");
	if (latest)
		statement_run_latest(&statement);
	else
		statement_run(&statement);
	AtEOXact_GUC(true, level);
}

#define ID_COLUMN "program_id::pg_catalog.text"
#define ALL_COLUMNS ID_COLUMN ", fingerprint::pg_catalog.int8, gone_at::pg_catalog.timestamptz"

Programs   *
programs_read(const Tables *tables, const char *username, int64 expected)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "yelp_sync programs",
												  ALLOCSET_DEFAULT_SIZES);
	Programs   *programs = MemoryContextAllocZero(context, sizeof(Programs));
	Snapshot	snapshot = GetLatestSnapshot();

	/* None is running whose end would not show in xmax */
	if (snapshot->xcnt == 0)
		programs->quiet_since = snapshot->xmax;
	programs->context = context;
	programs->table = program_table_create(context, EXPECTED(expected), NULL);
	programs->first_reading = 1;
	read_rows(programs, tables, username, ALL_COLUMNS, enter_row, false);
	return programs;
}

void
programs_free(Programs *programs)
{
	for (int i = 0; i < PROGRAM_ROWS; i++)
	{
		if (programs->rows[i])
			tuplestore_end(programs->rows[i]);
	}
	MemoryContextDelete(programs->context);
}

const uint64 *
programs_fingerprint(const void *programs, uint64 id_hash)
{
	const Program *program = program_table_lookup(((const Programs *) programs)->table,
												  ID_OF(id_hash));

	return program ? &program->fingerprint : NULL;
}

void
programs_prefetch(const void *programs, uint64 id_hash)
{
	const program_table_hash *table = ((const Programs *) programs)->table;

	__builtin_prefetch(&table->data[(uint32) ID_OF(id_hash) & table->sizemask]);
}

/* ---- received programs ---- */

void
programs_begin_reading(Programs *programs)
{
	static const char *const names[] = {"program_id", "fingerprint", "document"};
	static const Oid types[] = {TEXTOID, INT8OID, TEXTOID};
	MemoryContext caller = MemoryContextSwitchTo(programs->context);

	Assert(programs->reading < PROGRAMS_MAX_READINGS);
	for (int i = 0; programs->reading == 0 && i < PROGRAM_ROWS; i++)
		programs->rows[i] = tuplestore_begin_heap(false, false, work_mem / PROGRAM_ROWS);
	if (programs->reading == 0)
		programs->desc = statement_desc(ROW_COLUMNS, names, types);
	programs->reading++;
	programs->common = 0;
	programs->listed = 0;
	programs->digest = 0;
	MemoryContextSwitchTo(caller);
}

static void
add_row(Programs *programs, ProgramRows rows, const PageProgram *program)
{
	Datum		values[ROW_COLUMNS] = {
		CStringGetTextDatum(program->id),
		Int64GetDatum((int64) program->fingerprint),
		PointerGetDatum(cstring_to_text_with_len(program->document, program->length)),
	};
	bool		nulls[ROW_COLUMNS] = {false};

	tuplestore_putvalues(programs->rows[rows], programs->desc, values, nulls);
	programs->counts[rows]++;
	pfree(DatumGetPointer(values[ROW_PROGRAM_ID - 1]));
	pfree(DatumGetPointer(values[ROW_DOCUMENT - 1]));
}

/* True if the program is new in this reading. */
static bool
add_program(Programs *programs, const PageProgram *received)
{
	bool		found;
	Program    *program = program_table_insert(programs->table, ID_OF(received->id_hash), &found);

	if (!found)
	{
		program->state = PROGRAM_NEW;
		program->taken = false;
	}
	else if ((int) program->reading == programs->reading)
		return false;
	programs->received += !found || program->reading == 0;
	programs->listed++;
	programs->digest ^= received->id_hash;
	programs->common += program->state == PROGRAM_STORED;
	program->reading = programs->reading;
	/* Without a document, it has the fingerprint of the entry */
	if (received->document)
	{
		program->fingerprint = received->fingerprint;
		add_row(programs, program->state == PROGRAM_NEW ? ROWS_NEW :
				received->active ? ROWS_ALTERED : ROWS_ENDED, received);
	}
	return true;
}

int
programs_add_page(Programs *programs, const ProgramPage *page)
{
	int			fresh = 0;

	if (programs->received == 0 && EXPECTED(page->total) > programs->table->grow_threshold)
		program_table_grow(programs->table, EXPECTED(page->total) / 4 * 5);
	for (int i = 0; i < page->count; i++)
		fresh += add_program(programs, &page->programs[i]);
	return fresh;
}

/* ---- the merge ---- */

int64
programs_count_unlisted(const Programs *programs)
{
	return programs->stored - programs->common;
}

int64
programs_count_listed(const Programs *programs)
{
	return programs->first_reading < programs->reading ?
		programs->received : programs->listed;
}

bool
programs_take_row(void *arg, TupleTableSlot *slot)
{
	Programs   *programs = arg;
	Program    *program = program_table_lookup(programs->table, ID_OF(hash_id(slot)));

	if (program->taken || !is_listed(programs, program) ||
		program->fingerprint != fingerprint_in(slot))
		return false;
	program->taken = true;
	programs->added += program->state == PROGRAM_NEW;
	return true;
}

void
programs_forgo(Programs *programs, Datum program_id)
{
	text	   *id = DatumGetTextPP(program_id);

	program_table_lookup(programs->table,
						 ID_OF(fingerprint_of_id(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id))))->fingerprint = 0;
}

Tuplestorestate *
programs_find_unlisted(Programs *programs, const Tables *tables, const char *username)
{
	programs->unlisted = tuplestore_begin_heap(false, false, work_mem);
	read_rows(programs, tables, username, ID_COLUMN, keep_if_unlisted, false);
	return programs->unlisted;
}

bool
programs_are_as_read(const Programs *programs, const Tables *tables)
{
	return !tables->distributed && TransactionIdIsValid(programs->quiet_since) &&
		GetLatestSnapshot()->xmax == programs->quiet_since;
}

int64
programs_count_wrong(Programs *programs, const Tables *tables, const char *username,
					 bool removed)
{
	read_rows(programs, tables, username, ALL_COLUMNS, compare_row, true);
	return programs_count_listed(programs) - programs->right + (removed ? programs->left : 0);
}
