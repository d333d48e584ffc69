/*
 * fetch_error.c
 *	  Describe what went wrong with a page, and what that means for the sync.
 *
 * What http.c found, a status and a page's text are mapped to SQLSTATEs and
 * words here only.  Texts of others are clipped, and shown without control
 * characters.
 *
 * Yelp describes its errors as {"error": {"id", "description"}}.  Gateways in
 * front of an API have their own formats: {"errors": [{...}]}, {"code",
 * "message"}, or {"error": "...", "error_description": "..."}.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "lib/stringinfo.h"

#include "json.h"
#include "text.h"

#define HINT_CREDENTIALS "Check the username and the password of the user mapping."
#define HINT_CERTIFICATE "If the certificate was signed by a private authority, set the server option ca_file."
#define HINT_CA_FILE "The server option ca_file must name a file of PEM certificates that the PostgreSQL server can read."
#define HINT_HOST "Check the host in the server option endpoint."
#define HINT_PROXY "Check the host in the server option proxy."
#define HINT_PROXY_USER "Check proxy_user and proxy_password of the user mapping."
#define HINT_CONNECT "Check that the API is up, and check the server options endpoint and proxy."
#define HINT_TLS "Check that the port in the server option endpoint speaks TLS."
#define HINT_HTTPS "If the port speaks TLS, the server option endpoint must begin with https://."
#define HINT_SLOW "If the API is merely slow, raise the server option timeout."
#define HINT_ENDPOINT "Check the server option endpoint."
#define HINT_REDIRECT "Redirects are not followed: the server option endpoint must name the API itself."
#define HINT_PAGE_SIZE "If the API does not serve pages of this size, lower the server option page_size; Yelp documents 40 as the maximum."
#define HINT_RATE "Sync again later, or with a lower concurrency; max_retry_after bounds how long a sync waits."
#define HINT_DOWN "The API is overloaded or down: sync again later."
#define HINT_BYTES "Lower the server option page_size, or raise max_page_bytes."
#define HINT_FILES "Lower the server option concurrency, or raise max_files_per_process."

/* Length of the excerpt shown of a body that is not a page, or of a header */
#define MAX_EXCERPT_BYTES 80
#define MAX_HEADER_BYTES 200

static const char *const stage_names[] = {
	[HTTP_RESOLVE] = "resolve",
	[HTTP_CONNECT] = "connect",
	[HTTP_TLS] = "TLS",
	[HTTP_SEND] = "send",
	[HTTP_RECEIVE] = "receive",
};

StaticAssertDecl(lengthof(stage_names) == HTTP_RECEIVE + 1, "each stage has a name");

/* ---- the API's own words ---- */

/* The object that describes the error: the body itself if no member does. */
static const JsonToken *
find_error(const JsonToken *answer)
{
	static const char *const names[] = {"error", "errors"};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		const JsonToken *error = json_member(answer, names[i]);

		if (error && error->type == JSON_ARRAY && error->size > 1 && error[1].type == JSON_STRING)
			return &error[1];
		if (error && error->type == JSON_ARRAY && error->size > 1)
			error++;
		if (error && error->type == JSON_OBJECT)
			return error;
	}
	return answer;
}

/* The text of a string or number, or NULL. */
static char *
value_text(const JsonToken *value)
{
	char	   *decoded;
	char	   *shown;

	if (value == NULL || (value->type != JSON_STRING && value->type != JSON_NUMBER))
		return NULL;
	decoded = palloc(value->length + 1);
	shown = text_shown(decoded, json_decode(value, decoded), API_ERROR_MAX_BYTES);
	return shown[0] != '\0' ? shown : NULL;
}

/* The text of the first of these members that has one, or NULL. */
static char *
first_text(const JsonToken *object, const char *const *names, int nnames)
{
	char	   *text = NULL;

	for (int i = 0; text == NULL && i < nnames; i++)
		text = value_text(json_member(object, names[i]));
	return text;
}

bool
fetch_error_read_api(ApiError *error, const char *text, size_t length)
{
	static const char *const ids[] = {"id", "code", "error", "errors"};
	static const char *const descriptions[] = {
		"description", "message", "error_description", "detail"
	};
	JsonTokens	tokens = {0};
	const JsonToken *json;
	const JsonToken *found;

	memset(error, 0, sizeof(ApiError));
	json = json_read(&tokens, text, length);
	found = json ? find_error(json) : NULL;
	if (found && found->type == JSON_STRING)
		error->description = value_text(found);
	else if (found)
	{
		error->id = first_text(found, ids, lengthof(ids));
		error->description = first_text(found, descriptions, lengthof(descriptions));
	}
	json_free(&tokens);
	return error->id || error->description;
}

