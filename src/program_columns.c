/*
 * program_columns.c
 *	  The columns of yelp_programs that are filled from a program's document.
 */
#include "postgres.h"

#include "program_columns.h"

const ProgramColumn program_columns[PROGRAM_COLUMNS] = {
	{"program_type", IN_PROGRAM, COLUMN_TEXT},
	{"program_status", IN_PROGRAM, COLUMN_TEXT},
	{"program_pause_status", IN_PROGRAM, COLUMN_TEXT},
	{"start_date", IN_PROGRAM, COLUMN_DATE},
	{"end_date", IN_PROGRAM, COLUMN_DATE},
	{"yelp_business_id", IN_BUSINESS, COLUMN_TEXT},
	{"partner_business_id", IN_BUSINESS, COLUMN_TEXT},
	{"budget", IN_METRICS, COLUMN_CENTS},
	{"max_bid", IN_METRICS, COLUMN_CENTS},
	{"ad_cost", IN_METRICS, COLUMN_CENTS},
	{"currency", IN_METRICS, COLUMN_TEXT},
	{"fee_period", IN_METRICS, COLUMN_TEXT},
	{"is_autobid", IN_METRICS, COLUMN_BOOLEAN},
	{"billed_impressions", IN_METRICS, COLUMN_INTEGER},
	{"billed_clicks", IN_METRICS, COLUMN_INTEGER},
	{"active_features", IN_PROGRAM, COLUMN_TEXTS},
	{"available_features", IN_PROGRAM, COLUMN_TEXTS}
};

const char *const program_objects[PROGRAM_PLACES] = {
	[IN_PROGRAM] = NULL,
	[IN_METRICS] = "program_metrics",
	[IN_BUSINESS] = "businesses"
};

const char *const program_prefixes[PROGRAM_PLACES] = {
	[IN_PROGRAM] = "",
	[IN_METRICS] = "program_metrics.",
	[IN_BUSINESS] = "businesses[0]."
};

/* The number with this many digits, or -1 if they are not digits. */
static int
read_digits(const char *text, int count)
{
	int			value = 0;

	for (int i = 0; i < count; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (text[i] - '0');
	}
	return value;
}

bool
program_date(const char *text, int *year, int *month, int *day)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap;

	*year = read_digits(text, 4);
	*month = read_digits(text + 5, 2);
	*day = read_digits(text + 8, 2);
	leap = (*year % 4 == 0 && *year % 100 != 0) || *year % 400 == 0;
	return text[4] == '-' && text[7] == '-' &&
		*year >= 1 && *month >= 1 && *month <= 12 && *day >= 1 &&
		*day <= days[*month - 1] + (leap && *month == 2);
}
