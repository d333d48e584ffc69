/*
 * http_request.c
 *	  A single request: the libcurl callbacks while it is in flight, and its
 *	  result.
 *
 * No error is thrown through a libcurl stack frame: the callbacks only record
 * what happened and return a short count.
 */
#include "postgres.h"

#include "http_request.h"

#include "curl_compat.h"
#include "http_easy.h"
#include "http_pool.h"

/*
 * Maximum size of a response's headers; a server that sends more will not
 * stop.
 */
#define MAX_HEADER_BYTES (256 * 1024)

/* Initial size of a body's buffer, and the largest one kept for reuse */
#define BODY_BYTES (16 * 1024)
#define KEPT_BODY_BYTES (128 * 1024)

#define PROXY_AUTHENTICATION_REQUIRED 407

/* OpenSSL certificate verification results */
#define X509_FINE 0
#define X509_NONE_YET 1

/* ---- callbacks: record what happened, raise no errors ---- */

static curl_socket_t
open_socket(void *arg, pg_attribute_unused() curlsocktype purpose,
			struct curl_sockaddr *address)
{
	HttpRequest *request = arg;
	int			fd = http_socket_open(http_pool.sockets, address->family,
									  address->socktype, address->protocol);

	request->resolved = true;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		request->callback_error = CALLBACK_NO_SOCKET;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* A new or a kept connection is established. */
static int
note_ready(void *arg, pg_attribute_unused() char *remote_ip,
		   pg_attribute_unused() char *local_ip,
		   pg_attribute_unused() int remote_port,
		   pg_attribute_unused() int local_port)
{
	((HttpRequest *) arg)->ready = true;
	return CURL_PREREQFUNC_OK;
}

static int
close_socket(pg_attribute_unused() void *arg, curl_socket_t fd)
{
	return http_socket_close(http_pool.sockets, fd);
}

/*
 * libcurl waits to read from a socket as soon as it is connected.  Behind a
 * proxy, that is not yet the connection to the API.
 */
static void
note_connection(CURL *easy)
{
	HttpRequest *request = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request);
	if (request && !request->proxied)
		request->connected = true;
}

int
http_request_watch_socket(CURL *easy, curl_socket_t fd, int what,
						  pg_attribute_unused() void *arg,
						  pg_attribute_unused() void *known)
{
	int			events = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_READABLE;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= WL_SOCKET_WRITEABLE;
	if ((events & WL_SOCKET_READABLE) &&
		http_socket_owns(http_pool.sockets, fd))
		note_connection(easy);
	if (!http_socket_watch(http_pool.sockets, fd, events))
		http_pool.out_of_memory = true;
	return 0;
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
		request->callback_error = CALLBACK_NO_MEMORY;
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
	size_t		length = request->length + size * count;

	if (http_pool_is_interrupted())
	{
		request->callback_error = CALLBACK_INTERRUPTED;
		return 0;
	}
	if (length > request->buffers->max_body)
	{
		request->callback_error = CALLBACK_LARGE_BODY;
		return 0;
	}
	if (request->buffers->used + size * count > request->buffers->max_used)
	{
		request->callback_error = CALLBACK_NO_BUFFER;
		return 0;
	}
	if (!grow_body(request, length))
		return 0;
	memcpy(request->body + request->length, data, size * count);
	request->length = length;
	request->buffers->used += size * count;
	return size * count;
}

static size_t
receive_header(char *data, size_t size, size_t count, void *arg)
{
	HttpRequest *request = arg;
	size_t		length = size * count;

	http_header_note(&request->headers, data, length);
	if (request->headers.bytes > MAX_HEADER_BYTES)
		request->callback_error = CALLBACK_LARGE_HEADERS;
	else if (http_header_is_miscoded(&request->headers))
		request->callback_error = CALLBACK_CODINGS;
	else if (http_pool_is_interrupted())
		request->callback_error = CALLBACK_INTERRUPTED;
	else
		return length;
	return 0;
}

/* Called repeatedly: an interrupt aborts whatever libcurl is doing. */
static int
note_progress(void *arg, pg_attribute_unused() curl_off_t download_total,
			  pg_attribute_unused() curl_off_t downloaded,
			  pg_attribute_unused() curl_off_t upload_total,
			  pg_attribute_unused() curl_off_t uploaded)
{
	if (!http_pool_is_interrupted())
		return 0;
	((HttpRequest *) arg)->callback_error = CALLBACK_INTERRUPTED;
	return 1;
}

