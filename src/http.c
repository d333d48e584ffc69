/*
 * http.c
 *	  Concurrent HTTP GET requests in a backend; each is a single attempt.
 *
 * There are two lifetimes.  The pool (http_wait.c) keeps connections from one
 * sync to the next, in malloc'd memory.  A client lives for one sync, in the
 * memory context it was created in; each of its requests has an easy handle.
 * If the context is reset while the client is open, an error is being
 * handled, and the pool is destroyed as well, because unfinished transfers
 * leave nothing worth keeping.
 *
 * No error is thrown through a libcurl stack frame: after a longjmp out of a
 * callback, the multi handle refuses all further calls, including cleanup.
 * Callbacks only record what happened and return a short count.  Errors are
 * raised, and interrupts are processed, after libcurl has returned.
 *
 * libcurl would start one thread per request to resolve the same name.
 * Therefore one request is sent first, and the others are held until its name
 * is resolved; if that fails, they fail as well.  After a connection could not
 * be made, the next request resolves the name anew.
 *
 * A name may have several addresses.  One that failed is avoided until all
 * others have failed as well, and a connection that fails before anything was
 * sent over it is made again at another address, as the same attempt.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <sys/stat.h>

#include "http.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "compat.h"
#include "http_decode.h"
#include "http_wait.h"

#define USER_AGENT "yelp_sync/" YELP_SYNC_VERSION

/* The system's certificates take about 200 kB */
#define MAX_CA_BYTES (10 * 1024 * 1024)

/* Size of libcurl's receive buffers: fits a typical page */
#define RECEIVED_BYTES (32 * 1024)

/*
 * Maximum size of a response's headers; a server that sends more will not
 * stop.
 */
#define MAX_HEADER_BYTES (256 * 1024)

/* Initial size of a body's buffer, and the largest one kept for reuse */
#define BODY_BYTES (16 * 1024)
#define KEPT_BODY_BYTES (128 * 1024)

/*
 * All bodies together may use twice the limit of one body, but at least this:
 * pages are usually much smaller than their limit.  Beyond that, requests are
 * paused.
 */
#define MIN_BUFFERED (32 * 1024 * 1024)

/* How long the only request that may go on may receive nothing */
#define STALL_US (200 * USECS_PER_MSEC)

/* libcurl itself usually ends a request that takes too long */
#define GRACE_US (50 * USECS_PER_MSEC)

/* To connect to a host that was down for another account just before */
#define DOWN_CONNECT_TIMEOUT 2000

#define MAX_AVOIDED 8

#define PROXY_AUTHENTICATION_REQUIRED 407

/* OpenSSL certificate verification results */
#define X509_FINE 0
#define X509_NONE_YET 1

typedef enum HttpRequestState
{
	REQUEST_FREE = 0,
	REQUEST_HELD,				/* until the name is resolved */
	REQUEST_RUNNING
} HttpRequestState;

typedef struct HttpRequest
{
	int			slot;
	CURL	   *easy;			/* NULL until the slot is used */
	HttpRequestState state;
	HttpClient *client;
	int64		deadline;		/* by clock_us */

	/* How far it has come */
	bool		resolved;		/* the name is resolved */
	bool		connected;		/* connected, perhaps without TLS */
	bool		ready;			/* ready for use */
	bool		paused;			/* waits for room */

	/* The response */
	size_t		header_bytes;
	char	   *body;			/* malloc'd */
	size_t		length;
	size_t		capacity;

	/* What went wrong */
	HttpError	failure;		/* recorded by a callback, or HTTP_ANSWERED */
	bool		no_memory;
	bool		avoided;		/* an address was not tried */
	int			reruns;			/* within the same attempt */
	HttpResponse first_failure; /* at another address, if it has a message */
	char		message[CURL_ERROR_SIZE];
} HttpRequest;

struct HttpClient
{
	const Account *account;
	MemoryContext context;
	HttpRequest *requests;
	HttpDecoder *decoder;
	bool		open;
	bool		silent;			/* a kept connection timed out */
	bool		plain;			/* http, not https */
	bool		https_proxy;

	/* The name look-up shared by all requests */
	bool		resolved;
	HttpRequest *resolving;
	bool		resolve_anew;
	char	   *resolve_failure;	/* while held requests fail as well, or NULL */
	int			nheld;

