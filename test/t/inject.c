/*
 * inject.c
 *	  A library to preload, which makes calls fail: see YelpInject.pm.
 *
 * Calls of libcurl and malloc() count only if the extension makes them; libcurl
 * is given allocation functions of its own.  This works for one process at a
 * time: the one whose ID is in the orders.
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#undef curl_easy_getinfo
#undef curl_easy_setopt
#undef curl_multi_setopt
#undef curl_share_setopt

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A file that is shared with the test; YelpInject.pm knows its layout */
typedef struct Orders
{
	int32_t		pid;			/* the process whose calls fail */
	int32_t		first;			/* the first call that fails, from 1 */
	int32_t		count;			/* how many calls fail */
	int32_t		code;			/* errno, or what libcurl returns */
	char		call[32];

	/* Written by the process */
	int32_t		calls;			/* how many calls there were */
	int32_t		failed;
	int32_t		blocks;			/* blocks of malloc() that the extension and libcurl hold */
} Orders;

typedef struct Range
{
	uintptr_t	start;
	uintptr_t	end;
} Range;

static Orders *orders;
static int32_t blocks;
static Range extension;
static Range server;
static __thread bool saving_session;	/* in libcurl's callback of OpenSSL's */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

/* Something of the server's, where the process is one */
extern int	max_safe_fds __attribute__((weak));

