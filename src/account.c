/*
 * account.c
 *	  Look up accounts among servers and user mappings.
 *
 * The owner of a server decides where the passwords of its user mappings are
 * sent and what is taken for the API's responses, and can create user
 * mappings for any role.  Therefore a server is used only if its owner is the
 * current user, a superuser or the owner of the extension.  Membership in the
 * owner's role is not sufficient, because a role may be able to grant itself
 * to others.
 */
#include "postgres.h"

#include "account.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "compat.h"
#include "sanitize.h"

#define WRAPPER_NAME	"yelp_sync"
#define MAX_LISTED_ACCOUNTS 10
#define MAX_SHOWN_USERNAME 255

/* Options of the user's mapping on the server; false if there is none. */
static bool
get_mapping_options(Oid userid, Oid serverid, List **options)
{
	HeapTuple	tuple;
	Datum		datum;
	bool		isnull;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
							ObjectIdGetDatum(userid),
							ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return false;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							Anum_pg_user_mapping_umoptions, &isnull);
	*options = isnull ? NIL : untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return true;
}

/* The account that a user's mapping on a server describes, or NULL. */
static Account *
load_account(ForeignServer *server, Oid userid)
{
	Account    *account;
	List	   *options;

	if (!get_mapping_options(userid, server->serverid, &options))
		return NULL;

	account = palloc0(sizeof(Account));
	option_set_defaults(account);
	option_set_stored(account, server->options, ForeignServerRelationId);
	option_set_stored(account, options, UserMappingRelationId);
	account->server = server->servername;
	if (account->username == NULL || account->password == NULL)
		return NULL;			/* created before the wrapper had a
								 * validator */
	return account;
}

/* The servers of our foreign-data wrapper. */
static List *
our_servers(void)
{
	Oid			wrapper = get_foreign_data_wrapper_oid(WRAPPER_NAME, false);
	Relation	catalog = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false,
										  NULL, 0, NULL);
	List	   *servers = NIL;
	HeapTuple	tuple;

	/* A server that is being dropped may be gone from the system cache */
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server row = (Form_pg_foreign_server) GETSTRUCT(tuple);
		ForeignServer *server = row->srvfdw == wrapper ?
			GetForeignServerExtended(row->oid, FSV_MISSING_OK) : NULL;

		if (server)
			servers = lappend(servers, server);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return servers;
}

static List *
matching_accounts(List *accounts, const char *username)
{
	List	   *matches = NIL;
	ListCell   *cell;

	foreach(cell, accounts)
	{
		Account    *account = lfirst(cell);

		if (strcmp(account->username, username) == 0)
			matches = lappend(matches, account);
	}
	return matches;
}

bool
account_trusts(Oid owner)
{
	/* The wrapper was created by the extension's script, hence as its owner */
	return owner == GetUserId() || superuser_arg(owner) ||
		owner == GetForeignDataWrapperByName(WRAPPER_NAME, false)->owner;
}

static bool
is_usable(const ForeignServer *server)
{
	return account_trusts(server->owner) &&
		compat_server_usage(server->serverid, GetUserId());
}

/*
 * The accounts on the servers that the current user may use.  A server's
 * mapping for the user hides its mapping for PUBLIC if both have the same
 * username.
 */
List	   *
account_list(void)
{
	List	   *accounts = NIL;
	List	   *servers = our_servers();
	ListCell   *cell;

	foreach(cell, servers)
	{
		ForeignServer *server = lfirst(cell);
		Account    *own;
		Account    *shared;

		if (!is_usable(server))
			continue;
		own = load_account(server, GetUserId());
		shared = load_account(server, InvalidOid);
		if (own)
			accounts = lappend(accounts, own);
		if (shared && (own == NULL || strcmp(own->username, shared->username) != 0))
			accounts = lappend(accounts, shared);
	}
	return accounts;
}

/* ---- errors for missing accounts ---- */

/*
 * Does the server map the username for the role, or for PUBLIC (InvalidOid)?
 */
