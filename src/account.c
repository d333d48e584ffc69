/*
 * account.c
 *	  Look up accounts among servers and user mappings, and add them.
 *
 * The owner of a server decides where the passwords of its user mappings are
 * sent and what is taken for the API's responses, and can create user
 * mappings for any role.  Therefore a server is used only if its owner is the
 * current user or a superuser, as the owner of the extension is.  Membership in
 * the owner's role is not sufficient, because a role may be able to grant
 * itself to others.
 *
 * No catalog index finds a user mapping by its username, so all of them are
 * read; most are seen not to have it without taking them apart, so that
 * thousands take less than a millisecond.
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
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "statement.h"
#include "text.h"

#define WRAPPER_NAME	"yelp_sync"
#define MAX_LISTED_ACCOUNTS 10

#define NO_ACCOUNTS \
	"No server of foreign-data wrapper \"" WRAPPER_NAME "\" that this user may use has a user mapping for it."

/* Edits between a misspelled username and the one that was meant */
#define MAX_TYPOS 4

/* ---- accounts ---- */

/*
 * The account that a user's mapping on a server describes, or NULL.  The
 * first argument has the options of the wrapper, and the defaults.  One to be
 * listed has texts only, so that an invalid value concerns its account alone.
 */
static Account *
load_account(const Account *defaults, const ForeignServer *server, Oid user, bool to_list)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
										ObjectIdGetDatum(server->serverid));
	Account    *account;
	Datum		options;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	account = palloc(sizeof(Account));
	*account = *defaults;
	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							  Anum_pg_user_mapping_umoptions, &isnull);
	option_set_stored(account, server->options, ForeignServerRelationId, to_list);
	option_set_stored(account, isnull ? NIL : untransformRelOptions(options),
					  UserMappingRelationId, to_list);
	ReleaseSysCache(tuple);
	account->server = server->servername;
	/* The wrapper's proxy is not for a server on this machine */
	if (strncmp(account->endpoint, "http:", 5) == 0)
		account->proxy = NULL;
	/* Mappings may have been created before the wrapper had a validator */
	return account->username && account->password ? account : NULL;
}

static bool
maps(const Account *account, const char *username)
{
	return account && strcmp(account->username, username) == 0;
}

/* Does the current user trust this server owner with its passwords? */
static bool
is_trusted(Oid owner)
{
	return owner == GetUserId() || superuser_arg(owner);
}

static bool
has_usage(Oid catalog, Oid object)
{
	return compat_has_privilege(catalog, object, GetUserId(), ACL_USAGE);
}

static int
compare_accounts(const ListCell *a, const ListCell *b)
{
	const Account *left = lfirst(a);
	const Account *right = lfirst(b);
	int			order = strcmp(left->username, right->username);

	return order ? order : strcmp(left->server, right->server);
}

/*
 * May the text be one of these options?  Looks at the array as it is stored,
 * which takes less time than taking it apart, and may be wrong.
 */
static bool
may_contain(Datum options, const char *text)
{
	struct varlena *array = (struct varlena *) DatumGetPointer(options);

	return VARATT_IS_EXTERNAL(array) || VARATT_IS_COMPRESSED(array) ||
		memmem(VARDATA_ANY(array), VARSIZE_ANY_EXHDR(array), text, strlen(text)) != NULL;
}

/*
 * The accounts of the current user, all or those with a username, on the
 * servers that it may use or on the others.  A server's mapping for the user
 * hides its mapping for PUBLIC if both have the same username.
 */