/* ---- details ---- */

/* Clipped, and only printable ASCII: headers and libcurl's messages are bytes. */
static char *
printable(const char *bytes, size_t length, size_t max_length)
{
	char	   *copy = pnstrdup(bytes, Min(length, max_length));

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
append_header(StringInfo detail, const char *what, const char *value)
{
	if (value)
		appendStringInfo(detail, ", %s \"%s\"", what,
						 printable(value, strlen(value), MAX_HEADER_BYTES));
}

/* The status, and the API's own words or the beginning of the body. */
static char *
answer_detail(const HttpResponse *response, const ApiError *words)
{
	StringInfoData detail;

	initStringInfo(&detail);
	appendStringInfo(&detail, "The API answered with HTTP status %d", response->status);
	append_header(&detail, "which redirects to", response->redirect);
	if (words->id)
		appendStringInfo(&detail, ", \"%s\"", words->id);
	if (words->description)
		appendStringInfo(&detail, ": %s", words->description);
	if (words->id || words->description)
		return end_sentence(&detail);
	append_header(&detail, "content type", response->content_type);
	if (response->length == 0)
		appendStringInfoString(&detail, " and no body");
	else
		appendStringInfo(&detail, " and %zu bytes that begin with \"%s\"", response->length,
						 printable(response->body, response->length, MAX_EXCERPT_BYTES));
	return end_sentence(&detail);
}

/* ---- responses that are missing or incomplete ---- */

typedef struct TransportError
{
	FetchErrorKind kind;
	int			sqlstate;
	const char *message;		/* NULL: "timed out" or "connection failed" */
	bool		quoted;			/* use libcurl's message as the detail? */
	const char *hint;
} TransportError;

#define UNCONNECTED ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION

/* By what http.c found */
static const TransportError transport_errors[] = {
	[HTTP_UNREACHABLE] = {FETCH_ERROR_RETRY, UNCONNECTED, NULL, true, NULL},
	[HTTP_BAD_CA_FILE] = {FETCH_ERROR_FATAL, UNCONNECTED,
	"could not load the CA certificates", true, HINT_CA_FILE},
	[HTTP_UNTRUSTED] = {FETCH_ERROR_FATAL, UNCONNECTED,
	"API certificate is not trusted", true, HINT_CERTIFICATE},
	[HTTP_WRONG_HOST] = {FETCH_ERROR_FATAL, UNCONNECTED,
	"API certificate is for another host", true, HINT_HOST},
	[HTTP_UNTRUSTED_PROXY] = {FETCH_ERROR_FATAL, UNCONNECTED,
	"proxy certificate is not trusted", true, HINT_CERTIFICATE},
	[HTTP_WRONG_PROXY] = {FETCH_ERROR_FATAL, UNCONNECTED,
	"proxy certificate is for another host", true, HINT_PROXY},
	[HTTP_DENIED_BY_PROXY] = {FETCH_ERROR_FATAL, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
	"proxy rejected the credentials", true, HINT_PROXY_USER},
	[HTTP_BROKEN] = {FETCH_ERROR_RETRY, ERRCODE_CONNECTION_FAILURE, NULL, true, NULL},
	[HTTP_LARGE_BODY] = {FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"body is larger than max_page_bytes", false, HINT_BYTES},
	[HTTP_LARGE_HEADERS] = {FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"response headers are larger than 256 kB", false, NULL},
	[HTTP_NO_ROOM] = {FETCH_ERROR_RETRY, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"response header is too large, or memory ran out", false, NULL},
	[HTTP_BAD_CODING] = {FETCH_ERROR_FINAL, ERRCODE_CONNECTION_FAILURE,
	"response has an unsupported Content-Encoding or Transfer-Encoding", false, NULL},
	[HTTP_UNDECODABLE] = {FETCH_ERROR_RETRY, ERRCODE_CONNECTION_FAILURE,
	"could not decode the response body", true, NULL},
	[HTTP_NO_SOCKET] = {FETCH_ERROR_NO_SOCKET, ERRCODE_INSUFFICIENT_RESOURCES,
	"out of file descriptors", false, HINT_FILES},
};

StaticAssertDecl(lengthof(transport_errors) == HTTP_NO_SOCKET + 1,
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
			if (response->timed_out)
				return HINT_SLOW;
			return response->plain && response->status == 0 ? HINT_HTTPS : HINT_DOWN;
	}
	return NULL;
}

