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

#include <ctype.h>
#include <curl/curl.h>

#include "fetch_error.h"

#include "datatype/timestamp.h"
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

/* What is larger than this is an epoch, in seconds or milliseconds */
#define MIN_EPOCH 1e9
#define MIN_EPOCH_MS 1e11

#define MAX_WAIT_S (3650.0 * SECS_PER_DAY)

#define UNCONNECTED ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION
#define UNAUTHORIZED ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION

/* The code of a JsonErrorKind */
#define PAGE_ERROR(kind) (1000 + (int) (kind))

/* What a failure, a status or a problem of a page means */
typedef struct Rule
{
	int			code;			/* an HttpError, a status, or PAGE_ERROR */
	FetchErrorKind kind;
	int			sqlstate;		/* 0: depends on the stage, as does the hint */
	const char *message;		/* NULL: the status, or what is wrong with the
								 * page */
	const char *hint;
} Rule;

static const Rule rules[] = {
	{HTTP_BROKEN, FETCH_ERROR_RETRY, 0, "connection failed", NULL},
	{HTTP_TIMED_OUT, FETCH_ERROR_TIMED_OUT, 0, "timed out", NULL},
	{HTTP_REFUSED, FETCH_ERROR_OVERLOAD, 0, "connection failed", NULL},
	{HTTP_LOST, FETCH_ERROR_LOST, 0, "connection failed", NULL},
	{HTTP_DOWN, FETCH_ERROR_FATAL, 0, "connection failed", NULL},
	{HTTP_BAD_CA_FILE, FETCH_ERROR_FATAL, UNCONNECTED,
	"could not load the CA certificates", HINT_CA_FILE},
	{HTTP_UNTRUSTED, FETCH_ERROR_FATAL, UNCONNECTED,
	"API certificate is not trusted", HINT_CERTIFICATE},
	{HTTP_WRONG_HOST, FETCH_ERROR_FATAL, UNCONNECTED,
	"API certificate is for another host", HINT_HOST},
	{HTTP_UNTRUSTED_PROXY, FETCH_ERROR_FATAL, UNCONNECTED,
	"proxy certificate is not trusted", HINT_CERTIFICATE},
	{HTTP_WRONG_PROXY, FETCH_ERROR_FATAL, UNCONNECTED,
	"proxy certificate is for another host", HINT_PROXY},
	{HTTP_DENIED_BY_PROXY, FETCH_ERROR_FATAL, UNAUTHORIZED,
	"proxy rejected the credentials", HINT_PROXY_USER},
	{HTTP_LARGE_BODY, FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"body is larger than max_page_bytes", HINT_BYTES},
	{HTTP_LARGE_HEADERS, FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"response headers are larger than 256 kB", NULL},
	{HTTP_NO_ROOM, FETCH_ERROR_RETRY, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
	"response header is too large, or memory ran out", NULL},
	{HTTP_BAD_CODING, FETCH_ERROR_FINAL, ERRCODE_CONNECTION_FAILURE,
	"response has an unsupported Content-Encoding or Transfer-Encoding", NULL},
	{HTTP_UNDECODABLE, FETCH_ERROR_RETRY, ERRCODE_CONNECTION_FAILURE,
	"could not decode the response body", NULL},
	{HTTP_NO_SOCKET, FETCH_ERROR_NO_SOCKET, ERRCODE_INSUFFICIENT_RESOURCES,
	"out of file descriptors", HINT_FILES},

	/* 200, 300, 400 and 500 stand for all that begin alike and are not here */
	{200, FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, NULL, NULL},
	{300, FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, NULL, HINT_REDIRECT},
	{400, FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, NULL, NULL},
	{401, FETCH_ERROR_DENIED, UNAUTHORIZED, "API rejected the credentials", HINT_CREDENTIALS},
	{403, FETCH_ERROR_DENIED, UNAUTHORIZED, "API rejected the credentials", HINT_CREDENTIALS},
	{404, FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, NULL, HINT_ENDPOINT},
	{405, FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, NULL, HINT_ENDPOINT},
	{408, FETCH_ERROR_RETRY, ERRCODE_FDW_ERROR, NULL, HINT_DOWN},
	{410, FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, NULL, HINT_ENDPOINT},
	{421, FETCH_ERROR_RETRY, ERRCODE_FDW_ERROR, NULL, HINT_DOWN},
	{425, FETCH_ERROR_RETRY, ERRCODE_FDW_ERROR, NULL, HINT_DOWN},
	{429, FETCH_ERROR_RATE, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
	"API rate limit exceeded", HINT_RATE},
	{500, FETCH_ERROR_RETRY, ERRCODE_FDW_ERROR, NULL, HINT_DOWN},
	{503, FETCH_ERROR_OVERLOAD, ERRCODE_FDW_ERROR, NULL, HINT_DOWN},

	{PAGE_ERROR(JSON_BROKEN), FETCH_ERROR_RETRY, ERRCODE_INVALID_JSON_TEXT, NULL, HINT_ENDPOINT},
	{PAGE_ERROR(JSON_UNFIT), FETCH_ERROR_RETRY,
	ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION, NULL, HINT_ENDPOINT},
	{PAGE_ERROR(JSON_TOO_LARGE), FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED, NULL,
	HINT_ENDPOINT},
};

