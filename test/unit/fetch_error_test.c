/*
 * fetch_error_test.c
 *	  Unit tests of fetch_error.c.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "datatype/timestamp.h"

#include "json_text.h"
#include "no_server.h"
#include "tap.h"

#define MS INT64CONST(1000)
#define SECOND (1000 * MS)

/* ---- the API's own words ---- */

#define TEN(text) text text text text text text text text text text

/* Bodies, and the ID and the description in them */
static const char *const bodies[][2] = {
	{"{'error':{'id':'DENIED','description':'The server denied it.','http_code':403}}",
	"\"DENIED\": The server denied it."},
	{"{'error':{'code':'X','description':'y'}}", "\"X\": y"},
	{"{'error':{'code':500}}", "\"500\""},
	{"{'error':{'code':'X','id':'I'}}", "\"I\""},
	{"{'errors':[{'id':'A','description':'b'},{}]}", "\"A\": b"},
	{"{'error':null,'errors':[{'id':'A'}]}", "\"A\""},
	{"{'error':'text'}", "\"text\""},
	{"{'error':'invalid_token','error_description':'expired'}", "\"invalid_token\": expired"},
	{"{'code':'TOO_MANY','message':'Slow down.'}", "\"TOO_MANY\": Slow down."},
	{"{'error':{'id':'A','message':'m'}}", "\"A\": m"},
	{"{'detail':'Not found.'}", "Not found."},
	{"{'errors':['x']}", "x"},
	{"{'errors':'x','total':1}", "\"x\""},
	{"{'errors':{'message':'x'}}", "x"},
	{"{'error':{'id':'a\\u0000b\\ud800c\\u001b[31m\\n',"
		"'description':'caf\\u00e9 \\ud83e\\udd5e\\u009bx\x7F!'}}",
	"\"a?b?c [31m\": caf\xC3\xA9 \xF0\x9F\xA5\x9E  x !"},

	/* Nothing is said here */
	{"{'error':[]}", NULL},
	{"{'errors':[]}", NULL},
	{"{'errors':{}}", NULL},
	{"{'error':{},'errors':[['x']]}", NULL},
	{"{'error':{'id':null,'description':{}}}", NULL},
	{"{'error':{'id':'','description':' \\n'}}", NULL},
	{"{'error':{'id':true,'description':['x']}}", NULL},
	{"{}", NULL},
	{"[]", NULL},
	{"null", NULL},
	{"", NULL},
	{"<html><body>502</body></html>", NULL},
	{"{'error':{'id':'X'}", NULL},
	{"\xFF\xFE`\x01", NULL},
	{"{'error':'x','deep':" TEN(TEN("[")) "0" TEN(TEN("]")) "}", NULL},
	{"{'error':{'id':'\xFF'}}", NULL},
};

static void
check_words(const char *body, int length, const char *want)
{
	tap_is_text(fetch_error_api_words(body, length), want, "%.60s", body);
}

static void
test_words(void)
{
	char	   *want = repeated("a", "\xC3\xA9", (API_ERROR_MAX_BYTES - 1) / 2, "");
	char	   *longer = repeated("{'description':'a", "\xC3\xA9", 5000, "'$");
	char	   *text;

	for (int i = 0; i < (int) lengthof(bodies); i++)
	{
		MarkedText	body = make_text(bodies[i][0], "");

		check_words(body.text, body.length, bodies[i][1]);
	}
	text = make_text(longer, "}").text;
	check_words(text, strlen(text), want);
	/* Beside many programs, and more than are read */
	text = make_text(longer, repeated(",'programs':[{}", ",{}", 30000, "]}")).text;
	check_words(text, strlen(text), want);
	text = make_text(longer, repeated(",'programs':[{}", ",{}", 70000, "]}")).text;
	check_words(text, strlen(text), NULL);
}

/* ---- responses ---- */

/* What is left out of a row is zero */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define HTTPS "https://h/p"
#define PLAIN "http://h/p"

#define STATUS(number, ...) {.stage = HTTP_RECEIVE,.status = number, ##__VA_ARGS__}
#define FAILURE(error, at, ...) {.failure = error,.stage = at,.message = "Why", ##__VA_ARGS__}

