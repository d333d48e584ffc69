/*
 * program_page.h
 *	  Read the programs from the text of a page.
 *
 * Needs no server except for CHECK_FOR_INTERRUPTS: memory is palloc'd in the
 * current context, and errors are returned instead of raised.
 */
#ifndef YELP_SYNC_PROGRAM_PAGE_H
#define YELP_SYNC_PROGRAM_PAGE_H

#include "common/hashfn.h"

#include "json.h"

/* Maximum length of a program_id, in bytes; Yelp's have 22. */
#define PAGE_MAX_ID_BYTES	256

/* Maximum length of a program, in bytes; Yelp's have 600. */
#define PAGE_MAX_PROGRAM_BYTES	(16 * 1024 * 1024)

/* Maximum total, and maximum number of programs on a page. */
#define PAGE_MAX_TOTAL		10000000

/*
 * Version of the columns that a program is mapped to.  Incrementing it makes
 * the next sync map all programs again.
 */
#define MAPPING_VERSION 3

/* 64-bit hash of a program's ID, of the given length in bytes; never 0. */
static inline uint64
fingerprint_of_id(const char *id, size_t length)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) id, (int) length, 0);

	return hash ? hash : 1;
}

/*
 * 64-bit hash of a program's text and its ID; never 0.  It is the same in
 * every cluster, so that what was dumped and restored need not be stored
 * again.
 */
static inline uint64
fingerprint_of_text(const char *text, size_t length, uint64 id_hash)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) text, (int) length,
										   id_hash + MAPPING_VERSION);

	return hash ? hash : 1;
}

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
	bool		active;			/* is its status ACTIVE?  Only with a document */
} PageProgram;

typedef struct ProgramPage
{
	int64		total;			/* programs in the listing, as reported by the
								 * API */
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
 * is not a page, returns false and describes the error, and the page is
 * empty.  The page points into the text and must not outlive it.
 *
 * A program whose text is already stored has no document.  If known is NULL,
 * none are stored.
 */
extern bool program_page_read(ProgramPage *page, const char *text, size_t length,
							  const KnownPrograms *known, JsonError *error);

#endif							/* YELP_SYNC_PROGRAM_PAGE_H */
