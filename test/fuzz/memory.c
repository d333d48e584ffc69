/*
 * memory.c
 *	  PostgreSQL's palloc(), freed as a whole after each input.
 *
 * In a backend a memory context frees what a page took.  Here every block is
 * malloc'd on its own, so that AddressSanitizer sees where it ends, and kept in
 * a list.
 */
#include "postgres_fe.h"

#include "common/fe_memutils.h"

extern void fuzz_free_all(void);

/* In front of each block; keeps its alignment */
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

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is in the list is not freed */
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

/* In programs outside of the server it may be NULL, of which jsonapi.c makes use. */
void
pfree(void *pointer)
{
	if (pointer == NULL)
		return;
	free(unlink_block(pointer));
}

char	   *
pnstrdup(const char *in, Size size)
{
	size_t		length = strnlen(in, size);
	char	   *copy = palloc(length + 1);

	memcpy(copy, in, length);
	copy[length] = '\0';
	return copy;
}

char	   *
pstrdup(const char *in)
{
	return pnstrdup(in, strlen(in));
}