#define RETRIED(number) {STATUS(number), false, "RETRY HV000 HTTP status " #number, NULL, "overloaded"}
#define FINAL(number, hint) {STATUS(number), false, "FINAL HV000 HTTP status " #number, NULL, hint}

static const struct
{
	HttpResponse response;
	bool		accepted_before;
	const char *want;
	const char *detail;			/* NULL: any */
	const char *hint;			/* a part of it; NULL: none */
	JsonError	problem;		/* of the page, if any */
	bool		plain;			/* http, not https */
}			responses[] = {
	{STATUS(200,.body = "{}"), false, NULL},
	{STATUS(204), false, NULL},
	{STATUS(401), false, "DENIED 28000 API rejected the credentials",
	"The API answered with HTTP status 401 and no body.", "Check the username"},
	{STATUS(403), false, "DENIED 28000 API rejected the credentials", NULL, "Check the username"},
	{STATUS(403), true, "OVERLOAD HV000 HTTP status 403", NULL, "concurrency"},
	{STATUS(429,.body = "{'error':{'id':'RATE'}}"), false, "RATE 53400 API rate limit exceeded",
	"The API answered with HTTP status 429, \"RATE\".", "concurrency"},
	{STATUS(503), false, "OVERLOAD HV000 HTTP status 503", NULL, "overloaded"},
	RETRIED(408), RETRIED(421), RETRIED(425), RETRIED(500), RETRIED(502), RETRIED(504), RETRIED(599),
	FINAL(300, "Redirects"), FINAL(302, "Redirects"), FINAL(399, "Redirects"), FINAL(418, NULL),
	FINAL(0, NULL), FINAL(101, NULL), FINAL(206, NULL), RETRIED(999),
	FINAL(404, "endpoint"), FINAL(405, "endpoint"), FINAL(410, "endpoint"), FINAL(400, NULL),
	{STATUS(400,.body = "sent to HTTPS port"), false, "FINAL HV000 HTTP status 400", NULL, NULL},
	{STATUS(400,.body = "sent to HTTPS port"), false,
	"FINAL HV000 HTTP status 400", NULL, "https://",.plain = true},
	{STATUS(400,.body = "plain HTTP to an SSL-enabled port"), false,
	"FINAL HV000 HTTP status 400", NULL, "https://",.plain = true},
	{STATUS(400,.body = "{'error':{'description':'limit: 50 is more than 40'}}"), false,
	"FINAL HV000 HTTP status 400", NULL, "page_size"},
	{STATUS(422,.body = "{'message':'limit must be 40 at most'}"), false,
	"FINAL HV000 HTTP status 422", NULL, "page_size"},

	/* Texts of others are clipped, and have no bytes that are not printable */
	{STATUS(302,.body = "a\x1B\xFF",.content_type = "x\ny",.redirect = "x\x7Fy"), false,
			"FINAL HV000 HTTP status 302", "The API answered with HTTP status 302, which redirects to"
	" \"x?y\", content type \"x?y\" and 3 bytes that begin with \"a??\".", "Redirects"},
	{STATUS(418,.body = TEN(TEN("x")),.content_type = TEN(TEN("abcd"))), false,
			"FINAL HV000 HTTP status 418", "The API answered with HTTP status 418, content type \""
	TEN("abcdabcdabcdabcdabcd") "\" and 100 bytes that begin with \"" TEN("xxxxxxxx") "\".", NULL},

	{FAILURE(HTTP_BROKEN, HTTP_RESOLVE), false, "RETRY 08001 connection failed", "Why.",
	"host in the server option endpoint"},
	{FAILURE(HTTP_BROKEN, HTTP_CONNECT), false, "RETRY 08001 connection failed", "Why.", "API is up"},
	{FAILURE(HTTP_BROKEN, HTTP_TLS), false, "RETRY 08001 connection failed", "Why.", "speaks TLS"},
	{FAILURE(HTTP_TIMED_OUT, HTTP_TLS), false, "TIMED_OUT 08001 timed out", "Why.", "API is up"},
	{FAILURE(HTTP_REFUSED, HTTP_TLS), false, "OVERLOAD 08001 connection failed", "Why.", "speaks TLS"},
	{FAILURE(HTTP_DOWN, HTTP_TLS), false, "FATAL 08001 connection failed", "Why.", "speaks TLS"},
	{FAILURE(HTTP_TIMED_OUT, HTTP_RECEIVE), false, "TIMED_OUT 08006 timed out", "Why.", "timeout"},
	{FAILURE(HTTP_LOST, HTTP_RECEIVE), false, "LOST 08006 connection failed", "Why.",
	"overloaded or down"},
	{FAILURE(HTTP_BROKEN, HTTP_SEND), false, "RETRY 08006 connection failed", "Why.", "https://",
	.plain = true},
	{FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.status = 200), false, "RETRY 08006 connection failed", "Why.",
	"overloaded or down",.plain = true},
	{FAILURE(HTTP_BAD_CA_FILE, HTTP_TLS), false, "FATAL 08001 could not load the CA certificates", "Why.",
	"ca_file must name"},
	{FAILURE(HTTP_UNTRUSTED, HTTP_TLS), false, "FATAL 08001 API certificate is not trusted", "Why.",
	"set the server option ca_file"},
	{{.failure = HTTP_NO_SOCKET}, false, "NO_SOCKET 53000 out of file descriptors", NULL,
	"max_files_per_process"},
	{{.failure = HTTP_LARGE_BODY}, false, "FINAL 54000 body is larger than max_page_bytes", NULL,
	"page_size"},
	{{.failure = HTTP_BAD_CODING}, false, "FINAL 08006 response has an"
	" unsupported Content-Encoding or Transfer-Encoding", NULL, NULL},

	{STATUS(200,.body = "x"), false, "RETRY 22032 body is not JSON", NULL, "endpoint",
	{JSON_BROKEN, "body is not JSON"}},
	{STATUS(200,.body = "{}"), false, "RETRY HV021 no total", NULL, "endpoint", {JSON_UNFIT, "no total"}},
	{STATUS(200,.body = "{'error':'x'}"), false, "RETRY HV021 API reported an error",
	"The API answered with HTTP status 200, \"x\".", "endpoint", {JSON_UNFIT, "no total"}},
	{STATUS(200,.body = "{}"), false, "FINAL 54000 too many", NULL, "endpoint", {JSON_TOO_LARGE, "too many"}},
};

