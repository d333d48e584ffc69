/*
 * echo.c
 *	  Check that the pages of a reading are those that were requested, using
 *	  the offset that each page echoes.
 *
 * Most APIs echo the requested offset.  Some echo the page number instead,
 * counted from 0 or from 1, or 0 on each page.  It is not known in advance
 * which kind an API is, but it is the same for all pages, so one of the
 * interpretations must fit all of them.
 *
 * Past the last program, an API may serve one of its pages again, and echo
 * the offset of that page.  Such pages lie after all those that fit, and
 * bring no programs that those do not.  They may arrive before the page that
 * they repeat.
 *
 * If pages differ, 0 on each page says no more than no echo at all.
 */
#include "postgres.h"

#include "echo.h"

void
echo_init(Echo *echo)
{
	for (int way = 0; way < ECHO_WAYS; way++)
		echo->fits[way] = (EchoFit)
	{
		.last_fit = -1,.first_misfit = PG_INT64_MAX
	};
	echo->asked = echo->echoed = -1;
}

/* The value that the page should echo under this interpretation. */
static int64
expected_echo(const EchoPage *page, EchoWay way)
{
	int64		own = page->echoed_limit > 0 ? page->echoed_limit : page->limit;

	switch (way)
	{
		case ECHO_OFFSET:
			return page->offset;
		case ECHO_NUMBER:
			return page->offset / page->limit;
		case ECHO_NUMBER_1:
			return page->offset / page->limit + 1;
		case ECHO_OWN_NUMBER:
			return page->offset / own;
		case ECHO_OWN_NUMBER_1:
			return page->offset / own + 1;
		default:
			return 0;
	}
}

void
echo_add(Echo *echo, const EchoPage *page)
{
	bool		silent = page->echoed_offset < 0;

	for (int way = 0; way < ECHO_WAYS; way++)
	{
		EchoFit    *fit = &echo->fits[way];

		if (silent || page->echoed_offset == expected_echo(page, way))
		{
			fit->last_fit = Max(fit->last_fit, page->offset);
			fit->rows += page->count;
		}
		else
			fit->first_misfit = Min(fit->first_misfit, page->offset);
	}
	if (!silent && page->echoed_offset != page->offset && echo->asked < 0)
	{
		echo->asked = page->offset;
		echo->echoed = page->echoed_offset;
	}
}

static EchoVerdict
verdict_on(const EchoFit *fit, int64 programs)
{
	if (fit->first_misfit == PG_INT64_MAX)
		return ECHO_FITS;
	if (fit->first_misfit > fit->last_fit && fit->rows >= programs)
		return ECHO_TURNS_BACK;
	return ECHO_DIFFERS;
}

EchoVerdict
echo_verdict(const Echo *echo, int64 programs)
{
	EchoVerdict best = ECHO_DIFFERS;

	for (int way = 0; way < ECHO_ZERO; way++)
		best = Min(best, verdict_on(&echo->fits[way], programs));
	/* If the same page is repeated over and over, its 0 is an offset */
	if (best == ECHO_DIFFERS &&
		verdict_on(&echo->fits[ECHO_ZERO], programs) == ECHO_FITS)
		best = ECHO_FITS;
	return best;
}