static bool
maps_username(ForeignServer *server, Oid userid, const char *username)
{
	Account    *account = load_account(server, userid);

	return account && strcmp(account->username, username) == 0;
}

/* The username for a message, shortened and sanitized if necessary. */
static const char *
shown_username(const char *username)
{
	int			length = strlen(username);

	if (length > MAX_SHOWN_USERNAME || text_has_controls(username, length))
		return text_shown(username, length, MAX_SHOWN_USERNAME);
	return username;
}

/* The account exists, but only on a server of an untrusted owner. */
static void
reject_untrusted(const ForeignServer *server, const char *username)
{
	const char *name = quote_identifier(server->servername);

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("account \"%s\" is mapped only on server \"%s\", which belongs to role \"%s\"",
					shown_username(username),
					server->servername,
					GetUserNameFromId(server->owner, false)),
			 errdetail("Only servers owned by the current user, a superuser or the extension's owner are used, because a server's owner decides where passwords are sent."),
			 errhint("Map the account on a server of your own, or have a superuser change the owner of this one: ALTER SERVER %s OWNER TO ...;",
					 name)));
}

/* Raises an error if the account exists on a server that may not be used. */
static void
reject_unusable(const char *username)
{
	List	   *servers = our_servers();
	ListCell   *cell;

	foreach(cell, servers)
	{
		ForeignServer *server = lfirst(cell);
		bool		usage = compat_server_usage(server->serverid, GetUserId());
		if (maps_username(server, GetUserId(), username) && !usage)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER,
						   server->servername);
		if (usage && (maps_username(server, GetUserId(), username) ||
					  maps_username(server, InvalidOid, username)))
			reject_untrusted(server, username);
	}
}

/* The usernames of some of the accounts, quoted. */
static char *
describe_accounts(List *accounts)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	foreach(cell, accounts)
	{
		const char *username = ((Account *) lfirst(cell))->username;

		if (foreach_current_index(cell) == MAX_LISTED_ACCOUNTS)
		{
			appendStringInfo(&names, " and %d more",
							 list_length(accounts) - MAX_LISTED_ACCOUNTS);
			break;
		}
		appendStringInfo(&names, "%s\"%s\"", names.len ? ", " : "",
						 shown_username(username));
	}
	return names.data;
}

static void
reject_missing(const char *username, List *accounts)
{
	const char *shown = shown_username(username);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no account \"%s\" for user \"%s\"", shown,
					GetUserNameFromId(GetUserId(), false)),
			 accounts ?
			 errdetail("The accounts of this user are: %s.",
					   describe_accounts(accounts)) :
			 errdetail("This user has no accounts: no server of the foreign-data wrapper \"%s\" on which it has USAGE has a user mapping for it.",
					   WRAPPER_NAME),
			 errhint("Create one: CREATE SERVER yelp FOREIGN DATA WRAPPER %s; CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username %s, password '...');",
					 WRAPPER_NAME, quote_literal_cstr(shown))));
}

static void
reject_ambiguous(const char *username, List *matches)
{
	StringInfoData servers;
	ListCell   *cell;

	initStringInfo(&servers);
	foreach(cell, matches)
		appendStringInfo(&servers, "%s\"%s\"", servers.len ? ", " : "",
						 ((Account *) lfirst(cell))->server);
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
			 errmsg("account \"%s\" is mapped on several servers", username),
			 errdetail("The servers are %s.  A mapping for the user does not take precedence over one for PUBLIC on another server.",
					   servers.data),
			 errhint("Drop all but one of the account's user mappings, or revoke USAGE on the other servers.")));
}

Account    *
account_find(const char *username)
{
	List	   *accounts = account_list();
	List	   *matches = matching_accounts(accounts, username);

	if (matches == NIL)
	{
		reject_unusable(username);
		reject_missing(username, accounts);
	}
	if (list_length(matches) > 1)
		reject_ambiguous(username, matches);
	return linitial(matches);
}
