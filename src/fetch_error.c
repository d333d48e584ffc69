/*
 * fetch_error.c
 *	  Describe what went wrong with a page, and what that means for the sync.
 *
 * The errors of libcurl, of HTTP and of a page's text are mapped to SQLSTATEs
 * and reported here only.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "api_error.h"
#include "text.h"

#define HINT_CREDENTIALS \
	"Check the username and the password of the user mapping."
#define HINT_CERTIFICATE \
	"If the certificate was signed by a private authority, set the server option ca_file."
#define HINT_CA_FILE \
	"The server option ca_file must name a file of PEM certificates that the PostgreSQL server can read."
#define HINT_HOST \
	"Check the host in the server option endpoint."
#define HINT_PROXY \
	"Check the host in the server option proxy."
#define HINT_PROXY_USER \
	"Check proxy_user and proxy_password of the user mapping."
#define HINT_CONNECT \
	"Check that the API is up, and check the server options endpoint and proxy."
#define HINT_TLS \
	"Check that the port in the server option endpoint speaks TLS."
#define HINT_SLOW \
	"If the API is merely slow, raise the server option timeout."
#define HINT_ENDPOINT \
	"Check the server option endpoint."
#define HINT_REDIRECT \
	"Redirects are not followed: the server option endpoint must name the API itself."
#define HINT_RATE \
	"Sync again later, or with a lower concurrency; max_retry_after bounds how long a sync waits."
#define HINT_DOWN \
	"The API is overloaded or down: sync again later."
#define HINT_BYTES \
	"Lower the server option page_size, or raise max_page_bytes."
#define HINT_FILES \
	"Lower the server option concurrency, or raise max_files_per_process."

/* Length of the excerpt shown of a body that is not a page. */
#define MAX_EXCERPT_BYTES 80

static const char *const stage_names[] = {
	[HTTP_RESOLVE] = "resolve",
	[HTTP_CONNECT] = "connect",
	[HTTP_TLS] = "TLS",
	[HTTP_SEND] = "send",
	[HTTP_RECEIVE] = "receive",
};

StaticAssertDecl(lengthof(stage_names) == HTTP_RECEIVE + 1, "each stage has a name");

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

/* Keeps only printable ASCII: libcurl's messages may quote the server. */
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

/* Ends a sentence with a single period. */
static char *
end_sentence(StringInfo sentence)
{
	while (sentence->len > 0 && strchr(". ", sentence->data[sentence->len - 1]))
		sentence->data[--sentence->len] = '\0';
	appendStringInfoChar(sentence, '.');
	return sentence->data;
}

static void
append_redirect(StringInfo detail, const HttpResponse *response)
{
	if (response->redirect)
		appendStringInfo(detail, ", which redirects to \"%s\"",
						 printable(response->redirect));
}

/* Describes an unreadable body by its type and its beginning. */
static void
append_excerpt(StringInfo detail, const HttpResponse *response)
{
	size_t		length = Min(response->length, MAX_EXCERPT_BYTES);

	if (response->content_type)
		appendStringInfo(detail, ", content type \"%s\"",
						 printable(response->content_type));
	if (length == 0)
		appendStringInfoString(detail, " and no body");
	else
		appendStringInfo(detail, " and %zu bytes that begin with \"%s\"",
						 response->length,
						 printable(pnstrdup(response->body, length)));
}

static void
append_api_error(StringInfo detail, const ApiError *error)
{
	if (error->id)
		appendStringInfo(detail, ", \"%s\"", fetch_error_text(error->id));
	if (error->description)
		appendStringInfo(detail, ": %s", fetch_error_text(error->description));
}

/* The API's status and error message, as a sentence. */
static char *
answer_detail(const HttpResponse *response)
{
	StringInfoData detail;
	ApiError	error;

	initStringInfo(&detail);
	appendStringInfo(&detail, "The API answered with HTTP status %d",
					 response->status);
	append_redirect(&detail, response);
	if (api_error_read(&error, response->body, response->length))
		append_api_error(&detail, &error);
	else
		append_excerpt(&detail, response);
	return end_sentence(&detail);
}

