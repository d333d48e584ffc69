/*
 * http.c
 *	  Many HTTP GET requests at once inside a backend; each is one attempt.
 *
 * Two lifetimes.  The session (http_pool.c) keeps connections from one sync to
 * the next, in malloc'd memory.  A client lives for one sync, in the memory
 * context of its making: its requests have an easy handle each.  When the
 * context is reset while the client is open, an error is under way, and the
 * session is destroyed as well: half-finished transfers leave nothing worth
 * keeping.
 *
 * Nothing is thrown through a frame of libcurl: a longjmp out of one of its
 * callbacks leaves the multi handle refusing every later call, its own
 * clean-up included.  The callbacks only record and return short.  Errors are
 * raised, and interrupts looked for, when libcurl has returned.
 *
 * libcurl would start a thread for each request to look up the same name.  So
 * one request goes first; until it is past that stage the others are held, and
 * when it fails there they share its fate.
 */
#include "postgres.h"

#include <curl/curl.h>
#include <sys/stat.h>

#include "http.h"

#include "miscadmin.h"

#include "compat.h"
#include "http_easy.h"
#include "http_pool.h"

/* All headers of one answer; a server that sends more will not stop. */
#define MAX_HEADER_BYTES (256 * 1024)

/* The system's certificates have some 200 kB */
#define MAX_CA_BYTES (10 * 1024 * 1024)

/*
 * Content and transfer codings of one answer, gzip say.  Several could make
 * gigabytes of nothing out of a few bytes, one after the other.
 */
#define MAX_CODINGS 1

/* A body's buffer at first, and the largest that is kept for the next one */
#define BODY_BYTES (16 * 1024)
#define KEPT_BODY_BYTES (128 * 1024)

/*
 * All bodies together may have twice what one may have, and this at least:
 * pages are much smaller than their limit.
 */
#define MIN_BUFFERED (16 * 1024 * 1024)

/* OpenSSL's results of the verification of a certificate */
#define X509_FINE 0
#define X509_NONE_YET 1

/* What a callback found; libcurl's own code tells the rest */
typedef enum CallbackError
{
	CALLBACK_OK = 0,
	CALLBACK_NO_SOCKET,
	CALLBACK_LARGE_BODY,
	CALLBACK_NO_ROOM,
	CALLBACK_LARGE_HEADERS,
	CALLBACK_NO_MEMORY,
	CALLBACK_CODINGS,
	CALLBACK_INTERRUPTED
} CallbackError;

typedef enum RequestState
{
	REQUEST_FREE = 0,
	REQUEST_HELD,				/* until the name is resolved */
	REQUEST_RUNNING,
	REQUEST_FAILED				/* together with the one that resolved */
} RequestState;

typedef struct Request
{
	int			slot;
	CURL	   *easy;			/* NULL until the slot is used */
	RequestState state;
	bool		resolved;		/* the name is known */
	bool		connected;		/* there is a connection, perhaps without TLS */
	bool		ready;			/* it can be used */

	/* The answer */
	char	   *body;
	size_t		length;
	size_t		capacity;
	size_t		header_bytes;
	int			ncodings;		/* of content and transfer */
	char		retry_after[64];

	/* What went wrong */
	CallbackError finding;
	char		message[CURL_ERROR_SIZE];
} Request;

struct HttpClient
{
	const HttpSettings *settings;
	Request    *requests;
	bool		open;

	/* The name look-up that the first request makes for all */
	bool		resolved;
	Request    *resolving;
	int			nheld;
	int			nfailed;

	/* Bodies that have come, in whole or in part, and that are not yet read */
	size_t		buffered;
	size_t		max_buffered;
	Request    *handed_out;		/* the last one, or NULL */

	int64		received_bytes;
	MemoryContextCallback cleanup;
};

/* The client that is open, or NULL */
static HttpClient *open_client;

/* ---- callbacks: record, return short, raise nothing ---- */

static curl_socket_t
open_socket(void *arg, pg_attribute_unused() curlsocktype purpose,
			struct curl_sockaddr *address)
{
	Request    *request = arg;
	int			fd = http_socket_open(http_pool.sockets, address->family,
									  address->socktype, address->protocol);

