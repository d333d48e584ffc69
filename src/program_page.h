/*
 * program_page.h
 *	  From the text of a page to the programs on it.
 *
 * Needs no server but for CHECK_FOR_INTERRUPTS: memory is palloc'd in the
 * current context, problems are returned and never raised.
 */
#ifndef YELP_SYNC_PROGRAM_PAGE_H
#define YELP_SYNC_PROGRAM_PAGE_H

/* The longest program_id that is accepted, in bytes; Yelp's have 22. */
#define PAGE_MAX_ID_BYTES	256

/* The largest total, and the most programs on a page, that are believed. */
#define PAGE_MAX_TOTAL		10000000

typedef enum PageErrorKind
{
	PAGE_FINE = 0,
	PAGE_NOT_JSON,				/* no JSON text: broken on its way, perhaps */
	PAGE_NOT_A_PAGE,			/* JSON, but no page of programs */
	PAGE_IMPLAUSIBLE			/* a total or a size that cannot be */
} PageErrorKind;

typedef struct PageError
{
	PageErrorKind kind;
	char	   *message;		/* what is wrong, lower case, no period */
	char	   *program_id;		/* of the program it was found in, or NULL */
} PageError;

/* The programs that are stored. */
typedef struct KnownPrograms
{
	/* The fingerprint of the one whose id has this hash, NULL: there is none */
	const uint64 *(*fingerprint) (const void *arg, uint64 id_hash);

	/* It will be asked for soon */
	void		(*prefetch) (const void *arg, uint64 id_hash);
	const void *arg;
} KnownPrograms;

typedef struct PageProgram
{
	char	   *id;				/* UTF-8, NUL-terminated */
	uint64		id_hash;		/* by fingerprint_of_id */
	const char *document;		/* the object's text, within the page's; NULL:
								 * as it is stored */
	int			length;			/* of the document in bytes */
	uint64		fingerprint;	/* by fingerprint_of_text */
	char	   *problems;		/* names of the fields that do not hold what
								 * they must, separated by commas; or NULL */
} PageProgram;

typedef struct ProgramPage
{
	int64		total;			/* programs in the listing, says the API */
	int64		limit;			/* programs per page, says the API; -1: silent */
	int64		offset;			/* of the page, says the API; -1: silent */
	char	   *status;			/* program_status, says the API; NULL: silent */
	int			count;
	PageProgram *programs;
	int			skipped;		/* elements of the list that are no program,
								 * or one that cannot be stored */
	char	   *skip_reason;	/* of the first one, or NULL */
} ProgramPage;

/*
 * Reads a page from NUL-terminated text of the given length in bytes.  False
 * where it is none: the problem says why, and the page holds nothing.  The
 * page points into the text and lives no longer.
 *
 * A program whose text is stored is not read again, and has no document.  NULL
 * for known: none is stored.
 */
extern bool program_page_read(ProgramPage *page, const char *text, size_t length,
							  const KnownPrograms *known, PageError *problem);

#endif							/* YELP_SYNC_PROGRAM_PAGE_H */
