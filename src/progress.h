/*
 * progress.h
 *	  Report the progress of a sync: as NOTICEs, for people or for programs,
 *	  and to all sessions in the view yelp_sync_progress.
 */
#ifndef YELP_SYNC_PROGRESS_H
#define YELP_SYNC_PROGRESS_H

#include "datatype/timestamp.h"
#include "nodes/execnodes.h"
#include "utils/array.h"

#include "option.h"

typedef enum ProgressFormat
{
	PROGRESS_OFF,
	PROGRESS_TEXT,
	PROGRESS_JSON				/* one object per message, suitable for
								 * Server-Sent Events */
} ProgressFormat;

/* The setting yelp_sync.progress. */
extern int	progress_format;

typedef enum ProgressPhase
{
	PHASE_PREPARING = 0,		/* reading what is stored */
	PHASE_FETCHING,
	PHASE_MERGING
} ProgressPhase;

/* What all sessions see of a sync */
typedef struct ProgressRow
{
	int			pid;			/* 0: no sync */
	Oid			database;
	Oid			role;
	TimestampTz started_at;
	ProgressPhase phase;
	char		username[MAX_USERNAME_LENGTH + 1];

	/* What has arrived so far */
	int			reading;		/* of the listing, 1 for the first */
	int64		completed;		/* pages, in this reading */
	int64		total;			/* including pages that cannot be fetched; 0
								 * if unknown */
	int64		programs;
	int64		retries;		/* in all readings */
	int			in_flight;		/* requests */
} ProgressRow;

/* The progress of a sync; initially all zero. */
typedef struct Progress
{
	const char *account;
	ProgressRow row;

	/* Limits the rate of messages */
	int64		reported_at;	/* microseconds, by clock_us */
	int64		completed;		/* pages, at the last message */

	/* Its warnings */
	ArrayBuildState *warnings;	/* text[]; NULL: none */
	MemoryContext context;		/* memory context of the warnings */
	struct Progress *outer;		/* of the enclosing sync, or NULL */
} Progress;

/*
 * Warnings are collected in the current memory context, until
 * progress_leave(), which must also be called after an error.
 */
extern void progress_enter(Progress *progress, const char *account,
						   TimestampTz started_at);
extern void progress_leave(const Progress *progress);

extern void progress_start(Progress *progress, const char *server);

/* Tables were created; their names. */
extern void progress_created(const char *tables);

extern void progress_total(Progress *progress, int64 total, int64 pages,
						   int page_size);

/*
 * The row has changed: shows it, and sends a message, unless the last one was
 * sent just before.
 */
extern void progress_fetched(Progress *progress);

/* When progress_fetched must be called even if nothing has arrived. */
extern int64 progress_due(const Progress *progress);

extern void progress_fetch_done(Progress *progress, int64 elapsed_us);

struct SyncResult;

/* The result of a sync in one line, in the current memory context. */
extern char *progress_summary(const struct SyncResult *result);
extern void progress_complete(const struct SyncResult *result);

/* Another reading begins; the reason is the end of a sentence. */
extern void progress_again(Progress *progress, const char *why);

/*
 * Raises a WARNING, and records it for the history; detail and hint may be
 * NULL.  Not suppressed by the setting.
 */
extern void progress_warning(int sqlstate, const char *message,
							 const char *detail, const char *hint);

/*
 * Raises the WARNING about one of several accounts that could not be synced.
 */
extern void progress_failure(const char *account, const ErrorData *error);

/* Adds a row for each sync that runs in this database. */
extern void progress_list(ReturnSetInfo *result);

#endif							/* YELP_SYNC_PROGRESS_H */
