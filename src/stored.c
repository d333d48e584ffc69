/*
 * stored.c
 *	  What is stored of an account, as far as it takes to know it again.
 *
 * The ids and fingerprints are read from the primary key's index, without the
 * rows.  Their digest tells in the end whether anything changed at all; and as
 * many as MOST_KNOWN are remembered, so that a program which comes with the same
 * text need not be parsed.
 */
#include "postgres.h"

#include "stored.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* About 13 MB */
#define MOST_KNOWN 131072

typedef struct KnownProgram
{
	uint64		fingerprint;
	const char *id;
	char		status;			/* of the entry in the table */
} KnownProgram;

#define SH_PREFIX known
#define SH_ELEMENT_TYPE KnownProgram
#define SH_KEY_TYPE uint64
#define SH_KEY fingerprint
#define SH_HASH_KEY(table, key) ((uint32) (key))
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct Stored
{
	ProgramSet	set;
	known_hash *known;
	MemoryContext context;
};

/* Receives the rows of the query. */
typedef struct StoredReceiver
{
	DestReceiver pub;
	Stored	   *stored;
} StoredReceiver;

/* An id that needs no escapes in JSON; Yelp's do not. */
static bool
is_plain(const char *id)
{
	return strpbrk(id, "\"\\") == NULL;
}

static void
remember(Stored *stored, uint64 fingerprint, text *id)
{
	MemoryContext caller = MemoryContextSwitchTo(stored->context);
	char	   *copy = text_to_cstring(id);
	bool		found;

	if (is_plain(copy))
		known_insert(stored->known, fingerprint, &found)->id = copy;
	MemoryContextSwitchTo(caller);
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Stored	   *stored = ((StoredReceiver *) self)->stored;
	bool		isnull;
	text	   *id = DatumGetTextPP(slot_getattr(slot, 1, &isnull));
	Datum		fingerprint = slot_getattr(slot, 2, &isnull);

	rows_count_program(&stored->set, id, isnull ? 0 : DatumGetInt64(fingerprint));
	if (!isnull && stored->known->members < MOST_KNOWN)
		remember(stored, (uint64) DatumGetInt64(fingerprint), id);
	return true;
}

static void
read_rows(Stored *stored, const char *schema, const char *username)
{
	StoredReceiver receiver = {
		.pub = *None_Receiver,
		.stored = stored,
	};
	SPIExecuteOptions options = {.dest = &receiver.pub,.read_only = false};
	ParamListInfo params = makeParamList(1);

	receiver.pub.receiveSlot = receive_row;
	receiver.pub.mydest = DestTuplestore;
	params->params[0].value = CStringGetTextDatum(username);
	params->params[0].isnull = false;
	params->params[0].pflags = PARAM_FLAG_CONST;
	params->params[0].ptype = TEXTOID;
	options.params = params;
	if (SPI_execute_extended(psprintf("SELECT program_id, fingerprint FROM %s.yelp_programs"
									  " WHERE username OPERATOR(pg_catalog.=) $1", schema),
							 &options) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
}

Stored *
stored_read(const char *schema, const char *username)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "yelp_sync known programs",
												  ALLOCSET_DEFAULT_SIZES);
	Stored	   *stored = MemoryContextAllocZero(context, sizeof(Stored));

	stored->context = context;
	stored->known = known_create(context, 1024, NULL);
	read_rows(stored, schema, username);
	return stored;
}

void
stored_free(Stored *stored)
{
	MemoryContextDelete(stored->context);
}

ProgramSet
stored_set(const Stored *stored)
{
	return stored->set;
}

const char *
stored_lookup(const void *arg, uint64 fingerprint)
{
	KnownProgram *known = known_lookup(((const Stored *) arg)->known, fingerprint);

	return known ? known->id : NULL;
}
