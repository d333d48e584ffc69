/*
 * memory.c
 *	  PostgreSQL's palloc(), all of which is freed after each input.
 *
 * A backend would free it with a memory context.  Here every block is malloc'd
 * separately, so that AddressSanitizer knows where it ends, and kept in a list.
 */
#include "postgres_fe.h"

#include "common/fe_memutils.h"

extern void fuzz_free_all(void);

/* Before each block; keeps its alignment */
typedef struct FuzzBlock
{
	_Alignas(max_align_t)
	struct FuzzBlock *next;
	struct FuzzBlock *previous;
} FuzzBlock;

static FuzzBlock blocks = {.next = &blocks,.previous = &blocks};

static void *
link_block(FuzzBlock *block)
{
	if (block == NULL)
		abort();
	block->next = blocks.next;
	block->previous = &blocks;
	block->next->previous = block;
	blocks.next = block;
	return block + 1;
}

static FuzzBlock *
unlink_block(void *pointer)
{
	FuzzBlock  *block = (FuzzBlock *) pointer - 1;

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it is not freed here */
	block->previous->next = block->next;
	block->next->previous = block->previous;
	return block;
}

void
fuzz_free_all(void)
{
	while (blocks.next != &blocks)
		pfree(blocks.next + 1);
}

void	   *
palloc(Size size)
{
	return link_block(malloc(sizeof(FuzzBlock) + size));
}

void	   *
palloc0(Size size)
{
	return link_block(calloc(1, sizeof(FuzzBlock) + size));
}

void	   *
palloc_extended(Size size, int flags)
{
	return flags & MCXT_ALLOC_ZERO ? palloc0(size) : palloc(size);
}

void	   *
repalloc(void *pointer, Size size)
{
	return link_block(realloc(unlink_block(pointer), sizeof(FuzzBlock) + size));
}

/* Outside of the server it may be NULL: jsonapi.c relies on that. */
void
pfree(void *pointer)
{
	if (pointer)
		free(unlink_block(pointer));
}

char	   *
pnstrdup(const char *in, Size size)
{
	size_t		length = strnlen(in, size);
	char	   *copy = palloc0(length + 1);

	return memcpy(copy, in, length);
}

char	   *
pstrdup(const char *in)
{
	return pnstrdup(in, strlen(in));
}