	/* Hosts that cannot be reached */
	char		avoided[MAX_AVOIDED][INET6_ADDRSTRLEN];
	int			navoided;
	bool		reached;		/* any connection was ready */
	bool		unreachable;	/* a connection could not be made */
	bool		down;			/* the host was down just before */

	/* Bodies received in whole or in part and not yet processed */
	size_t		buffered;
	size_t		max_buffered;
	int			npaused;
	HttpRequest *preferred;		/* may exceed the maximum, or NULL */
	size_t		preferred_length;	/* when it was last looked at */
	int64		preferred_at;

	HttpRequest *handed_out;	/* last response returned, or NULL */
	int64		received_bytes;
	MemoryContextCallback cleanup;
};

/* The open client, or NULL */
static HttpClient *open_client;

/*
 * The route over which nothing could be reached, and when the statement began
 * in which that was noticed
 */
static char *down_route;
static TimestampTz down_in;

/* ---- options ---- */

/*
 * Sets an option, or raises an error: without it, the request could ask for
 * something else, or trust the wrong host.
 */
#define CURL_SET(easy, option, value) \
	check_option(curl_easy_setopt(easy, option, value), #option)

static void
check_option(CURLcode code, const char *option)
{
	if (code == CURLE_OK)
		return;
	if (code == CURLE_OUT_OF_MEMORY)
		http_wait_reject_memory();
	ereport(ERROR,
			(errcode(ERRCODE_FDW_ERROR),
			 errmsg("could not set libcurl option %s: %s", option,
					curl_easy_strerror(code)),
			 errdetail("The library is %s.", curl_version())));
}

static void
set_connection(CURL *easy, const HttpClient *client)
{
	const Account *account = client->account;
	bool		http2 = account->http_version == HTTP_VERSION_2;

	CURL_SET(easy, CURLOPT_NOSIGNAL, 1L);
	CURL_SET(easy, CURLOPT_BUFFERSIZE, (long) RECEIVED_BYTES);
	CURL_SET(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long) (client->down ? Min(account->connect_timeout, DOWN_CONNECT_TIMEOUT) :
					 account->connect_timeout));
	CURL_SET(easy, CURLOPT_FOLLOWLOCATION, 0L);
	check_option(compat_limit_protocols(easy), "CURLOPT_PROTOCOLS");
	check_option(compat_quick_exit(easy), "CURLOPT_QUICK_EXIT");
	CURL_SET(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);

	/* If unset, libcurl would look at the environment */
	CURL_SET(easy, CURLOPT_PROXY, account->proxy ? account->proxy : "");
	CURL_SET(easy, CURLOPT_NOPROXY, "");
	CURL_SET(easy, CURLOPT_PROXYAUTH, (long) CURLAUTH_BASIC);
	CURL_SET(easy, CURLOPT_SOCKS5_AUTH, (long) CURLAUTH_BASIC);
	if (account->proxy && account->proxy_user)
	{
		CURL_SET(easy, CURLOPT_PROXYUSERNAME, account->proxy_user);
		CURL_SET(easy, CURLOPT_PROXYPASSWORD, account->proxy_password);
	}
	CURL_SET(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	CURL_SET(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	CURL_SET(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	CURL_SET(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	CURL_SET(easy, CURLOPT_PROXY_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	CURL_SET(easy, CURLOPT_SHARE, http_pool.share);
	if (account->ca_file)
	{
		CURL_SET(easy, CURLOPT_CAINFO, account->ca_file);
		CURL_SET(easy, CURLOPT_PROXY_CAINFO, account->ca_file);
	}
	CURL_SET(easy, CURLOPT_HTTP_VERSION,
			 (long) (http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
	/* On plain HTTP, this would serialize the requests */
	if (http2 && !client->plain)
		CURL_SET(easy, CURLOPT_PIPEWAIT, 1L);
}

static void
set_request(CURL *easy, const Account *account)
{
	CURL_SET(easy, CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
	CURL_SET(easy, CURLOPT_USERNAME, account->username);
	CURL_SET(easy, CURLOPT_PASSWORD, account->password);
	CURL_SET(easy, CURLOPT_USERAGENT, USER_AGENT);
	/* Decoding is ours: http_decode.c */
	CURL_SET(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
	CURL_SET(easy, CURLOPT_HTTPHEADER, http_pool.headers);
}

/* ---- callbacks: record what happened, raise no errors ---- */

static HttpRequest *
request_of(CURL *easy)
{
	HttpRequest *request = NULL;

	(void) curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request);
	return request;
}

static bool
is_avoided(const HttpClient *client, const char *ip)
{
	for (int i = 0; i < client->navoided; i++)
	{
		if (strcmp(client->avoided[i], ip) == 0)
			return true;
	}
	return false;
}

static curl_socket_t
open_socket(void *arg, pg_attribute_unused() curlsocktype purpose,
			struct curl_sockaddr *address)
{
	HttpRequest *request = arg;
	char		ip[INET6_ADDRSTRLEN] = "";
	int			fd;

	request->resolved = true;
	if (address->family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *) &address->addr)->sin_addr, ip, sizeof(ip));
	else if (address->family == AF_INET6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *) &address->addr)->sin6_addr, ip, sizeof(ip));
	if (is_avoided(request->client, ip))
	{
		request->avoided = true;
		return CURL_SOCKET_BAD;
	}
	fd = http_wait_open_socket(address);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		request->failure = HTTP_NO_SOCKET;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* Behind a proxy, that is not yet the connection to the API. */
static void
note_connected(CURL *easy)
{
	HttpRequest *request = request_of(easy);

	if (request && request->client->account->proxy == NULL)
		request->connected = true;
}

/* A new or a kept connection is established. */
static int
note_ready(void *arg, pg_attribute_unused() char *remote_ip,
		   pg_attribute_unused() char *local_ip,
		   pg_attribute_unused() int remote_port,
		   pg_attribute_unused() int local_port)
{
	HttpRequest *request = arg;

	request->ready = true;
	request->client->reached = true;
	return CURL_PREREQFUNC_OK;
}

static bool
grow_body(HttpRequest *request, size_t length)
{
	size_t		capacity = Max(request->capacity, BODY_BYTES);
	char	   *body;

	if (length < request->capacity)
		return true;
	while (capacity <= length)
		capacity *= 2;
	body = realloc(request->body, capacity);
	if (body == NULL)
	{
		request->no_memory = true;
		return false;
	}
	request->body = body;
	request->capacity = capacity;
	return true;
}

static size_t
receive_body(char *data, size_t size, size_t count, void *arg)
{
	HttpRequest *request = arg;
	HttpClient *client = request->client;
	size_t		added = size * count;

	if (request->length + added > (size_t) client->account->max_page_bytes)
	{
		request->failure = HTTP_LARGE_BODY;
		return 0;
	}
	if (client->buffered + added > client->max_buffered && client->preferred != request)
	{
		client->npaused += !request->paused;
		request->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (!grow_body(request, request->length + added))
		return 0;
	memcpy(request->body + request->length, data, added);
	request->length += added;
	client->buffered += added;
	return added;
}

static size_t
receive_header(pg_attribute_unused() char *data, size_t size, size_t count, void *arg)
{
	HttpRequest *request = arg;

	request->header_bytes += size * count;
	if (request->header_bytes <= MAX_HEADER_BYTES)
		return size * count;
	request->failure = HTTP_LARGE_HEADERS;
	return 0;
}

/* ---- a request ---- */

static void
prepare_request(HttpRequest *request)
{
	CURL	   *easy = request->easy = curl_easy_init();

	if (easy == NULL)
		http_wait_reject_memory();
	set_connection(easy, request->client);
	set_request(easy, request->client->account);
	CURL_SET(easy, CURLOPT_PRIVATE, request);
	CURL_SET(easy, CURLOPT_ERRORBUFFER, request->message);
	CURL_SET(easy, CURLOPT_WRITEFUNCTION, receive_body);
	CURL_SET(easy, CURLOPT_WRITEDATA, request);
	CURL_SET(easy, CURLOPT_HEADERFUNCTION, receive_header);
	CURL_SET(easy, CURLOPT_HEADERDATA, request);
	CURL_SET(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	CURL_SET(easy, CURLOPT_OPENSOCKETDATA, request);
	CURL_SET(easy, CURLOPT_CLOSESOCKETFUNCTION, http_wait_close_socket);
	CURL_SET(easy, CURLOPT_PREREQFUNCTION, note_ready);
	CURL_SET(easy, CURLOPT_PREREQDATA, request);
}

/* Forgets how far it came; a buffer of normal size is kept. */
static void
reset_request(HttpRequest *request)
{
	HttpClient *client = request->client;

	client->npaused -= request->paused;
	client->buffered -= request->length;
	if (client->preferred == request)
		client->preferred = NULL;
	if (request->capacity > KEPT_BODY_BYTES)
	{
		free(request->body);
		request->body = NULL;
		request->capacity = 0;
	}
	request->length = 0;
	request->header_bytes = 0;
	request->resolved = request->connected = request->ready = request->paused = false;
	request->failure = HTTP_ANSWERED;
	request->no_memory = request->avoided = false;
	request->reruns = 0;
	request->message[0] = '\0';
}

/*
 * How far a request has come, according to the callbacks. libcurl's own times
 * are unreliable, because some versions set them when a request fails.
 */
static HttpStage
stage_of(HttpRequest *request)
{
	long		sent = 0;

	curl_easy_getinfo(request->easy, CURLINFO_REQUEST_SIZE, &sent);
	if (request->ready)
		return sent > 0 ? HTTP_RECEIVE : HTTP_SEND;
	if (request->connected)
		return HTTP_TLS;
	return request->resolved ? HTTP_CONNECT : HTTP_RESOLVE;
}

/* ---- opening and closing ---- */

static char *
route_of(const Account *account)
{
	if (account->proxy == NULL)
		return pstrdup(account->endpoint);
	return psprintf("%s %s %s:%s", account->endpoint, account->proxy,
					account->proxy_user ? account->proxy_user : "",
					account->proxy_password ? account->proxy_password : "");
}

/* Was the host down for another account of the same statement? */
static bool
is_down(const char *route)
{
	return down_route && strcmp(down_route, route) == 0 &&
		down_in == GetCurrentStatementStartTimestamp();
}

static void
note_whether_down(const HttpClient *client)
{
	if (!client->reached && !client->unreachable)
		return;
	free(down_route);
	down_route = client->reached ? NULL : strdup(http_pool.route);
	down_in = GetCurrentStatementStartTimestamp();
}

static void
free_requests(HttpClient *client)
{
	for (int i = 0; i < client->account->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->state == REQUEST_RUNNING)
			http_wait_remove(request->easy);
		curl_easy_cleanup(request->easy);
		free(request->body);
	}
	note_whether_down(client);
	client->open = false;
	open_client = NULL;
}

/* Context reset callback; has nothing to do after http_close. */
static void
clean_up(void *arg)
{
	HttpClient *client = arg;

	if (!client->open)
		return;
	free_requests(client);
	http_wait_destroy();
}

void
http_release(void)
{
	if (open_client)
		clean_up(open_client);
}

/* Opening a FIFO could block forever, and reading a huge file take as long. */
static void
check_ca_file(const char *path)
{
	struct stat status;

	if (stat(path, &status) == 0 &&
		(!S_ISREG(status.st_mode) || status.st_size > MAX_CA_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("ca_file \"%s\" is not a regular file of at most %d MB",
						path, MAX_CA_BYTES / (1024 * 1024)),
				 errhint("The server option ca_file must name a file of PEM certificates.")));
}

HttpClient *
http_open(const Account *account)
{
	HttpClient *client;
	char	   *route = route_of(account);

	if (open_client)
		elog(ERROR, "an HTTP client is already open");
	if (account->ca_file)
		check_ca_file(account->ca_file);
	client = palloc0(sizeof(HttpClient));
	client->account = account;
	client->context = CurrentMemoryContext;
	client->plain = pg_strncasecmp(account->endpoint, "http:", 5) == 0;
	client->https_proxy = account->proxy &&
		pg_strncasecmp(account->proxy, "https:", 6) == 0;
	client->down = is_down(route);
	client->max_buffered = Max(2 * (size_t) account->max_page_bytes, MIN_BUFFERED);
	client->decoder = http_decode_create();
	client->requests = palloc0(account->concurrency * sizeof(HttpRequest));
	for (int i = 0; i < account->concurrency; i++)
	{
		client->requests[i].slot = i;
		client->requests[i].client = client;
	}
	http_wait_prepare(route, account->concurrency, note_connected);
	client->open = true;
	open_client = client;
	client->cleanup.func = clean_up;
	client->cleanup.arg = client;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &client->cleanup);
	return client;
}

/*
 * If a connection has gone silent, others that were opened at the same time
 * may have as well, even if they seem to be alive: keep none of them.
 */
void
http_close(HttpClient *client)
{
	free_requests(client);
	if (client->silent)
		http_wait_destroy();
	else
		http_wait_rest();
}

int64
http_received_bytes(const HttpClient *client)
{
	return client->received_bytes;
}

/* ---- starting ---- */

/* The last response returned has been processed. */
static void
forget_last(HttpClient *client)
{
	if (client->handed_out)
		reset_request(client->handed_out);
	client->handed_out = NULL;
}

static void
run_request(HttpRequest *request)
{
	int64		left = request->deadline - clock_us();

	CURL_SET(request->easy, CURLOPT_TIMEOUT_MS, (long) Max(left / USECS_PER_MSEC, 1));
	http_wait_add(request->easy);
	request->state = REQUEST_RUNNING;
}

void
http_start(HttpClient *client, int slot, const char *url, bool new_connection)
{
	HttpRequest *request = &client->requests[slot];
	bool		alone = !client->resolved && client->resolving == NULL;

	Assert(request->state == REQUEST_FREE);
	forget_last(client);
	if (request->easy == NULL)
		prepare_request(request);
	CURL_SET(request->easy, CURLOPT_URL, url);
	CURL_SET(request->easy, CURLOPT_FRESH_CONNECT, new_connection ? 1L : 0L);
	CURL_SET(request->easy, CURLOPT_DNS_CACHE_TIMEOUT,
			 alone && client->resolve_anew ? 0L : 60L);
	request->deadline = clock_us() + client->account->timeout * USECS_PER_MSEC;
	memset(&request->first_failure, 0, sizeof(HttpResponse));
	if (alone)
		client->resolving = request;
	if (client->resolved || alone)
		run_request(request);
	else
	{
		request->state = REQUEST_HELD;
		client->nheld++;
	}
}

void
http_abandon(HttpClient *client, int slot)
{
	HttpRequest *request = &client->requests[slot];

	Assert(request->state != REQUEST_FREE);
	if (request->state == REQUEST_RUNNING)
		http_wait_remove(request->easy);
	else
		client->nheld--;
	if (client->resolving == request)
		client->resolving = NULL;
	request->state = REQUEST_FREE;
	reset_request(request);
}

/* ---- waiting ---- */

/* Once the name is resolved, sends the held requests. */
static void
run_held(HttpClient *client)
{
	if (client->resolving && stage_of(client->resolving) != HTTP_RESOLVE)
	{
		client->resolved = true;
		client->resolve_anew = false;
		client->resolving = NULL;
	}
	if (!client->resolved || client->nheld == 0)
		return;
	for (int i = 0; i < client->account->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->state != REQUEST_HELD)
			continue;
		request->deadline = clock_us() + client->account->timeout * USECS_PER_MSEC;
		run_request(request);
	}
	client->nheld = 0;
	http_wait_pump();
}

static void
resume(HttpRequest *request)
{
	request->paused = false;
	request->client->npaused--;
	http_wait_resume(request->easy);
}

/*
 * Lets paused requests go on as far as there is room.  If only paused ones
 * occupy it, one of them may exceed it.  Over HTTP/2, another one may be in
 * its way: so they take turns.
 */
static void
resume_paused(HttpClient *client)
{
	HttpRequest *preferred = client->preferred;
	HttpRequest *next = NULL;

	for (int i = 0; i < client->account->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->paused && client->buffered + RECEIVED_BYTES <= client->max_buffered)
			resume(request);
		if (request->paused && (next == NULL || (next <= preferred && request > preferred)))
			next = request;
	}
	if (preferred && preferred->length > client->preferred_length)
	{
		client->preferred_length = preferred->length;
		client->preferred_at = clock_us();
	}
	if (next && (preferred == NULL || clock_us() - client->preferred_at > STALL_US))
	{
		client->preferred = next;
		client->preferred_length = next->length;
		client->preferred_at = clock_us();
		resume(next);
	}
}

/* Tells http_wait.c what it has to know about the requests. */
static void
sum_up(const HttpClient *client)
{
	http_pool.deadline = PG_INT64_MAX;
	http_pool.connecting = false;
	for (int i = 0; i < client->account->concurrency; i++)
	{
		const HttpRequest *request = &client->requests[i];

		if (request->state != REQUEST_RUNNING)
			continue;
		http_pool.deadline = Min(http_pool.deadline, request->deadline + GRACE_US);
		http_pool.connecting |= request->resolved && !request->ready;
	}
}

void
http_wait(HttpClient *client, int64 deadline)
{
	forget_last(client);
	if (client->resolve_failure)
		return;
	if (client->npaused > 0)
	{
		resume_paused(client);
		deadline = Min(deadline, clock_us() + STALL_US);
	}
	run_held(client);
	sum_up(client);
	http_wait_until(deadline);
	CHECK_FOR_INTERRUPTS();
	run_held(client);
}

/* ---- the result ---- */

static long
long_info(CURL *easy, CURLINFO info, long otherwise)
{
	long		value = otherwise;

	return curl_easy_getinfo(easy, info, &value) == CURLE_OK ? value : otherwise;
}

static const char *
text_info(CURL *easy, CURLINFO info)
{
	char	   *value = NULL;

	return curl_easy_getinfo(easy, info, &value) == CURLE_OK ? value : NULL;
}

/* The last value of a header of the final response, or NULL; sets how many. */
static const char *
header(CURL *easy, const char *name, size_t *count)
{
	struct curl_header *found;

	*count = 0;
	if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) != CURLHE_OK)
		return NULL;
	*count = found->amount;
	if (curl_easy_header(easy, name, *count - 1, CURLH_HEADER, -1, &found) != CURLHE_OK)
		return NULL;
	return found->value;
}

/*
 * The target of a redirect without potential secrets: credentials, which
 * libcurl adds to a relative target, query and fragment.
 */
static const char *
redirect_target(CURL *easy)
{
	static const CURLUPart secret[] = {
		CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS, CURLUPART_QUERY,
		CURLUPART_FRAGMENT
	};
	const char *target = text_info(easy, CURLINFO_REDIRECT_URL);
	CURLU	   *url = target ? curl_url() : NULL;
	char	   *shown = NULL;
	char	   *copy = NULL;

	if (url && curl_url_set(url, CURLUPART_URL, target, 0) == CURLUE_OK)
	{
		for (int i = 0; i < (int) lengthof(secret); i++)
			curl_url_set(url, secret[i], NULL, 0);
		curl_url_get(url, CURLUPART_URL, &shown, 0);
	}
	curl_url_cleanup(url);
	if (shown)
		copy = MemoryContextAllocExtended(CurrentMemoryContext, strlen(shown) + 1,
										  MCXT_ALLOC_NO_OOM);
	if (copy)
		memcpy(copy, shown, strlen(shown) + 1);
	curl_free(shown);
	return copy;
}

static bool
is_tls_error(CURLcode code)
{
	switch (code)
	{
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ENGINE_INITFAILED:
		case CURLE_SSL_CONNECT_ERROR:
			return true;
		default:
			return false;
	}
}

/* Was the connection closed before any part of a response arrived? */
static bool
is_lost(CURLcode code)
{
	return code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
		code == CURLE_GOT_NOTHING || code == CURLE_HTTP2;
}

/*
 * Whose certificate it is: an https proxy's, until the tunnel is open.  If
 * only its host is wrong, OpenSSL's result is 0, or the initial value set by
 * libcurl 7.88.
 */
static HttpError
certificate_error(HttpRequest *request, CURLcode code)
{
	bool		at_proxy = request->client->https_proxy &&
		long_info(request->easy, CURLINFO_HTTP_CONNECTCODE, 0) == 0;
	long		result = long_info(request->easy, at_proxy ? CURLINFO_PROXY_SSL_VERIFYRESULT :
								   CURLINFO_SSL_VERIFYRESULT, -1);
	bool		trusted = code == CURLE_PEER_FAILED_VERIFICATION &&
		(result == X509_FINE || result == X509_NONE_YET);

	if (at_proxy)
		return trusted ? HTTP_WRONG_PROXY : HTTP_UNTRUSTED_PROXY;
	return trusted ? HTTP_WRONG_HOST : HTTP_UNTRUSTED;
}

/* What libcurl's error code means at a stage; what a callback saw says more. */
static HttpError
classify(HttpRequest *request, CURLcode code, HttpStage stage)
{
	/* Another address may have been able to get a socket */
	if (request->failure != HTTP_ANSWERED &&
		(request->failure != HTTP_NO_SOCKET || stage < HTTP_SEND))
		return request->failure;
	if (code == CURLE_OK)
		return HTTP_ANSWERED;
	if (code == CURLE_SSL_CACERT_BADFILE)
		return HTTP_BAD_CA_FILE;
	if (stage == HTTP_RECEIVE && code == COMPAT_CURLE_TOO_LARGE)
		return code == CURLE_OUT_OF_MEMORY ? HTTP_NO_ROOM : HTTP_LARGE_HEADERS;
	if (code == CURLE_OUT_OF_MEMORY)
		http_wait_reject_memory();
	/* A TLS handshake may fail because the connection does */
	if (is_tls_error(code) && code != CURLE_SSL_CONNECT_ERROR)
		return certificate_error(request, code);
	return stage >= HTTP_SEND ? HTTP_BROKEN : HTTP_UNREACHABLE;
}

static void
describe(HttpRequest *request, CURLcode code, HttpResponse *response)
{
	CURL	   *easy = request->easy;
	long		tunnel = long_info(easy, CURLINFO_HTTP_CONNECTCODE, 0);
	bool		kept = request->ready && long_info(easy, CURLINFO_NUM_CONNECTS, 1) == 0;
	size_t		count;

	memset(response, 0, sizeof(HttpResponse));
	response->slot = request->slot;
	response->status = (int) long_info(easy, CURLINFO_RESPONSE_CODE, 0);
	response->plain = request->client->plain;
	response->down = request->client->down && !request->client->reached;
	response->content_type = text_info(easy, CURLINFO_CONTENT_TYPE);
	response->redirect = redirect_target(easy);
	response->retry_after = header(easy, "Retry-After", &count);
	response->date = header(easy, "Date", &count);
	response->rate_reset = header(easy, "RateLimit-Reset", &count);
	if (response->rate_reset == NULL)
		response->rate_reset = header(easy, "X-RateLimit-Reset", &count);
	response->stage = is_tls_error(code) ? HTTP_TLS : stage_of(request);
	response->failure = classify(request, code, response->stage);
	if (tunnel == PROXY_AUTHENTICATION_REQUIRED)
	{
		response->stage = HTTP_CONNECT;
		response->failure = HTTP_DENIED_BY_PROXY;
	}
	response->message = request->message[0] ? request->message : curl_easy_strerror(code);
	response->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	if (code != CURLE_OK && request->failure == HTTP_ANSWERED && !response->timed_out &&
		clock_us() >= request->deadline)
	{
		response->timed_out = true;
		response->message = "The connection was shut down, because the peer did not stop sending";
	}
	response->lost_kept = kept && response->status == 0 && is_lost(code);
	response->refused = !kept && response->status == 0 && response->stage != HTTP_RESOLVE &&
		(code == CURLE_COULDNT_CONNECT || code == CURLE_SSL_CONNECT_ERROR || is_lost(code));
	if (code == CURLE_COULDNT_CONNECT)
		response->os_error = (int) long_info(easy, CURLINFO_OS_ERRNO, 0);
	request->client->silent |= kept && response->timed_out;
	if (request->no_memory || !grow_body(request, request->length + 1))
		http_wait_reject_memory();
	request->body[request->length] = '\0';
	response->body = request->body;
	response->length = request->length;
}

static bool
is_one_of(const char *value, const char *one, const char *other)
{
	return value == NULL || value[0] == '\0' || pg_strcasecmp(value, one) == 0 ||
		pg_strcasecmp(value, other) == 0;
}

/* At most one coding of the body, and none of its transfer but chunks. */
static HttpError
decode_body(HttpRequest *request, HttpResponse *response)
{
	size_t		count;
	const char *transfer = header(request->easy, "Transfer-Encoding", &count);
	const char *coding = header(request->easy, "Content-Encoding", &count);

	if (!is_one_of(transfer, "chunked", "identity") || count > 1)
		return HTTP_BAD_CODING;
	if (is_one_of(coding, "identity", "identity"))
		return HTTP_ANSWERED;
	if (!is_one_of(coding, "gzip", "x-gzip"))
		return HTTP_BAD_CODING;
	switch (http_decode_gzip(request->client->decoder, request->body, request->length,
							 request->client->account->max_page_bytes,
							 &response->body, &response->length))
	{
		case DECODED:
			return HTTP_ANSWERED;
		case DECODE_BROKEN:
			response->message = "The gzip data is damaged or cut off";
			return HTTP_UNDECODABLE;
		case DECODE_LARGE:
			return HTTP_LARGE_BODY;
	}
	pg_unreachable();
}

/* A status that is an error has its say, whatever is wrong with the body. */
static void
read_body(HttpRequest *request, HttpResponse *response)
{
	bool		rejected = request->ready && response->status >= 200 && response->status != 200;

	if (response->failure != HTTP_ANSWERED && !rejected)
		return;
	if (response->failure == HTTP_ANSWERED && request->length > 0)
		response->failure = decode_body(request, response);
	if (response->failure != HTTP_ANSWERED)
	{
		response->body = "";
		response->length = 0;
	}
	if (rejected)
		response->failure = HTTP_ANSWERED;
}

/* ---- other addresses ---- */

/* Avoids the request's address from now on; false if that is unknown. */
static bool
avoid_address(HttpRequest *request)
{
	HttpClient *client = request->client;
	const char *ip = text_info(request->easy, CURLINFO_PRIMARY_IP);

	if (ip == NULL || ip[0] == '\0')
		return false;
	if (is_avoided(client, ip))
		return true;
	if (client->navoided == MAX_AVOIDED)
		return false;
	strlcpy(client->avoided[client->navoided++], ip, INET6_ADDRSTRLEN);
	return true;
}

/* The same attempt, at another address. */
static void
run_again(HttpRequest *request)
{
	int			reruns = request->reruns + 1;

	http_wait_remove(request->easy);
	request->state = REQUEST_FREE;
	reset_request(request);
	request->reruns = reruns;
	run_request(request);
}

/*
 * Is there another address to try within this attempt?  If all have failed,
 * the first failure is the one to report, and all may be tried again.
 */
static bool
tries_elsewhere(HttpRequest *request, HttpResponse *response)
{
	HttpClient *client = request->client;
	bool		may_rerun = request->reruns < MAX_AVOIDED && clock_us() < request->deadline;

	if ((response->failure == HTTP_ANSWERED && response->status < 500) ||
		response->failure == HTTP_BAD_CA_FILE || response->failure == HTTP_NO_SOCKET)
		return false;
	if (response->stage >= HTTP_TLS)
	{
		if (!avoid_address(request) || response->stage > HTTP_TLS || !may_rerun)
			return false;
		if (request->first_failure.message == NULL)
		{
			request->first_failure = *response;
			request->first_failure.message = MemoryContextStrdup(client->context, response->message);
		}
		return true;
	}
	if (!request->avoided)
		return false;
	client->navoided = 0;
	if (request->first_failure.message == NULL)
		return may_rerun;
	*response = request->first_failure;
	return false;
}

/* ---- handing out ---- */

/* Returns a held request, which fails like the one that resolved. */
static bool
next_held(HttpClient *client, HttpResponse *response)
{
	if (client->resolve_failure == NULL)
		return false;
	for (int i = 0; i < client->account->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->state != REQUEST_HELD)
			continue;
		memset(response, 0, sizeof(HttpResponse));
		response->slot = request->slot;
		response->failure = HTTP_UNREACHABLE;
		response->message = client->resolve_failure;
		response->body = "";
		response->down = client->down;
		request->state = REQUEST_FREE;
		client->nheld--;
		return true;
	}
	client->resolve_failure = NULL;
	return false;
}

