/*
 * program_page.c
 *	  From the text of a page to the programs on it.
 *
 * Every member of a program that the extension reads has its line in a table
 * of fields, which says what it must be; the others may hold whatever jsonb
 * can store.  Of several members of one name the last one counts, as in jsonb.
 */
#include "postgres.h"

#include "program_page.h"

#include <errno.h>
#include <math.h>

#include "common/hashfn.h"
#include "lib/stringinfo.h"

#include "json.h"
#include "sanitize.h"

/* Amounts in cents go to numeric(14,2), so they stay below this. */
#define CENTS_BOUND INT64CONST(100000000000000)

/* The most bytes in which a string may spell one byte, as \uXXXX */
#define SPELLED_BYTES 6

/* The longest name of a field has 20 bytes */
#define MAX_SPELLED_NAME (20 * SPELLED_BYTES)

/* How much of another member's name a message shows, in bytes */
#define MAX_SHOWN_NAME 64

/* Tells what is wrong with a value ("is not ..."), NULL if nothing */
typedef const char *(*FieldCheck) (const JsonToken *value);

struct Shape;

/* A member that the extension reads */
typedef struct Field
{
	const char *name;
	size_t		length;
	FieldCheck	check;			/* of values other than null */
	const struct Shape *inner;	/* of an object, or an array's first one */
} Field;

/* Its name and length */
#define NAME(name) name, sizeof(name) - 1

#define MAX_FIELDS 12

/* The members that are read of one kind of object */
typedef struct Shape
{
	const char *prefix;			/* of the fields' names in messages */
	Field		fields[MAX_FIELDS]; /* up to one without a name */
} Shape;

/*
 * Counts the ways in which programs have been mapped to columns, so that a new
 * way makes the next sync map all of them.
 */
#define MAPPING_VERSION 2

static uint64 fingerprint_seed;

void
program_page_set_seed(uint64 seed)
{
	fingerprint_seed = hash_bytes_uint32_extended(MAPPING_VERSION, seed);
}

uint64
program_page_fingerprint(const char *text, size_t length)
{
	return hash_bytes_extended((const unsigned char *) text, (int) length,
							   fingerprint_seed);
}

static const char not_integer[] = "is not an integer";
static const char out_of_range[] = "is out of range";

/* Takes over the message; false for the caller to return. */
static bool
set_problem(PageError *problem, PageErrorKind kind, char *message)
{
	problem->kind = kind;
	problem->message = message;
	return false;
}

static bool
bad_field(PageError *problem, const char *prefix, const char *name,
		  const char *complaint)
{
	return set_problem(problem, PAGE_NOT_A_PAGE,
					   psprintf("field \"%s%s\" %s", prefix, name, complaint));
}

/*
 * Where the fields are.
 */

/* Which field has the name, -1 if it is none that is read. */
static int
find_name(const Shape *shape, const char *name, size_t length)
{
	for (int i = 0; shape->fields[i].name; i++)
	{
		const Field *field = &shape->fields[i];

		if (field->length == length && memcmp(field->name, name, length) == 0)
			return i;
	}
	return -1;
}

/* The same for a member's name, in which there may be escapes. */
static int
find_field(const Shape *shape, const JsonToken *name)
{
	int			field = find_name(shape, name->text, name->length);
	char		decoded[MAX_SPELLED_NAME];

	if (field >= 0 || name->length > MAX_SPELLED_NAME ||
		memchr(name->text, '\\', name->length) == NULL)
		return field;
	return find_name(shape, decoded, json_decode(name, decoded));
}

/* The value of each field of the object, NULL for those not there. */
static void
find_values(const JsonToken *object, const Shape *shape,
			const JsonToken **values)
{
	const JsonToken *end = object + object->size;

	memset(values, 0, MAX_FIELDS * sizeof(*values));
	for (const JsonToken *name = object + 1; name < end; name += name->size)
	{
		int			field = find_field(shape, name);

		if (field >= 0)
			values[field] = name + 1;
	}
}

/* The same for a single field. */
static const JsonToken *
find_value(const JsonToken *object, const char *name)
{
	Shape		shape = {"", {{name, strlen(name), NULL, NULL}}};
	const JsonToken *values[MAX_FIELDS];

	find_values(object, &shape, values);
	return values[0];
}