static void
describe_transport(FetchError *error, const HttpResponse *response)
{
	const TransportError *found = &transport_errors[response->failure];

	error->kind = found->kind;
	error->sqlstate = found->sqlstate;
	error->message = found->message;
	error->hint = found->hint;
	if (response->refused && error->kind == FETCH_ERROR_RETRY)
		error->kind = FETCH_ERROR_OVERLOAD;
	if (response->down && response->failure == HTTP_UNREACHABLE)
		error->kind = FETCH_ERROR_FATAL;
	if (error->message == NULL)
	{
		error->message = response->timed_out ? "timed out" : "connection failed";
		error->hint = connection_hint(response);
	}
	if (found->quoted)
	{
		StringInfoData detail;

		initStringInfo(&detail);
		appendStringInfoString(&detail, printable(response->message, strlen(response->message),
												  MAX_HEADER_BYTES));
		if (response->os_error)
			appendStringInfo(&detail, ": %s", strerror(response->os_error));
		error->detail = end_sentence(&detail);
	}
}

/* ---- statuses ---- */

/* A request that the API considers wrong: by what its words are about. */
static const char *
bad_request_hint(const HttpResponse *response, const ApiError *words)
{
	const char *text = words->description ? words->description : response->body;

	if (response->plain && (strstr(text, "HTTPS") || strstr(text, "SSL")))
		return HINT_HTTPS;
	return strstr(text, "limit") ? HINT_PAGE_SIZE : NULL;
}

static void
describe_status(FetchError *error, const HttpResponse *response, bool accepted_before)
{
	int			status = response->status;
	ApiError	words;

	(void) fetch_error_read_api(&words, response->body, response->length);
	error->kind = status >= 500 ? FETCH_ERROR_RETRY : FETCH_ERROR_FINAL;
	error->hint = status >= 500 ? HINT_DOWN : NULL;
	error->sqlstate = ERRCODE_FDW_ERROR;
	error->message = psprintf("HTTP status %d", status);
	error->detail = answer_detail(response, &words);
	if (status >= 300 && status < 400)
		error->hint = HINT_REDIRECT;
	switch (status)
	{
		case 400:
		case 422:
			error->hint = bad_request_hint(response, &words);
			break;
		case 401:
		case 403:

			/*
			 * About the credentials, unless pages have already arrived with
			 * the same ones: some APIs respond to overload in this way.
			 */
			error->kind = accepted_before ? FETCH_ERROR_OVERLOAD : FETCH_ERROR_DENIED;
			error->hint = accepted_before ? HINT_RATE : HINT_CREDENTIALS;
			if (accepted_before)
				break;
			error->sqlstate = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
			error->message = "API rejected the credentials";
			break;
		case 404:
		case 405:
		case 410:
			error->hint = HINT_ENDPOINT;
			break;
		case 408:
		case 421:
		case 425:
			error->kind = FETCH_ERROR_RETRY;
			error->hint = HINT_DOWN;
			break;
		case 429:
			error->kind = FETCH_ERROR_RATE;
			error->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
			error->message = "API rate limit exceeded";
			error->hint = HINT_RATE;
			break;
		case 503:
			error->kind = FETCH_ERROR_OVERLOAD;
			break;
	}
}

bool
fetch_error_of_response(FetchError *error, const HttpResponse *response,
						bool accepted_before)
{
	memset(error, 0, sizeof(FetchError));
	error->stage = stage_names[response->stage];
	if (response->failure != HTTP_ANSWERED)
		describe_transport(error, response);
	else if (response->status != 200 && response->status != 204)
		describe_status(error, response, accepted_before);
	else
		return false;
	return true;
}

/* ---- bodies that are no pages ---- */

/* The API may have reported an error with status 200. */
void
fetch_error_of_page(FetchError *error, const JsonError *problem,
					const HttpResponse *response)
{
	ApiError	words;
	bool		reported = fetch_error_read_api(&words, response->body, response->length);

	memset(error, 0, sizeof(FetchError));
	error->stage = stage_names[response->stage];
	error->detail = answer_detail(response, &words);
	error->kind = FETCH_ERROR_RETRY;
	error->hint = HINT_ENDPOINT;
	error->sqlstate = ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION;
	error->message = problem->kind == JSON_UNFIT && reported ?
		"API reported an error" : problem->message;
	if (problem->kind == JSON_BROKEN)
		error->sqlstate = ERRCODE_INVALID_JSON_TEXT;
	else if (problem->kind == JSON_TOO_LARGE)
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

/* ---- raising ---- */

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
