/*
 * slots.c
 *	  Track which pages occupy the available request slots.
 */
#include "postgres.h"

#include "slots.h"

void
slots_init(Slots *slots, int count)
{
	slots->slots = palloc0(count * sizeof(Slot));
	slots->count = count;
	slots->in_flight = 0;
}

Slot	   *
slots_find(const Slots *slots, SlotState state, int64 now)
{
	Slot	   *found = NULL;

	for (int i = 0; i < slots->count; i++)
	{
		Slot	   *slot = &slots->slots[i];

		if (slot->state == state && slot->not_before <= now &&
			(found == NULL || slot->not_before < found->not_before))
			found = slot;
	}
	return found;
}

void
slots_begin(Slot *slot)
{
	memset(&slot->tries, 0, sizeof(Tries));
	slot->tries.attempt = 1;
}

void
slots_send(Slots *slots, Slot *slot, int64 now)
{
	slot->state = SLOT_IN_FLIGHT;
	slot->tries.sent_at = now;
	slots->in_flight++;
}

void
slots_return(Slots *slots, Slot *slot)
{
	slot->state = SLOT_IDLE;
	slots->in_flight--;
}

void
slots_wait(Slot *slot, int64 not_before)
{
	slot->state = SLOT_WAITING;
	slot->not_before = not_before;
}

void
slots_free(Slot *slot)
{
	slot->state = SLOT_IDLE;
	slot->not_before = 0;
}

int
slots_used(const Slots *slots)
{
	int			count = 0;

	for (int i = 0; i < slots->count; i++)
		count += slots->slots[i].state != SLOT_IDLE;
	return count;
}

int64
slots_deadline(const Slots *slots, int64 next_start)
{
	int64		deadline = PG_INT64_MAX;

	for (int i = 0; i < slots->count; i++)
	{
		const Slot *slot = &slots->slots[i];

		if (slot->state == SLOT_WAITING)
			deadline = Min(deadline, Max(slot->not_before, next_start));
	}
	return deadline;
}