/*
 * What the fields hold.
 */

/* The same for numbers such as 100.0 and 1e2, which are whole by value. */
static const char *
read_whole(const JsonToken *value, int64 *integer)
{
	long double real = strtold(value->text, NULL);

	if (real != truncl(real))
		return not_integer;
	*integer = real < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	if (real < -ldexpl(1, 63) || real >= ldexpl(1, 63))
		return out_of_range;
	*integer = (int64) real;
	return NULL;
}

/* The integer, or PG_INT64_MIN or PG_INT64_MAX where it is out of range. */
static const char *
read_integer(const JsonToken *value, int64 *integer)
{
	char	   *end;

	if (value->type != JSON_NUMBER)
		return not_integer;
	errno = 0;
	*integer = strtoll(value->text, &end, 10);
	if (end != value->text +value->length)
		return read_whole(value, integer);
	return errno == ERANGE ? out_of_range : NULL;
}

static const char *
check_string(const JsonToken *value)
{
	return value->type == JSON_STRING ? NULL : "is not a string";
}

static const char *
check_boolean(const JsonToken *value)
{
	return value->type == JSON_BOOLEAN ? NULL : "is not a boolean";
}

static const char *
check_integer(const JsonToken *value)
{
	int64		integer;

	return read_integer(value, &integer);
}

static const char *
check_cents(const JsonToken *value)
{
	int64		cents;

	if (read_integer(value, &cents) == not_integer)
		return not_integer;
	if (cents <= -CENTS_BOUND || cents >= CENTS_BOUND)
		return out_of_range;
	return NULL;
}

/* The number that so many digits make, -1 if they are none. */
static int
read_digits(const char *text, int count)
{
	int			value = 0;

	for (int i = 0; i < count; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (text[i] - '0');
	}
	return value;
}

/* Is it YYYY-MM-DD, a day of the Gregorian calendar from year 1 on? */
static bool
is_date(const char *date)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year = read_digits(date, 4);
	int			month = read_digits(date + 5, 2);
	int			day = read_digits(date + 8, 2);
	bool		leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return date[4] == '-' && date[7] == '-' &&
		year >= 1 && month >= 1 && month <= 12 && day >= 1 &&
		day <= days[month - 1] + (leap && month == 2);
}

static const char *
check_date(const JsonToken *value)
{
	char		date[10 * SPELLED_BYTES];

	return value->type == JSON_STRING &&
		value->length <= (int) sizeof(date) &&
		json_decode(value, date) == 10 && is_date(date) ?
		NULL : "is not a date as YYYY-MM-DD";
}

static const char *
check_object(const JsonToken *value)
{
	return value->type == JSON_OBJECT ? NULL : "is not an object";
}

static bool
is_array_of(const JsonToken *value, JsonType type)
{
	const JsonToken *end = value + value->size;

	if (value->type != JSON_ARRAY)
		return false;
	for (const JsonToken *item = value + 1; item < end; item += item->size)
	{
		if (item->type != type)
			return false;
	}
	return true;
}

static const char *
check_objects(const JsonToken *value)
{
	return is_array_of(value, JSON_OBJECT) ?
		NULL : "is not an array of objects";
}

static const char *
check_strings(const JsonToken *value)
{
	return is_array_of(value, JSON_STRING) ?
		NULL : "is not an array of strings";
}

static const Shape metrics_shape = {
	"program_metrics.",
	{
		{NAME("budget"), check_cents, NULL},
		{NAME("currency"), check_string, NULL},
		{NAME("is_autobid"), check_boolean, NULL},
		{NAME("max_bid"), check_cents, NULL},
		{NAME("billed_impressions"), check_integer, NULL},
		{NAME("billed_clicks"), check_integer, NULL},
		{NAME("ad_cost"), check_cents, NULL},
		{NAME("fee_period"), check_string, NULL}
	}
};

static const Shape business_shape = {
	"businesses[0].",
	{
		{NAME("yelp_business_id"), check_string, NULL},
		{NAME("partner_business_id"), check_string, NULL}
	}
};

