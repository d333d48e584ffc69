/*
 * http_header.c
 *	  Parse the response headers that are needed.
 */
#include "postgres.h"

#include "http_header.h"

/*
 * Maximum number of content and transfer codings, such as gzip, in a
 * response.  Multiple ones could expand a few bytes to gigabytes.
 */
#define MAX_CODINGS 1

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Copies the value of a header line, without surrounding whitespace. */
static void
copy_value(char *copy, size_t size, const char *value, const char *end)
{
	size_t		length;

	while (value < end && is_blank(*value))
		value++;
	while (end > value && is_blank(end[-1]))
		end--;
	length = Min((size_t) (end - value), size - 1);
	memcpy(copy, value, length);
	copy[length] = '\0';
}

/* The value of the line if it is a header of this name; otherwise NULL. */
static const char *
find_value(const char *line, size_t length, const char *name)
{
	size_t		name_length = strlen(name);

	if (length <= name_length || line[name_length] != ':' ||
		pg_strncasecmp(line, name, name_length) != 0)
		return NULL;
	return line + name_length + 1;
}

static bool
is_word(const char *start, size_t length, const char *word)
{
	return length == strlen(word) && pg_strncasecmp(start, word, length) == 0;
}

/* How many codings a word counts for; an unknown one counts as too many. */
static int
codings_of(const char *word, size_t length)
{
	static const char *const harmless[] = {"", "identity", "chunked"};
	static const char *const known[] = {"gzip", "x-gzip", "deflate"};

	for (int i = 0; i < (int) lengthof(harmless); i++)
	{
		if (is_word(word, length, harmless[i]))
			return 0;
	}
	for (int i = 0; i < (int) lengthof(known); i++)
	{
		if (is_word(word, length, known[i]))
			return 1;
	}
	return MAX_CODINGS + 1;
}

/* Counts the codings that libcurl would decode. */
static int
count_codings(const char *value, const char *end)
{
	int			count = 0;

	while (value < end)
	{
		const char *start = value;

		while (value < end && *value != ',' && !is_blank(*value))
			value++;
		count = Min(count + codings_of(start, value - start), MAX_CODINGS + 1);
		value++;
	}
	return count;
}

void
http_header_note(HttpHeaders *headers, const char *line, size_t length)
{
	const char *end = line + length;
	const char *value;

	headers->bytes += length;
	if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		/*
		 * A final response follows an interim one, such as 103, with its own
		 * headers
		 */
		headers->retry_after[0] = headers->date[0] = '\0';
		headers->ncodings = 0;
	}
	if ((value = find_value(line, length, "retry-after")) != NULL)
		copy_value(headers->retry_after, sizeof(headers->retry_after), value, end);
	else if ((value = find_value(line, length, "date")) != NULL)
		copy_value(headers->date, sizeof(headers->date), value, end);
	else if ((value = find_value(line, length, "content-encoding")) != NULL ||
			 (value = find_value(line, length, "transfer-encoding")) != NULL)
		headers->ncodings = Min(headers->ncodings + count_codings(value, end),
								MAX_CODINGS + 1);
}

bool
http_header_is_miscoded(const HttpHeaders *headers)
{
	return headers->ncodings > MAX_CODINGS;
}
