/*
 * subtransaction.h
 *	  Run steps whose errors are caught.
 */
#ifndef YELP_SYNC_SUBTRANSACTION_H
#define YELP_SYNC_SUBTRANSACTION_H

/*
 * Runs a step in a subtransaction, which is rolled back on error, and returns
 * the error, in the current memory context, or NULL.  If there is no memory
 * for that, raises 53200, after the rollback.
 */
extern ErrorData *subtransaction_try(void (*step) (void *arg), void *arg);

/* Is the error a cancel or the like, which must not be caught? */
extern bool is_interruption(const ErrorData *error);

#endif							/* YELP_SYNC_SUBTRANSACTION_H */