/*
 * 401 and 403 after pages have arrived with the same credentials: some APIs
 * respond to overload in this way.
 */
static const Rule denied_later = {0, FETCH_ERROR_OVERLOAD, ERRCODE_FDW_ERROR, NULL, HINT_RATE};

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

char	   *
fetch_error_api_words(const char *text, size_t length)
{
	static const char *const ids[] = {"id", "code", "error", "errors"};
	static const char *const descriptions[] = {
		"description", "message", "error_description", "detail"
	};
	const JsonToken *json = json_read(text, length);
	const JsonToken *found = json ? find_error(json) : NULL;
	char	   *id = NULL;
	char	   *description = NULL;

	if (found && found->type == JSON_STRING)
		description = value_text(found);
	else if (found)
	{
		id = first_text(found, ids, lengthof(ids));
		description = first_text(found, descriptions, lengthof(descriptions));
	}
	if (id)
		id = psprintf("\"%s\"", id);
	return id && description ? psprintf("%s: %s", id, description) : id ? id : description;
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
answer_detail(const HttpResponse *response, const char *words)
{
	StringInfoData detail;

	initStringInfo(&detail);
	appendStringInfo(&detail, "The API answered with HTTP status %d", response->status);
	append_header(&detail, "which redirects to", response->redirect);
	if (words)
		appendStringInfo(&detail, "%s%s", words[0] == '"' ? ", " : ": ", words);
	else
	{
		append_header(&detail, "content type", response->content_type);
		if (response->length == 0)
			appendStringInfoString(&detail, " and no body");
		else
			appendStringInfo(&detail, " and %zu bytes that begin with \"%s\"", response->length,
							 printable(response->body, response->length, MAX_EXCERPT_BYTES));
	}
	return end_sentence(&detail);
}

/* ---- the requested wait ---- */

/*
 * Decimal seconds, or -1.  The RFC does not allow a fraction, but some servers
 * send one.  strtod() would also accept "inf", "0x10" and "1e3".
 */
static double
parse_seconds(const char *text)
{
	size_t		length = strspn(text, "0123456789.");

	if (!isdigit((unsigned char) *text) || text[length] != '\0' ||
		strchr(text, '.') != strrchr(text, '.'))
		return -1;
	return strtod(text, NULL);
}

int64
fetch_error_requested_wait(const HttpResponse *response, int64 max_reset, time_t now)
{
	time_t		today = response->date ? curl_getdate(response->date, NULL) : -1;
	double		seconds = -1;

	if (today == -1)
		today = now;
	if (response->retry_after)
	{
		seconds = parse_seconds(response->retry_after);
		if (seconds < 0)
			seconds = difftime(curl_getdate(response->retry_after, NULL), today);
	}
	if (seconds <= 0 && response->status == 429 && response->rate_reset)
	{
		seconds = parse_seconds(response->rate_reset);
		if (seconds >= MIN_EPOCH_MS)
			seconds /= 1000;
		if (seconds >= MIN_EPOCH)
			seconds -= today;
		if (seconds * USECS_PER_SEC > max_reset)
			return -1;
	}
	seconds = Min(seconds, MAX_WAIT_S) * USECS_PER_SEC;
	return seconds >= 1 ? (int64) seconds : -1;
}

/* ---- what it means ---- */

static const Rule *
find_rule(int code)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].code == code)
			return &rules[i];
	}
	return find_rule(code < 200 ? 200 : code < 500 ? code / 100 * 100 : 500);
}

