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
 * No catalog index finds a user mapping by its username, so this session keeps
 * one of its own: with thousands of accounts, one is found and added as fast as
 * with one.  It only says where to look; everything that counts is read from
 * the catalogs each time.
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
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "text.h"

#define WRAPPER_NAME	"yelp_sync"
#define MAX_LISTED_ACCOUNTS 10

/* Edits between a misspelled username and the one that was meant */
#define MAX_TYPOS 4

/* ---- the index of user mappings ---- */

typedef struct MappingKey
{
	uint32		hash;			/* of the username */
	Oid			user;			/* InvalidOid: PUBLIC */
	Oid			server;
	uint32		row;			/* what the cache calls user and server */
	bool		changed;		/* the row, since its username was read */
} MappingKey;

static StringInfoData keys;		/* array of MappingKey */
static uint64 changes = 1;		/* of unknown rows, as this session noticed */
static uint64 indexed_changes;	/* when the index was made; 0: never */

static MappingKey *
find_key(int number)
{
	int			offset = number * (int) sizeof(MappingKey);

	return offset < keys.len ? (MappingKey *) (keys.data + offset) : NULL;
}

/*
 * A known row is read again when it is needed; any other outdates the index.
 * A new row can have a known one's hash, if rarely, so the index is made anew
 * before an account is said to be missing, and for a list of all.
 */
static void
note_change(pg_attribute_unused() Datum arg, pg_attribute_unused() int cache, uint32 hash)
{
	bool		known = false;
	MappingKey *key;

	for (int i = 0; indexed_changes == changes && (key = find_key(i)) != NULL; i++)
	{
		if (key->row == hash)
			known = key->changed = true;
	}
	if (!known)
		changes++;
}

static uint32
hash_username(const char *username)
{
	return hash_bytes((const unsigned char *) username, strlen(username));
}

static void
add_key(Oid user, Oid server, uint32 hash)
{
	MappingKey	key = {
		.hash = hash,
		.user = user,
		.server = server,
		.row = GetSysCacheHashValue2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
									 ObjectIdGetDatum(server)),
	};

	appendBinaryStringInfo(&keys, (char *) &key, sizeof(key));
}

/* The hash of the username among a mapping's options; is there one? */
static bool
hash_options(Datum options, bool isnull, uint32 *hash)
{
	ListCell   *cell;

	foreach(cell, isnull ? NIL : untransformRelOptions(options))
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "username") == 0)
		{
			*hash = hash_username(defGetString(def));
			return true;
		}
	}
	return false;
}

/* Adds the key of a row of pg_user_mapping that has a username. */
static void
index_mapping(HeapTuple tuple, TupleDesc desc)
{
	Form_pg_user_mapping mapping = (Form_pg_user_mapping) GETSTRUCT(tuple);
	bool		isnull;
	Datum		options = heap_getattr(tuple, Anum_pg_user_mapping_umoptions, desc, &isnull);
	uint32		hash;

	if (hash_options(options, isnull, &hash))
		add_key(mapping->umuser, mapping->umserver, hash);
}

/* Reads the username of a row that has changed; it may be gone. */
static void
refresh_key(MappingKey *key)
{
	HeapTuple	tuple;
	Datum		options;
	bool		isnull;

	key->changed = false;
	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(key->user),
							ObjectIdGetDatum(key->server));
	if (!HeapTupleIsValid(tuple))
		return;
	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions,
							  &isnull);
	hash_options(options, isnull, &key->hash);
	ReleaseSysCache(tuple);
}