	request->resolved = true;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		request->finding = CALLBACK_NO_SOCKET;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* The connection stands, a new one or one from before. */
static int
note_ready(void *arg, pg_attribute_unused() char *remote_ip,
		   pg_attribute_unused() char *local_ip,
		   pg_attribute_unused() int remote_port,
		   pg_attribute_unused() int local_port)
{
	((Request *) arg)->ready = true;
	return CURL_PREREQFUNC_OK;
}

static int
close_socket(pg_attribute_unused() void *arg, curl_socket_t fd)
{
	return http_socket_close(http_pool.sockets, fd);
}

/*
 * To read from a socket is waited for as soon as there is a connection.  Behind
 * a proxy that is not yet the one to the API.
 */
static void
note_connection(CURL *easy)
{
	Request    *request = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request);
	if (request)
		request->connected = true;
}

static int
watch_socket(CURL *easy, curl_socket_t fd, int what,
			 pg_attribute_unused() void *arg, pg_attribute_unused() void *known)
{
	int			events = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_READABLE;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_WRITEABLE;
	if ((events & WL_SOCKET_READABLE) && open_client &&
		open_client->settings->proxy == NULL &&
		http_socket_owns(http_pool.sockets, fd))
		note_connection(easy);
	if (!http_socket_watch(http_pool.sockets, fd, events))
		http_pool.out_of_memory = true;
	return 0;
}

static bool
grow_body(Request *request, size_t length)
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
		request->finding = CALLBACK_NO_MEMORY;
		return false;
	}
	request->body = body;
	request->capacity = capacity;
	return true;
}

static size_t
receive_body(char *data, size_t size, size_t count, void *arg)
{
	Request    *request = arg;
	size_t		length = request->length + size * count;

	if (http_pool_is_interrupted())
	{
		request->finding = CALLBACK_INTERRUPTED;
		return 0;
	}
	if (length > (size_t) open_client->settings->max_body)
	{
		request->finding = CALLBACK_LARGE_BODY;
		return 0;
	}
	if (open_client->buffered + size * count > open_client->max_buffered)
	{
		request->finding = CALLBACK_NO_ROOM;
		return 0;
	}
	if (!grow_body(request, length))
		return 0;
	memcpy(request->body + request->length, data, size * count);
	request->length = length;
	open_client->buffered += size * count;
	return size * count;
}

/* Copies the value of a header line, without the blanks around it. */
static void
copy_header_value(char *copy, size_t size, const char *value, const char *end)
{
	size_t		length;

	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && strchr(" \t\r\n", end[-1]) != NULL)
		end--;
	length = Min((size_t) (end - value), size - 1);
	memcpy(copy, value, length);
	copy[length] = '\0';
}

/* If the line is a header of this name, its value; else NULL. */
static const char *
header_value(const char *line, size_t length, const char *name)
{
	size_t		name_length = strlen(name);

	if (length <= name_length || line[name_length] != ':' ||
		pg_strncasecmp(line, name, name_length) != 0)
		return NULL;
	return line + name_length + 1;
}

/*
 * Counts the codings of a header that libcurl would undo, one after the other;
 * a coding that it does not know counts as too many.
 */
static int
count_codings(const char *value, const char *end)
{
	static const char *const harmless[] = {"identity", "chunked"};
	static const char *const known[] = {"gzip", "x-gzip", "deflate"};
	int			count = 0;

	while (value < end)
	{
		const char *start;
		size_t		length;
		bool		found = false;

		while (value < end && strchr(", \t\r\n", *value) != NULL)
			value++;
		for (start = value; value < end && strchr(", \t\r\n", *value) == NULL;)
			value++;
		length = value - start;
		if (length == 0)
			continue;
		for (int i = 0; i < (int) lengthof(harmless); i++)
			found |= length == strlen(harmless[i]) &&
				pg_strncasecmp(start, harmless[i], length) == 0;
		if (found)
			continue;
		for (int i = 0; i < (int) lengthof(known); i++)
			found |= length == strlen(known[i]) &&
				pg_strncasecmp(start, known[i], length) == 0;
		count += found ? 1 : MAX_CODINGS + 1;
	}
	return count;
}

