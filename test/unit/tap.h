/*
 * tap.h
 *	  Test Anything Protocol for unit tests in C.
 *
 * Each check prints one line; tap_done() prints the plan and returns the exit
 * status for main().
 */
#ifndef YELP_SYNC_TAP_H
#define YELP_SYNC_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int	tap_count;
static int	tap_failures;

/* Location of the current check */
static const char *tap_file;
static int	tap_line;

static inline void
tap_at(const char *file, int line)
{
	tap_file = file;
	tap_line = line;
}

/* The checks, which report their location on failure. */
#define tap_ok(...) (tap_at(__FILE__, __LINE__), tap_check(__VA_ARGS__))
#define tap_is_int(...) (tap_at(__FILE__, __LINE__), tap_check_int(__VA_ARGS__))
#define tap_is_text(...) (tap_at(__FILE__, __LINE__), tap_check_text(__VA_ARGS__))

/* Prints the line of a check. */
__attribute__((format(printf, 2, 0)))
static inline bool
tap_report(bool passed, const char *format, va_list args)
{
	tap_count++;
	if (!passed)
		tap_failures++;
	printf("%s %d - ", passed ? "ok" : "not ok", tap_count);
	vprintf(format, args);
	printf("\n");
	if (!passed)
		printf("# at %s line %d\n", tap_file, tap_line);
	return passed;
}

__attribute__((format(printf, 2, 3)))
static inline bool
tap_check(bool passed, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	tap_report(passed, format, args);
	va_end(args);
	return passed;
}

__attribute__((format(printf, 3, 4)))
static inline bool
tap_check_int(long long got, long long want, const char *format,...)
{
	bool		passed = got == want;
	va_list		args;

	va_start(args, format);
	tap_report(passed, format, args);
	va_end(args);
	if (!passed)
		printf("#      got: %lld\n# expected: %lld\n", got, want);
	return passed;
}

/* NULL is only equal to NULL. */
__attribute__((format(printf, 3, 4)))
static inline bool
tap_check_text(const char *got, const char *want, const char *format,...)
{
	bool		passed = got && want ? strcmp(got, want) == 0 : got == want;
	va_list		args;

	va_start(args, format);
	tap_report(passed, format, args);
	va_end(args);
	if (!passed)
		printf("#      got: %s\n# expected: %s\n",
			   got ? got : "(null)", want ? want : "(null)");
	return passed;
}

static inline int
tap_done(void)
{
	printf("1..%d\n", tap_count);
	if (tap_failures > 0)
		printf("# %d of %d checks failed\n", tap_failures, tap_count);
	return tap_failures > 0 ? 1 : 0;
}

#endif							/* YELP_SYNC_TAP_H */
