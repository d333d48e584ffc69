/*
 * compat.h
 *	  Differences between PostgreSQL 15 to 19 and between versions of libcurl,
 *	  and small additions to both.
 *
 * All tests of PG_VERSION_NUM and LIBCURL_VERSION_NUM are in this file.
 */
#ifndef YELP_SYNC_COMPAT_H
#define YELP_SYNC_COMPAT_H

#include <curl/curl.h>

#include "access/tupdesc.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "yelp_sync needs PostgreSQL 15 or later"
#endif

#if LIBCURL_VERSION_NUM < 0x075400
#error "yelp_sync needs libcurl 7.84 or later"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM >= 170000
#include "storage/dsm_registry.h"
#endif

/* Marks the declaration of a function that does not return */
#if PG_VERSION_NUM >= 180000
#define COMPAT_NORETURN pg_noreturn
#else
#define COMPAT_NORETURN pg_attribute_noreturn()
#endif

#if PG_VERSION_NUM < 160000
static inline AclResult
object_aclcheck(Oid catalog, Oid object, Oid role, AclMode mode)
{
	switch (catalog)
	{
		case ForeignServerRelationId:
			return pg_foreign_server_aclcheck(object, role, mode);
		case ForeignDataWrapperRelationId:
			return pg_foreign_data_wrapper_aclcheck(object, role, mode);
		case ProcedureRelationId:
			return pg_proc_aclcheck(object, role, mode);
		case NamespaceRelationId:
			return pg_namespace_aclcheck(object, role, mode);
	}
	return ACLCHECK_NO_PRIV;
}
#endif

/* Does the role have the privilege on the object in the catalog? */
static inline bool
compat_has_privilege(Oid catalog, Oid object, Oid role, AclMode privilege)
{
	return object_aclcheck(catalog, object, role, privilege) == ACLCHECK_OK;
}

/* Could the member SET ROLE to the role?  Superusers can. */
static inline bool
compat_can_set_role(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/*
 * Do AFTER triggers run as the role that queued them?  Before PostgreSQL 18,
 * those of a table that references ours with ON DELETE CASCADE, for example,
 * run as the role that deletes our rows.
 */
#define COMPAT_TRIGGERS_KEEP_ROLE (PG_VERSION_NUM >= 180000)

/*
 * A wait event set that its creator frees.  It has no resource owner, because
 * it is freed by a memory context callback.
 */
static inline WaitEventSet *
compat_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/*
 * The wait event shown in pg_stat_activity, with a custom name if supported.
 */
static inline uint32
compat_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("YelpSyncApi");
	return wait_event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * Named shared memory that need not be requested at server start: the first
 * session that asks for it creates and initializes it.  NULL before 17.
 */
typedef void (*CompatInitSegment) (void *segment);

#if PG_VERSION_NUM >= 190000
static inline void
compat_init_segment(void *segment, void *init)
{
	((CompatInitSegment) init) (segment);
}
#endif

static inline void *
compat_shared_segment(const char *name, Size size, CompatInitSegment init)
{
#if PG_VERSION_NUM >= 190000
	bool		found;

	return GetNamedDSMSegment(name, size, compat_init_segment, &found, (void *) init);
#elif PG_VERSION_NUM >= 170000
	bool		found;

	return GetNamedDSMSegment(name, size, init, &found);
#else
	(void) name;
	(void) size;
	(void) init;
	return NULL;
#endif
}

/* This backend's number, less than MaxBackends. */
static inline int
compat_backend_number(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyBackendId - 1;
#endif
}

/* Timeouts that end a statement, its transaction or its session */
#if PG_VERSION_NUM >= 170000
#define COMPAT_ENDING_TIMEOUTS {STATEMENT_TIMEOUT, TRANSACTION_TIMEOUT}
#else
#define COMPAT_ENDING_TIMEOUTS {STATEMENT_TIMEOUT}
#endif

/* PostgreSQL 19 requires that completed tuple descriptors be finalized. */
static inline TupleDesc
compat_finish_tuple_desc(TupleDesc desc)
{
#if PG_VERSION_NUM >= 190000
	TupleDescFinalize(desc);
#endif
	return desc;
}

/* ---- libcurl ---- */

/*
 * libcurl's error for too many or too long headers; before 8.6, it is the
 * same as for out of memory.
 */
#if LIBCURL_VERSION_NUM >= 0x080600
#define COMPAT_CURLE_TOO_LARGE CURLE_TOO_LARGE
#else
#define COMPAT_CURLE_TOO_LARGE CURLE_OUT_OF_MEMORY
#endif

/* Allow no protocols other than HTTP and HTTPS. */
static inline CURLcode
compat_limit_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS,
							(long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/*
 * Do not wait for a thread that is still resolving a name when a transfer is
 * abandoned or, from 8.20 on, where the threads belong to the multi handle,
 * when that is destroyed.
 */
static inline CURLcode
compat_quick_exit(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075700
	return curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#else
	(void) easy;
	return CURLE_OK;
#endif
}

/*
 * Runs all transfers, and says anew which sockets to wait for: deprecated, but
 * no other function does.
 */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static inline CURLMcode
compat_run_all(CURLM *multi, int *running)
{
	return curl_multi_socket_all(multi, running);
}
#pragma GCC diagnostic pop

static inline CURLMcode
compat_multi_quick_exit(CURLM *multi)
{
#if LIBCURL_VERSION_NUM >= 0x081400
	return curl_multi_setopt(multi, CURLMOPT_QUICK_EXIT, 1L);
#else
	(void) multi;
	return CURLM_OK;
#endif
}

/* ---- the clock, and settings ---- */

#define USECS_PER_MSEC	INT64CONST(1000)

/* Current time in microseconds, on a monotonic clock. */
static inline int64
clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Changes a setting until AtEOXact_GUC with the nest level, or an error,
 * restores it.
 */
static inline void
local_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

#endif							/* YELP_SYNC_COMPAT_H */