static List *
find_accounts(const char *username, bool usable)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapperByName(WRAPPER_NAME, false);
	Relation	catalog = table_open(UserMappingRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	const char *option = username ? psprintf("username=%s", username) : NULL;
	Account		defaults = {0};
	List	   *accounts = NIL;
	HeapTuple	tuple;

	option_set_defaults(&defaults);
	option_set_stored(&defaults, wrapper->options, ForeignDataWrapperRelationId,
					  username == NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			user = ((Form_pg_user_mapping) GETSTRUCT(tuple))->umuser;
		bool		isnull;
		Datum		options = heap_getattr(tuple, Anum_pg_user_mapping_umoptions,
										   RelationGetDescr(catalog), &isnull);
		ForeignServer *server;
		Account    *account;

		if ((user != GetUserId() && OidIsValid(user)) ||
			isnull || (option && !may_contain(options, option)))
			continue;
		server = GetForeignServerExtended(((Form_pg_user_mapping) GETSTRUCT(tuple))->umserver,
										  FSV_MISSING_OK);
		if (server == NULL || server->fdwid != wrapper->fdwid ||
			usable != (is_trusted(server->owner) &&
					   has_usage(ForeignServerRelationId, server->serverid)))
			continue;
		account = load_account(&defaults, server, user, true);
		if (account == NULL || (username && !maps(account, username)))
			continue;
		if (OidIsValid(user) ||
			!maps(load_account(&defaults, server, GetUserId(), true), account->username))
			accounts = lappend(accounts, username == NULL ? account :
							   load_account(&defaults, server, user, false));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	list_sort(accounts, compare_accounts);
	return accounts;
}

List	   *
account_list(void)
{
	return find_accounts(NULL, true);
}

/* ---- errors ---- */

/* The username for a message, shortened and sanitized if necessary. */
static const char *
shown_username(const char *username)
{
	int			length = strlen(username);

	if (length > MAX_USERNAME_LENGTH || text_has_controls(username, length))
		return text_shown(username, length, MAX_USERNAME_LENGTH);
	return username;
}

static const char *
current_role(void)
{
	return GetUserNameFromId(GetUserId(), false);
}

/* Raises an error unless the current user may use the server. */
static void
require_usable(const ForeignServer *server, const char *username)
{
	const char *name = quote_identifier(server->servername);

	if (!has_usage(ForeignServerRelationId, server->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", server->servername),
				 errhint("Have its owner run: GRANT USAGE ON FOREIGN SERVER %s TO %s;",
						 name, quote_identifier(current_role()))));
	if (!is_trusted(server->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("account \"%s\" cannot use server \"%s\", which belongs to role \"%s\"",
						shown_username(username), server->servername,
						GetUserNameFromId(server->owner, false)),
				 errdetail("Only servers owned by the current user or a superuser are used, because a server's owner decides where passwords are sent."),
				 errhint("Map the account on a server of your own, or have a superuser run: ALTER SERVER %s OWNER TO ...;",
						 name)));
}

/* The usernames, or the servers, of some of the accounts, quoted. */
static char *
describe_accounts(List *accounts, bool servers)
{
	StringInfoData names;
	ListCell   *cell;

	initStringInfo(&names);
	foreach(cell, accounts)
	{
		const Account *account = lfirst(cell);

		if (foreach_current_index(cell) == MAX_LISTED_ACCOUNTS)
		{
			appendStringInfo(&names, " and %d more",
							 list_length(accounts) - MAX_LISTED_ACCOUNTS);
			break;
		}
		appendStringInfo(&names, "%s\"%s\"", names.len ? ", " : "",
						 servers ? account->server : shown_username(account->username));
	}
	return names.data;
}

/* The account whose username was probably meant, or NULL. */
static const Account *
closest_account(List *accounts, const char *username)
{
	int			length = strlen(username);
	int			typos = Min(MAX_TYPOS, length / 2);
	const Account *closest = NULL;
	ListCell   *cell;

	foreach(cell, accounts)
	{
		const Account *account = lfirst(cell);
		int			distance = varstr_levenshtein_less_equal(username, length,
															 account->username,
															 strlen(account->username),
															 1, 1, 1, typos, true);

		if (pg_strcasecmp(username, account->username) == 0)
			return account;
		if (distance <= typos)
			closest = account;
		typos = Min(typos, distance - 1);
	}
	return closest;
}

/*
 * What to do about an account that there is not: use a server that the user
 * may use and has no mapping on, or else create one, or else have somebody
 * grant the right to do so.
 */
static const char *
missing_hint(const char *username)
{
	Statement	query = {
		.purpose = "looking for a server to use",
		.sql = "WITH servers AS ("
		" SELECT srvname::text COLLATE \"C\" AS name, has_server_privilege(s.oid, 'USAGE') AS usable,"
		"  EXISTS (SELECT FROM pg_user_mappings m"
		"   WHERE m.srvid = s.oid AND m.usename = current_user) AS mapped"
		" FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw"
		"  JOIN pg_roles o ON o.oid = srvowner"
		" WHERE fdwname = 'yelp_sync' AND (rolsuper OR rolname = current_user)"
		"), found AS ("
		" SELECT min(name) FILTER (WHERE usable AND NOT mapped) AS server,"
		"  min(name) FILTER (WHERE NOT usable) AS closed,"
		"  (SELECT f.name FROM generate_series(1, (SELECT count(*) + 1 FROM pg_foreign_server)) n,"
		"    concat('yelp', NULLIF(n, 1)) f(name)"
		"   WHERE NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = f.name)"
		"   ORDER BY n LIMIT 1) AS unused"
		" FROM servers"
		"), hints AS ("
		" SELECT *, format('CREATE USER MAPPING FOR CURRENT_USER SERVER %I"
		" OPTIONS (username %L, password ''...'');', COALESCE(server, unused), $1) AS mapping FROM found) "
		"SELECT CASE WHEN server IS NOT NULL THEN 'Run: ' || mapping"
		" WHEN has_foreign_data_wrapper_privilege('yelp_sync', 'USAGE')"
		"  THEN format('Run: CREATE SERVER %I FOREIGN DATA WRAPPER yelp_sync; %s', unused, mapping)"
		" WHEN closed IS NOT NULL"
		"  THEN format('Have its owner run: GRANT USAGE ON FOREIGN SERVER %I TO %I;"
		" then create a user mapping on it.', closed, current_user)"
		" ELSE format('Have a superuser run: GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO %I;"
		" then create a server and a user mapping.', current_user) END FROM hints",
	};

	statement_add(&query, TEXTOID, CStringGetTextDatum(username));
	/* These views may be closed to the user */
	return statement_try(statement_query, &query) ?
		"Map the account with CREATE USER MAPPING." : statement_value(1);
}

static void
reject_missing(const char *username)
{
	List	   *accounts = account_list();
	const char *shown = shown_username(username);
	const Account *closest = closest_account(accounts, shown);
	const char *hint = closest ?
	psprintf("Perhaps you meant the account \"%s\".", closest->username) : missing_hint(shown);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no account \"%s\" for user \"%s\"", shown, current_role()),
			 accounts ?
			 errdetail("The accounts of this user are: %s.", describe_accounts(accounts, false)) :
			 errdetail(NO_ACCOUNTS),
			 errhint("%s", hint)));
}

