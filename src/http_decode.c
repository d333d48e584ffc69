/*
 * http_decode.c
 *	  Decode the body of a response.
 *
 * libcurl is not asked to: it would decode nested codings, and return only
 * after all that arrived is decoded, whatever that expands to.
 */
#include "postgres.h"

#include <zlib.h>

#include "http_decode.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/*
 * Bytes to read and to write between two checks for interrupts: empty blocks
 * take time, although nothing is written.
 */
#define STEP_BYTES (64 * 1024)

/* Size of the first buffer, which fits a typical page */
#define MIN_CAPACITY (2 * STEP_BYTES)

/* Window bits of zlib for a gzip header and trailer */
#define GZIP_BITS (16 + MAX_WBITS)

static voidpf
zlib_alloc(pg_attribute_unused() voidpf arg, uInt count, uInt size)
{
	return palloc_extended((Size) count * size, MCXT_ALLOC_NO_OOM);
}

static void
zlib_free(pg_attribute_unused() voidpf arg, voidpf chunk)
{
	pfree(chunk);
}

static HttpError
decode_gzip(const char *data, size_t length, size_t max_length,
			const char **body, size_t *body_length)
{
	z_stream	stream = {.zalloc = zlib_alloc,.zfree = zlib_free};
	size_t		capacity = MIN_CAPACITY;
	char	   *text = palloc(capacity);
	size_t		taken = 0;
	size_t		written = 0;
	int			code = inflateInit2(&stream, GZIP_BITS);

	while (code != Z_STREAM_END || taken < length)
	{
		uInt		step = Min(length - taken, STEP_BYTES);

		CHECK_FOR_INTERRUPTS();
		/* For a step and a NUL */
		if (written + STEP_BYTES >= capacity)
			text = repalloc_huge(text, capacity *= 2);
		if (code == Z_STREAM_END)
			inflateReset(&stream);	/* another member */
		stream.next_in = (Bytef *) unconstify(char *, data) + taken;
		stream.avail_in = step;
		stream.next_out = (Bytef *) text + written;
		stream.avail_out = STEP_BYTES;
		if (code != Z_MEM_ERROR)
			code = inflate(&stream, Z_NO_FLUSH);
		if (code == Z_MEM_ERROR)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory"),
					 errdetail("Failed while decompressing a page.")));
		taken += step - stream.avail_in;
		written += STEP_BYTES - stream.avail_out;
		if (code != Z_OK && code != Z_STREAM_END)
			return HTTP_UNDECODABLE;	/* Z_BUF_ERROR: it is cut off */
		if (written > max_length)
			return HTTP_LARGE_BODY;
	}
	inflateEnd(&stream);
	text[written] = '\0';
	*body = text;
	*body_length = written;
	return HTTP_ANSWERED;
}

static bool
is_one_of(const char *value, const char *one, const char *other)
{
	return pg_strcasecmp(value, one) == 0 || pg_strcasecmp(value, other) == 0;
}

HttpError
http_decode(const char *transfer, const char *coding, const char *data, size_t length,
			size_t max_length, const char **body, size_t *body_length)
{
	if (transfer && !is_one_of(transfer, "chunked", "identity"))
		return HTTP_BAD_CODING;
	if (coding && is_one_of(coding, "gzip", "x-gzip"))
		return decode_gzip(data, length, max_length, body, body_length);
	return coding == NULL || is_one_of(coding, "", "identity") ? HTTP_ANSWERED :
		HTTP_BAD_CODING;
}
