/*
 * known.c
 *	  The IDs and fingerprints of the stored programs, and which of them
 *	  arrived.
 *
 * They are read with an index-only scan of the primary key.  Their digest
 * shows in the end whether anything changed at all.  A hash table with the
 * hashes of the IDs shows for each program that arrives whether it is stored,
 * and with which text; it uses about 27 bytes per program.
 */
#include "postgres.h"

#include "known.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "local_setting.h"

#define MIN_SLOTS 1024

/* Maximum load factor of the hash table: three of four slots. */
#define SLOTS_FOR(programs) ((programs) / 3 * 4 + MIN_SLOTS)

typedef struct KnownProgram
{
	uint64		id_hash;		/* 0: the slot is free */
	uint64		fingerprint;	/* 0: unknown */
} KnownProgram;

struct Known
{
	/* Whose programs they are */
	const char *schema;
	const char *only;			/* "ONLY ", or "" if partitioned */
	const char *username;

	/* The hash table, with linear probing */
	uint32		nslots;
	uint32		nused;
	KnownProgram *slots;
	KnownMark  *marks;			/* marks of the slots */

	ProgramSet	set;
	MemoryContext context;
};

/* Receives the rows of the query. */
typedef struct KnownReceiver
{
	DestReceiver pub;
	Known	   *known;

	/* Used by known_add_missing */
	int			first_pass;
	Tuplestorestate *missing;
} KnownReceiver;

/* ---- the hash table ---- */

static void
make_slots(Known *known, uint32 nslots)
{
	known->nslots = nslots;
	known->nused = 0;
	known->slots = MemoryContextAllocExtended(known->context,
											  nslots * sizeof(KnownProgram),
											  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

/* Where the search for the program begins. */
static inline uint32
first_slot(const Known *known, uint64 id_hash)
{
	return ((id_hash >> 32) * known->nslots) >> 32;
}

/* The slot of the program, or the free slot for it. */
static inline uint32
find_slot(const Known *known, uint64 id_hash)
{
	uint32		slot = first_slot(known, id_hash);

	while (known->slots[slot].id_hash != id_hash &&
		   known->slots[slot].id_hash != 0)
		slot = slot + 1 < known->nslots ? slot + 1 : 0;
	return slot;
}

static void
fill_slot(Known *known, const KnownProgram *program)
{
	known->slots[find_slot(known, program->id_hash)] = *program;
	known->nused++;
}

static void
double_slots(Known *known)
{
	KnownProgram *slots = known->slots;
	uint32		nslots = known->nslots;

	make_slots(known, 2 * nslots);
	for (uint32 i = 0; i < nslots; i++)
	{
		if (slots[i].id_hash != 0)
			fill_slot(known, &slots[i]);
	}
	pfree(slots);
}

static void
remember(Known *known, uint64 id_hash, uint64 fingerprint)
{
	KnownProgram program = {id_hash, fingerprint};

	if (known->nused >= known->nslots / 4 * 3)
		double_slots(known);
	fill_slot(known, &program);
}

const uint64 *
known_fingerprint(const void *arg, uint64 id_hash)
{
	const Known *known = arg;
	const KnownProgram *program = &known->slots[find_slot(known, id_hash)];

	return program->id_hash != 0 ? &program->fingerprint : NULL;
}

void
known_prefetch(const void *arg, uint64 id_hash)
{
	const Known *known = arg;
	uint32		slot = first_slot(known, id_hash);

	__builtin_prefetch(&known->slots[slot]);
	__builtin_prefetch(&known->marks[slot], 1);
}

KnownMark *
known_mark(Known *known, uint64 id_hash)
{
	uint32		slot = find_slot(known, id_hash);

	return known->slots[slot].id_hash != 0 ? &known->marks[slot] : NULL;
}

ProgramSet
known_set(const Known *known)
{
	return known->set;
}

/* ---- the rows ---- */

/* The ID in the row's first column; the table's owner can allow nulls. */
static uint64
hash_id(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		datum = slot_getattr(slot, 1, &isnull);
	text	   *id;

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"program_id\" of table \"yelp_programs\" contains null values"),
				 errhint("Delete these rows, and make (username, program_id) the primary key again.")));
	id = DatumGetTextPP(datum);
	return fingerprint_of_id(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id));
}

