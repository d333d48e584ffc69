/*
 * http.c
 *	  Concurrent HTTP GET requests in a backend; each is a single attempt.
 *
 * There are two lifetimes.  The pool (http_wait.c) keeps connections from one
 * sync to the next, in malloc'd memory.  A client lives for one sync; each of
 * its requests has an easy handle.  If a sync fails, http_release() destroys
 * both, because unfinished transfers leave nothing worth keeping.
 *
 * No error is thrown through a libcurl stack frame: after a longjmp out of a
 * callback, the multi handle refuses all further calls, including cleanup.
 * Callbacks only record what happened and return a short count.  Errors are
 * raised, and interrupts are processed, after libcurl has returned.
 *
 * The first request resolves the name, and so does the next one after a
 * connection could not be made; the others wait for it (http_may_start) and
 * use what it found.
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

/* How long a name stays resolved: longer than a sync takes (8.16 refuses -1) */
#define RESOLVED_S 86400L

/* To connect to a host that was down for another account just before */
#define DOWN_CONNECT_TIMEOUT 2000

#define MAX_AVOIDED 8
#define PROXY_AUTHENTICATION_REQUIRED 407

/* OpenSSL certificate verification results */
#define X509_FINE 0
#define X509_NONE_YET 1

typedef struct HttpRequest
{
	HttpClient *client;
	CURL	   *easy;			/* NULL until the slot is used */
	bool		running;
	int64		deadline;		/* by clock_us */

	/* The response */
	HttpResponse response;
	char	   *body;			/* malloc'd */
	size_t		length;
	size_t		capacity;
	char		text[2 * CURL_ERROR_SIZE];	/* its message or redirect */

	/* What callbacks have recorded */
	HttpStage	stage;			/* at most HTTP_SEND */
	size_t		header_bytes;
	bool		paused;			/* waits for room */
	char		address[INET6_ADDRSTRLEN];	/* tried last */
	bool		avoided;		/* an address was not tried */
	HttpError	failure;		/* or HTTP_ANSWERED */
	char		error[CURL_ERROR_SIZE]; /* libcurl's message */
} HttpRequest;

struct HttpClient
{
	const Account *account;
	HttpRequest *requests;
	HttpRequest *handed_out;	/* last response returned, or NULL */
	MemoryContext context;		/* of that response, besides libcurl's memory */
	int64		received_bytes;

	/* The host */
	bool		resolved;		/* the name is resolved */
	HttpRequest *resolving;		/* resolves it, or NULL */
	char		avoided[MAX_AVOIDED][INET6_ADDRSTRLEN];
	int			navoided;
	bool		reached;		/* any connection was ready */
	bool		down;			/* the host was down just before */
	bool		silent;			/* a kept connection timed out */

	/* Bodies received in whole or in part and not yet processed */
	size_t		buffered;
	size_t		max_buffered;
	HttpRequest *preferred;		/* may exceed the maximum, or NULL */
	int64		preferred_until;	/* unless it receives something */
};

/* The open client, or NULL */
static HttpClient *open_client;

/* ---- callbacks: record what happened, raise no errors ---- */

static HttpRequest *
request_of(CURL *easy)
{
	HttpRequest *request = NULL;

	(void) curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request);
	return request;
}

static void
note_stage(HttpRequest *request, HttpStage stage)
{
	HttpClient *client = request->client;

	request->stage = Max(request->stage, stage);
	if (client->resolving == request)
	{
		/* Else what was found would be forgotten at the end of this request */
		(void) curl_easy_setopt(request->easy, CURLOPT_DNS_CACHE_TIMEOUT, RESOLVED_S);
		client->resolving = NULL;
		client->resolved = true;
	}
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

	note_stage(request, HTTP_CONNECT);
	(void) inet_ntop(address->family, address->family == AF_INET6 ?
					 (void *) &((struct sockaddr_in6 *) &address->addr)->sin6_addr :
					 (void *) &((struct sockaddr_in *) &address->addr)->sin_addr, ip, sizeof(ip));
	if (is_avoided(request->client, ip))
	{
		request->avoided = true;
		return CURL_SOCKET_BAD;
	}
	strlcpy(request->address, ip, sizeof(request->address));
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
		note_stage(request, HTTP_TLS);
}

