/*
 * program_page.h
 *	  Read the programs from the text of a page.
 *
 * Needs no server except for CHECK_FOR_INTERRUPTS: memory is palloc'd in the
 * current context, and problems are returned instead of raised.
 */
#ifndef YELP_SYNC_PROGRAM_PAGE_H
#define YELP_SYNC_PROGRAM_PAGE_H

/* Maximum length of a program_id, in bytes; Yelp's have 22. */
#define PAGE_MAX_ID_BYTES	256

/* Maximum total, and maximum number of programs on a page. */
#define PAGE_MAX_TOTAL		10000000

typedef enum PageErrorKind
{
	PAGE_FINE = 0,
	PAGE_NOT_JSON,				/* not JSON: perhaps damaged in transit */
	PAGE_NOT_A_PAGE,			/* JSON, but not a page of programs */
	PAGE_IMPLAUSIBLE			/* an impossible total or size */
} PageErrorKind;

typedef struct PageError
{
	PageErrorKind kind;
	char	   *message;		/* what is wrong, without a period */
	char	   *program_id;		/* the program with the problem, or NULL */
} PageError;

/* The stored programs. */
typedef struct KnownPrograms
{
	/*
	 * The fingerprint of the program with this ID hash; NULL if there is none
	 */
	const uint64 *(*fingerprint) (const void *arg, uint64 id_hash);

	/* It will be looked up soon */
	void		(*prefetch) (const void *arg, uint64 id_hash);
	const void *arg;
} KnownPrograms;

typedef struct PageProgram
{
	char	   *id;				/* UTF-8, NUL-terminated */
	uint64		id_hash;		/* see fingerprint_of_id */
	const char *document;		/* the object's text, within the page's; NULL:
								 * unchanged */
	int			length;			/* of the document, in bytes */
	uint64		fingerprint;	/* see fingerprint_of_text */
} PageProgram;

typedef struct ProgramPage
{
	int64		total;			/* programs in the listing, as reported by the
								 * API */
	int64		limit;			/* page size, as reported by the API, or -1 */
	int64		offset;			/* as reported by the API, or -1 */
	char	   *status;			/* program_status as reported by the API, or
								 * NULL */
	int			count;
	PageProgram *programs;
	int			skipped;		/* elements of the list that are not programs,
								 * or cannot be stored */
	char	   *skip_reason;	/* for the first one, or NULL */
} ProgramPage;

/*
 * Reads a page from NUL-terminated text of the given length in bytes.  If it
 * is not a page, returns false and sets the problem, and the page is empty.
 * The page points into the text and must not outlive it.
 *
 * A program whose text is already stored is not read again, and has no
 * document.  If known is NULL, none are stored.
 */
extern bool program_page_read(ProgramPage *page, const char *text, size_t length,
							  const KnownPrograms *known, PageError *problem);

#endif							/* YELP_SYNC_PROGRAM_PAGE_H */
