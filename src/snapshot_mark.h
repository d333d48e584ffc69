/*
 * snapshot_mark.h
 *	  Whether any transaction has ended since an earlier point in time.
 */
#ifndef YELP_SYNC_SNAPSHOT_MARK_H
#define YELP_SYNC_SNAPSHOT_MARK_H

/* Which transactions had ended */
typedef struct SnapshotMark
{
	TransactionId xmax;			/* none from here on */
	uint32		running;		/* number of earlier ones that had not */
	uint64		running_hash;	/* of their IDs */
} SnapshotMark;

/* The present state; needs a transaction. */
extern SnapshotMark snapshot_mark(void);

/*
 * Has any transaction that could have written something, in any database of
 * the cluster, ended since?  True if in doubt.
 */
extern bool snapshot_has_moved(const SnapshotMark *since);

#endif							/* YELP_SYNC_SNAPSHOT_MARK_H */