static void
index_mappings(void)
{
	Relation	catalog = table_open(UserMappingRelationId, AccessShareLock);
	MemoryContext garbage = AllocSetContextCreate(CurrentMemoryContext, "yelp_sync mappings",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller;
	uint64		now = changes;
	SysScanDesc scan;
	HeapTuple	tuple;

	indexed_changes = 0;
	if (keys.data == NULL)
	{
		caller = MemoryContextSwitchTo(TopMemoryContext);
		initStringInfo(&keys);
		MemoryContextSwitchTo(caller);
		CacheRegisterSyscacheCallback(USERMAPPINGUSERSERVER, note_change, 0);
	}
	resetStringInfo(&keys);
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		caller = MemoryContextSwitchTo(garbage);
		index_mapping(tuple, RelationGetDescr(catalog));
		MemoryContextSwitchTo(caller);
		MemoryContextReset(garbage);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	MemoryContextDelete(garbage);
	indexed_changes = now;
}

/* Adds the key of a row that is about to be created, unless it is there. */
static void
index_new_mapping(Oid user, Oid server, const char *username)
{
	MappingKey *key;

	for (int i = 0; (key = find_key(i)) != NULL; i++)
	{
		if (key->user == user && key->server == server)
			return;
	}
	add_key(user, server, hash_username(username));
}

/* ---- accounts ---- */

/*
 * The account that a user's mapping on a server describes, or NULL.  The
 * first argument has the options of the wrapper, and the defaults.
 */
static Account *
load_account(const Account *defaults, const ForeignServer *server, Oid user)
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
	option_set_stored(account, server->options, ForeignServerRelationId);
	option_set_stored(account, isnull ? NIL : untransformRelOptions(options),
					  UserMappingRelationId);
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

bool
account_trusts(Oid owner)
{
	return owner == GetUserId() || superuser_arg(owner);
}

static bool
has_usage(Oid catalog, Oid object)
{
	return compat_has_privilege(catalog, object, GetUserId(), ACL_USAGE);
}

static bool
is_usable(Oid server, Oid owner)
{
	return account_trusts(owner) && has_usage(ForeignServerRelationId, server);
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
 * The accounts of the current user, all or those with a username, on the
 * servers that it may use or on the others.  A server's mapping for the user
 * hides its mapping for PUBLIC if both have the same username.
 */
static List *
find_accounts(const char *username, bool usable)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapperByName(WRAPPER_NAME, false);
	uint32		hash = username ? hash_username(username) : 0;
	Account		defaults = {0};
	List	   *accounts = NIL;
	MappingKey *key;

	option_set_defaults(&defaults);
	option_set_stored(&defaults, wrapper->options, ForeignDataWrapperRelationId);
	if (username == NULL || indexed_changes != changes)
		index_mappings();
	for (int i = 0; (key = find_key(i)) != NULL; i++)
	{
		ForeignServer *server;
		Account    *account;

		if (key->changed)
			refresh_key(key);
		if ((username && key->hash != hash) ||
			(key->user != GetUserId() && OidIsValid(key->user)))
			continue;
		server = GetForeignServerExtended(key->server, FSV_MISSING_OK);
		if (server == NULL || server->fdwid != wrapper->fdwid ||
			usable != is_usable(server->serverid, server->owner))
			continue;
		account = load_account(&defaults, server, key->user);
		if (account == NULL || (username && !maps(account, username)))
			continue;
		if (OidIsValid(key->user) ||
			!maps(load_account(&defaults, server, GetUserId()), account->username))
			accounts = lappend(accounts, account);
	}
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
	if (!account_trusts(server->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("account \"%s\" cannot use server \"%s\", which belongs to role \"%s\"",
						shown_username(username), server->servername,
						GetUserNameFromId(server->owner, false)),
				 errdetail("Only servers owned by the current user or a superuser are used, because a server's owner decides where passwords are sent."),
				 errhint("Map the account on a server of your own, or have a superuser run: ALTER SERVER %s OWNER TO ...;",
						 name)));
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

/* A name that no server has. */
static char *
free_server_name(void)
{
	char	   *name = pstrdup("yelp");

	for (int i = 2; OidIsValid(get_foreign_server_oid(name, true)); i++)
		name = psprintf("yelp%d", i);
	return name;
}

/*
 * What to do about an account that there is not: use a server that the user
 * may use and has no mapping on, or else create one, or else have somebody
 * grant the right to do so.
 */
static char *
missing_hint(const char *username)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapperByName(WRAPPER_NAME, false);
	Relation	catalog = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, ForeignServerNameIndexId, true, NULL, 0, NULL);
	const char *role = quote_identifier(current_role());
	const char *server = NULL;
	const char *closed = NULL;
	char	   *mapping;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server row = (Form_pg_foreign_server) GETSTRUCT(tuple);
		const char **name = &server;

		if (row->srvfdw != wrapper->fdwid || !account_trusts(row->srvowner))
			continue;
		if (!has_usage(ForeignServerRelationId, row->oid))
			name = &closed;
		else if (SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(GetUserId()),
									   ObjectIdGetDatum(row->oid)))
			continue;
		if (*name == NULL || strcmp(NameStr(row->srvname), *name) < 0)
			*name = pstrdup(NameStr(row->srvname));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	mapping = psprintf("CREATE USER MAPPING FOR CURRENT_USER SERVER %s OPTIONS (username %s, password '...');",
					   server ? quote_identifier(server) : free_server_name(), quote_literal_cstr(username));
	if (server)
		return psprintf("Run: %s", mapping);
	if (has_usage(ForeignDataWrapperRelationId, wrapper->fdwid))
		return psprintf("Run: CREATE SERVER %s FOREIGN DATA WRAPPER %s; %s",
						free_server_name(), WRAPPER_NAME, mapping);
	if (closed)
		return psprintf("Have its owner run: GRANT USAGE ON FOREIGN SERVER %s TO %s; then create a user mapping on it.",
						quote_identifier(closed), role);
	return psprintf("Have a superuser run: GRANT USAGE ON FOREIGN DATA WRAPPER %s TO %s; then create a server and a user mapping.",
					WRAPPER_NAME, role);
}

static void
reject_missing(const char *username)
{
	List	   *accounts = account_list();
	const char *shown = shown_username(username);
	const Account *closest = closest_account(accounts, shown);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("no account \"%s\" for user \"%s\"", shown, current_role()),
			 accounts ?
			 errdetail("The accounts of this user are: %s.",
					   describe_accounts(accounts)) :
			 errdetail("No server of foreign-data wrapper \"%s\" that this user may use has a user mapping for it.",
					   WRAPPER_NAME),
			 closest ?
			 errhint("Perhaps you meant the account \"%s\".", closest->username) :
			 errhint("%s", missing_hint(shown))));
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
			 errdetail("The servers are %s.", servers.data),
			 errhint("Drop all but one of the account's user mappings, or revoke USAGE on the other servers.")));
}

Account    *
account_find(const char *username)
{
	List	   *matches = find_accounts(username, true);
	ListCell   *cell;

	if (matches == NIL)
	{
		index_mappings();
		matches = find_accounts(username, true);
	}
	if (list_length(matches) > 1)
		reject_ambiguous(username, matches);
	if (matches)
		return linitial(matches);
	foreach(cell, find_accounts(username, false))
		require_usable(GetForeignServerByName(((Account *) lfirst(cell))->server, false),
					   username);
	reject_missing(username);
	return NULL;
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
	index_new_mapping(GetUserId(), get_foreign_server_oid(server, false), username);
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

	if (usernames == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no accounts for user \"%s\"", current_role()),
				 errdetail("No server of foreign-data wrapper \"%s\" that this user may use has a user mapping for it.",
						   WRAPPER_NAME),
				 errhint("%s", missing_hint("..."))));
	return usernames;
}
