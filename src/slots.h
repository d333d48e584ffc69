/*
 * slots.h
 *	  Track which pages occupy the available request slots.
 *
 * A page occupies a slot from its first attempt to its last, and waits there
 * between attempts.
 */
#ifndef YELP_SYNC_SLOTS_H
#define YELP_SYNC_SLOTS_H

#include "throttle.h"

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
	int64		not_before;		/* if it is waiting, by clock_us */
} Slot;

typedef struct Slots
{
	Slot	   *slots;
	int			count;
	int			in_flight;
} Slots;

/* Allocates idle slots in the current memory context. */
extern void slots_init(Slots *slots, int count);

/* The slot in this state that is due and has waited longest. */
extern Slot *slots_find(const Slots *slots, SlotState state, int64 now);

/* The page begins; is sent; has been answered or failed; waits; ends. */
extern void slots_begin(Slot *slot);
extern void slots_send(Slots *slots, Slot *slot, int64 now);
extern void slots_return(Slots *slots, Slot *slot);
extern void slots_wait(Slot *slot, int64 not_before);
extern void slots_free(Slot *slot);

/* The number of slots with a page. */
extern int	slots_used(const Slots *slots);

/*
 * When the first of the waiting pages may be sent, but not before next_start;
 * PG_INT64_MAX if none are waiting.
 */
extern int64 slots_deadline(const Slots *slots, int64 next_start);

#endif							/* YELP_SYNC_SLOTS_H */
