/*
 * fetch_error_test.c
 *	  Unit tests of fetch_error.c.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "lib/stringinfo.h"

#include "no_server.h"
#include "tap.h"

/* A string literal and its length, including any NUL bytes */
#define TEXT(literal) literal, sizeof(literal) - 1

static void
error_is(const char *text, size_t length, const char *want_id,
		 const char *want_description)
{
	ApiError	error;
	bool		found = fetch_error_read_api(&error, text, length);

	tap_ok(found == (want_id || want_description), "an error is %s",
		   found ? "found" : "not found");
	tap_is_text(error.id, want_id, "id %s", want_id ? want_id : "is not there");
	tap_is_text(error.description, want_description, "description %s",
				want_description ? want_description : "is not there");
}

#define TEN(text) text text text text text text text text text text
#define DEEP TEN(TEN("["))
#define DEEP_END TEN(TEN("]"))

static void
test_errors(void)
{
	error_is(TEXT("{\"error\":{\"id\":\"ACCESS_DENIED\",\"description\":"
				  "\"The authorization server denied the request.\","
				  "\"http_code\":403}}"),
			 "ACCESS_DENIED", "The authorization server denied the request.");
	error_is(TEXT("{\"error\":{\"code\":\"X\",\"description\":\"y\"}}"),
			 "X", "y");
	error_is(TEXT("{\"error\":{\"code\":500}}"), "500", NULL);
	error_is(TEXT("{\"error\":{\"code\":\"X\",\"id\":\"I\"}}"), "I", NULL);
	error_is(TEXT("{\"errors\":[{\"id\":\"A\",\"description\":\"b\"},{}]}"),
			 "A", "b");
	error_is(TEXT("{\"error\":null,\"errors\":[{\"id\":\"A\"}]}"), "A", NULL);
	error_is(TEXT("{\"error\":\"text\"}"), "text", NULL);
	error_is(TEXT("{\"error\":\"invalid_token\",\"error_description\":\"expired\"}"),
			 "invalid_token", "expired");
	error_is(TEXT("{\"code\":\"TOO_MANY\",\"message\":\"Slow down.\"}"),
			 "TOO_MANY", "Slow down.");
	error_is(TEXT("{\"error\":{\"id\":\"A\",\"message\":\"m\"}}"), "A", "m");
	error_is(TEXT("{\"detail\":\"Not found.\"}"), NULL, "Not found.");
	error_is(TEXT("{\"error\":[]}"), NULL, NULL);
	error_is(TEXT("{\"errors\":[]}"), NULL, NULL);
	error_is(TEXT("{\"errors\":{}}"), NULL, NULL);
	error_is(TEXT("{\"errors\":[\"x\"]}"), NULL, "x");
	error_is(TEXT("{\"errors\":\"x\",\"total\":1}"), "x", NULL);
	error_is(TEXT("{\"error\":{},\"errors\":[[\"x\"]]}"), NULL, NULL);
	error_is(TEXT("{\"errors\":{\"message\":\"x\"}}"), NULL, "x");
	error_is(TEXT("{\"error\":{\"id\":null,\"description\":{}}}"), NULL, NULL);
	error_is(TEXT("{\"error\":{\"id\":\"\",\"description\":\" \\n\"}}"),
			 NULL, NULL);
	error_is(TEXT("{\"error\":{\"id\":true,\"description\":[\"x\"]}}"),
			 NULL, NULL);
	error_is(TEXT("{}"), NULL, NULL);
	error_is(TEXT("[]"), NULL, NULL);
	error_is(TEXT("null"), NULL, NULL);
	error_is(TEXT(""), NULL, NULL);
	error_is(TEXT("<html><body>502</body></html>"), NULL, NULL);
	error_is(TEXT("{\"error\":{\"id\":\"X\"}"), NULL, NULL);
	error_is(TEXT("\xFF\xFE\0\x01"), NULL, NULL);
	error_is(TEXT("{\"error\":\"x\",\"deep\":" DEEP "0" DEEP_END "}"), NULL, NULL);
	error_is(TEXT("{\"error\":{\"id\":\"\xFF\"}}"), NULL, NULL);
}

