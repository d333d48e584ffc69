/*
 * row_security.c
 *	  Check what row-level security allows the current user to see and write.
 *
 * Before anything is fetched, check that there is a policy for each command,
 * and that the policies show all rows of the account.  Rows that are visible,
 * but cannot be updated or deleted, are found by the merge.
 */
#include "postgres.h"

#include "row_security.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "rewrite/rowsecurity.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "known.h"

typedef struct Command
{
	AclMode		right;
	char		policy;			/* pg_policy.polcmd */
	const char *name;
} Command;

static const Command commands[] =
{
	{ACL_SELECT, ACL_SELECT_CHR, "SELECT"},
	{ACL_INSERT, ACL_INSERT_CHR, "INSERT"},
	{ACL_UPDATE, ACL_UPDATE_CHR, "UPDATE"},
	{ACL_DELETE, ACL_DELETE_CHR, "DELETE"},
};

#define ALL_COMMANDS '*'

/* ---- policies ---- */

static bool
is_for_user(const RowSecurityPolicy *policy)
{
	const Oid  *roles = (const Oid *) ARR_DATA_PTR(policy->roles);

	for (int i = 0; i < ARR_DIMS(policy->roles)[0]; i++)
	{
		if (roles[i] == ACL_ID_PUBLIC || has_privs_of_role(GetUserId(), roles[i]))
			return true;
	}
	return false;
}

/* Without a permissive policy, a command affects no rows. */
static bool
allows(const RowSecurityDesc *security, char command)
{
	ListCell   *cell;

	foreach(cell, security->policies)
	{
		const RowSecurityPolicy *policy = lfirst(cell);

		if (policy->permissive && is_for_user(policy) &&
			(policy->polcmd == command || policy->polcmd == ALL_COMMANDS))
			return true;
	}
	return false;
}

const char *
row_security_hint(void)
{
	return "Create a policy for all commands on the account's rows, or let the table's owner sync, for example through a SECURITY DEFINER function.";
}

static void
require_policies(Relation table, AclMode rights)
{
	for (int i = 0; i < (int) lengthof(commands); i++)
	{
		if ((rights & commands[i].right) == 0 ||
			allows(table->rd_rsdesc, commands[i].policy))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row-level security policies on table \"%s\" do not allow role \"%s\" to %s",
						RelationGetRelationName(table),
						GetUserNameFromId(GetUserId(), false), commands[i].name),
				 errhint("%s", row_security_hint())));
	}
}

bool
row_security_applies(Oid relid, AclMode rights)
{
	Relation	table;

	if (check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED)
		return false;
	table = table_open(relid, AccessShareLock);
	require_policies(table, rights);
	table_close(table, NoLock);
	return true;
}

/* ---- rows ---- */

static Oid
owner_of(Oid relid)
{
	Relation	table = table_open(relid, AccessShareLock);
	Oid			owner = table->rd_rel->relowner;

	table_close(table, NoLock);
	return owner;
}

void
row_security_check_seen(Oid table, const char *username, int64 seen)
{
	const char *schema = quote_identifier(get_namespace_name(get_rel_namespace(table)));
	Oid			user;
	int			context;
	int64		count;

	/*
	 * Count as the table's owner, who is not subject to the policies.  An
	 * error aborts the transaction, which resets this.
	 */
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner_of(table),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	count = known_count_rows(schema, get_rel_relkind(table) == RELKIND_PARTITIONED_TABLE,
							 username);
	SetUserIdAndSecContext(user, context);
	if (count > seen)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row-level security hides " INT64_FORMAT " of " INT64_FORMAT
						" programs of account \"%s\" from role \"%s\"",
						count - seen, count, username, GetUserNameFromId(user, false)),
				 errdetail("A sync must see all of them to tell which programs are gone."),
				 errhint("%s", row_security_hint())));
}
