/*
 * compat.h
 *	  Differences between PostgreSQL 15 to 19.
 *
 * All tests of PG_VERSION_NUM are in this file.
 */
#ifndef YELP_SYNC_COMPAT_H
#define YELP_SYNC_COMPAT_H

#include "access/table.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "storage/proc.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "access/tupdesc.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "yelp_sync needs PostgreSQL 15 or later"
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

/* Does the role have USAGE on the foreign server? */
static inline bool
compat_server_usage(Oid serverid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, serverid, roleid,
						   ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_foreign_server_aclcheck(serverid, roleid,
									  ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* Does the role have USAGE on the foreign-data wrapper? */
static inline bool
compat_wrapper_usage(Oid wrapper, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignDataWrapperRelationId, wrapper, roleid,
						   ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_foreign_data_wrapper_aclcheck(wrapper, roleid,
											ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* Does the role have EXECUTE on the function? */
static inline bool
compat_function_execute(Oid function, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, roleid,
						   ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, roleid, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* Does the role have the privilege (CREATE or USAGE) on the schema? */
static inline bool
compat_schema_privilege(Oid schema, Oid roleid, AclMode privilege)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, roleid,
						   privilege) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, roleid, privilege) == ACLCHECK_OK;
#endif
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
 * session that asks for it creates and initializes it.
 */
#if PG_VERSION_NUM >= 170000
#define COMPAT_HAS_SHARED_SEGMENTS true
#else
#define COMPAT_HAS_SHARED_SEGMENTS false
#endif

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

#endif							/* YELP_SYNC_COMPAT_H */