/* Meaning of a missing or incomplete response */
typedef struct Transport
{
	FetchErrorKind kind;
	int			sqlstate;
	const char *message;		/* NULL: "timed out" or "connection failed" */
	bool		quoted;			/* use libcurl's message as the detail? */
	const char *hint;
} Transport;

static const Transport transports[] = {
	[HTTP_UNREACHABLE] = {
		FETCH_ERROR_RETRY, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		NULL, true, NULL
	},
	[HTTP_BAD_CA_FILE] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"could not load the CA certificates", true, HINT_CA_FILE
	},
	[HTTP_UNTRUSTED] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"API certificate is not trusted", true, HINT_CERTIFICATE
	},
	[HTTP_WRONG_HOST] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"API certificate is for another host", true, HINT_HOST
	},
	[HTTP_UNTRUSTED_PROXY] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"proxy certificate is not trusted", true, HINT_CERTIFICATE
	},
	[HTTP_WRONG_PROXY] = {
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"proxy certificate is for another host", true, HINT_PROXY
	},
	[HTTP_DENIED_BY_PROXY] = {
		FETCH_ERROR_FATAL, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
		"proxy rejected the credentials", true, HINT_PROXY_USER
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
	[HTTP_NO_ROOM] = {
		FETCH_ERROR_RETRY, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"response header is too large, or memory ran out", false, NULL
	},
	[HTTP_BAD_CODING] = {
		FETCH_ERROR_FINAL, ERRCODE_CONNECTION_FAILURE,
		"response has an unsupported Content-Encoding or Transfer-Encoding", false, NULL
	},
	[HTTP_UNDECODABLE] = {
		FETCH_ERROR_RETRY, ERRCODE_CONNECTION_FAILURE,
		"could not decode the response body", true, NULL
	},
	[HTTP_NO_SOCKET] = {
		FETCH_ERROR_NO_SOCKET, ERRCODE_INSUFFICIENT_RESOURCES,
		"out of file descriptors", false, HINT_FILES
	},
	[HTTP_NO_BUFFER] = {
		FETCH_ERROR_NO_BUFFER, ERRCODE_INSUFFICIENT_RESOURCES,
		"too many pages arrived at the same time", false, NULL
	},
};

StaticAssertDecl(lengthof(transports) == HTTP_NO_BUFFER + 1,
				 "each failure is described");

static const char *
connection_hint(const HttpResponse *response)
{
	switch (response->stage)
	{
		case HTTP_RESOLVE:
			return HINT_HOST;
		case HTTP_CONNECT:
			return HINT_CONNECT;
		case HTTP_TLS:
			return response->timed_out ? HINT_CONNECT : HINT_TLS;
		case HTTP_SEND:
		case HTTP_RECEIVE:
			return response->timed_out ? HINT_SLOW : HINT_DOWN;
	}
	return NULL;
}

static char *
connection_detail(const HttpResponse *response)
{
	StringInfoData detail;

	initStringInfo(&detail);
	appendStringInfoString(&detail, printable(response->message));
	if (response->os_error)
		appendStringInfo(&detail, ": %s", strerror(response->os_error));
	return end_sentence(&detail);
}

static void
describe_transport(FetchError *error, const HttpResponse *response)
{
	const Transport *transport = &transports[response->failure];

	error->kind = transport->kind;
	error->sqlstate = transport->sqlstate;
	error->message = transport->message;
	error->hint = transport->hint;
	if (transport->quoted)
		error->detail = connection_detail(response);
	if (response->refused && error->kind == FETCH_ERROR_RETRY)
		error->kind = FETCH_ERROR_OVERLOAD;
	if (error->message == NULL)
	{
		error->message = response->timed_out ? "timed out" : "connection failed";
		error->hint = connection_hint(response);
	}
}

/*
 * 401 and 403 are about the credentials, unless pages have already arrived
 * with the same ones: some APIs respond to overload in this way.
 */