static char *
sqlstate_text(int sqlstate)
{
	char	   *text = pstrdup("00000");

	for (int i = 0; i < 5; i++, sqlstate >>= 6)
		text[i] = (sqlstate & 0x3F) + '0';
	return text;
}

static void
test_responses(void)
{
	static const char *const kinds[] = {
		[FETCH_ERROR_RETRY] = "RETRY",[FETCH_ERROR_TIMED_OUT] = "TIMED_OUT",[FETCH_ERROR_RATE] = "RATE",
		[FETCH_ERROR_OVERLOAD] = "OVERLOAD",[FETCH_ERROR_LOST] = "LOST",[FETCH_ERROR_DENIED] = "DENIED",[FETCH_ERROR_NO_SOCKET] = "NO_SOCKET",
		[FETCH_ERROR_FINAL] = "FINAL",[FETCH_ERROR_FATAL] = "FATAL"
	};

	for (int i = 0; i < (int) lengthof(responses); i++)
	{
		HttpResponse response = responses[i].response;
		JsonError	problem = responses[i].problem;
		const char *want = responses[i].want;
		const char *hint = responses[i].hint;
		Account		account = {.endpoint = responses[i].plain ? PLAIN : HTTPS};
		FetchError	error;
		char	   *got = NULL;

		response.body = response.body ? json(response.body) : "";
		response.length = strlen(response.body);
		if (fetch_error_of_response(&error, &account, &response, problem.message ? &problem : NULL,
									responses[i].accepted_before))
			got = psprintf("%s %s %s", kinds[error.kind], sqlstate_text(error.sqlstate), error.message);
		tap_is_text(got, want, "%s", want ? want : "no error");
		if (responses[i].detail)
			tap_is_text(error.detail, responses[i].detail, "... its detail");
		if (want && !(error.hint && hint && strstr(error.hint, hint)))
			tap_is_text(error.hint, hint, "... its hint");
	}
}