/* One line of the headers; false where it is more than we take. */
static bool
note_header(Request *request, const char *line, size_t length)
{
	const char *value;

	/* An interim answer, a 103 say, has headers of its own */
	if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		request->retry_after[0] = '\0';
		request->ncodings = 0;
	}
	if ((value = header_value(line, length, "retry-after")) != NULL)
		copy_header_value(request->retry_after, sizeof(request->retry_after),
						  value, line + length);
	else if ((value = header_value(line, length, "content-encoding")) != NULL ||
			 (value = header_value(line, length, "transfer-encoding")) != NULL)
		request->ncodings += count_codings(value, line + length);
	return request->ncodings <= MAX_CODINGS;
}

static size_t
receive_header(char *data, size_t size, size_t count, void *arg)
{
	Request    *request = arg;
	size_t		length = size * count;

	request->header_bytes += length;
	if (request->header_bytes > MAX_HEADER_BYTES)
		request->finding = CALLBACK_LARGE_HEADERS;
	else if (!note_header(request, data, length))
		request->finding = CALLBACK_CODINGS;
	else if (http_pool_is_interrupted())
		request->finding = CALLBACK_INTERRUPTED;
	else
		return length;
	return 0;
}

/* Called again and again: an interrupt ends whatever libcurl is at. */
static int
note_progress(void *arg, pg_attribute_unused() curl_off_t download_total,
			  pg_attribute_unused() curl_off_t downloaded,
			  pg_attribute_unused() curl_off_t upload_total,
			  pg_attribute_unused() curl_off_t uploaded)
{
	if (!http_pool_is_interrupted())
		return 0;
	((Request *) arg)->finding = CALLBACK_INTERRUPTED;
	return 1;
}

/* ---- the client ---- */

static void
free_requests(HttpClient *client)
{
	for (int i = 0; i < client->settings->concurrency; i++)
	{
		Request    *request = &client->requests[i];

		if (request->easy && request->state == REQUEST_RUNNING)
			curl_multi_remove_handle(http_pool.multi, request->easy);
		curl_easy_cleanup(request->easy);
		free(request->body);
	}
	client->open = false;
	open_client = NULL;
}

/* Called when the memory context goes; after http_close there is nothing left. */
static void
clean_up(void *arg)
{
	HttpClient *client = arg;

	if (!client->open)
		return;
	free_requests(client);
	http_pool_destroy();
}

void
http_release(void)
{
	if (open_client)
		clean_up(open_client);
}

/* To open a FIFO could take for ever, and to read gigabytes as well. */
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
				 errhint("The server's option ca_file must name a file of certificates in PEM format.")));
}

HttpClient *
http_open(const HttpSettings *settings)
{
	HttpClient *client;

	if (open_client)
		elog(ERROR, "an HTTP client is open already");
	if (settings->ca_file)
		check_ca_file(settings->ca_file);
	client = palloc0(sizeof(HttpClient));
	client->settings = settings;
	client->max_buffered = Max(2 * (size_t) settings->max_body, MIN_BUFFERED);
	client->requests = palloc0(settings->concurrency * sizeof(Request));
	client->cleanup.func = clean_up;
	client->cleanup.arg = client;
	http_pool_prepare(settings->endpoint, settings->concurrency, watch_socket);
	client->open = true;
	open_client = client;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &client->cleanup);
	return client;
}

void
http_close(HttpClient *client)
{
	free_requests(client);
}

int64
http_received_bytes(const HttpClient *client)
{
	return client->received_bytes;
}

static void
set_callbacks(CURL *easy, Request *request)
{
	curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->message);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receive_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, receive_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, request);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, note_ready);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, request);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, note_progress);
	curl_easy_setopt(easy, CURLOPT_XFERINFODATA, request);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
}

static void
make_handle(HttpClient *client, Request *request)
{
	request->easy = http_easy_create(client->settings);
	set_callbacks(request->easy, request);
}

/* Makes a request as good as new; a buffer of a usual size is kept. */
static void
forget_answer(HttpClient *client, Request *request)
{
	client->buffered -= request->length;
	if (request->capacity > KEPT_BODY_BYTES)
	{
		free(request->body);
		request->body = NULL;
		request->capacity = 0;
	}
	request->length = 0;
	request->header_bytes = 0;
	request->retry_after[0] = '\0';
	request->ncodings = 0;
	request->resolved = false;
	request->connected = false;
	request->ready = false;
	request->finding = CALLBACK_OK;
	request->message[0] = '\0';
}