static void
test_texts(void)
{
	StringInfoData body;
	StringInfoData want;

	error_is(TEXT("{\"error\":{\"id\":\"a\\u0000b\\ud800c\\u001b[31m\\n\","
				  "\"description\":\"caf\\u00e9 \\ud83e\\udd5e\\u009bx\x7F!\"}}"),
			 "a?b?c [31m", "caf\xC3\xA9 \xF0\x9F\xA5\x9E  x !");

	initStringInfo(&body);
	initStringInfo(&want);
	appendStringInfoString(&body, "{\"error\":{\"description\":\"a");
	appendStringInfoString(&want, "a");
	for (int i = 0; i < 5000; i++)
	{
		appendStringInfoString(&body, "\xC3\xA9");
		if (want.len + 2 <= API_ERROR_MAX_BYTES)
			appendStringInfoString(&want, "\xC3\xA9");
	}
	appendStringInfoString(&body, "\"}}");
	error_is(body.data, body.len, NULL, want.data);

	/* Beside many programs */
	body.data[--body.len] = '\0';
	appendStringInfoString(&body, ",\"payment_programs\":[{}");
	for (int i = 0; i < 30000; i++)
		appendStringInfoString(&body, ",{}");
	appendStringInfoString(&body, "]}");
	error_is(body.data, body.len, NULL, want.data);

	/* Beside more than are read */
	body.data[--body.len] = '\0';
	body.data[--body.len] = '\0';
	for (int i = 0; i < 40000; i++)
		appendStringInfoString(&body, ",{}");
	appendStringInfoString(&body, "]}");
	error_is(body.data, body.len, NULL, NULL);
}

/* ---- responses ---- */

/* What is expected; a NULL hint: there is none */
typedef struct Want
{
	FetchErrorKind kind;
	int			sqlstate;
	const char *message;
	const char *detail;			/* NULL: any */
	const char *hint;			/* a part of it */
} Want;

static void
check_error(const FetchError *error, const Want *want)
{
	tap_is_int(error->kind, want->kind, "%s: kind", want->message);
	tap_is_int(error->sqlstate, want->sqlstate, "%s: SQLSTATE", want->message);
	tap_is_text(error->message, want->message, "%s: message", want->message);
	if (want->detail)
		tap_is_text(error->detail, want->detail, "%s: detail", want->message);
	tap_ok(want->hint ? error->hint && strstr(error->hint, want->hint) : !error->hint,
		   "%s: hint %s", want->message, error->hint ? error->hint : "is missing");
}

static void
check_response(HttpResponse response, bool accepted_before, Want want)
{
	FetchError	error;

	if (response.body == NULL)
		response.body = "";
	response.length = strlen(response.body);
	tap_ok(fetch_error_of_response(&error, &response, accepted_before),
		   "%s: it is an error", want.message);
	check_error(&error, &want);
}

#define STATUS(number, ...) (HttpResponse) {.stage = HTTP_RECEIVE,.status = number,__VA_ARGS__}
#define FAILURE(error, at, ...) \
	(HttpResponse) {.failure = error,.stage = at,.message = "Why",__VA_ARGS__}

