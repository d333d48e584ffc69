/*
 * known.c
 *	  What is stored of an account, as far as it takes to know it again.
 *
 * The ids and fingerprints are read from the primary key's index, without the
 * rows.  Their digest tells in the end whether anything changed at all; and as
 * many as MAX_KNOWN are remembered, so that a program which comes with the same
 * text need not be parsed.
 */
#include "postgres.h"

#include "known.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* About 13 MB */
#define MAX_KNOWN 131072

typedef struct KnownProgram
{
	uint64		fingerprint;
	const char *id;
	char		status;			/* of the entry in the table */
} KnownProgram;

#define SH_PREFIX known_table
#define SH_ELEMENT_TYPE KnownProgram
#define SH_KEY_TYPE uint64
#define SH_KEY fingerprint
#define SH_HASH_KEY(table, key) ((uint32) (key))
#define SH_EQUAL(table, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct Known
{
	ProgramSet	set;
	known_table_hash *table;
	MemoryContext context;
};

/* Receives the rows of the query. */
typedef struct KnownReceiver
{
	DestReceiver pub;
	Known	   *known;
} KnownReceiver;

/* An id that is spelled in JSON as it is stored; Yelp's are. */
static bool
is_plain(const char *id)
{
	for (; *id; id++)
	{
		if (*id == '"' || *id == '\\' || IS_HIGHBIT_SET(*id))
			return false;
	}
	return true;
}

static void
remember(Known *known, uint64 fingerprint, text *id)
{
	MemoryContext caller = MemoryContextSwitchTo(known->context);
	char	   *copy = text_to_cstring(id);
	bool		found;

	if (is_plain(copy))
		known_table_insert(known->table, fingerprint, &found)->id = copy;
	MemoryContextSwitchTo(caller);
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Known	   *known = ((KnownReceiver *) self)->known;
	bool		isnull;
	text	   *id = DatumGetTextPP(slot_getattr(slot, 1, &isnull));
	Datum		fingerprint = slot_getattr(slot, 2, &isnull);

	program_set_add(&known->set, id, isnull ? 0 : DatumGetInt64(fingerprint));
	if (!isnull && known->table->members < MAX_KNOWN)
		remember(known, (uint64) DatumGetInt64(fingerprint), id);
	return true;
}

static void
read_rows(Known *known, const char *schema, bool partitioned,
		  const char *username)
{
	KnownReceiver receiver = {
		.pub = *None_Receiver,
		.known = known,
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
	if (SPI_execute_extended(psprintf("SELECT program_id::pg_catalog.text, fingerprint::pg_catalog.int8"
									  " FROM %s%s.yelp_programs"
									  " WHERE username OPERATOR(pg_catalog.=) $1",
									  partitioned ? "" : "ONLY ", schema),
							 &options) != SPI_OK_SELECT)
		elog(ERROR, "query failed: %s", SPI_result_code_string(SPI_result));
}

Known	   *
known_read(const char *schema, bool partitioned,
		   const char *username)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "yelp_sync known programs",
												  ALLOCSET_DEFAULT_SIZES);
	Known	   *known = MemoryContextAllocZero(context, sizeof(Known));

	known->context = context;
	known->table = known_table_create(context, 1024, NULL);
	read_rows(known, schema, partitioned, username);
	return known;
}

void
known_free(Known *known)
{
	MemoryContextDelete(known->context);
}

ProgramSet
known_set(const Known *known)
{
	return known->set;
}

const char *
known_lookup(const void *arg, uint64 fingerprint)
{
	KnownProgram *program = known_table_lookup(((const Known *) arg)->table, fingerprint);

	return program ? program->id : NULL;
}