static bool
remember_row(TupleTableSlot *slot, DestReceiver *self)
{
	Known	   *known = ((KnownReceiver *) self)->known;
	bool		isnull;
	uint64		id_hash = hash_id(slot);
	Datum		datum = slot_getattr(slot, 2, &isnull);
	uint64		fingerprint = isnull ? 0 : (uint64) DatumGetInt64(datum);

	program_set_add(&known->set, id_hash, fingerprint);
	remember(known, id_hash, fingerprint);
	return true;
}

static bool
add_if_missing(TupleTableSlot *slot, DestReceiver *self)
{
	KnownReceiver *receiver = (KnownReceiver *) self;
	uint64		id_hash = hash_id(slot);
	const KnownMark *mark = known_mark(receiver->known, id_hash);

	if (mark && mark->pass < receiver->first_pass)
		tuplestore_puttupleslot(receiver->missing, slot);
	return true;
}

static char *
query_for(const char *columns, const char *schema, const char *only)
{
	return psprintf("SELECT %s FROM %s%s.yelp_programs"
					" WHERE username OPERATOR(pg_catalog.=) $1",
					columns, only, schema);
}

static const char *
only_clause(bool partitioned)
{
	return partitioned ? "" : "ONLY ";
}

static void
read_rows(KnownReceiver *receiver, const char *columns,
		  bool (*receive) (TupleTableSlot *slot, DestReceiver *self))
{
	const Known *known = receiver->known;
	SPIExecuteOptions options = {.dest = &receiver->pub,.read_only = false};
	ParamListInfo params = makeParamList(1);
	int			level;

	receiver->pub = *None_Receiver;
	receiver->pub.receiveSlot = receive;
	receiver->pub.mydest = DestTuplestore;
	params->params[0].value = CStringGetTextDatum(known->username);
	params->params[0].isnull = false;
	params->params[0].pflags = PARAM_FLAG_CONST;
	params->params[0].ptype = TEXTOID;
	options.params = params;
	/* JIT compilation does not pay off, and takes memory */
	level = NewGUCNestLevel();
	local_setting("jit", "off");
	if (SPI_execute_extended(query_for(columns, known->schema, known->only),
							 &options) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	AtEOXact_GUC(true, level);
}

Known *
known_read(const char *schema, bool partitioned, const char *username,
		   int64 expected)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "yelp_sync known programs",
												  ALLOCSET_DEFAULT_SIZES);
	Known	   *known = MemoryContextAllocZero(context, sizeof(Known));
	KnownReceiver receiver = {.known = known};

	known->context = context;
	known->schema = schema;
	known->only = only_clause(partitioned);
	known->username = username;
	make_slots(known, SLOTS_FOR(expected));
	read_rows(&receiver, "program_id::pg_catalog.text, fingerprint::pg_catalog.int8",
			  remember_row);
	known->marks = MemoryContextAllocExtended(context,
											  known->nslots * sizeof(KnownMark),
											  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	return known;
}

int64
known_count_rows(const char *schema, bool partitioned, const char *username)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(username)};
	char	   *sql = query_for("pg_catalog.count(*)", schema, only_clause(partitioned));
	int			level = NewGUCNestLevel();
	bool		isnull;

	local_setting("jit", "off");
	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
	AtEOXact_GUC(true, level);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									   1, &isnull));
}

void
known_free(Known *known)
{
	MemoryContextDelete(known->context);
}

int64
known_count_arrived(const Known *known, int first_pass)
{
	int64		count = 0;

	for (uint32 slot = 0; slot < known->nslots; slot++)
		count += known->slots[slot].id_hash != 0 &&
			known->marks[slot].pass >= (unsigned int) first_pass;
	return count;
}

void
known_add_missing(const Known *known, int first_pass, Tuplestorestate *rows)
{
	KnownReceiver receiver = {
		.known = unconstify(Known *, known),
		.first_pass = first_pass,
		.missing = rows,
	};

	read_rows(&receiver, "program_id::pg_catalog.text", add_if_missing);
}
