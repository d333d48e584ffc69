/*
 * failure.c
 *	  What went wrong with a page, and what that means for the sync.
 *
 * The one place where the failures of libcurl, of HTTP and of a page's text
 * get their SQLSTATE, and where an ereport is made of them.
 */
#include "postgres.h"

#include "failure.h"

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

/* UTF-8 from outside in the server's encoding; what it cannot hold becomes "?". */
static char *
to_server(const char *text)
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

	page_read_error(response->body, response->length, &id, &description);
	initStringInfo(&detail);
	appendStringInfo(&detail, "The API answered with HTTP status %d",
					 response->status);
	if (id)
		appendStringInfo(&detail, ", \"%s\"", to_server(id));
	if (description)
		appendStringInfo(&detail, ": %s", to_server(description));
	if (detail.data[detail.len - 1] != '.')
		appendStringInfoChar(&detail, '.');
	return detail.data;
}

/* What it means that no answer came, or none that could be read to its end */
typedef struct Transport
{
	FailureKind kind;
	int			sqlstate;
	const char *message;		/* NULL: timed out, or connection failed */
	bool		quoted;			/* is libcurl's message the detail? */
	const char *hint;
} Transport;

static const Transport transports[] = {
	[HTTP_UNREACHABLE] = {
		FAILURE_RETRY, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		NULL, true, NULL
	},
	[HTTP_BAD_CA_FILE] = {
		FAILURE_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"could not use the certificate authorities", true, HINT_CA_FILE
	},
	[HTTP_UNTRUSTED] = {
		FAILURE_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"API's certificate is not trusted", true, HINT_CERTIFICATE
	},
	[HTTP_WRONG_HOST] = {
		FAILURE_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"API's certificate is for another host", true, HINT_HOST
	},
	[HTTP_BROKEN] = {
		FAILURE_RETRY, ERRCODE_CONNECTION_FAILURE,
		NULL, true, NULL
	},
	[HTTP_LARGE_BODY] = {
		FAILURE_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"body is larger than max_page_bytes", false, HINT_BYTES
	},
	[HTTP_LARGE_HEADERS] = {
		FAILURE_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"headers have no end", false, NULL
	},
	[HTTP_NO_ROOM] = {
		FAILURE_NO_ROOM, ERRCODE_INSUFFICIENT_RESOURCES,
		"server has no file descriptor to spare", false, HINT_FILES
	},
};

static void
describe_transport(Failure *failure, const HttpResponse *response)
{
	const Transport *transport = &transports[response->failure];

	failure->kind = transport->kind;
	failure->sqlstate = transport->sqlstate;
	failure->message = transport->message;
	if (failure->message == NULL)
		failure->message = response->timed_out ? "timed out" : "connection failed";
	if (transport->quoted)
		failure->detail = psprintf("%s%s%s.", printable(response->message),
								   response->os_error ? ": " : "",
								   response->os_error ? strerror(response->os_error) : "");
	failure->hint = transport->hint;
}

/* An answer with a status that brings no page. */
static void
describe_status(Failure *failure, const HttpResponse *response)
{
	int			status = response->status;

	failure->kind = FAILURE_FINAL;
	failure->sqlstate = ERRCODE_FDW_ERROR;
	failure->message = psprintf("HTTP status %d", status);
	failure->detail = api_detail(response);
	if (status == 401 || status == 403)
	{
		failure->kind = FAILURE_FATAL;
		failure->sqlstate = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
		failure->message = "API refused the credentials";
		failure->hint = HINT_CREDENTIALS;
	}
	else if (status == 429)
	{
		failure->kind = FAILURE_RATE;
		failure->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		failure->message = "API refuses so many requests";
		failure->hint = HINT_RATE;
	}
	else if (status == 408 || status >= 500)
		failure->kind = FAILURE_RETRY;
	else if (status >= 300 && status < 400)
		failure->hint = HINT_REDIRECT;
}

bool
failure_of_response(Failure *failure, const HttpResponse *response)
{
	memset(failure, 0, sizeof(Failure));
	failure->stage = stage_names[response->stage];
	if (response->failure != HTTP_ANSWERED)
		describe_transport(failure, response);
	else if (response->status != 200)
		describe_status(failure, response);
	else
		return false;
	return true;
}

void
failure_of_page(Failure *failure, const PageProblem *problem,
				const HttpResponse *response)
{
	memset(failure, 0, sizeof(Failure));
	failure->stage = stage_names[response->stage];
	failure->message = to_server(problem->message);
	failure->detail = psprintf("The API answered with HTTP status %d and %zu bytes.",
							   response->status, response->length);
	if (problem->program_id)
		failure->message = psprintf("program \"%s\": %s",
									to_server(problem->program_id),
									failure->message);
	failure->kind = FAILURE_FINAL;
	switch (problem->kind)
	{
		case PAGE_NOT_JSON:
			failure->kind = FAILURE_RETRY;
			failure->sqlstate = ERRCODE_INVALID_JSON_TEXT;
			break;
		case PAGE_IMPLAUSIBLE:
			failure->sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
			break;
		default:
			failure->sqlstate = ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION;
			break;
	}
}

void
failure_of_wait(Failure *failure, int64 wait, int64 max_wait)
{
	failure->kind = FAILURE_FATAL;
	failure->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	failure->message = psprintf("API asks for a wait of %.15g s, max_retry_after is %.15g s",
								wait / 1000.0, max_wait / 1000.0);
	failure->hint = HINT_RATE;
}

char *
failure_message(const Failure *failure, const FailurePlace *place)
{
	return psprintf("could not fetch the page at offset " INT64_FORMAT
					" of account \"%s\": %s (attempt %d of %d, stage %s)",
					place->offset, place->username, failure->message,
					place->attempt, place->attempts, failure->stage);
}

void
failure_raise(const Failure *failure, const FailurePlace *place)
{
	ereport(ERROR,
			(errcode(failure->sqlstate),
			 errmsg_internal("%s", failure_message(failure, place)),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 failure->hint ? errhint("%s", failure->hint) : 0));
}