static void __attribute__((constructor))
read_orders(void)
{
	const char *path = getenv("YELP_SYNC_TEST_INJECT");
	int			fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	orders = mmap(NULL, sizeof(Orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (orders == MAP_FAILED)
		orders = NULL;
	close(fd);
}

/* ---- who calls ---- */

/* The object that contains an address */
typedef struct Search
{
	uintptr_t	address;
	Range	   *range;
} Search;

static int
compare_object(struct dl_phdr_info *object, size_t size, void *arg)
{
	Search	   *search = arg;
	Range		range = {UINTPTR_MAX, 0};

	(void) size;
	for (int i = 0; i < object->dlpi_phnum; i++)
	{
		uintptr_t	start = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
		uintptr_t	end = start + object->dlpi_phdr[i].p_memsz;

		if (object->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		range.start = start < range.start ? start : range.start;
		range.end = end > range.end ? end : range.end;
	}
	if (search->address < range.start || search->address >= range.end)
		return 0;
	*search->range = range;
	return 1;
}

static void
find_object(const void *address, Range *range)
{
	Search		search = {(uintptr_t) address, range};

	dl_iterate_phdr(compare_object, &search);
}

static bool
is_in(const void *address, const Range *range)
{
	return (uintptr_t) address >= range->start && (uintptr_t) address < range->end;
}

#define CALLER __builtin_return_address(0)
#define BY_EXTENSION is_in(CALLER, &extension)

static bool
is_ours(void)
{
	return orders && __atomic_load_n(&orders->pid, __ATOMIC_ACQUIRE) == getpid();
}

/* One call of this name: is it to fail? */
static bool
fails(const char *call)
{
	int32_t		number;

	if (!is_ours() || strcmp(orders->call, call) != 0 || saving_session)
		return false;
	number = __atomic_add_fetch(&orders->calls, 1, __ATOMIC_SEQ_CST);
	if (number < orders->first || number - orders->first >= orders->count)
		return false;
	__atomic_add_fetch(&orders->failed, 1, __ATOMIC_SEQ_CST);
	return true;
}

static void *
original(const char *name)
{
	void	   *function = dlsym(RTLD_NEXT, name);

	if (function == NULL)
		abort();
	return function;
}

#define ORIGINAL(function) ((typeof(&(function))) original(#function))

/* ---- memory ---- */

static void
count_blocks(int32_t change)
{
	int32_t		now = __atomic_add_fetch(&blocks, change, __ATOMIC_SEQ_CST);

	if (is_ours())
		orders->blocks = now;
}

static void *
no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

static char *
copy_text(char *copy, const char *text)
{
	return copy ? strcpy(copy, text) : NULL;
}

/*
 * What the extension allocates.  It is not the only one that seems to call
 * free(): pfree() may end with a jump there.
 */

static void *held[4096];
static int	nheld;

static void *
hold(void *block)
{
	if (block && nheld < (int) (sizeof(held) / sizeof(held[0])))
	{
		held[nheld++] = block;
		count_blocks(1);
	}
	return block;
}

static void
release(void *block)
{
	for (int i = 0; i < nheld; i++)
	{
		if (held[i] != block)
			continue;
		held[i] = held[--nheld];
		count_blocks(-1);
		return;
	}
}

#define EXTENSION_FAILS (BY_EXTENSION && fails("extension's memory"))
#define SERVER_FAILS (is_in(CALLER, &server) && fails("server's memory"))

#define ALLOCATE(function, parameters, arguments, failing) \
void * \
function parameters \
{ \
	void	   *block; \
\
	if (failing) \
		return no_memory(); \
	block = __libc_ ## function arguments; \
	return BY_EXTENSION ? hold(block) : block; \
}

ALLOCATE(malloc, (size_t size), (size), EXTENSION_FAILS || SERVER_FAILS)
ALLOCATE(calloc, (size_t count, size_t size), (count, size), EXTENSION_FAILS)

void *
realloc(void *block, size_t size)
{
	void	   *more;

	if (EXTENSION_FAILS || SERVER_FAILS)
		return no_memory();
	more = __libc_realloc(block, size);
	if (!BY_EXTENSION || more == NULL)
		return more;
	release(block);
	return hold(more);
}

char *
strdup(const char *text)
{
	void	   *block;

	if (EXTENSION_FAILS)
		return no_memory();
	block = __libc_malloc(strlen(text) + 1);
	return copy_text(BY_EXTENSION ? hold(block) : block, text);
}

void
free(void *block)
{
	if (BY_EXTENSION)
		release(block);
	__libc_free(block);
}

/* What libcurl allocates */

static void *
curl_calloc(size_t count, size_t size)
{
	void	   *block = fails("libcurl's memory") ? no_memory() : __libc_calloc(count, size);

	count_blocks(block != NULL);
	return block;
}

static void *
curl_malloc(size_t size)
{
	return curl_calloc(1, size);
}

static void *
curl_realloc(void *block, size_t size)
{
	void	   *more = fails("libcurl's memory") ? no_memory() : __libc_realloc(block, size);

	count_blocks(block == NULL && more != NULL);
	return more;
}

static char *
curl_strdup(const char *text)
{
	return copy_text(curl_malloc(strlen(text) + 1), text);
}

static void
curl_release(void *block)
{
	count_blocks(-(block != NULL));
	__libc_free(block);
}

/* ---- libcurl ---- */

/* The extension's first call */
CURLcode
curl_global_init(long flags)
{
	find_object(CALLER, &extension);
	if (&max_safe_fds)
		find_object(&max_safe_fds, &server);
	if (fails("curl_global_init"))
		return orders->code;
	return ORIGINAL(curl_global_init_mem) (flags, curl_malloc, curl_release, curl_realloc,
										   curl_strdup, curl_calloc);
}

#define INIT(type, function) \
type * \
function(void) \
{ \
	return BY_EXTENSION && fails(#function) ? NULL : ORIGINAL(function) (); \
}

INIT(CURL, curl_easy_init)
INIT(CURLM, curl_multi_init)
INIT(CURLSH, curl_share_init)

/* Their only variable argument is as large as a pointer. */
#define SETTER(result, function, handle_type, option_type) \
result \
function(handle_type *handle, option_type option,...) \
{ \
	va_list		arguments; \
	void	   *argument; \
\
	va_start(arguments, option); \
	argument = va_arg(arguments, void *); \
	va_end(arguments); \
	if (BY_EXTENSION && fails(#function)) \
		return orders->code; \
	return ORIGINAL(function) (handle, option, argument); \
}

SETTER(CURLcode, curl_easy_setopt, CURL, CURLoption)
SETTER(CURLcode, curl_easy_getinfo, CURL, CURLINFO)
SETTER(CURLSHcode, curl_share_setopt, CURLSH, CURLSHoption)
SETTER(CURLMcode, curl_multi_setopt, CURLM, CURLMoption)

#define MULTI(function, parameters, arguments) \
CURLMcode \
function parameters \
{ \
	return BY_EXTENSION && fails(#function) ? (CURLMcode) orders->code : ORIGINAL(function) arguments; \
}

MULTI(curl_multi_add_handle, (CURLM *multi, CURL *easy), (multi, easy))
MULTI(curl_multi_remove_handle, (CURLM *multi, CURL *easy), (multi, easy))
MULTI(curl_multi_socket_action, (CURLM *multi, curl_socket_t fd, int what, int *running), (multi, fd, what, running))
MULTI(curl_multi_timeout, (CURLM *multi, long *milliseconds), (multi, milliseconds))

/*
 * Nothing fails while libcurl stores a TLS session: 7.88 frees what it has of it
 * twice when there is no memory for the rest.
 */
static int	(*store_session) (void *ssl, void *session);

static int
store_session_whole(void *ssl, void *session)
{
	int			taken;

	saving_session = true;
	taken = store_session(ssl, session);
	saving_session = false;
	return taken;
}

void
SSL_CTX_sess_set_new_cb(void *context, int (*callback) (void *ssl, void *session))
{
	store_session = callback;
	ORIGINAL(SSL_CTX_sess_set_new_cb) (context, store_session_whole);
}

/* ---- the system ---- */

static bool
system_fails(const char *call)
{
	if (!fails(call))
		return false;
	errno = orders->code;
	return true;
}

#define SYSTEM(function, parameters, arguments, counts) \
int \
function parameters \
{ \
	return counts && system_fails(#function) ? -1 : ORIGINAL(function) arguments; \
}

SYSTEM(socket, (int domain, int type, int protocol), (domain, type, protocol), BY_EXTENSION)
SYSTEM(connect, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length), true)
SYSTEM(epoll_create1, (int flags), (flags), true)
SYSTEM(epoll_ctl, (int set, int what, int fd, struct epoll_event *event), (set, what, fd, event), true)
SYSTEM(timer_create, (clockid_t clock, struct sigevent *event, timer_t *timer), (clock, event, timer), true)

/*
 * elsewhere.example has the stand-in's address, after another one if there is
 * one; looking up stalled.test does not return while a file exists.
 */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	const char *other = getenv("YELP_SYNC_TEST_OTHER_ADDRESS");
	const char *stall = getenv("YELP_SYNC_TEST_STALL");
	struct addrinfo *last;
	int			code;

	if (fails("getaddrinfo"))
		return orders->code;
	if (node && stall && strcmp(node, "stalled.test") == 0)
	{
		while (access(stall, F_OK) == 0)
			usleep(5000);
		return EAI_AGAIN;
	}
	if (node == NULL || strcmp(node, "elsewhere.example") != 0)
		return ORIGINAL(getaddrinfo) (node, service, hints, result);
	code = ORIGINAL(getaddrinfo) (other ? other : "127.0.0.1", service, hints, result);
	if (code != 0 || other == NULL)
		return code;
	for (last = *result; last->ai_next; last = last->ai_next)
		;
	return ORIGINAL(getaddrinfo) ("127.0.0.1", service, hints, &last->ai_next);
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			   void *(*function) (void *), void *argument)
{
	if (fails("pthread_create"))
		return orders->code;
	return ORIGINAL(pthread_create) (thread, attributes, function, argument);
}

/* Is it a file of rows that spilled? */
static bool
is_temporary(int fd)
{
	char		link[64];
	char		path[1024];
	ssize_t		length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return false;
	path[length] = '\0';
	return strstr(path, "/pgsql_tmp/") != NULL;
}

/* The server's writes, by whichever name it calls them */
#define WRITE_FAILS(fd) (is_ours() && is_temporary(fd) && system_fails("write"))

#define WRITE(function, offset_type) \
ssize_t \
function(int fd, const void *bytes, size_t count, offset_type offset) \
{ \
	return WRITE_FAILS(fd) ? -1 : ORIGINAL(function) (fd, bytes, count, offset); \
}

WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