Account    *
account_find(const char *username)
{
	List	   *matches = find_accounts(username, true);
	ListCell   *cell;

	if (matches == NIL)
	{
		foreach(cell, find_accounts(username, false))
			require_usable(GetForeignServerByName(((Account *) lfirst(cell))->server, false),
						   username);
		reject_missing(username);
	}
	if (list_length(matches) == 1)
		return linitial(matches);
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
			 errmsg("account \"%s\" is mapped on several servers", username),
			 errdetail("The servers are %s.", describe_accounts(matches, true)),
			 errhint("Drop all but one of the account's user mappings, or revoke USAGE on the other servers.")));
}

/* ---- adding an account ---- */

/* An error context: the statement that adds an account contains its password. */
static void
hide_statement(pg_attribute_unused() void *arg)
{
	errhidestmt(true);
}

/* Runs a utility command that has no text, so that none shows the password. */
static void
run_command(void *command, const char *shown)
{
	PlannedStmt *plan = makeNode(PlannedStmt);

	plan->commandType = CMD_UTILITY;
	plan->utilityStmt = command;
	plan->stmt_location = -1;
	ProcessUtility(plan, shown, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
}

static void
create_server(const char *name)
{
	Oid			wrapper = get_foreign_data_wrapper_oid(WRAPPER_NAME, false);
	CreateForeignServerStmt *command = makeNode(CreateForeignServerStmt);

	if (!has_usage(ForeignDataWrapperRelationId, wrapper))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign-data wrapper %s", WRAPPER_NAME),
				 errhint("Have a superuser run: GRANT USAGE ON FOREIGN DATA WRAPPER %s TO %s;",
						 WRAPPER_NAME, quote_identifier(current_role()))));
	command->servername = pstrdup(name);
	command->fdwname = pstrdup(WRAPPER_NAME);
	run_command(command, "CREATE SERVER by yelp_sync_add_account()");
}

