/*
 * api_error.c
 *	  Extract the API's error message from the body of a response.
 *
 * Yelp sends {"error": {"id", "description"}}.  Gateways in front of an API
 * have their own formats: {"errors": [{...}]}, {"code", "message"}, or
 * {"error": "...", "error_description": "..."}.
 */
#include "postgres.h"

#include "api_error.h"

#include "json.h"
#include "text.h"

/* A larger body is not an error message, and parsing it would use memory */
#define MAX_BODY_BYTES (64 * 1024)

/* The object that describes the error: the body itself if no member does. */
static const JsonToken *
find_error(const JsonToken *answer)
{
	const JsonToken *error = json_member(answer, "error");
	const JsonToken *errors = json_member(answer, "errors");

	if (error && error->type == JSON_OBJECT)
		return error;
	if (errors && errors->type == JSON_ARRAY && errors->size > 1 &&
		errors[1].type == JSON_OBJECT)
		return &errors[1];
	return answer;
}

/* A string or number as text for a message; NULL if it is neither. */
static char *
value_text(const JsonToken *value)
{
	char	   *decoded;
	char	   *shown;

	if (value == NULL ||
		(value->type != JSON_STRING && value->type != JSON_NUMBER))
		return NULL;
	decoded = palloc(value->length + 1);
	shown = text_shown(decoded, json_decode(value, decoded), API_ERROR_MAX_BYTES);
	pfree(decoded);
	if (shown[0] != '\0')
		return shown;
	pfree(shown);
	return NULL;
}

/* The text of the first of these members that has one, or NULL. */
static char *
first_text(const JsonToken *object, const char *const *names, int nnames)
{
	for (int i = 0; i < nnames; i++)
	{
		char	   *text = value_text(json_member(object, names[i]));

		if (text)
			return text;
	}
	return NULL;
}

bool
api_error_read(ApiError *error, const char *text, size_t length)
{
	static const char *const ids[] = {"id", "code", "error"};
	static const char *const descriptions[] = {
		"description", "message", "error_description", "detail"
	};
	JsonTokens	tokens = {0};
	JsonError	fault;
	const JsonToken *json;

	memset(error, 0, sizeof(ApiError));
	if (length > MAX_BODY_BYTES)
		return false;
	json = json_read(&tokens, text, length, &fault);
	if (json == NULL)
	{
		pfree(fault.message);
		return false;
	}
	if (!json->bad_utf8)
	{
		const JsonToken *found = find_error(json);

		error->id = first_text(found, ids, lengthof(ids));
		error->description = first_text(found, descriptions,
										lengthof(descriptions));
	}
	json_free(&tokens);
	return error->id || error->description;
}