/* ---- lifecycle ---- */

static void
set_callbacks(HttpRequest *request)
{
	CURL	   *easy = request->easy;

	CURL_SET(easy, CURLOPT_PRIVATE, request);
	CURL_SET(easy, CURLOPT_ERRORBUFFER, request->message);
	CURL_SET(easy, CURLOPT_WRITEFUNCTION, receive_body);
	CURL_SET(easy, CURLOPT_WRITEDATA, request);
	CURL_SET(easy, CURLOPT_HEADERFUNCTION, receive_header);
	CURL_SET(easy, CURLOPT_HEADERDATA, request);
	CURL_SET(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	CURL_SET(easy, CURLOPT_OPENSOCKETDATA, request);
	CURL_SET(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	CURL_SET(easy, CURLOPT_PREREQFUNCTION, note_ready);
	CURL_SET(easy, CURLOPT_PREREQDATA, request);
	CURL_SET(easy, CURLOPT_XFERINFOFUNCTION, note_progress);
	CURL_SET(easy, CURLOPT_XFERINFODATA, request);
	CURL_SET(easy, CURLOPT_NOPROGRESS, 0L);
}

void
http_request_prepare(HttpRequest *request, const HttpSettings *settings,
					 HttpBuffers *buffers)
{
	request->buffers = buffers;
	request->proxied = settings->proxy != NULL;
	request->https_proxy = request->proxied &&
		pg_strncasecmp(settings->proxy, "https:", 6) == 0;
	request->easy = curl_easy_init();
	if (request->easy == NULL)
		http_pool_reject_memory();
	http_easy_configure(request->easy, settings);
	set_callbacks(request);
}

void
http_request_forget(HttpRequest *request)
{
	request->buffers->used -= request->length;
	if (request->capacity > KEPT_BODY_BYTES)
	{
		free(request->body);
		request->body = NULL;
		request->capacity = 0;
	}
	request->length = 0;
	memset(&request->headers, 0, sizeof(request->headers));
	request->resolved = false;
	request->connected = false;
	request->ready = false;
	request->callback_error = CALLBACK_OK;
	request->message[0] = '\0';
}

void
http_request_free(HttpRequest *request)
{
	if (request->easy && request->state == REQUEST_RUNNING)
		curl_multi_remove_handle(http_pool.multi, request->easy);
	curl_easy_cleanup(request->easy);
	free(request->body);
}

/*
 * How far a request has come, according to the callbacks. libcurl's own times
 * are unreliable, because some versions set them when a request fails.
 */
HttpStage
http_request_stage(HttpRequest *request)
{
	long		sent = 0;

	curl_easy_getinfo(request->easy, CURLINFO_REQUEST_SIZE, &sent);
	if (request->ready)
		return sent > 0 ? HTTP_RECEIVE : HTTP_SEND;
	if (request->connected)
		return HTTP_TLS;
	return request->resolved ? HTTP_CONNECT : HTTP_RESOLVE;
}

/* ---- result ---- */

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
 * Is only the host of the certificate wrong?  Then OpenSSL's result is 0, or
 * the initial value set by libcurl 7.88.
 */
static bool
is_chain_trusted(CURLcode code, long verify_result)
{
	return code == CURLE_PEER_FAILED_VERIFICATION &&
		(verify_result == X509_FINE || verify_result == X509_NONE_YET);
}

/* Was the connection closed before any part of a response arrived? */
static bool
is_lost(CURLcode code)
{
	return code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
		code == CURLE_GOT_NOTHING || code == CURLE_HTTP2;
}

/* Was a new connection refused, or reset before anything arrived over it? */
static bool
is_refused(CURLcode code, HttpStage stage)
{
	return stage != HTTP_RESOLVE &&
		(code == CURLE_COULDNT_CONNECT || code == CURLE_SSL_CONNECT_ERROR ||
		 is_lost(code));
}

/* Whose certificate it is: an https proxy's, until the tunnel is open. */
static HttpError
classify_certificate(bool at_proxy, bool chain_trusted)
{
	if (at_proxy)
		return chain_trusted ? HTTP_WRONG_PROXY : HTTP_UNTRUSTED_PROXY;
	return chain_trusted ? HTTP_WRONG_HOST : HTTP_UNTRUSTED;
}

static HttpError
classify(CURLcode code, HttpStage stage, bool at_proxy, bool chain_trusted)
{
	if (code == CURLE_OK)
		return HTTP_ANSWERED;
	if (code == CURLE_SSL_CACERT_BADFILE)
		return HTTP_BAD_CA_FILE;
	if (stage == HTTP_RECEIVE && code == COMPAT_CURLE_TOO_LARGE)
		return code == CURLE_OUT_OF_MEMORY ? HTTP_NO_ROOM : HTTP_LARGE_HEADERS;
	if (code == CURLE_OUT_OF_MEMORY)
		http_pool_reject_memory();
	if (code == CURLE_BAD_CONTENT_ENCODING)
		return HTTP_UNDECODABLE;
	/* A TLS handshake may fail because the connection does */
	if (is_tls_error(code) && code != CURLE_SSL_CONNECT_ERROR)
		return classify_certificate(at_proxy, chain_trusted);
	return stage >= HTTP_SEND ? HTTP_BROKEN : HTTP_UNREACHABLE;
}

/* What a callback recorded is more specific than libcurl's error code. */
static void
note_callback_error(const HttpRequest *request, HttpResponse *response)
{
	switch (request->callback_error)
	{
		case CALLBACK_OK:
			break;
		case CALLBACK_NO_SOCKET:
			/* another address may have been able to get one */
			if (response->failure == HTTP_UNREACHABLE)
				response->failure = HTTP_NO_SOCKET;
			break;
		case CALLBACK_LARGE_BODY:
			response->failure = HTTP_LARGE_BODY;
			break;
		case CALLBACK_NO_BUFFER:
			response->failure = HTTP_NO_BUFFER;
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
		copy = palloc_extended(strlen(shown) + 1, MCXT_ALLOC_NO_OOM);
	if (copy)
		memcpy(copy, shown, strlen(shown) + 1);
	curl_free(shown);
	return copy;
}

static const char *
text_or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

static void
describe_answer(HttpRequest *request, HttpResponse *response)
{
	if (!grow_body(request, request->length + 1))
		http_pool_reject_memory();
	request->body[request->length] = '\0';
	response->status = (int) long_info(request->easy, CURLINFO_RESPONSE_CODE, 0);
	response->body = request->body;
	response->length = request->length;
	response->content_type = text_info(request->easy, CURLINFO_CONTENT_TYPE);
	response->redirect = redirect_target(request->easy);
	response->retry_after = text_or_null(request->headers.retry_after);
	response->date = text_or_null(request->headers.date);
}

static void
describe_failure(HttpRequest *request, CURLcode code, HttpResponse *response)
{
	long		tunnel = long_info(request->easy, CURLINFO_HTTP_CONNECTCODE, 0);
	bool		at_proxy = request->https_proxy && tunnel == 0;
	long		verified = long_info(request->easy, at_proxy ?
									 CURLINFO_PROXY_SSL_VERIFYRESULT : CURLINFO_SSL_VERIFYRESULT, -1);
	bool		kept = request->ready &&
		long_info(request->easy, CURLINFO_NUM_CONNECTS, 1) == 0;

	response->stage = is_tls_error(code) ? HTTP_TLS : http_request_stage(request);
	response->failure = classify(code, response->stage, at_proxy,
								 is_chain_trusted(code, verified));
	if (tunnel == PROXY_AUTHENTICATION_REQUIRED)
	{
		response->stage = HTTP_CONNECT;
		response->failure = HTTP_DENIED_BY_PROXY;
	}
	response->message = request->message[0] ? request->message :
		curl_easy_strerror(code);
	response->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	request->silent = kept && response->timed_out;
	response->lost_kept = kept && response->status == 0 && is_lost(code);
	response->refused = !kept && response->status == 0 &&
		is_refused(code, response->stage);
	if (code == CURLE_COULDNT_CONNECT)
		response->os_error = (int) long_info(request->easy, CURLINFO_OS_ERRNO, 0);
	note_callback_error(request, response);
}

void
http_request_describe(HttpRequest *request, CURLcode code, HttpResponse *response)
{
	memset(response, 0, sizeof(HttpResponse));
	response->slot = request->slot;
	describe_answer(request, response);
	describe_failure(request, code, response);
}