/* The answer that was handed out last has been read. */
static void
forget_last(HttpClient *client)
{
	if (client->handed_out)
		forget_answer(client, client->handed_out);
	client->handed_out = NULL;
}

static void
run_request(Request *request)
{
	CURLMcode	code = curl_multi_add_handle(http_pool.multi, request->easy);

	if (code != CURLM_OK)
		elog(ERROR, "libcurl refused a request: %s", curl_multi_strerror(code));
	request->state = REQUEST_RUNNING;
}

static void
hold_request(HttpClient *client, Request *request)
{
	request->state = REQUEST_HELD;
	client->nheld++;
}

void
http_start(HttpClient *client, int slot, const char *url, bool new_connection)
{
	Request    *request = &client->requests[slot];

	Assert(request->state == REQUEST_FREE);
	request->slot = slot;
	forget_last(client);
	if (request->easy == NULL)
		make_handle(client, request);
	if (curl_easy_setopt(request->easy, CURLOPT_URL, url) != CURLE_OK ||
		curl_easy_setopt(request->easy, CURLOPT_FRESH_CONNECT,
						 new_connection ? 1L : 0L) != CURLE_OK)
		http_pool_reject_memory();

	if (client->resolved)
		run_request(request);
	else if (client->resolving)
		hold_request(client, request);
	else
	{
		client->resolving = request;
		run_request(request);
	}
}

void
http_abandon(HttpClient *client, int slot)
{
	Request    *request = &client->requests[slot];

	Assert(client->resolved && request->state == REQUEST_RUNNING);
	curl_multi_remove_handle(http_pool.multi, request->easy);
	request->state = REQUEST_FREE;
	forget_answer(client, request);
}

/*
 * How far a request has come, by what libcurl called us for: its own times do
 * not tell, for some of its versions set them when a request fails.
 */
static HttpStage
stage_of(Request *request)
{
	long		sent = 0;

	curl_easy_getinfo(request->easy, CURLINFO_REQUEST_SIZE, &sent);
	if (request->ready)
		return sent > 0 ? HTTP_RECEIVE : HTTP_SEND;
	if (request->connected)
		return HTTP_TLS;
	return request->resolved ? HTTP_CONNECT : HTTP_RESOLVE;
}

/* Once the name is known, all requests that waited for it may go. */
static void
run_held(HttpClient *client)
{
	if (client->resolving && stage_of(client->resolving) != HTTP_RESOLVE)
		client->resolved = true;
	if (!client->resolved || client->nheld == 0)
		return;
	for (int i = 0; i < client->settings->concurrency; i++)
	{
		if (client->requests[i].state == REQUEST_HELD)
			run_request(&client->requests[i]);
	}
	client->nheld = 0;
	http_pool_pump();
}

void
http_wait(HttpClient *client, int64 deadline)
{
	if (client->nfailed > 0)
		return;
	http_pool_wait(deadline);
	CHECK_FOR_INTERRUPTS();
	run_held(client);
}

/* ---- what happened ---- */

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

/*
 * Was all well with the certificate but the host?  OpenSSL's result is then 0,
 * or what libcurl 7.88 sets before it has one.
 */
static bool
is_chain_trusted(CURLcode code, long verify_result)
{
	return code == CURLE_PEER_FAILED_VERIFICATION &&
		(verify_result == X509_FINE || verify_result == X509_NONE_YET);
}

/* Did the connection end before anything of an answer arrived? */
static bool
is_lost(CURLcode code)
{
	return code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
		code == CURLE_GOT_NOTHING || code == CURLE_HTTP2;
}

static HttpError
classify(CURLcode code, HttpStage stage, bool chain_trusted)
{
	if (code == CURLE_OK)
		return HTTP_ANSWERED;
	if (code == CURLE_SSL_CACERT_BADFILE)
		return HTTP_BAD_CA_FILE;
	/* So libcurl calls a header that is longer than it takes */
	if (stage == HTTP_RECEIVE &&
		(code == CURLE_OUT_OF_MEMORY || code == COMPAT_CURLE_TOO_LARGE))
		return HTTP_LARGE_HEADERS;
	/* A hand-shake may fail because the connection does */
	if (is_tls_error(code) && code != CURLE_SSL_CONNECT_ERROR)
		return chain_trusted ? HTTP_WRONG_HOST : HTTP_UNTRUSTED;
	return stage >= HTTP_SEND ? HTTP_BROKEN : HTTP_UNREACHABLE;
}

