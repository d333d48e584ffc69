/*
 * api_error_test.c
 *	  Unit tests of api_error.c.
 */
#include "postgres.h"

#include "api_error.h"

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
	bool		found = api_error_read(&error, text, length);

	tap_ok(found == (want_id || want_description), "an error is %s",
		   found ? "found" : "not found");
	tap_is_text(error.id, want_id, "id %s", want_id ? want_id : "is not there");
	tap_is_text(error.description, want_description, "description %s",
				want_description ? want_description : "is not there");
}

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
	error_is(TEXT("{\"errors\":[\"x\"]}"), NULL, NULL);
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

	/* Larger bodies are not even parsed */
	while (body.len < 70000)
		appendStringInfoChar(&body, ' ');
	error_is(body.data, body.len, NULL, NULL);
}

int
main(void)
{
	test_errors();
	test_texts();
	return tap_done();
}
