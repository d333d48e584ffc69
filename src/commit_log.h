/*
 * commit_log.h
 *	  Lines for the server's log that are true only once a transaction commits.
 */
#ifndef YELP_SYNC_COMMIT_LOG_H
#define YELP_SYNC_COMMIT_LOG_H

/*
 * Logs the message when the current transaction commits; never, where it or
 * the current subtransaction is rolled back.
 */
extern void commit_log(const char *message);

#endif							/* YELP_SYNC_COMMIT_LOG_H */
