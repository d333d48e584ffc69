/*
 * clock.h
 *	  Clock for deadlines and durations.
 */
#ifndef YELP_SYNC_CLOCK_H
#define YELP_SYNC_CLOCK_H

#include "portability/instr_time.h"

#define USECS_PER_MSEC	INT64CONST(1000)

/* Current time in microseconds, on a monotonic clock. */
static inline int64
clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

#endif							/* YELP_SYNC_CLOCK_H */