static void
test_statuses(void)
{
	FetchError	error;
	HttpResponse fine = STATUS(200,.body = "{}",.length = 2);
	const int	unavailable[] = {408, 421, 425, 500, 502, 504, 599};
	const int	redirects[] = {300, 302, 399};
	const int	missing[] = {404, 405, 410};

	tap_ok(!fetch_error_of_response(&error, &fine, false), "200 is no error");
	check_response(STATUS(401), false, (Want)
	{
		FETCH_ERROR_DENIED, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
			"API rejected the credentials",
			"The API answered with HTTP status 401 and no body.", "Check the username"
	});
	check_response(STATUS(403), true, (Want)
	{
		FETCH_ERROR_OVERLOAD, ERRCODE_FDW_ERROR, "HTTP status 403", NULL, "concurrency"
	});
	check_response(STATUS(429,.body = "{\"error\":{\"id\":\"RATE\"}}"), false, (Want)
	{
		FETCH_ERROR_RATE, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "API rate limit exceeded",
			"The API answered with HTTP status 429, \"RATE\".", "concurrency"
	});
	check_response(STATUS(503), false, (Want)
	{
		FETCH_ERROR_OVERLOAD, ERRCODE_FDW_ERROR, "HTTP status 503", NULL, "overloaded"
	});
	check_response(STATUS(418), false, (Want)
	{
		FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, "HTTP status 418", NULL, NULL
	});
	for (int i = 0; i < (int) lengthof(unavailable); i++)
		check_response(STATUS(unavailable[i]), false, (Want)
	{
		FETCH_ERROR_RETRY, ERRCODE_FDW_ERROR, psprintf("HTTP status %d", unavailable[i]),
			NULL, "overloaded"
	});
	for (int i = 0; i < (int) lengthof(redirects); i++)
		check_response(STATUS(redirects[i]), false, (Want)
	{
		FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, psprintf("HTTP status %d", redirects[i]),
			NULL, "Redirects"
	});
	for (int i = 0; i < (int) lengthof(missing); i++)
		check_response(STATUS(missing[i]), false, (Want)
	{
		FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, psprintf("HTTP status %d", missing[i]),
			NULL, "endpoint"
	});
}

static void
test_bad_requests(void)
{
	Want		want = {FETCH_ERROR_FINAL, ERRCODE_FDW_ERROR, "HTTP status 400", NULL, NULL};

	check_response(STATUS(400), false, want);
	check_response(STATUS(400,.body = "The plain HTTP request was sent to HTTPS port"), false, want);
	want.hint = "page_size";
	check_response(STATUS(400,.body = "{\"error\":{\"description\":\"limit: 50 is more than 40\"}}"),
				   false, want);
	want.hint = "https://";
	check_response(STATUS(400,.plain = true,.body = "The plain HTTP request was sent to HTTPS port"),
				   false, want);
	check_response(STATUS(400,.plain = true,.body = "You're speaking plain HTTP to an SSL-enabled port"),
				   false, want);
	want.message = "HTTP status 422";
	want.hint = "page_size";
	check_response(STATUS(422,.body = "{\"message\":\"limit must be 40 at most\"}"), false, want);
}

/* Texts of others are clipped, and have no bytes that are not printable. */
static void
test_clipping(void)
{
	char	   *longer = palloc0(90001);
	FetchError	error;
	HttpResponse response = STATUS(302,.body = "a\x1B\xFF",.length = 3,.content_type = longer,
								   .redirect = longer);

	memset(longer, 'x', 90000);
	longer[3] = '\n';
	(void) fetch_error_of_response(&error, &response, false);
	tap_ok(strlen(error.detail) < 600, "the detail is short: %zu bytes", strlen(error.detail));
	tap_ok(strstr(error.detail, "to \"xxx?xxx") != NULL, "the target is shown");
	tap_ok(strstr(error.detail, "type \"xxx?xxx") != NULL, "the content type is shown");
	tap_ok(strstr(error.detail, "3 bytes that begin with \"a??\".") != NULL, "so is the body");
}

