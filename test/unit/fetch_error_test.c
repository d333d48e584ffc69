/*
 * fetch_error_test.c
 *	  Unit tests of fetch_error.c.
 */
#include "postgres.h"

#include "fetch_error.h"

#include "json_text.h"
#include "no_server.h"
#include "tap.h"

/* ---- the API's own words ---- */

#define TEN(text) text text text text text text text text text text

/* Bodies, and the ID and the description in them: "-" if there is none. */
static const char *const bodies[][2] = {
	{"{'error':{'id':'DENIED','description':'The server denied it.','http_code':403}}",
	"DENIED: The server denied it."},
	{"{'error':{'code':'X','description':'y'}}", "X: y"},
	{"{'error':{'code':500}}", "500: -"},
	{"{'error':{'code':'X','id':'I'}}", "I: -"},
	{"{'errors':[{'id':'A','description':'b'},{}]}", "A: b"},
	{"{'error':null,'errors':[{'id':'A'}]}", "A: -"},
	{"{'error':'text'}", "text: -"},
	{"{'error':'invalid_token','error_description':'expired'}", "invalid_token: expired"},
	{"{'code':'TOO_MANY','message':'Slow down.'}", "TOO_MANY: Slow down."},
	{"{'error':{'id':'A','message':'m'}}", "A: m"},
	{"{'detail':'Not found.'}", "-: Not found."},
	{"{'errors':['x']}", "-: x"},
	{"{'errors':'x','total':1}", "x: -"},
	{"{'errors':{'message':'x'}}", "-: x"},
	{"{'error':{'id':'a\\u0000b\\ud800c\\u001b[31m\\n',"
		"'description':'caf\\u00e9 \\ud83e\\udd5e\\u009bx\x7F!'}}",
	"a?b?c [31m: caf\xC3\xA9 \xF0\x9F\xA5\x9E  x !"},

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
	ApiError	error;
	char	   *got = NULL;

	if (fetch_error_read_api(&error, body, length))
		got = psprintf("%s: %s", error.id ? error.id : "-",
					   error.description ? error.description : "-");
	else if (error.id || error.description)
		got = "an error that was not found";
	tap_is_text(got, want, "%.60s", body);
}

static void
test_words(void)
{
	char	   *want = repeated("-: a", "\xC3\xA9", (API_ERROR_MAX_BYTES - 1) / 2, "");
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
	FINAL(404, "endpoint"), FINAL(405, "endpoint"), FINAL(410, "endpoint"), FINAL(400, NULL),
	{STATUS(400,.body = "sent to HTTPS port"), false, "FINAL HV000 HTTP status 400", NULL, NULL},
	{STATUS(400,.plain = true,.body = "sent to HTTPS port"), false,
	"FINAL HV000 HTTP status 400", NULL, "https://"},
	{STATUS(400,.plain = true,.body = "plain HTTP to an SSL-enabled port"), false,
	"FINAL HV000 HTTP status 400", NULL, "https://"},
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

	{FAILURE(HTTP_UNREACHABLE, HTTP_RESOLVE), false, "RETRY 08001 connection failed", "Why.",
	"host in the server option endpoint"},
	{FAILURE(HTTP_UNREACHABLE, HTTP_CONNECT,.os_error = ECONNREFUSED), false,
	"RETRY 08001 connection failed", "Why: Connection refused.", "API is up"},
	{FAILURE(HTTP_UNREACHABLE, HTTP_TLS), false, "RETRY 08001 connection failed", "Why.", "speaks TLS"},
	{FAILURE(HTTP_UNREACHABLE, HTTP_TLS,.timed_out = true), false, "RETRY 08001 timed out", "Why.",
	"API is up"},
	{FAILURE(HTTP_UNREACHABLE, HTTP_TLS,.refused = true), false, "OVERLOAD 08001 connection failed",
	"Why.", "speaks TLS"},
	{FAILURE(HTTP_UNREACHABLE, HTTP_TLS,.refused = true,.down = true), false,
	"FATAL 08001 connection failed", "Why.", "speaks TLS"},
	{FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.timed_out = true), false, "RETRY 08006 timed out", "Why.",
	"timeout"},
	{FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.down = true), false, "RETRY 08006 connection failed", "Why.",
	"overloaded or down"},
	{FAILURE(HTTP_BROKEN, HTTP_SEND,.plain = true), false, "RETRY 08006 connection failed", "Why.",
	"https://"},
	{FAILURE(HTTP_BROKEN, HTTP_RECEIVE,.plain = true,.status = 200), false,
	"RETRY 08006 connection failed", "Why.", "overloaded or down"},
	{FAILURE(HTTP_BAD_CA_FILE, HTTP_TLS), false, "FATAL 08001 could not load the CA certificates", "Why.",
	"ca_file must name"},
	{FAILURE(HTTP_UNTRUSTED, HTTP_TLS), false, "FATAL 08001 API certificate is not trusted", "Why.",
	"set the server option ca_file"},
	{FAILURE(HTTP_NO_SOCKET, HTTP_CONNECT), false, "NO_SOCKET 53000 out of file descriptors", NULL,
	"max_files_per_process"},
	{FAILURE(HTTP_LARGE_BODY, HTTP_RECEIVE), false, "FINAL 54000 body is larger than max_page_bytes", NULL,
	"page_size"},
	{FAILURE(HTTP_BAD_CODING, HTTP_RECEIVE,.refused = true), false, "FINAL 08006 response has an"
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
		[FETCH_ERROR_RETRY] = "RETRY",[FETCH_ERROR_RATE] = "RATE",[FETCH_ERROR_OVERLOAD] = "OVERLOAD",
		[FETCH_ERROR_DENIED] = "DENIED",[FETCH_ERROR_NO_SOCKET] = "NO_SOCKET",
		[FETCH_ERROR_FINAL] = "FINAL",[FETCH_ERROR_FATAL] = "FATAL"
	};

	for (int i = 0; i < (int) lengthof(responses); i++)
	{
		HttpResponse response = responses[i].response;
		JsonError	problem = responses[i].problem;
		const char *want = responses[i].want;
		const char *hint = responses[i].hint;
		FetchError	error;
		char	   *got = NULL;

		response.body = response.body ? json(response.body) : "";
		response.length = strlen(response.body);
		if (problem.message)
			fetch_error_of_page(&error, &problem, &response);
		if (problem.message ||
			fetch_error_of_response(&error, &response, responses[i].accepted_before))
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
	FetchError	error;
	FetchErrorPlace place = {"acme", "http://h/p?offset=20", 20, 2, 3};

	fetch_error_of_wait(&error, 7200000, 1500);
	tap_is_int(error.kind, FETCH_ERROR_FATAL, "too long a wait ends the sync");
	error.stage = "receive";
	tap_is_text(fetch_error_message(&error, &place),
				"could not fetch the page at offset 20 of account \"acme\": API asked to wait 7200 s,"
				" but max_retry_after is 1.5 s (attempt 2 of 3, stage receive)", "the whole message");
	tap_is_text(fetch_error_detail(&error, &place), "The URL was http://h/p?offset=20", "the URL alone");
	error.detail = "Why.";
	tap_is_text(fetch_error_detail(&error, &place), "Why.  The URL was http://h/p?offset=20",
				"and after a detail");
}

int
main(void)
{
	test_words();
	test_responses();
	test_messages();
	return tap_done();
}