static const char *
connection_hint(const HttpResponse *response, bool is_https)
{
	bool		timed_out = response->failure == HTTP_TIMED_OUT;

	switch (response->stage)
	{
		case HTTP_RESOLVE:
			return HINT_HOST;
		case HTTP_CONNECT:
			return HINT_CONNECT;
		case HTTP_TLS:
			return timed_out ? HINT_CONNECT : HINT_TLS;
		case HTTP_SEND:
		case HTTP_RECEIVE:
			if (timed_out)
				return HINT_SLOW;
			return is_https || response->status != 0 ? HINT_DOWN : HINT_HTTPS;
	}
	return NULL;
}

/* A request that the API considers wrong: by what its words are about. */
static const char *
bad_request_hint(const char *words, bool is_https)
{
	if (!is_https && (strstr(words, "HTTPS") || strstr(words, "SSL")))
		return HINT_HTTPS;
	return strstr(words, "limit") ? HINT_PAGE_SIZE : NULL;
}

static bool
is_page(const HttpResponse *response, const JsonError *problem)
{
	return response->failure == HTTP_ANSWERED && problem == NULL &&
		(response->status == 200 || response->status == 204);
}

/* Fills in what the rule leaves open. */
static void
describe_failure(FetchError *error, const HttpResponse *response, bool is_https)
{
	StringInfoData detail;

	if (error->sqlstate == 0)
	{
		error->sqlstate = response->stage < HTTP_SEND ? UNCONNECTED :
			ERRCODE_CONNECTION_FAILURE;
		error->hint = connection_hint(response, is_https);
	}
	if (response->message == NULL)
		return;
	initStringInfo(&detail);
	appendStringInfoString(&detail, printable(response->message, strlen(response->message),
											  MAX_HEADER_BYTES));
	error->detail = end_sentence(&detail);
}

/* The API may have reported an error with status 200. */
static void
describe_answer(FetchError *error, const HttpResponse *response, const JsonError *problem,
				bool is_https)
{
	char	   *words = fetch_error_api_words(response->body, response->length);

	if (problem)
		error->message = problem->kind == JSON_UNFIT && words ? "API reported an error" :
			problem->message;
	else if (error->message == NULL)
		error->message = psprintf("HTTP status %d", response->status);
	if (response->status == 400 || response->status == 422)
		error->hint = bad_request_hint(words ? words : response->body, is_https);
	error->detail = answer_detail(response, words);
}

bool
fetch_error_of_response(FetchError *error, const Account *account, const HttpResponse *response,
						const JsonError *problem, bool accepted_before)
{
	static const char *const stages[] = {
		[HTTP_RESOLVE] = "resolve",
		[HTTP_CONNECT] = "connect",
		[HTTP_TLS] = "TLS",
		[HTTP_SEND] = "send",
		[HTTP_RECEIVE] = "receive",
	};
	bool		is_https = http_is_https(account->endpoint);
	int64		max_wait = account->max_retry_after * USECS_PER_MSEC;
	const Rule *rule;

	if (is_page(response, problem))
		return false;
	rule = find_rule(response->failure != HTTP_ANSWERED ? (int) response->failure :
					 problem ? PAGE_ERROR(problem->kind) : response->status);
	if (rule->kind == FETCH_ERROR_DENIED && accepted_before)
		rule = &denied_later;
	*error = (FetchError)
	{
		.kind = rule->kind,.sqlstate = rule->sqlstate,.message = rule->message,
			.hint = rule->hint,.stage = stages[response->stage],
			.wait = fetch_error_requested_wait(response, max_wait, time(NULL)),
	};
	if (response->failure != HTTP_ANSWERED)
		describe_failure(error, response, is_https);
	else
		describe_answer(error, response, problem, is_https);
	if (error->kind <= FETCH_ERROR_OVERLOAD && error->wait > max_wait)
	{
		error->kind = FETCH_ERROR_FATAL;
		error->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		error->message = psprintf("API asked to wait %.15g s, but max_retry_after is %.15g s",
								  error->wait / 1e6, max_wait / 1e6);
		error->hint = HINT_RATE;
	}
	return true;
}

/* ---- raising ---- */

void
fetch_error_locate(FetchError *error, const Account *account, const char *url, int64 offset,
				   int attempt)
{
	error->message = psprintf("could not fetch the page at offset " INT64_FORMAT
							  " of account \"%s\": %s (attempt %d of %d, stage %s)",
							  offset, account->username, error->message,
							  attempt, account->attempts, error->stage);
	error->detail = psprintf("%s%sThe URL was %s", error->detail ? error->detail : "",
							 error->detail ? "  " : "", url);
}

void
fetch_error_raise(const FetchError *error)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", client_text(error->message)),
			 errdetail_internal("%s", client_text(error->detail)),
			 error->hint ? errhint("%s", error->hint) : 0));
}
