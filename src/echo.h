/*
 * echo.h
 *	  Check that the pages of a reading are those that were requested, using
 *	  the offset that each page echoes.
 *
 * Pure: does not depend on requests or rows.
 */
#ifndef YELP_SYNC_ECHO_H
#define YELP_SYNC_ECHO_H

/* Possible interpretations of the echoed value */
typedef enum EchoWay
{
	ECHO_OFFSET = 0,			/* the offset */
	ECHO_NUMBER,				/* the page number, by the requested page
								 * size */
	ECHO_NUMBER_1,				/* ... counted from 1 */
	ECHO_OWN_NUMBER,			/* the page number, by the echoed page size */
	ECHO_OWN_NUMBER_1,			/* ... counted from 1 */
	ECHO_ZERO,					/* nothing: 0 on each page */
	ECHO_WAYS
} EchoWay;

/* How well the pages fit one of the interpretations */
typedef struct EchoFit
{
	int64		last_fit;		/* offset of the last page that fits, or -1 */
	int64		first_misfit;	/* offset of the first page that does not */
	int64		rows;			/* number of programs on the pages that fit */
} EchoFit;

typedef struct Echo
{
	EchoFit		fits[ECHO_WAYS];

	/* The first page that echoes a different offset, or -1 */
	int64		asked;
	int64		echoed;
} Echo;

/* A page that has arrived */
typedef struct EchoPage
{
	int64		offset;			/* requested offset */
	int			limit;
	int			count;			/* number of programs on it */
	int64		echoed_offset;	/* echoed offset, or -1 */
	int64		echoed_limit;
} EchoPage;

typedef enum EchoVerdict
{
	ECHO_FITS = 0,				/* the pages are those requested */
	ECHO_TURNS_BACK,			/* except for some past the last program, which
								 * repeat others */
	ECHO_DIFFERS				/* they are not */
} EchoVerdict;

extern void echo_init(Echo *echo);

extern void echo_add(Echo *echo, const EchoPage *page);

/* The verdict on all pages, given the number of distinct programs on them. */
extern EchoVerdict echo_verdict(const Echo *echo, int64 programs);

#endif							/* YELP_SYNC_ECHO_H */
