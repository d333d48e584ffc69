/*
 * fetch_error.c
 *	  What went wrong with a page, and what that means for the sync.
 *
 * The one place where the failures of libcurl, of HTTP and of a page's text
 * get their SQLSTATE, and where an ereport is made of them.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#define HINT_CREDENTIALS \
	"Check the username and the password of the user mapping."
#define HINT_CERTIFICATE \
	"If the API's certificate is signed by an authority of your own, name it in the server's option ca_file."
#define HINT_CA_FILE \
	"The server's option ca_file must name a file of certificates in PEM format that PostgreSQL's server can read."
#define HINT_HOST \
	"Check the host in the server's option endpoint."
#define HINT_REDIRECT \
	"Redirects are not followed: the server's option endpoint must name the API itself."
#define HINT_RATE \
	"Sync again later, or with a lower concurrency; max_retry_after bounds how long a sync waits."
#define HINT_BYTES \
	"Lower the server's option page_size, or raise max_page_bytes."
#define HINT_FILES \
	"Lower the server's option concurrency, or raise the setting max_files_per_process."

static const char *const stage_names[] = {
	[HTTP_RESOLVE] = "resolve",
	[HTTP_CONNECT] = "connect",
	[HTTP_TLS] = "TLS",
	[HTTP_SEND] = "send",
	[HTTP_RECEIVE] = "receive",
};

char	   *
fetch_error_text(const char *text)
{
	char	   *copy = pstrdup(text);

	if (GetDatabaseEncoding() == PG_UTF8)
		return copy;
	for (char *at = copy; *at; at++)
	{
		if (IS_HIGHBIT_SET(*at))
			*at = '?';
	}
	return copy;
}

/* libcurl's messages may quote what a server sent: printable ASCII is kept. */
static char *
printable(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *at = copy; *at; at++)
	{
		if ((unsigned char) *at < ' ' || (unsigned char) *at > '~')
			*at = '?';
	}
	return copy;
}

/* What the API says of an error beside the status, as a sentence. */
static char *
api_detail(const HttpResponse *response)
{
	char	   *id;
	char	   *description;
	StringInfoData detail;

	program_page_read_error(response->body, response->length, &id, &description);
	initStringInfo(&detail);
	appendStringInfo(&detail, "The API answered with HTTP status %d",
					 response->status);
	if (id)
		appendStringInfo(&detail, ", \"%s\"", fetch_error_text(id));
	if (description)
		appendStringInfo(&detail, ": %s", fetch_error_text(description));
	if (detail.data[detail.len - 1] != '.')
		appendStringInfoChar(&detail, '.');
	return detail.data;
}

/* What it means that no answer came, or none that could be read to its end */
typedef struct Transport
{
	FetchErrorKind kind;
	int			sqlstate;
	const char *message;		/* NULL: timed out, or connection failed */
	bool		quoted;			/* is libcurl's message the detail? */
	const char *hint;
} Transport;

static const Transport transports[] = {
	[HTTP_UNREACHABLE] = {
		FETCH_ERROR_RETRY, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		NULL, true, NULL
	},
	[HTTP_BAD_CA_FILE] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"could not use the certificate authorities", true, HINT_CA_FILE
	},
	[HTTP_UNTRUSTED] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"API's certificate is not trusted", true, HINT_CERTIFICATE
	},
	[HTTP_WRONG_HOST] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"API's certificate is for another host", true, HINT_HOST
	},
	[HTTP_BROKEN] = {
		FETCH_ERROR_RETRY, ERRCODE_CONNECTION_FAILURE,
		NULL, true, NULL
	},
	[HTTP_LARGE_BODY] = {
		FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"body is larger than max_page_bytes", false, HINT_BYTES
	},
	[HTTP_LARGE_HEADERS] = {
		FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"response headers are larger than 256 kB", false, NULL
	},
	[HTTP_BAD_CODING] = {
		FETCH_ERROR_FINAL, ERRCODE_CONNECTION_FAILURE,
		"response has an unsupported Content-Encoding or Transfer-Encoding", false, NULL
	},
	[HTTP_NO_ROOM] = {
		FETCH_ERROR_NO_ROOM, ERRCODE_INSUFFICIENT_RESOURCES,
		"server has no file descriptor to spare", false, HINT_FILES
	},
};

