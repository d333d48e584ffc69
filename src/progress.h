/*
 * progress.h
 *	  How a sync goes, as NOTICEs for people or for programs.
 */
#ifndef YELP_SYNC_PROGRESS_H
#define YELP_SYNC_PROGRESS_H

#include "utils/array.h"

#include "progress_view.h"

typedef enum ProgressFormat
{
	PROGRESS_OFF,
	PROGRESS_TEXT,
	PROGRESS_JSON				/* one object a message, fit for Server-Sent
								 * Events */
} ProgressFormat;

/* The setting yelp_sync.progress. */
extern int	progress_format;

/* What one sync told; all zero at first. */
typedef struct Progress
{
	const char *account;
	ProgressRow row;			/* what all sessions can see */

	/* The rate of its messages */
	int64		last_told;		/* microseconds, by clock_us */
	int64		completed;		/* pages, when last told */
	bool		behind;			/* others have come since */

	/* Its warnings */
	ArrayBuildState *warnings;	/* text[]; NULL: none */
	MemoryContext context;		/* that they are kept in */
	struct Progress *outer;		/* of the sync that this one runs within */
} Progress;

/*
 * Warnings are kept with this sync, in the current memory context, until
 * progress_leave(), which is called after an error, too.
 */
extern void progress_enter(Progress *progress, const char *account,
						   TimestampTz started_at);
extern void progress_leave(const Progress *progress);

extern void progress_start(Progress *progress, const char *username,
						   const char *server);
extern void progress_total(Progress *progress, int64 total, int64 pages,
						   int page_size);

/* What has arrived so far in this reading */
typedef struct ProgressPages
{
	int64		completed;		/* pages */
	int64		total;			/* pages, those included that cannot be had; 0:
								 * not known yet */
	int64		programs;
	int64		retries;		/* in all readings */
	int			in_flight;		/* requests */
} ProgressPages;

/* For the other sessions, in yelp_sync_progress */
extern void progress_show(Progress *progress, const ProgressPages *pages);

/* Says nothing when it has just said something. */
extern void progress_fetched(Progress *progress, const ProgressPages *pages);

/* When progress_fetched wants to be called even if nothing arrived. */
extern int64 progress_due(const Progress *progress);

extern void progress_fetch_done(Progress *progress, const ProgressPages *pages,
								int64 elapsed_us);

/*
 * What the comparison with the table showed: programs that were not stored,
 * that were, that are proved to be gone, and that are merely not listed.
 */
extern void progress_merged(int64 missing, int64 common, int64 gone,
							int64 unlisted);

typedef struct ProgressResult
{
	const char *status;			/* synced or partial */
	int64		added;
	int64		updated;
	int64		unchanged;
	int64		deleted;
	int64		programs;
	int64		fetch_us;
	int64		merge_us;
	int64		total_us;
} ProgressResult;

/* What a sync did, in one line; the memory is the current context's. */
extern char *progress_summary(const ProgressResult *result);
extern void progress_complete(const ProgressResult *result);

/* The next reading begins; why is the end of a sentence. */
extern void progress_again(Progress *progress, const char *why);

/*
 * A WARNING, which is kept for the history as well; detail and hint may be NULL.
 * Not silenced by the setting.
 */
extern void progress_warning(int sqlstate, const char *message,
							 const char *detail, const char *hint);

/* The WARNING about an account that could not be synced, among several. */
extern void progress_failure(const char *account, const ErrorData *error);

#endif							/* YELP_SYNC_PROGRESS_H */