/* A new or a kept connection is established. */
static int
note_ready(void *arg, pg_attribute_unused() char *remote_ip,
		   pg_attribute_unused() char *local_ip,
		   pg_attribute_unused() int remote_port,
		   pg_attribute_unused() int local_port)
{
	HttpRequest *request = arg;

	note_stage(request, HTTP_SEND);
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
		http_pool.out_of_memory = true;
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
		request->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (!grow_body(request, request->length + added))
		return 0;
	memcpy(request->body + request->length, data, added);
	request->length += added;
	client->buffered += added;
	if (client->preferred == request)
		client->preferred_until = clock_us() + STALL_US;
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
prepare_request(HttpRequest *request)
{
	const Account *account = request->client->account;
	CURL	   *easy = request->easy = curl_easy_init();

	if (easy == NULL)
		http_wait_reject_memory();
	CURL_SET(easy, CURLOPT_NOSIGNAL, 1L);
	CURL_SET(easy, CURLOPT_BUFFERSIZE, (long) RECEIVED_BYTES);
	CURL_SET(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long) (request->client->down ? Min(account->connect_timeout, DOWN_CONNECT_TIMEOUT) :
					 account->connect_timeout));
	CURL_SET(easy, CURLOPT_FOLLOWLOCATION, 0L);
	check_option(compat_limit_protocols(easy), "CURLOPT_PROTOCOLS");
	check_option(compat_quick_exit(easy), "CURLOPT_QUICK_EXIT");
	CURL_SET(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
	CURL_SET(easy, CURLOPT_SHARE, http_pool.share);
	CURL_SET(easy, CURLOPT_HTTP_VERSION,
			 (long) (account->http_version == HTTP_VERSION_2 ? CURL_HTTP_VERSION_2TLS :
					 CURL_HTTP_VERSION_1_1));
	/* On plain HTTP, this would serialize the requests */
	if (account->http_version == HTTP_VERSION_2 && http_is_https(account->endpoint))
		CURL_SET(easy, CURLOPT_PIPEWAIT, 1L);

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
	if (account->ca_file)
	{
		CURL_SET(easy, CURLOPT_CAINFO, account->ca_file);
		CURL_SET(easy, CURLOPT_PROXY_CAINFO, account->ca_file);
	}

	CURL_SET(easy, CURLOPT_HTTPAUTH, (long) CURLAUTH_BASIC);
	CURL_SET(easy, CURLOPT_USERNAME, account->username);
	CURL_SET(easy, CURLOPT_PASSWORD, account->password);
	CURL_SET(easy, CURLOPT_USERAGENT, USER_AGENT);
	/* Decoding is ours: http_decode.c */
	CURL_SET(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
	CURL_SET(easy, CURLOPT_HTTPHEADER, http_pool.headers);

	CURL_SET(easy, CURLOPT_PRIVATE, request);
	CURL_SET(easy, CURLOPT_ERRORBUFFER, request->error);
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

static void
run_request(HttpRequest *request)
{
	int64		left = request->deadline - clock_us();

	CURL_SET(request->easy, CURLOPT_TIMEOUT_MS, (long) Max(left / USECS_PER_MSEC, 1));
	http_wait_add(request->easy);
	request->running = true;
}

/* Forgets what was received; a buffer of normal size is kept. */
static void
reset_request(HttpRequest *request)
{
	HttpClient *client = request->client;

	client->buffered -= request->length;
	if (client->preferred == request)
		client->preferred = NULL;
	if (request->capacity > KEPT_BODY_BYTES)
	{
		free(request->body);
		request->body = NULL;
		request->capacity = 0;
	}
	request->length = request->header_bytes = 0;
	request->stage = HTTP_RESOLVE;
	request->paused = request->avoided = false;
	request->address[0] = '\0';
	request->failure = HTTP_ANSWERED;
	request->error[0] = '\0';
}

/* Ends it, whether it is finished or not. */
static void
end_request(HttpRequest *request)
{
	HttpClient *client = request->client;

	http_wait_remove(request->easy);
	request->running = false;
	if (client->resolving == request)
		client->resolving = NULL;
}

bool
http_may_start(const HttpClient *client)
{
	return client->resolved || client->resolving == NULL;
}

void
http_start(HttpClient *client, int slot, const char *url, bool new_connection)
{
	HttpRequest *request = &client->requests[slot];

	Assert(!request->running && http_may_start(client));
	if (request->easy == NULL)
		prepare_request(request);
	CURL_SET(request->easy, CURLOPT_URL, url);
	CURL_SET(request->easy, CURLOPT_FRESH_CONNECT, new_connection ? 1L : 0L);
	/* Anew, or as another request of this sync has found it */
	CURL_SET(request->easy, CURLOPT_DNS_CACHE_TIMEOUT, client->resolved ? RESOLVED_S : 0L);
	request->deadline = clock_us() + client->account->timeout * USECS_PER_MSEC;
	memset(&request->response, 0, sizeof(HttpResponse));
	if (!client->resolved)
		client->resolving = request;
	run_request(request);
}

void
http_abandon(HttpClient *client, int slot)
{
	end_request(&client->requests[slot]);
	reset_request(&client->requests[slot]);
}

/* ---- opening and closing ---- */

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

	if (open_client)
		elog(ERROR, "an HTTP client is already open");
	if (account->ca_file)
		check_ca_file(account->ca_file);
	client = palloc0(sizeof(HttpClient));
	client->account = account;
	client->context = AllocSetContextCreate(CurrentMemoryContext, "yelp_sync response",
											ALLOCSET_DEFAULT_SIZES);
	client->max_buffered = Max(2 * (size_t) account->max_page_bytes, MIN_BUFFERED);
	client->requests = palloc0(account->concurrency * sizeof(HttpRequest));
	for (int i = 0; i < account->concurrency; i++)
		client->requests[i].client = client;
	open_client = client;
	http_wait_prepare(account->proxy == NULL ? account->endpoint :
					  psprintf("%s %s %s:%s", account->endpoint, account->proxy,
							   account->proxy_user ? account->proxy_user : "",
							   account->proxy_password ? account->proxy_password : ""),
					  account->concurrency);
	http_pool.connected = note_connected;
	client->down = http_pool.down_in == GetCurrentStatementStartTimestamp();
	return client;
}

static void
free_requests(HttpClient *client)
{
	for (int i = 0; i < client->account->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->running)
			http_wait_remove(request->easy);
		curl_easy_cleanup(request->easy);
		free(request->body);
	}
	http_pool.down_in = client->reached ? 0 : GetCurrentStatementStartTimestamp();
	open_client = NULL;
}

/*
 * If a connection has gone silent, others that were opened at the same time
 * may have as well, even if they seem to be alive: keep none of them.
 */
int64
http_close(HttpClient *client)
{
	free_requests(client);
	MemoryContextDelete(client->context);
	if (client->silent)
		http_wait_destroy();
	else
		http_wait_rest();
	return client->received_bytes;
}

void
http_release(void)
{
	if (open_client == NULL)
		return;
	free_requests(open_client);
	http_wait_destroy();
}

/* ---- waiting ---- */

static void
resume(HttpRequest *request)
{
	request->paused = false;
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
	int64		now = clock_us();

	for (int i = 0; i < client->account->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->paused && client->buffered + RECEIVED_BYTES <= client->max_buffered)
			resume(request);
		if (request->paused && (next == NULL || (next <= preferred && request > preferred)))
			next = request;
	}
	if (next && (preferred == NULL || now > client->preferred_until))
	{
		client->preferred = next;
		client->preferred_until = now + STALL_US;
		resume(next);
	}
}

