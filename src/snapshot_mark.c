/*
 * snapshot_mark.c
 *	  Whether any transaction has ended since an earlier point in time.
 */
#include "postgres.h"

#include "snapshot_mark.h"

#include "common/hashfn.h"
#include "utils/snapmgr.h"

SnapshotMark
snapshot_mark(void)
{
	Snapshot	snapshot = GetLatestSnapshot();
	SnapshotMark mark = {
		.xmax = snapshot->xmax,
		.running = snapshot->xcnt,
		.running_hash = hash_bytes_extended((const unsigned char *) snapshot->xip,
											snapshot->xcnt * sizeof(TransactionId), 0),
	};

	return mark;
}

bool
snapshot_has_moved(const SnapshotMark *since)
{
	SnapshotMark now = snapshot_mark();

	return now.xmax != since->xmax || now.running != since->running ||
		now.running_hash != since->running_hash;
}
