/*
 * http.c
 *	  Concurrent HTTP GET requests in a backend; each is a single attempt.
 *
 * There are two lifetimes.  The pool (http_pool.c) keeps connections from one
 * sync to the next, in malloc'd memory.  A client lives for one sync, in the
 * memory context it was created in; each of its requests has an easy handle.
 * If the context is reset while the client is open, an error is being
 * handled, and the pool is destroyed as well, because unfinished transfers
 * leave nothing worth keeping.
 *
 * No error is thrown through a libcurl stack frame: after a longjmp out of a
 * callback, the multi handle refuses all further calls, including cleanup.
 * Errors are raised, and interrupts are processed, after libcurl has
 * returned.
 *
 * libcurl would start one thread per request to resolve the same name.
 * Therefore one request is sent first, and the others are held until its name
 * is resolved; if that fails, they fail as well.
 */
#include "postgres.h"

#include <curl/curl.h>
#include <sys/stat.h>

#include "http.h"

#include "miscadmin.h"

#include "http_easy.h"
#include "http_pool.h"
#include "http_request.h"

/* The system's certificates take about 200 kB */
#define MAX_CA_BYTES (10 * 1024 * 1024)

/*
 * All bodies together may use twice the limit of one body, but at least this:
 * pages are usually much smaller than their limit.
 */
#define MIN_BUFFERED (16 * 1024 * 1024)

struct HttpClient
{
	const HttpSettings *settings;
	HttpRequest *requests;
	HttpBuffers buffers;
	bool		open;
	bool		silent;			/* a kept connection timed out */

	/* The name look-up shared by all requests */
	bool		resolved;
	HttpRequest *resolving;
	int			nheld;
	int			nfailed;

	HttpRequest *handed_out;	/* last response returned, or NULL */
	int64		received_bytes;
	MemoryContextCallback cleanup;
};

/* The open client, or NULL */
static HttpClient *open_client;

static void
free_requests(HttpClient *client)
{
	for (int i = 0; i < client->settings->concurrency; i++)
		http_request_free(&client->requests[i]);
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
	http_pool_destroy();
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

/*
 * Identifies the route of connections, which may be shared if it is the same.
 */
static char *
route_of(const HttpSettings *settings)
{
	if (settings->proxy == NULL)
		return pstrdup(settings->endpoint);
	return psprintf("%s %s %s:%s", settings->endpoint, settings->proxy,
					settings->proxy_user ? settings->proxy_user : "",
					settings->proxy_password ? settings->proxy_password : "");
}

HttpClient *
http_open(const HttpSettings *settings)
{
	HttpClient *client;

	if (open_client)
		elog(ERROR, "an HTTP client is already open");
	if (settings->ca_file)
		check_ca_file(settings->ca_file);
	client = palloc0(sizeof(HttpClient));
	client->settings = settings;
	client->buffers.max_body = settings->max_body;
	client->buffers.max_used = Max(2 * (size_t) settings->max_body, MIN_BUFFERED);
	client->requests = palloc0(settings->concurrency * sizeof(HttpRequest));
	client->cleanup.func = clean_up;
	client->cleanup.arg = client;
	http_pool_prepare(route_of(settings), settings->concurrency,
					  http_request_watch_socket);
	client->open = true;
	open_client = client;
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
		http_pool_destroy();
}

int64
http_received_bytes(const HttpClient *client)
{
	return client->received_bytes;
}

/* The last response returned has been processed. */
static void
forget_last(HttpClient *client)
{
	if (client->handed_out)
		http_request_forget(client->handed_out);
	client->handed_out = NULL;
}

static void
run_request(HttpRequest *request)
{
	http_pool_check(curl_multi_add_handle(http_pool.multi, request->easy));
	request->state = REQUEST_RUNNING;
}

static void
hold_request(HttpClient *client, HttpRequest *request)
{
	request->state = REQUEST_HELD;
	client->nheld++;
}

void
http_start(HttpClient *client, int slot, const char *url, bool new_connection)
{
	HttpRequest *request = &client->requests[slot];

	Assert(request->state == REQUEST_FREE);
	request->slot = slot;
	forget_last(client);
	if (request->easy == NULL)
		http_request_prepare(request, client->settings, &client->buffers);
	CURL_SET(request->easy, CURLOPT_URL, url);
	CURL_SET(request->easy, CURLOPT_FRESH_CONNECT, new_connection ? 1L : 0L);

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
	HttpRequest *request = &client->requests[slot];

	Assert(client->resolved && request->state == REQUEST_RUNNING);
	curl_multi_remove_handle(http_pool.multi, request->easy);
	request->state = REQUEST_FREE;
	http_request_forget(request);
}

/* Once the name is resolved, sends the held requests. */
static void
run_held(HttpClient *client)
{
	if (client->resolving && http_request_stage(client->resolving) != HTTP_RESOLVE)
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

/* Fails all held requests, because the look-up failed. */
static void
fail_held(HttpClient *client, const HttpResponse *response)
{
	for (int i = 0; i < client->settings->concurrency; i++)
	{
		HttpRequest *request = &client->requests[i];

		if (request->state != REQUEST_HELD)
			continue;
		strlcpy(request->message, response->message, sizeof(request->message));
		request->state = REQUEST_FAILED;
		client->nfailed++;
	}
	client->nheld = 0;
}

/* Returns a request that failed without having been sent. */
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

/* The size of a body as received, before any decompression. */
static int64
received_bytes(CURL *easy)
{
	curl_off_t	received = 0;

	return curl_easy_getinfo(easy, CURLINFO_SIZE_DOWNLOAD_T, &received) == CURLE_OK ?
		received : 0;
}

static HttpRequest *
request_of(CURL *easy)
{
	HttpRequest *request = NULL;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request) != CURLE_OK ||
		request == NULL)
		elog(ERROR, "libcurl reported an unknown request");
	return request;
}

bool
http_next(HttpClient *client, HttpResponse *response)
{
	HttpRequest *request;
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

	request = request_of(message->easy_handle);
	client->received_bytes += received_bytes(request->easy);
	http_request_describe(request, message->data.result, response);
	client->silent |= request->silent;
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
