/*
 * subtransaction.h
 *	  Steps of which an error is caught.
 */
#ifndef YELP_SYNC_SUBTRANSACTION_H
#define YELP_SYNC_SUBTRANSACTION_H

/*
 * Takes a step in a subtransaction, which an error rolls back, and returns that
 * error, in the current memory context, or NULL.  Raises it where there is no
 * memory for it; whatever is raised, the subtransaction is over.
 */
extern ErrorData *subtransaction_try(void (*step) (void *arg), void *arg);

/* Is the error a cancel or the like, which ends whatever is done? */
extern bool is_interruption(const ErrorData *error);

#endif							/* YELP_SYNC_SUBTRANSACTION_H */
