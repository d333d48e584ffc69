/*
 * progress_view.c
 *	  Show running syncs to all sessions.
 *
 * The first session that needs it creates a shared memory segment with a slot
 * for each possible backend, indexed by backend number; the others find the
 * segment by name.  A session only writes to its own slot; a nested sync
 * replaces the outer one until it ends.  Slots are cleared when a sync ends
 * for any reason, and when the session ends.  If a backend crashes, the
 * server restarts all backends, and the segment is gone.
 */
#include "postgres.h"

#include "progress_view.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "storage/spin.h"
#include "utils/acl.h"

#include "compat.h"
#include "subtransaction.h"

/* Includes a layout version: sessions may have loaded different libraries */
#define SEGMENT_NAME "yelp_sync_progress_1"

typedef struct ProgressSlot
{
	slock_t		mutex;
	ProgressRow row;			/* empty if pid is 0 */
} ProgressSlot;

/* Indexed by backend number; NULL until this session needs it */
static ProgressSlot *slots;

static const char *const phases[] = {
	[PHASE_PREPARING] = "preparing",
	[PHASE_FETCHING] = "fetching",
	[PHASE_MERGING] = "merging",
};

/* ---- shared memory ---- */

static void
init_slots(void *segment)
{
	ProgressSlot *slot = segment;

	memset(slot, 0, MaxBackends * sizeof(ProgressSlot));
	for (int i = 0; i < MaxBackends; i++)
		SpinLockInit(&slot[i].mutex);
}

/* A terminated session exits without ending its sync. */
static void
clear_slot(pg_attribute_unused() int code, pg_attribute_unused() Datum arg)
{
	progress_view_show(NULL);
}

static void
attach(pg_attribute_unused() void *arg)
{
	slots = compat_shared_segment(SEGMENT_NAME, MaxBackends * sizeof(ProgressSlot),
								  init_slots);
	before_shmem_exit(clear_slot, 0);
}

void
progress_view_prepare(void)
{
	ErrorData  *error;

	if (slots || !COMPAT_HAS_SHARED_SEGMENTS)
		return;
	error = subtransaction_try(attach, NULL);
	if (error && is_interruption(error))
		ReThrowError(error);
	if (error)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("yelp_sync: this session's syncs are not shown in yelp_sync_progress: %s",
						error->message)));
}

/* ---- slots ---- */

void
progress_view_show(const ProgressRow *row)
{
	ProgressSlot *slot;
	ProgressRow shown = {0};

	if (slots == NULL)
		return;
	if (row)
	{
		shown = *row;
		shown.pid = MyProcPid;
		shown.database = MyDatabaseId;
		shown.role = GetSessionUserId();
	}
	slot = &slots[compat_backend_number()];
	SpinLockAcquire(&slot->mutex);
	slot->row = shown;
	SpinLockRelease(&slot->mutex);
}

static ProgressRow
read_slot(ProgressSlot *slot)
{
	ProgressRow row;

	SpinLockAcquire(&slot->mutex);
	row = slot->row;
	SpinLockRelease(&slot->mutex);
	return row;
}

static void
require_shared_segments(void)
{
	if (!COMPAT_HAS_SHARED_SEGMENTS)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("yelp_sync_progress requires PostgreSQL 17 or later"),
				 errhint("pg_stat_activity shows the sessions that are syncing, and each sync reports its progress to its own session.")));
}

List	   *
progress_view_list(void)
{
	List	   *rows = NIL;

	require_shared_segments();
	if (slots == NULL)
		attach(NULL);
	for (int i = 0; i < MaxBackends; i++)
	{
		ProgressRow row = read_slot(&slots[i]);
		ProgressRow *copy;

		if (row.pid == 0 || row.database != MyDatabaseId ||
			BackendPidGetProc(row.pid) == NULL)
			continue;
		copy = palloc(sizeof(ProgressRow));
		*copy = row;
		rows = lappend(rows, copy);
	}
	return rows;
}

/* The same rule as for pg_stat_activity */
bool
progress_view_may_read(const ProgressRow *row)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		has_privs_of_role(GetUserId(), row->role);
}

const char *
progress_view_phase(ProgressPhase phase)
{
	StaticAssertStmt(lengthof(phases) == PHASE_MERGING + 1, "a phase lacks its name");
	return phases[phase];
}