static void
create_mapping(const char *server, const char *username, const char *password)
{
	CreateUserMappingStmt *command = makeNode(CreateUserMappingStmt);

	command->user = makeNode(RoleSpec);
	command->user->roletype = ROLESPEC_CURRENT_USER;
	command->user->location = -1;
	command->servername = pstrdup(server);
	command->options =
		list_make2(makeDefElem("username", (Node *) makeString(pstrdup(username)), -1),
				   makeDefElem("password", (Node *) makeString(pstrdup(password)), -1));
	run_command(command, "CREATE USER MAPPING by yelp_sync_add_account()");
}

void
account_add(const char *username, const char *password, const char *server)
{
	ErrorContextCallback *caller = error_context_stack;
	ErrorContextCallback hide = {.callback = hide_statement};
	List	   *known;
	ForeignServer *existing;

	error_context_stack = &hide;
	if (username == NULL || password == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("username and password must not be null")));
	known = find_accounts(username, true);
	if (known)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("account \"%s\" is already mapped on server \"%s\"", username,
						((Account *) linitial(known))->server),
				 errhint("ALTER USER MAPPING changes its password.")));
	if (server == NULL)
		server = username;
	if (strlen(server) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("server name must not be longer than %d bytes", NAMEDATALEN - 1),
				 errhint("Pass another name as argument \"server\".")));
	existing = GetForeignServerByName(server, true);
	if (existing == NULL)
		create_server(server);
	else if (existing->fdwid != get_foreign_data_wrapper_oid(WRAPPER_NAME, false))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" belongs to another foreign-data wrapper", server),
				 errhint("Pass another name as argument \"server\".")));
	else
		require_usable(existing, username);
	create_mapping(server, username, password);
	error_context_stack = caller;
}

List	   *
account_usernames(void)
{
	List	   *accounts = account_list();
	List	   *usernames = NIL;
	ListCell   *cell;

	/* PUBLIC's account on a server that is closed to the user is not its own */
	foreach(cell, find_accounts(NULL, false))
	{
		Oid			server = get_foreign_server_oid(((Account *) lfirst(cell))->server, false);

		if (has_usage(ForeignServerRelationId, server) ||
			SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(GetUserId()),
								  ObjectIdGetDatum(server)))
			accounts = lappend(accounts, lfirst(cell));
	}
	foreach(cell, accounts)
		usernames = lappend(usernames, ((Account *) lfirst(cell))->username);
	return usernames;
}

List	   *
account_require_usernames(void)
{
	List	   *usernames = account_usernames();
	const char *hint = usernames ? NULL : missing_hint("...");

	if (usernames == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no accounts for user \"%s\"", current_role()),
				 errdetail(NO_ACCOUNTS),
				 errhint("%s", hint)));
	return usernames;
}