/* But for the program_id, which is read before */
static const Shape program_shape = {
	"",
	{
		{NAME("program_type"), check_string, NULL},
		{NAME("program_status"), check_string, NULL},
		{NAME("program_pause_status"), check_string, NULL},
		{NAME("start_date"), check_date, NULL},
		{NAME("end_date"), check_date, NULL},
		{NAME("program_metrics"), check_object, &metrics_shape},
		{NAME("businesses"), check_objects, &business_shape},
		{NAME("active_features"), check_strings, NULL},
		{NAME("available_features"), check_strings, NULL}
	}
};

/*
 * Names the fields of the object that do not hold what they must.  Null will do
 * for any, and so will an array without a first object.
 */
static void
find_problems(const JsonToken *object, const Shape *shape, StringInfo names)
{
	const JsonToken *values[MAX_FIELDS];

	find_values(object, shape, values);
	for (int i = 0; shape->fields[i].name; i++)
	{
		const Field *field = &shape->fields[i];
		const JsonToken *value = values[i];

		if (value == NULL || value->type == JSON_NULL)
			continue;
		if (field->check(value))
			appendStringInfo(names, "%s%s%s", names->len > 0 ? "," : "",
							 shape->prefix, field->name);
		else if (field->inner && value->size > 1)
			find_problems(value->type == JSON_ARRAY ? value + 1 : value,
						  field->inner, names);
	}
}

/*
 * The programs.
 */

/* What jsonb cannot store of an object, as a message, or NULL. */
static char *
find_unstorable(const JsonToken *object)
{
	const JsonToken *end = object + object->size;

	if (json_unstorable(object) == NULL)
		return NULL;
	for (const JsonToken *name = object + 1; name < end; name += name->size)
	{
		const char *complaint = json_unstorable(name);

		if (complaint)
			return psprintf("field \"%s\" %s",
							text_shown(name->text, name->length, MAX_SHOWN_NAME),
							complaint);
	}
	return NULL;
}

/* What is wrong with a program's id; where nothing is, the id itself. */
static const char *
read_id(const JsonToken *value, char **id)
{
	static const char too_long[] =
	"is longer than " CppAsString2(PAGE_MAX_ID_BYTES) " bytes";
	char		decoded[PAGE_MAX_ID_BYTES * SPELLED_BYTES];
	const char *complaint;
	int			length;

	if (value == NULL)
		return "is missing";
	if (value->type != JSON_STRING)
		return "is not a string";
	if (value->length == 0)
		return "is empty";
	if (value->length > (int) sizeof(decoded))
		return too_long;
	complaint = json_unstorable(value);
	if (complaint)
		return complaint;
	length = json_decode(value, decoded);
	if (length > PAGE_MAX_ID_BYTES)
		return too_long;
	if (text_has_controls(decoded, length))
		return "holds a control character";
	*id = pnstrdup(decoded, length);
	return NULL;
}

/*
 * Reads the program at this position of the list, counted from 0.  What makes
 * it unusable is returned, as a message; else NULL.
 */
static char *
read_program(PageProgram *program, const JsonToken *object, int position)
{
	const char *complaint;
	char	   *unstorable;
	StringInfoData problems;

	if (object->type != JSON_OBJECT)
		return psprintf("field \"payment_programs[%d]\" is not an object", position);
	complaint = read_id(find_value(object, "program_id"), &program->id);
	if (complaint)
		return psprintf("field \"payment_programs[%d].program_id\" %s",
						position, complaint);
	unstorable = find_unstorable(object);
	if (unstorable)
		return psprintf("program \"%s\": %s", program->id, unstorable);
	initStringInfo(&problems);
	find_problems(object, &program_shape, &problems);
	program->problems = problems.len > 0 ? problems.data : NULL;
	program->document = object->text;
	program->length = object->length;
	program->fingerprint = program_page_fingerprint(program->document,
													program->length);
	if (program->problems == NULL)
		pfree(problems.data);
	return NULL;
}