static void
test_transport(void)
{
	Want		want = {FETCH_ERROR_RETRY, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
	"connection failed", "Why.", "host in the server option endpoint"};

	check_response(FAILURE(HTTP_UNREACHABLE, HTTP_RESOLVE), false, want);
	want.hint = "API is up";
	check_response(FAILURE(HTTP_UNREACHABLE, HTTP_CONNECT), false, want);
	want.hint = "speaks TLS";
	check_response(FAILURE(HTTP_UNREACHABLE, HTTP_TLS), false, want);
	want.kind = FETCH_ERROR_OVERLOAD;
	check_response(FAILURE(HTTP_UNREACHABLE, HTTP_TLS,.refused = true), false, want);
	want.kind = FETCH_ERROR_FATAL;
	check_response(FAILURE(HTTP_UNREACHABLE, HTTP_TLS,.refused = true,.down = true), false, want);
	want = (Want)
	{
		FETCH_ERROR_RETRY, ERRCODE_CONNECTION_FAILURE, "timed out", "Why.", "timeout"
	};
	check_response(FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.timed_out = true), false, want);
	want.message = "connection failed";
	want.hint = "overloaded or down";
	check_response(FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.down = true), false, want);
	want.hint = "https://";
	check_response(FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.plain = true), false, want);
	check_response(FAILURE(HTTP_UNTRUSTED, HTTP_TLS), false, (Want)
	{
		FETCH_ERROR_FATAL, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
			"API certificate is not trusted", "Why.", "ca_file"
	});
	check_response(FAILURE(HTTP_NO_SOCKET, HTTP_CONNECT), false, (Want)
	{
		FETCH_ERROR_NO_SOCKET, ERRCODE_INSUFFICIENT_RESOURCES, "out of file descriptors",
			NULL, "max_files_per_process"
	});
	check_response(FAILURE(HTTP_UNREACHABLE, HTTP_CONNECT,.os_error = ECONNREFUSED), false, (Want)
	{
		FETCH_ERROR_RETRY, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
			"connection failed", "Why: Connection refused.", "API is up"
	});
}

static void
test_pages(void)
{
	struct
	{
		JsonError	problem;
		const char *body;
		Want		want;
	}			cases[] = {
		{{JSON_BROKEN, "body is not JSON"}, "x",
		{FETCH_ERROR_RETRY, ERRCODE_INVALID_JSON_TEXT, "body is not JSON", NULL, "endpoint"}},
		{{JSON_UNFIT, "no total"}, "{}",
		{FETCH_ERROR_RETRY, ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION, "no total", NULL,
		"endpoint"}},
		{{JSON_UNFIT, "no total"}, "{\"error\":\"x\"}",
		{FETCH_ERROR_RETRY, ERRCODE_FDW_INCONSISTENT_DESCRIPTOR_INFORMATION,
		"API reported an error", "The API answered with HTTP status 200, \"x\".", "endpoint"}},
		{{JSON_TOO_LARGE, "too many"}, "{}",
		{FETCH_ERROR_FINAL, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many", NULL,
		"endpoint"}},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		HttpResponse response = STATUS(200,.body = cases[i].body,.length = strlen(cases[i].body));
		FetchError	error;

		fetch_error_of_page(&error, &cases[i].problem, &response);
		check_error(&error, &cases[i].want);
	}
}

static void
test_words(void)
{
	FetchError	error;
	FetchErrorPlace place = {"acme", "http://h/p?offset=20", 20, 2, 3};

	fetch_error_of_wait(&error, 7200000, 1500);
	tap_is_int(error.kind, FETCH_ERROR_FATAL, "too long a wait ends the sync");
	tap_is_text(error.message, "API asked to wait 7200 s, but max_retry_after is 1.5 s", "... in seconds");
	error.stage = "receive";
	tap_is_text(fetch_error_message(&error, &place),
				"could not fetch the page at offset 20 of account \"acme\": API asked to wait 7200 s,"
				" but max_retry_after is 1.5 s (attempt 2 of 3, stage receive)", "the whole message");
	tap_is_text(fetch_error_detail(&error, &place), "The URL was http://h/p?offset=20", "the URL alone");
	error.detail = "Why.";
	tap_is_text(fetch_error_detail(&error, &place), "Why.  The URL was http://h/p?offset=20", "and after a detail");
}

int
main(void)
{
	test_errors();
	test_texts();
	test_statuses();
	test_bad_requests();
	test_clipping();
	test_transport();
	test_pages();
	test_words();
	return tap_done();
}