/* What a callback found says more than the code that libcurl made of it. */
static void
note_finding(const Request *request, HttpResponse *response)
{
	switch (request->finding)
	{
		case CALLBACK_OK:
			break;
		case CALLBACK_NO_SOCKET:
			/* an address may have got one where another did not */
			if (response->failure == HTTP_UNREACHABLE)
				response->failure = HTTP_NO_ROOM;
			break;
		case CALLBACK_LARGE_BODY:
			response->failure = HTTP_LARGE_BODY;
			break;
		case CALLBACK_NO_ROOM:
			response->failure = HTTP_NO_ROOM;
			break;
		case CALLBACK_LARGE_HEADERS:
			response->failure = HTTP_LARGE_HEADERS;
			break;
		case CALLBACK_CODINGS:
			response->failure = HTTP_BAD_CODING;
			break;
		case CALLBACK_INTERRUPTED:
			response->failure = HTTP_BROKEN;
			break;
		case CALLBACK_NO_MEMORY:
			http_pool_reject_memory();
	}
}

static void
describe(HttpClient *client, Request *request, CURLcode code,
		 HttpResponse *response)
{
	curl_off_t	received = 0;
	long		status = 0;
	long		os_error = 0;
	long		connects = 1;
	long		verified = -1;

	curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(request->easy, CURLINFO_SIZE_DOWNLOAD_T, &received);
	curl_easy_getinfo(request->easy, CURLINFO_OS_ERRNO, &os_error);
	curl_easy_getinfo(request->easy, CURLINFO_NUM_CONNECTS, &connects);
	curl_easy_getinfo(request->easy, CURLINFO_SSL_VERIFYRESULT, &verified);
	client->received_bytes += received;
	if (!grow_body(request, request->length + 1))
		http_pool_reject_memory();
	request->body[request->length] = '\0';

	response->slot = request->slot;
	response->stage = is_tls_error(code) ? HTTP_TLS : stage_of(request);
	response->failure = classify(code, response->stage,
								 is_chain_trusted(code, verified));
	response->message = request->message[0] ? request->message :
		curl_easy_strerror(code);
	response->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	response->lost_kept = connects == 0 && is_lost(code);
	response->status = (int) status;
	response->body = request->body;
	response->length = request->length;
	response->retry_after = request->retry_after[0] ? request->retry_after : NULL;
	response->os_error = code == CURLE_COULDNT_CONNECT ? (int) os_error : 0;
	note_finding(request, response);
}

/* The look-up failed that all held requests were waiting for. */
static void
fail_held(HttpClient *client, const HttpResponse *response)
{
	for (int i = 0; i < client->settings->concurrency; i++)
	{
		Request    *request = &client->requests[i];

		if (request->state != REQUEST_HELD)
			continue;
		strlcpy(request->message, response->message, sizeof(request->message));
		request->state = REQUEST_FAILED;
		client->nfailed++;
	}
	client->nheld = 0;
}

/* One of the requests that failed without having been sent. */
static void
take_failed(HttpClient *client, HttpResponse *response)
{
	int			slot = 0;

	while (client->requests[slot].state != REQUEST_FAILED)
		slot++;
	memset(response, 0, sizeof(HttpResponse));
	response->slot = slot;
	response->failure = HTTP_UNREACHABLE;
	response->stage = HTTP_RESOLVE;
	response->message = client->requests[slot].message;
	response->body = "";
	client->requests[slot].state = REQUEST_FREE;
	client->handed_out = &client->requests[slot];
	client->nfailed--;
}

bool
http_next(HttpClient *client, HttpResponse *response)
{
	Request    *request = NULL;
	CURLMsg    *message;
	int			left;

	forget_last(client);
	if (client->nfailed > 0)
	{
		take_failed(client, response);
		return true;
	}
	message = curl_multi_info_read(http_pool.multi, &left);
	if (message == NULL)
		return false;

	curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &request);
	describe(client, request, message->data.result, response);
	curl_multi_remove_handle(http_pool.multi, request->easy);
	request->state = REQUEST_FREE;
	client->handed_out = request;
	if (client->resolving == request)
	{
		client->resolving = NULL;
		if (!client->resolved)
			fail_held(client, response);
	}
	return true;
}
