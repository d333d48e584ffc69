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

/* The checks, with a name like printf's arguments; they return whether it passed. */
#define tap_ok(passed, ...) tap_is_text((passed) ? "true" : "false", "true", __VA_ARGS__)
#define tap_is_int(got, want, ...) tap_is_text(tap_int(got), tap_int(want), __VA_ARGS__)
#define tap_is_text(...) tap_compare(__FILE__, __LINE__, __VA_ARGS__)

/* A number as text, which is valid until the next call but one. */
static inline const char *
tap_int(long long number)
{
	static char texts[2][24];
	static int	last;

	last = !last;
	snprintf(texts[last], sizeof(texts[last]), "%lld", number);
	return texts[last];
}

/* NULL is only equal to NULL. */
__attribute__((format(printf, 5, 6)))
static inline bool
tap_compare(const char *file, int line, const char *got, const char *want, const char *format,...)
{
	bool		passed = got && want ? strcmp(got, want) == 0 : got == want;
	char		name[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	for (char *at = name; *at != '\0'; at++)
	{
		if (*at < ' ')
			*at = '?';
	}
	tap_count++;
	tap_failures += !passed;
	printf("%s %d - %s\n", passed ? "ok" : "not ok", tap_count, name);
	if (!passed)
		printf("# at %s line %d\n#      got: %s\n# expected: %s\n", file, line,
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
