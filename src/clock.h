/*
 * clock.h
 *	  The clock that deadlines and durations are measured with.
 */
#ifndef YELP_SYNC_CLOCK_H
#define YELP_SYNC_CLOCK_H

#include "portability/instr_time.h"

#define USECS_PER_MSEC	INT64CONST(1000)

/* The time now in microseconds, on a clock that nobody sets. */
static inline int64
clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

#endif							/* YELP_SYNC_CLOCK_H */
