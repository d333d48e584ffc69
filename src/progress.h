/*
 * progress.h
 *	  How a sync goes, as NOTICEs for people or for programs.
 */
#ifndef YELP_SYNC_PROGRESS_H
#define YELP_SYNC_PROGRESS_H

typedef enum ProgressFormat
{
	PROGRESS_OFF,
	PROGRESS_TEXT,
	PROGRESS_JSON				/* one object a message, fit for Server-Sent
								 * Events */
} ProgressFormat;

/* The setting yelp_sync.progress. */
extern int	progress_format;

/* The rate of the messages of one sync; all zero at first. */
typedef struct Progress
{
	int64		last_told;		/* microseconds, by clock_us */
	int64		completed;		/* pages, when last told */
	bool		behind;			/* others have come since */
} Progress;

extern void progress_start(Progress *progress, const char *username,
						   const char *server);
extern void progress_total(Progress *progress, int64 total, int64 pages,
						   int page_size);

/*
 * Paginator that came so far; says nothing when it has just said something.  With
 * total 0 the number of pages is not known yet.
 */
extern void progress_fetched(Progress *progress, int64 completed, int64 total,
							 int64 programs);

/* When progress_fetched wants to be called even if nothing came. */
extern int64 progress_due(const Progress *progress);

extern void progress_fetch_done(Progress *progress, int64 pages, int64 programs,
								int64 retries, int64 elapsed_us);

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

/* The listing is fetched again; why is the end of a sentence. */
extern void progress_again(const char *why);

/* A WARNING; detail and hint may be NULL.  Not silenced by the setting. */
extern void progress_warning(int sqlstate, const char *message,
							 const char *detail, const char *hint);

#endif							/* YELP_SYNC_PROGRESS_H */
