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

/* Largest buffer kept for the next body */
#define KEPT_BYTES (512 * 1024)

/* Window bits of zlib for a gzip header and trailer */
#define GZIP_BITS (16 + MAX_WBITS)

struct HttpDecoder
{
	MemoryContext context;		/* of everything, zlib's memory included */
	z_stream	stream;
	char	   *text;
	size_t		capacity;
};

static voidpf
zlib_alloc(voidpf context, uInt count, uInt size)
{
	return MemoryContextAllocExtended(context, (Size) count * size, MCXT_ALLOC_NO_OOM);
}

static void
zlib_free(pg_attribute_unused() voidpf context, voidpf chunk)
{
	pfree(chunk);
}

static void
reject_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("Failed while decompressing a page.")));
}

HttpDecoder *
http_decode_create(void)
{
	HttpDecoder *decoder = palloc0(sizeof(HttpDecoder));

	decoder->context = CurrentMemoryContext;
	decoder->stream.zalloc = zlib_alloc;
	decoder->stream.zfree = zlib_free;
	decoder->stream.opaque = decoder->context;
	if (inflateInit2(&decoder->stream, GZIP_BITS) != Z_OK)
		reject_memory();
	return decoder;
}

/* Makes room for a step and a NUL. */
static void
make_room(HttpDecoder *decoder, size_t length)
{
	if (length + STEP_BYTES < decoder->capacity)
		return;
	if (decoder->text == NULL)
	{
		decoder->capacity = 4 * STEP_BYTES;
		decoder->text = MemoryContextAlloc(decoder->context, decoder->capacity);
	}
	else
	{
		decoder->text = repalloc_huge(decoder->text, 2 * decoder->capacity);
		decoder->capacity *= 2;
	}
}

HttpDecoded
http_decode_gzip(HttpDecoder *decoder, const char *data, size_t length, size_t max_length,
				 const char **body, size_t *body_length)
{
	z_stream   *stream = &decoder->stream;
	size_t		taken = 0;
	size_t		written = 0;
	int			code = Z_OK;

	if (decoder->capacity > KEPT_BYTES)
	{
		pfree(decoder->text);
		decoder->text = NULL;
		decoder->capacity = 0;
	}
	inflateReset(stream);
	while (code != Z_STREAM_END || taken < length)
	{
		uInt		step = Min(length - taken, STEP_BYTES);

		CHECK_FOR_INTERRUPTS();
		make_room(decoder, written);
		if (code == Z_STREAM_END)
			inflateReset(stream);	/* another member */
		stream->next_in = (Bytef *) unconstify(char *, data) + taken;
		stream->avail_in = step;
		stream->next_out = (Bytef *) decoder->text + written;
		stream->avail_out = STEP_BYTES;
		code = inflate(stream, Z_NO_FLUSH);
		taken += step - stream->avail_in;
		written += STEP_BYTES - stream->avail_out;
		if (code == Z_MEM_ERROR)
			reject_memory();
		if (code != Z_OK && code != Z_STREAM_END)
			return DECODE_BROKEN;	/* Z_BUF_ERROR: it is cut off */
		if (written > max_length)
			return DECODE_LARGE;
	}
	decoder->text[written] = '\0';
	*body = decoder->text;
	*body_length = written;
	return DECODED;
}
