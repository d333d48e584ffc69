/*
 * program_fields.c
 *	  The members of a program that the extension reads, and their valid
 *	  values.
 *
 * A table of fields defines every member and its type; other members may have
 * any value that jsonb can store.  If a member occurs several times, the last
 * one is used, as in jsonb.
 */
#include "postgres.h"

#include "program_fields.h"

#include <errno.h>
#include <limits.h>

#include "common/int.h"
#include "lib/stringinfo.h"

#include "program_columns.h"

/*
 * Amounts in cents are stored as numeric(14,2), so they must be less than
 * this.
 */
#define CENTS_BOUND INT64CONST(100000000000000)

/* Maximum length of a field name, which is 20 bytes at present */
#define MAX_SPELLED_NAME (20 * JSON_SPELLED_BYTES)

/* Returns what is wrong with a value ("is not ..."), or NULL */
typedef const char *(*FieldCheck) (const JsonToken *value);

struct Shape;

/* A member that the extension reads */
typedef struct Field
{
	const char *name;
	size_t		length;
	FieldCheck	check;			/* for values other than null */
	const struct Shape *inner;	/* of an object, or of an array's first
								 * element */
} Field;

/* Its name and length */
#define NAME(name) name, sizeof(name) - 1

#define MAX_FIELDS 12

/* The members to read from one kind of object */
typedef struct Shape
{
	const char *prefix;			/* prefix of field names in messages */
	Field		fields[MAX_FIELDS]; /* terminated by one without a name */
} Shape;

const char	program_not_integer[] = "is not an integer";
const char	program_out_of_range[] = "is out of range";

/*
 * Where the fields are.
 */

/* The index of the field with this name, or -1. */
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

/* The same for a member's name, which may contain escapes. */
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

/* The value of each field of the object; NULL if missing. */
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

/*
 * What the fields hold.
 */

/* The exponent of the number, with "e" at this place or no exponent at all. */
static int64
read_exponent(const char *at, const char *end)
{
	long		exponent = at < end ? strtol(at + 1, NULL, 10) : 0;

	return Max(Min(exponent, INT_MAX), -INT_MAX);
}

/* The digits as a number times a power of ten; false if that is too large. */
static bool
read_digits(const char *at, const char *end, int64 power, uint64 *number)
{
	bool		overflow = false;

	*number = 0;
	for (; at < end && !overflow; at++)
	{
		if (*at != '.')
			overflow = pg_mul_u64_overflow(*number, 10, number) ||
				pg_add_u64_overflow(*number, *at - '0', number);
	}
	for (; power > 0 && *number > 0 && !overflow; power--)
		overflow = pg_mul_u64_overflow(*number, 10, number);
	return !overflow;
}

/*
 * Parses a number with a fraction or an exponent, without rounding: 100.0 and
 * 1e2 are integers, 9007199254740993.25 is not.
 */
static const char *
read_whole(const JsonToken *value, int64 *integer)
{
	const char *text = value->text;
	const char *end = text + value->length;
	bool		negative = *text == '-';
	const char *exponent = text + strcspn(text, "eE");
	const char *mantissa_end = Min(exponent, end);
	const char *point = memchr(text, '.', mantissa_end - text);
	const char *last = mantissa_end;
	int64		power = read_exponent(mantissa_end, end);
	uint64		limit = (uint64) PG_INT64_MAX + negative;
	uint64		number;

	text += negative;
	if (point)
		power -= mantissa_end - point - 1;
	for (; last > text && (last[-1] == '0' || last[-1] == '.'); last--)
		power += last[-1] == '0';
	*integer = negative ? PG_INT64_MIN : PG_INT64_MAX;
	if (last > text && power < 0)
		return program_not_integer;
	if (!read_digits(text, last, power, &number) || number > limit)
		return program_out_of_range;
	*integer = negative ? (int64) -number : (int64) number;
	return NULL;
}

const char *
program_integer(const JsonToken *value, int64 *integer)
{
	char	   *end;

	if (value->type != JSON_NUMBER)
		return program_not_integer;
	errno = 0;
	*integer = strtoll(value->text, &end, 10);
	if (end != value->text + value->length)
		return read_whole(value, integer);
	return errno == ERANGE ? program_out_of_range : NULL;
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

	return program_integer(value, &integer);
}

static const char *
check_cents(const JsonToken *value)
{
	int64		cents;

	if (program_integer(value, &cents) == program_not_integer)
		return program_not_integer;
	if (cents <= -CENTS_BOUND || cents >= CENTS_BOUND)
		return program_out_of_range;
	return NULL;
}

static const char *
check_date(const JsonToken *value)
{
	char		date[10 * JSON_SPELLED_BYTES];
	int			year;
	int			month;
	int			day;

	return value->type == JSON_STRING &&
		value->length <= (int) sizeof(date) &&
		json_decode(value, date) == 10 &&
		program_date(date, &year, &month, &day) ?
		NULL : "is not a date of the form YYYY-MM-DD";
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

/* Without program_id, which is read before */
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
 * Lists the fields of the object whose values are not valid.  Null is valid
 * for any field, and so is an array whose first element is missing.
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

char *
program_problems(const JsonToken *program)
{
	StringInfoData names;
	char	   *problems = NULL;

	initStringInfo(&names);
	find_problems(program, &program_shape, &names);
	if (names.len > 0)
		problems = pnstrdup(names.data, names.len);
	pfree(names.data);
	return problems;
}