/* The request has failed or been answered, for good. */
static void
finish_request(HttpRequest *request, const HttpResponse *response)
{
	HttpClient *client = request->client;
	bool		unreachable = response->stage <= HTTP_TLS && response->failure != HTTP_ANSWERED;

	http_wait_remove(request->easy);
	request->state = REQUEST_FREE;
	client->handed_out = request;
	client->unreachable |= unreachable;
	if (client->resolving == request)
	{
		client->resolving = NULL;
		client->resolved = response->stage > HTTP_RESOLVE;
		if (!client->resolved && client->nheld > 0)
			client->resolve_failure = MemoryContextStrdup(client->context, response->message);
	}
	/* The next request resolves the name anew, before others are sent */
	if (unreachable && client->nheld == 0)
	{
		client->resolved = false;
		client->resolve_anew = true;
	}
}

bool
http_next(HttpClient *client, HttpResponse *response)
{
	CURLMsg    *message;
	int			left;

	forget_last(client);
	if (next_held(client, response))
		return true;
	while ((message = curl_multi_info_read(http_pool.multi, &left)) != NULL)
	{
		HttpRequest *request = request_of(message->easy_handle);
		curl_off_t	received = 0;

		if (request == NULL)
			elog(ERROR, "libcurl reported an unknown request");
		curl_easy_getinfo(request->easy, CURLINFO_SIZE_DOWNLOAD_T, &received);
		client->received_bytes += received;
		describe(request, message->data.result, response);
		read_body(request, response);
		if (tries_elsewhere(request, response))
		{
			run_again(request);
			continue;
		}
		finish_request(request, response);
		return true;
	}
	return false;
}