void
http_wait(HttpClient *client, int64 deadline)
{
	bool		paused = false;

	http_pool.deadline = PG_INT64_MAX;
	http_pool.connecting = false;
	for (int i = 0; i < client->account->concurrency; i++)
	{
		const HttpRequest *request = &client->requests[i];

		if (!request->running)
			continue;
		http_pool.deadline = Min(http_pool.deadline, request->deadline + GRACE_US);
		http_pool.connecting |= request->stage == HTTP_CONNECT || request->stage == HTTP_TLS;
		paused |= request->paused;
	}
	if (paused)
	{
		resume_paused(client);
		deadline = Min(deadline, clock_us() + STALL_US);
	}
	http_wait_until(deadline);
	CHECK_FOR_INTERRUPTS();
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
redirect_target(HttpRequest *request)
{
	static const CURLUPart secret[] = {
		CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS, CURLUPART_QUERY,
		CURLUPART_FRAGMENT
	};
	const char *target = text_info(request->easy, CURLINFO_REDIRECT_URL);
	CURLU	   *url = target ? curl_url() : NULL;
	char	   *shown = NULL;

	if (url && curl_url_set(url, CURLUPART_URL, target, 0) == CURLUE_OK)
	{
		for (int i = 0; i < (int) lengthof(secret); i++)
			curl_url_set(url, secret[i], NULL, 0);
		curl_url_get(url, CURLUPART_URL, &shown, 0);
	}
	curl_url_cleanup(url);
	if (shown == NULL)
		return NULL;
	strlcpy(request->text, shown, sizeof(request->text));
	curl_free(shown);
	return request->text;
}

/*
 * Whose certificate it is: an https proxy's, until the tunnel is open.  If
 * only its host is wrong, OpenSSL's result is 0, or the initial value set by
 * libcurl 7.88.
 */
static HttpError
certificate_error(HttpRequest *request)
{
	const char *proxy = request->client->account->proxy;
	bool		at_proxy = proxy && http_is_https(proxy) &&
	long_info(request->easy, CURLINFO_HTTP_CONNECTCODE, 0) == 0;
	long		result = long_info(request->easy, at_proxy ? CURLINFO_PROXY_SSL_VERIFYRESULT :
								   CURLINFO_SSL_VERIFYRESULT, -1);

	if (result == X509_FINE || result == X509_NONE_YET)
		return at_proxy ? HTTP_WRONG_PROXY : HTTP_WRONG_HOST;
	return at_proxy ? HTTP_UNTRUSTED_PROXY : HTTP_UNTRUSTED;
}

/*
 * What libcurl's error code means.  The stage is that of the callbacks:
 * libcurl's own times are unreliable, because some versions set them when a
 * request fails.
 */
static HttpError
classify(HttpRequest *request, CURLcode code, HttpStage stage)
{
	HttpClient *client = request->client;
	bool		kept = stage >= HTTP_SEND &&
	long_info(request->easy, CURLINFO_NUM_CONNECTS, 1) == 0;
	bool		closed = code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
	code == CURLE_GOT_NOTHING || code == CURLE_HTTP2;

	if (long_info(request->easy, CURLINFO_HTTP_CONNECTCODE, 0) == PROXY_AUTHENTICATION_REQUIRED)
		return HTTP_DENIED_BY_PROXY;
	/* Another address may have been able to get a socket */
	if (request->failure != HTTP_ANSWERED &&
		(request->failure != HTTP_NO_SOCKET || stage < HTTP_SEND))
		return request->failure;
	if (code == CURLE_OK)
		return HTTP_ANSWERED;
	if (code == CURLE_SSL_CACERT_BADFILE)
		return HTTP_BAD_CA_FILE;
	if (code == CURLE_PEER_FAILED_VERIFICATION)
		return certificate_error(request);
	if (stage == HTTP_RECEIVE && code == COMPAT_CURLE_TOO_LARGE)
		return code == CURLE_OUT_OF_MEMORY ? HTTP_NO_ROOM : HTTP_LARGE_HEADERS;
	if (code == CURLE_OUT_OF_MEMORY)
		http_wait_reject_memory();
	if (stage < HTTP_SEND && client->down && !client->reached)
		return HTTP_DOWN;
	if (code == CURLE_OPERATION_TIMEDOUT || clock_us() >= request->deadline)
	{
		client->silent |= kept;
		return HTTP_TIMED_OUT;
	}
	if (request->response.status == 0 && closed && kept)
		return HTTP_LOST;
	/* A TLS handshake may fail because the connection does */
	if ((closed || code == CURLE_COULDNT_CONNECT || code == CURLE_SSL_CONNECT_ERROR) &&
		request->response.status == 0 && stage > HTTP_RESOLVE)
		return HTTP_REFUSED;
	return HTTP_BROKEN;
}

/* What libcurl says about it; NULL if we know better. */
static const char *
describe_failure(HttpRequest *request, CURLcode code)
{
	HttpError	failure = request->response.failure;
	long		os_error = code == CURLE_COULDNT_CONNECT ?
	long_info(request->easy, CURLINFO_OS_ERRNO, 0) : 0;

	if (failure == request->failure)
		return NULL;
	if (failure == HTTP_TIMED_OUT && code != CURLE_OPERATION_TIMEDOUT)
		return "The connection was shut down, because the peer did not stop sending";
	snprintf(request->text, sizeof(request->text), "%s%s%s",
			 request->error[0] ? request->error : curl_easy_strerror(code),
			 os_error ? ": " : "", os_error ? strerror(os_error) : "");
	return request->text;
}

static void
describe(HttpRequest *request, CURLcode code)
{
	CURL	   *easy = request->easy;
	HttpResponse *response = &request->response;
	size_t		count;

	memset(response, 0, sizeof(HttpResponse));
	response->slot = request - request->client->requests;
	response->status = (int) long_info(easy, CURLINFO_RESPONSE_CODE, 0);
	response->stage = request->stage;
	/* Behind a proxy, no callback tells that TLS has begun */
	if (code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION ||
		code == CURLE_SSL_CACERT_BADFILE)
		response->stage = HTTP_TLS;
	else if (response->stage == HTTP_SEND && long_info(easy, CURLINFO_REQUEST_SIZE, 0) > 0)
		response->stage = HTTP_RECEIVE;
	response->failure = classify(request, code, response->stage);
	response->message = describe_failure(request, code);
	response->redirect = redirect_target(request);
	response->content_type = text_info(easy, CURLINFO_CONTENT_TYPE);
	response->retry_after = header(easy, "Retry-After", &count);
	response->date = header(easy, "Date", &count);
	response->rate_reset = header(easy, "RateLimit-Reset", &count);
	if (response->rate_reset == NULL)
		response->rate_reset = header(easy, "X-RateLimit-Reset", &count);
	if (!grow_body(request, request->length + 1))
		http_wait_reject_memory();
	request->body[request->length] = '\0';
	response->body = request->body;
	response->length = request->length;
}

/* A status that is an error has its say, whatever is wrong with the body. */
static void
read_body(HttpRequest *request)
{
	HttpResponse *response = &request->response;
	bool		rejected = request->stage == HTTP_SEND && response->status >= 200 &&
	response->status != 200;

	if (response->failure == HTTP_ANSWERED && request->length > 0)
	{
		size_t		count;
		const char *transfer = header(request->easy, "Transfer-Encoding", &count);
		const char *coding = header(request->easy, "Content-Encoding", &count);

		response->failure = count > 1 ? HTTP_BAD_CODING :
			http_decode(transfer, coding, request->body, request->length,
						request->client->account->max_page_bytes,
						&response->body, &response->length);
	}
	if (response->failure == HTTP_UNDECODABLE)
		response->message = "The gzip data is damaged or cut off";
	if (response->failure != HTTP_ANSWERED)
	{
		response->body = "";
		response->length = 0;
	}
	if (rejected)
		response->failure = HTTP_ANSWERED;
}

/*
 * Avoids the address of a request that failed, which newer versions of libcurl
 * do not tell before TLS is established.  Is there another one to try within
 * this attempt?
 */
static bool
tries_elsewhere(HttpRequest *request)
{
	HttpClient *client = request->client;
	const HttpResponse *response = &request->response;
	const char *primary = text_info(request->easy, CURLINFO_PRIMARY_IP);
	const char *ip = primary && primary[0] ? primary : request->address;
	bool		again = clock_us() < request->deadline;

	if ((response->failure == HTTP_ANSWERED && response->status < 500) ||
		response->failure == HTTP_BAD_CA_FILE || response->failure == HTTP_NO_SOCKET ||
		response->failure == HTTP_LOST)
		return false;
	if (response->stage < HTTP_TLS)
	{
		/* The others cannot be connected to */
		if (request->avoided)
			client->navoided = 0;
		return request->avoided && again;
	}
	if (ip[0] == '\0')
		return false;
	if (!is_avoided(client, ip))
	{
		if (client->navoided == MAX_AVOIDED)
			return false;
		strlcpy(client->avoided[client->navoided++], ip, INET6_ADDRSTRLEN);
	}
	return response->stage == HTTP_TLS && again;
}

/*
 * Takes note of how a request ended; true if it is to be sent again.  If it
 * failed in TLS at one address, and all others are avoided, the former failure
 * is the one to report.
 */
static bool
take_end(HttpRequest *request, CURLcode code)
{
	HttpClient *client = request->client;
	HttpResponse *response = &request->response;
	curl_off_t	received = 0;

	curl_easy_getinfo(request->easy, CURLINFO_SIZE_DOWNLOAD_T, &received);
	client->received_bytes += received;
	/* A kept connection was lost, and libcurl could not make another one */
	if (code == CURLE_COULDNT_CONNECT)
		request->stage = Min(request->stage, HTTP_CONNECT);
	if (response->stage == HTTP_TLS && request->avoided && request->stage < HTTP_TLS)
	{
		client->navoided = 0;
		return false;
	}
	describe(request, code);
	read_body(request);
	return tries_elsewhere(request);
}

const HttpResponse *
http_next(HttpClient *client)
{
	MemoryContext caller = MemoryContextSwitchTo(client->context);
	const HttpResponse *response = NULL;
	CURLMsg    *message;
	int			left;

	/* The last response has been processed */
	MemoryContextReset(client->context);
	if (client->handed_out)
		reset_request(client->handed_out);
	client->handed_out = NULL;
	while (response == NULL &&
		   (message = curl_multi_info_read(http_pool.multi, &left)) != NULL)
	{
		HttpRequest *request = request_of(message->easy_handle);
		bool		again = request && take_end(request, message->data.result);

		if (request == NULL)
			elog(ERROR, "libcurl reported an unknown request");
		end_request(request);
		if (again)
		{
			reset_request(request);
			run_request(request);
			continue;
		}
		client->handed_out = request;
		response = &request->response;
		/* The next request resolves the name anew */
		if (response->stage <= HTTP_TLS && response->failure != HTTP_ANSWERED)
			client->resolved = false;
	}
	MemoryContextSwitchTo(caller);
	return response;
}
