/*
 * json_oracle.c
 *	  What PostgreSQL's own JSON parser finds in a text.
 *
 * The parser that json_in() and jsonb_in() use is in libpgcommon as well, built
 * for programs outside of the server.
 */
#include "postgres_fe.h"

#include <math.h>

#include "common/jsonapi.h"

#include "fuzz.h"
#include "json_oracle.h"

/* From PostgreSQL 16 on the actions may report errors */
#if PG_VERSION_NUM >= 160000
#define ACTION static JsonParseErrorType
#define ACTION_DONE return JSON_SUCCESS
#else
#define ACTION static void
#define ACTION_DONE return
#endif

#if PG_VERSION_NUM >= 170000
#define make_lexer(text, length, escapes) \
	makeJsonLexContextCstringLen(NULL, text, length, PG_UTF8, escapes)
#else
#define make_lexer(text, length, escapes) \
	makeJsonLexContextCstringLen((char *) (text), length, PG_UTF8, escapes)
#endif

/* The members of a page that matter */
typedef enum Member
{
	OTHER, LIST, TOTAL, ERROR_MEMBER
} Member;

typedef struct Walk
{
	JsonLexContext *lexer;
	OraclePage *page;
	int			depth;			/* of objects and arrays that are open */
	bool		in_object;		/* the outermost value is an object */
	Member		member;
	bool		at_id;
	int			max_count;
} Walk;

static OracleProgram *
current_program(Walk *walk)
{
	return walk->member == LIST && walk->page->has_list && walk->page->count > 0 ?
		&walk->page->programs[walk->page->count - 1] : NULL;
}

ACTION
enter_object(void *state)
{
	Walk	   *walk = state;

	walk->in_object |= walk->depth == 0;
	if (walk->depth == 2 && current_program(walk))
		current_program(walk)->is_object = true;
	walk->depth++;
	ACTION_DONE;
}

ACTION
enter_array(void *state)
{
	Walk	   *walk = state;

	if (walk->depth == 1 && walk->in_object && walk->member == LIST)
		walk->page->has_list = true;
	walk->depth++;
	ACTION_DONE;
}

ACTION
leave(void *state)
{
	((Walk *) state)->depth--;
	ACTION_DONE;
}

/* Of several members with a name the last one counts. */
ACTION
enter_member(void *state, char *name, bool isnull pg_attribute_unused())
{
	Walk	   *walk = state;
	OracleProgram *program = current_program(walk);

	if (walk->depth == 1)
	{
		walk->member = strcmp(name, "payment_programs") == 0 ? LIST :
			strcmp(name, "total") == 0 ? TOTAL :
			strcmp(name, "error") == 0 || strcmp(name, "errors") == 0 ? ERROR_MEMBER : OTHER;
		if (walk->member == LIST)
		{
			walk->page->has_list = false;
			walk->page->count = 0;
		}
		else if (walk->member == TOTAL)
			walk->page->total = NULL;
	}
	else if (walk->depth == 2 && walk->member == ERROR_MEMBER)
		walk->page->reports_error = true;
	else if (walk->depth == 3 && program)
	{
		walk->at_id = program->is_object && strcmp(name, "program_id") == 0;
		if (walk->at_id)
			program->id = NULL;
	}
	ACTION_DONE;
}

ACTION
leave_member(void *state, char *name pg_attribute_unused(), bool isnull pg_attribute_unused())
{
	Walk	   *walk = state;

	if (walk->depth == 1)
		walk->member = OTHER;
	else if (walk->depth == 3)
		walk->at_id = false;
	ACTION_DONE;
}

ACTION
enter_element(void *state, bool isnull pg_attribute_unused())
{
	Walk	   *walk = state;
	OraclePage *page = walk->page;

	if (walk->depth == 2 && walk->member == ERROR_MEMBER)
		page->reports_error = true;
	if (walk->depth != 2 || walk->member != LIST || !page->has_list)
		ACTION_DONE;
	if (page->count == walk->max_count)
	{
		walk->max_count *= 2;
		page->programs = repalloc(page->programs, walk->max_count * sizeof(OracleProgram));
	}
	memset(&page->programs[page->count], 0, sizeof(OracleProgram));
	page->programs[page->count++].text = walk->lexer->token_start;
	ACTION_DONE;
}

ACTION
leave_element(void *state, bool isnull pg_attribute_unused())
{
	Walk	   *walk = state;
	OracleProgram *program = current_program(walk);

	if (walk->depth == 2 && program)
		program->length = walk->lexer->prev_token_terminator - program->text;
	ACTION_DONE;
}

/* Huge ones are clipped, so that sums of them do not overflow. */
static void
measure_number(OracleProgram *program, const char *number)
{
	const char *exponent = strpbrk(number, "eE");
	double		digits = exponent ? Min(fabs(strtod(exponent + 1, NULL)), 1e9) : 0;

	program->exponents += (int64) digits;
	program->longest_number = Max(program->longest_number, (int64) digits + (int64) strlen(number));
}

/* Does a scalar member error say something? */
static bool
says_something(const char *token, JsonTokenType type)
{
	return type == JSON_TOKEN_TRUE || (type == JSON_TOKEN_STRING && token[0] != '\0') ||
		(type == JSON_TOKEN_NUMBER && strcmp(token, "0") != 0);
}

ACTION
take_scalar(void *state, char *token, JsonTokenType type)
{
	Walk	   *walk = state;
	OracleProgram *program = current_program(walk);

	if (walk->depth == 1 && walk->member == TOTAL && type == JSON_TOKEN_NUMBER)
		walk->page->total = token;
	if (walk->depth == 1 && walk->member == ERROR_MEMBER && says_something(token, type))
		walk->page->reports_error = true;
	if (program && walk->depth == 3 && walk->at_id && type == JSON_TOKEN_STRING)
		program->id = token;
	if (program && type == JSON_TOKEN_NUMBER)
		measure_number(program, token);
	ACTION_DONE;
}

bool
oracle_is_json(const char *text, size_t length)
{
	JsonSemAction nothing = {0};
	char	   *masked = palloc(length + 1);

	for (size_t i = 0; i < length; i++)
		masked[i] = IS_HIGHBIT_SET(text[i]) ? 'x' : text[i];
	masked[length] = '\0';
	return pg_parse_json(make_lexer(masked, length, false), &nothing) == JSON_SUCCESS;
}

bool
oracle_read_page(const char *text, size_t length, OraclePage *page)
{
	Walk		walk = {.page = page,.max_count = 16};
	JsonSemAction actions = {
		.semstate = &walk,
		.object_start = enter_object,
		.object_end = leave,
		.array_start = enter_array,
		.array_end = leave,
		.object_field_start = enter_member,
		.object_field_end = leave_member,
		.array_element_start = enter_element,
		.array_element_end = leave_element,
		.scalar = take_scalar
	};

	memset(page, 0, sizeof(OraclePage));
	page->programs = palloc(walk.max_count * sizeof(OracleProgram));
	walk.lexer = make_lexer(text, length, true);
	return fuzz_is_utf8(text, length) &&
		pg_parse_json(walk.lexer, &actions) == JSON_SUCCESS;
}
