/*
 * echo_test.c
 *	  Unit tests of echo.c.
 */
#include "postgres.h"

#include "echo.h"
#include "tap.h"

#define MAX_PAGES 5

typedef struct EchoCase
{
	const char *name;
	EchoVerdict verdict;
	int			programs;		/* number of distinct programs on the pages */
	EchoPage	pages[MAX_PAGES];	/* terminated by one without a limit */
} EchoCase;

static const EchoCase cases[] = {
	{"nothing is repeated", ECHO_FITS, 50,
	{{0, 20, 20, -1, -1}, {20, 20, 20, -1, 20}, {40, 20, 10, -1, -1}}},
	{"the offset", ECHO_FITS, 50,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 20, 20}, {40, 20, 10, 40, -1}, {50, 10, 10, 50, 10}}},
	{"the page's number", ECHO_FITS, 50,
	{{0, 20, 20, 0, -1}, {20, 20, 20, 1, -1}, {40, 20, 10, 2, -1}, {50, 10, 10, 5, -1}}},
	{"the number from 1", ECHO_FITS, 50,
	{{0, 20, 20, 1, -1}, {20, 20, 20, 2, -1}, {40, 20, 10, 3, -1}}},
	{"the number of smaller pages", ECHO_FITS, 40,
	{{0, 20, 10, 0, 10}, {10, 10, 10, 1, 10}, {20, 20, 10, 2, 10}, {30, 10, 10, 3, 10}}},
	{"... from 1", ECHO_FITS, 40,
	{{0, 20, 10, 1, 10}, {10, 10, 10, 2, 10}, {20, 20, 10, 3, 10}, {30, 10, 10, 4, 10}}},
	{"the number at an offset that is no multiple", ECHO_FITS, 16,
	{{0, 20, 16, 0, 20}, {16, 20, 16, 0, 20}}},
	{"0 on each page", ECHO_FITS, 50,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 0, 20}, {40, 20, 10, 0, 20}, {60, 20, 10, 0, 20}}},
	{"0 on one page only", ECHO_DIFFERS, 50,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 20, 20}, {40, 20, 10, 0, 20}}},
	{"another page's offset", ECHO_DIFFERS, 60,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 40, 20}, {40, 20, 20, 40, 20}, {60, 20, 20, 60, 20}}},
	{"... and other programs", ECHO_DIFFERS, 60,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 20, 20}, {40, 20, 20, 60, 20}}},
	{"now the offset, now the number", ECHO_DIFFERS, 60,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 20, 20}, {40, 20, 20, 2, 20}}},
	{"the last page behind the last program", ECHO_TURNS_BACK, 50,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 20, 20}, {40, 20, 10, 40, 20}, {60, 20, 10, 40, 20}}},
	{"... which arrives first", ECHO_TURNS_BACK, 50,
	{{60, 20, 10, 40, 20}, {40, 20, 10, 40, 20}, {20, 20, 20, 20, 20}, {0, 20, 20, 0, 20}}},
	{"the first page at each offset", ECHO_TURNS_BACK, 20,
	{{0, 20, 20, 0, 20}, {20, 20, 20, 0, 20}, {40, 20, 20, 0, 20}}},
	{"... counted from 1", ECHO_TURNS_BACK, 20,
	{{0, 20, 20, 1, 20}, {20, 20, 20, 1, 20}, {40, 20, 20, 1, 20}}},
};

int
main(void)
{
	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		const EchoPage *page = cases[i].pages;
		Echo		echo;

		echo_init(&echo);
		for (; page < cases[i].pages + MAX_PAGES && page->limit > 0; page++)
			echo_add(&echo, page);
		tap_is_int(echo_verdict(&echo, cases[i].programs), cases[i].verdict,
				   "%s", cases[i].name);
	}
	return tap_done();
}
