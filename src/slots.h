/*
 * slots.h
 *	  Which pages occupy the requests that may be under way at a time.
 *
 * A page occupies a slot from its first attempt to its last; between two of
 * them it waits there.
 */
#ifndef YELP_SYNC_SLOTS_H
#define YELP_SYNC_SLOTS_H

#include "retry.h"

typedef enum SlotState
{
	SLOT_IDLE = 0,
	SLOT_IN_FLIGHT,
	SLOT_WAITING				/* for its next attempt */
} SlotState;

typedef struct Slot
{
	SlotState	state;
	int64		offset;			/* of the page */
	int			limit;
	Tries		tries;
	int64		not_before;		/* where it waits, by clock_us */
} Slot;

typedef struct Slots
{
	Slot	   *slots;
	int			count;
	int			in_flight;
} Slots;

/* So many, idle, in the current memory context. */
extern void slots_init(Slots *slots, int count);

/* Of the slots in a state whose time has come, the one that has waited longest. */
extern Slot *slots_find(const Slots *slots, SlotState state, int64 now);

/* Its page begins; goes out; is back, with or without an answer; waits; ends. */
extern void slots_begin(Slot *slot);
extern void slots_send(Slots *slots, Slot *slot, int64 now);
extern void slots_return(Slots *slots, Slot *slot);
extern void slots_wait(Slot *slot, int64 not_before);
extern void slots_free(Slot *slot);

/* How many hold a page. */
extern int	slots_used(const Slots *slots);

/*
 * When the first of those that wait may go out, where none does before
 * next_start; PG_INT64_MAX where none waits.
 */
extern int64 slots_deadline(const Slots *slots, int64 next_start);

#endif							/* YELP_SYNC_SLOTS_H */