static void
describe_denial(FetchError *error, bool accepted_before)
{
	if (accepted_before)
	{
		error->kind = FETCH_ERROR_OVERLOAD;
		error->hint = HINT_RATE;
		return;
	}
	error->kind = FETCH_ERROR_DENIED;
	error->sqlstate = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
	error->message = "API rejected the credentials";
	error->hint = HINT_CREDENTIALS;
}

/* Describes a response whose status indicates an error. */
static void
describe_status(FetchError *error, const HttpResponse *response,
				bool accepted_before)
{
	int			status = response->status;

	error->kind = FETCH_ERROR_FINAL;
	error->sqlstate = ERRCODE_FDW_ERROR;
	error->message = psprintf("HTTP status %d", status);
	error->detail = answer_detail(response);
	if (status == 401 || status == 403)
		describe_denial(error, accepted_before);
	else if (status == 429)
	{
		error->kind = FETCH_ERROR_RATE;
		error->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		error->message = "API rate limit exceeded";
		error->hint = HINT_RATE;
	}
	else if (status == 503)
	{
		error->kind = FETCH_ERROR_OVERLOAD;
		error->hint = HINT_DOWN;
	}
	else if (status == 408 || status == 421 || status == 425 || status >= 500)
	{
		error->kind = FETCH_ERROR_RETRY;
		error->hint = HINT_DOWN;
	}
	else if (status >= 300 && status < 400)
		error->hint = HINT_REDIRECT;
	else if (status == 404 || status == 405 || status == 410)
		error->hint = HINT_ENDPOINT;
}

bool
fetch_error_of_response(FetchError *error, const HttpResponse *response,
						bool accepted_before)
{
	memset(error, 0, sizeof(FetchError));
	error->stage = stage_names[response->stage];
	if (response->failure != HTTP_ANSWERED)
		describe_transport(error, response);
	else if (response->status != 200)
		describe_status(error, response, accepted_before);
	else
		return false;
	return true;
}

/* Describes an unreadable page; the API may have reported an error itself. */
static const char *
page_message(const PageError *problem, const HttpResponse *response)
{
	ApiError	error;

	if (problem->kind == PAGE_NOT_A_PAGE &&
		api_error_read(&error, response->body, response->length))
		return "API reported an error";
	if (problem->program_id)
		return psprintf("program \"%s\": %s", fetch_error_text(problem->program_id),
						fetch_error_text(problem->message));
	return fetch_error_text(problem->message);
}

void
fetch_error_of_page(FetchError *error, const PageError *problem,
					const HttpResponse *response)
{
	memset(error, 0, sizeof(FetchError));
	error->stage = stage_names[response->stage];
	error->message = page_message(problem, response);
	error->detail = answer_detail(response);
	error->kind = FETCH_ERROR_RETRY;
	error->hint = HINT_ENDPOINT;
	error->sqlstate = ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION;
	if (problem->kind == PAGE_NOT_JSON)
		error->sqlstate = ERRCODE_INVALID_JSON_TEXT;
	else if (problem->kind == PAGE_IMPLAUSIBLE)
	{
		error->kind = FETCH_ERROR_FINAL;
		error->sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	}
}

void
fetch_error_of_wait(FetchError *error, int64 wait, int64 max_wait)
{
	error->kind = FETCH_ERROR_FATAL;
	error->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	error->message = psprintf("API asked to wait %.15g s, but max_retry_after is %.15g s",
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

char	   *
fetch_error_detail(const FetchError *error, const FetchErrorPlace *place)
{
	return psprintf("%s%sThe URL was %s", error->detail ? error->detail : "",
					error->detail ? "  " : "", place->url);
}

void
fetch_error_raise(const FetchError *error, const FetchErrorPlace *place)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", client_text(fetch_error_message(error, place))),
			 errdetail_internal("%s", client_text(fetch_error_detail(error, place))),
			 error->hint ? errhint("%s", error->hint) : 0));
}
