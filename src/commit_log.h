/*
 * commit_log.h
 *	  Messages for the server log that are written when the transaction
 *	  commits.
 */
#ifndef YELP_SYNC_COMMIT_LOG_H
#define YELP_SYNC_COMMIT_LOG_H

/*
 * Logs the message when the current transaction commits.  Nothing is logged
 * if the transaction or the current subtransaction is rolled back.
 */
extern void commit_log(const char *message);

#endif							/* YELP_SYNC_COMMIT_LOG_H */