static void
describe_transport(FetchError *error, const HttpResponse *response)
{
	const Transport *transport = &transports[response->failure];

	error->kind = transport->kind;
	error->sqlstate = transport->sqlstate;
	error->message = transport->message;
	if (error->message == NULL)
		error->message = response->timed_out ? "timed out" : "connection failed";
	if (transport->quoted)
		error->detail = psprintf("%s%s%s.", printable(response->message),
								 response->os_error ? ": " : "",
								 response->os_error ? strerror(response->os_error) : "");
	error->hint = transport->hint;
}

/* An answer with a status that brings no page. */
static void
describe_status(FetchError *error, const HttpResponse *response)
{
	int			status = response->status;

	error->kind = FETCH_ERROR_FINAL;
	error->sqlstate = ERRCODE_FDW_ERROR;
	error->message = psprintf("HTTP status %d", status);
	error->detail = api_detail(response);
	if (status == 401 || status == 403)
	{
		error->kind = FETCH_ERROR_FATAL;
		error->sqlstate = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
		error->message = "API refused the credentials";
		error->hint = HINT_CREDENTIALS;
	}
	else if (status == 429)
	{
		error->kind = FETCH_ERROR_RATE;
		error->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		error->message = "API refuses so many requests";
		error->hint = HINT_RATE;
	}
	else if (status == 408 || status >= 500)
		error->kind = FETCH_ERROR_RETRY;
	else if (status >= 300 && status < 400)
		error->hint = HINT_REDIRECT;
}

bool
fetch_error_of_response(FetchError *error, const HttpResponse *response)
{
	memset(error, 0, sizeof(FetchError));
	error->stage = stage_names[response->stage];
	if (response->failure != HTTP_ANSWERED)
		describe_transport(error, response);
	else if (response->status != 200)
		describe_status(error, response);
	else
		return false;
	return true;
}

void
fetch_error_of_page(FetchError *error, const PageError *problem,
					const HttpResponse *response)
{
	memset(error, 0, sizeof(FetchError));
	error->stage = stage_names[response->stage];
	error->message = fetch_error_text(problem->message);
	error->detail = psprintf("The API answered with HTTP status %d and %zu bytes.",
							 response->status, response->length);
	if (problem->program_id)
		error->message = psprintf("program \"%s\": %s",
								  fetch_error_text(problem->program_id),
								  error->message);
	error->kind = FETCH_ERROR_FINAL;
	switch (problem->kind)
	{
		case PAGE_NOT_JSON:
			error->kind = FETCH_ERROR_RETRY;
			error->sqlstate = ERRCODE_INVALID_JSON_TEXT;
			break;
		case PAGE_IMPLAUSIBLE:
			error->sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
			break;
		default:
			error->sqlstate = ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION;
			break;
	}
}

void
fetch_error_of_wait(FetchError *error, int64 wait, int64 max_wait)
{
	error->kind = FETCH_ERROR_FATAL;
	error->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	error->message = psprintf("API asks for a wait of %.15g s, max_retry_after is %.15g s",
							  wait / 1000.0, max_wait / 1000.0);
	error->hint = HINT_RATE;
}

char	   *
fetch_error_message(const FetchError *error, const FetchErrorPlace *place)
{
	return psprintf("could not fetch the page at offset " INT64_FORMAT
					" of account \"%s\": %s (attempt %d of %d, stage %s)",
					place->offset, place->username, error->message,
					place->attempt, place->attempts, error->stage);
}

void
fetch_error_raise(const FetchError *error, const FetchErrorPlace *place)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", fetch_error_message(error, place)),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}