static void
test_messages(void)
{
	Account		account = {
		.username = "acme",.endpoint = HTTPS,.attempts = 3,.max_retry_after = 1500
	};
	HttpResponse response = STATUS(503,.body = "",.retry_after = "7200");
	FetchError	error;

	(void) fetch_error_of_response(&error, &account, &response, NULL, false);
	tap_is_int(error.kind, FETCH_ERROR_FATAL, "too long a wait ends the sync");
	fetch_error_locate(&error, &account, "http://h/p?offset=20", 20, 2);
	tap_is_text(error.message,
				"could not fetch the page at offset 20 of account \"acme\": API asked to wait 7200 s,"
				" but max_retry_after is 1.5 s (attempt 2 of 3, stage receive)", "the whole message");
	tap_is_text(error.detail, "The API answered with HTTP status 503 and no body.  "
				"The URL was http://h/p?offset=20", "the URL after the detail");
	error.detail = NULL;
	fetch_error_locate(&error, &account, "http://h/p", 0, 1);
	tap_is_text(error.detail, "The URL was http://h/p", "and alone");
}

/* One minute before Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example */
#define NOW ((time_t) (784111777 - 60))
#define DATE "Wed, 18 May 2033 03:33:20 GMT"
#define DECADE (INT64CONST(315360000) * SECOND)

static void
test_requested_wait(void)
{
	static const struct
	{
		int64		wait;
		HttpResponse response;
	}			waits[] = {
		{-1, {.status = 429}},
		{SECOND, {.retry_after = "1"}},
		{30 * SECOND, {.retry_after = "030",.date = "Sun, 06 Nov 1994 08:58:37 GMT"}},
		{1500 * MS, {.retry_after = "1.5"}},
		{DECADE, {.retry_after = "99999999999999999999999999"}},
		{60 * SECOND, {.retry_after = "Sun, 06 Nov 1994 08:49:37 GMT"}},
		{60 * SECOND, {.retry_after = "Sunday, 06-Nov-94 08:49:37 GMT",.date = "now"}},
		{60 * SECOND, {.retry_after = "Sun Nov  6 08:49:37 1994"}},
		{10 * SECOND, {.retry_after = "Sun, 06 Nov 1994 08:49:37 GMT",.date = "Sun, 06 Nov 1994 08:49:27 GMT"}},
		{-1, {.retry_after = "Sun, 06 Nov 1994 08:48:37 GMT"}},
		{DECADE, {.retry_after = "Fri, 31 Dec 9999 23:59:59 GMT"}},
		{9 * SECOND, {.status = 429,.retry_after = "0",.rate_reset = "9"}},
		{SECOND, {.status = 429,.retry_after = "1",.rate_reset = "9"}},
		{60 * SECOND, {.status = 429,.rate_reset = "2000000060",.date = DATE}},
		{60 * SECOND, {.status = 429,.rate_reset = "2000000060000",.date = DATE}},
		{-1, {.status = 429,.rate_reset = "2000000000",.date = DATE}},
		{-1, {.status = 429,.rate_reset = "121"}},
		{-1, {.status = 503,.rate_reset = "9"}},
	};
	static const char *const unreadable[] = {
		"", "  ", ".5", "1.2.3", "0", "0.0", "0.0000001", "-1", "+1", "nan", "inf", "0x10", "1e3",
		"1,5", "1 2", "10s", "soon", "Sun, 99 Nov 1994 08:49:37 GMT",
	};

	for (size_t i = 0; i < lengthof(waits); i++)
		tap_is_int(fetch_error_requested_wait(&waits[i].response, 120 * SECOND, NOW), waits[i].wait,
				   "Retry-After %s, reset %s", waits[i].response.retry_after, waits[i].response.rate_reset);
	for (size_t i = 0; i < lengthof(unreadable); i++)
	{
		HttpResponse response = {.retry_after = unreadable[i]};

		tap_is_int(fetch_error_requested_wait(&response, 0, NOW), -1, "Retry-After: %s", unreadable[i]);
	}
}

int
main(void)
{
	test_words();
	test_responses();
	test_messages();
	test_requested_wait();
	return tap_done();
}
