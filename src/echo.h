/*
 * echo.h
 *	  Whether the pages of a reading answer what was asked, by the offset that
 *	  each of them repeats.
 *
 * Pure: knows neither requests nor rows.
 */
#ifndef YELP_SYNC_ECHO_H
#define YELP_SYNC_ECHO_H

/* Ways in which an API may mean what it repeats */
typedef enum EchoWay
{
	ECHO_OFFSET = 0,			/* the offset */
	ECHO_NUMBER,				/* the number of pages as long as asked for */
	ECHO_NUMBER_1,				/* ... counted from 1 */
	ECHO_OWN_NUMBER,			/* the number of pages as long as the API says */
	ECHO_OWN_NUMBER_1,			/* ... counted from 1 */
	ECHO_ZERO,					/* nothing: 0 on each page */
	ECHO_WAYS
} EchoWay;

/* How the pages agree with one of the ways */
typedef struct EchoFit
{
	int64		last_fit;		/* offset of the last page that does, or -1 */
	int64		first_misfit;	/* of the first page that does not */
	int64		rows;			/* programs on the pages that do */
} EchoFit;

typedef struct Echo
{
	EchoFit		fits[ECHO_WAYS];

	/* The first page that repeats another offset, or -1 */
	int64		asked;
	int64		echoed;
} Echo;

/* A page that arrived */
typedef struct EchoPage
{
	int64		offset;			/* as asked for */
	int			limit;
	int			count;			/* programs on it */
	int64		echoed_offset;	/* as it says, or -1 */
	int64		echoed_limit;
} EchoPage;

typedef enum EchoVerdict
{
	ECHO_FITS = 0,				/* the pages answer what was asked */
	ECHO_TURNS_BACK,			/* but for some behind the last program, which
								 * bring others once more */
	ECHO_DIFFERS				/* they do not */
} EchoVerdict;

extern void echo_init(Echo *echo);

extern void echo_add(Echo *echo, const EchoPage *page);

/* What the pages show, by the number of distinct programs on them. */
extern EchoVerdict echo_verdict(const Echo *echo, int64 programs);

#endif							/* YELP_SYNC_ECHO_H */