static bool
read_programs(ProgramPage *page, const JsonToken *array, PageError *problem)
{
	const JsonToken *end = array + array->size;
	int			count = 0;
	int			position = 0;

	for (const JsonToken *item = array + 1; item < end; item += item->size)
		count++;
	if (count > PAGE_MAX_TOTAL)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("page of %d programs is too long", count));
	page->programs = palloc(Max(count, 1) * sizeof(PageProgram));
	for (const JsonToken *item = array + 1; item < end; item += item->size)
	{
		char	   *reason = read_program(&page->programs[page->count], item,
										  position++);

		if (reason == NULL)
			page->count++;
		else if (page->skipped++ == 0)
			page->skip_reason = reason;
	}
	return true;
}

/*
 * The page.
 */

static bool
read_total(ProgramPage *page, const JsonToken *value, PageError *problem)
{
	if (value == NULL)
		return bad_field(problem, "", "total", "is missing");
	if (read_integer(value, &page->total) == not_integer)
		return bad_field(problem, "", "total", not_integer);
	if (page->total < 0)
		return bad_field(problem, "", "total", "is negative");
	if (page->total > PAGE_MAX_TOTAL)
		return set_problem(problem, PAGE_IMPLAUSIBLE,
						   psprintf("field \"total\" is over %d",
									PAGE_MAX_TOTAL));
	return true;
}

/* A number that the API repeats from the request, -1 where it does not. */
static int64
read_echo(const JsonToken *value, int64 least)
{
	int64		echo;

	return value && read_integer(value, &echo) == NULL && echo >= least ? echo : -1;
}

/* Likewise a word, NULL where it does not. */
static char *
read_word(const JsonToken *value)
{
	char	   *word;

	if (value == NULL || value->type != JSON_STRING)
		return NULL;
	word = palloc(value->length + 1);
	word[json_decode(value, word)] = '\0';
	return word;
}

/* Within a program invalid UTF-8 is that program's, elsewhere the page's. */
static bool
check_encoding(const JsonToken *object, const JsonToken *programs,
			   PageError *problem)
{
	const JsonToken *end = object + object->size;

	if (!object->bad_utf8)
		return true;
	for (const JsonToken *name = object + 1; name < end; name += name->size)
	{
		bool		holds_programs = name + 1 == programs && programs->type == JSON_ARRAY;

		if (holds_programs ? !json_is_utf8(name->text, name->length) : name->bad_utf8)
			return set_problem(problem, PAGE_NOT_JSON,
							   pstrdup("body is not JSON: invalid UTF-8 outside of its programs"));
	}
	return true;
}

static bool
read_page(ProgramPage *page, const JsonToken *object, PageError *problem)
{
	const JsonToken *programs = find_value(object, "payment_programs");

	if (!check_encoding(object, programs, problem) ||
		!read_total(page, find_value(object, "total"), problem))
		return false;
	page->limit = read_echo(find_value(object, "limit"), 1);
	page->offset = read_echo(find_value(object, "offset"), 0);
	page->status = read_word(find_value(object, "program_status"));
	if (programs == NULL)
		return bad_field(problem, "", "payment_programs", "is missing");
	if (programs->type == JSON_NULL)
		return true;
	if (programs->type != JSON_ARRAY)
		return bad_field(problem, "", "payment_programs", "is not an array");
	return read_programs(page, programs, problem);
}

static void
clear_page(ProgramPage *page)
{
	for (int i = 0; i < page->count; i++)
		pfree(page->programs[i].id);
	if (page->programs)
		pfree(page->programs);
	if (page->status)
		pfree(page->status);
	memset(page, 0, sizeof(ProgramPage));
}

bool
program_page_read(ProgramPage *page, const char *text, size_t length,
				  PageError *problem)
{
	static const PageErrorKind kinds[] = {
		[JSON_BROKEN] = PAGE_NOT_JSON,
		[JSON_UNFIT] = PAGE_NOT_A_PAGE,
		[JSON_TOO_LONG] = PAGE_IMPLAUSIBLE
	};
	JsonError	fault;
	JsonToken  *json;
	bool		success;

	memset(page, 0, sizeof(ProgramPage));
	memset(problem, 0, sizeof(PageError));
	json = json_read(text, length, &fault);
	if (json == NULL)
		return set_problem(problem, kinds[fault.kind], fault.message);
	success = read_page(page, json, problem);
	if (!success)
		clear_page(page);
	pfree(json);
	return success;
}
