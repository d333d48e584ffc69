/*
 * download: the time that the pages take to arrive, and nothing else
 *
 * A bare libcurl multi program that requests all pages of an account with
 * yelp_sync's options and concurrency, and throws the bodies away: the limit of
 * each program that fetches them by libcurl.  The multi handle is driven by
 * epoll and curl_multi_socket_action(), the quickest way; handles and
 * connections are kept between rounds.
 *
 * Usage: download URL PAGE_SIZE CONCURRENCY 1.1|2 [CA_FILE]
 *
 * Each line on standard input is the number of programs to fetch, and is
 * answered by a line when the last page has arrived.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <curl/curl.h>

static const char *url;
static long page_size;
static long programs;
static long next_offset;
static long running;
static long timeout_ms;
static int	epoll_fd;
static CURLM *multi;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "download: %s: %s\n", what, why);
	exit(1);
}

static size_t
discard(char *data, size_t size, size_t count, void *arg)
{
	(void) data, (void) arg;
	return size * count;
}

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {
		.data.fd = fd,
		.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0)
	};

	(void) easy, (void) arg;
	if (what == CURL_POLL_REMOVE)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
	else
		epoll_ctl(epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	curl_multi_assign(multi, fd, multi);	/* known from now on */
	return 0;
}

static int
set_timer(CURLM *m, long ms, void *arg)
{
	(void) m, (void) arg;
	timeout_ms = ms;
	return 0;
}

/* Let EASY fetch the next page, if there is one */
static void
start_page(CURL *easy)
{
	char		page[4096];

	if (next_offset >= programs)
		return;
	snprintf(page, sizeof(page), "%s?offset=%ld&limit=%ld&program_status=ALL",
			 url, next_offset, page_size);
	curl_easy_setopt(easy, CURLOPT_URL, page);
	curl_multi_add_handle(multi, easy);
	next_offset += page_size;
	running++;
}

/* Take the pages that have arrived, and start as many others */
static void
finish_pages(void)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		CURLcode	code = message->data.result;
		long		status;

		if (code != CURLE_OK)
			die("transfer", curl_easy_strerror(code));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 200)
			die("status", "not 200");
		curl_multi_remove_handle(multi, easy);
		running--;
		start_page(easy);
	}
}

static void
wait_for_sockets(void)
{
	struct epoll_event events[64];
	int			ready = epoll_wait(epoll_fd, events, 64, (int) timeout_ms);
	int			still;

	for (int i = 0; i < ready; i++)
	{
		uint32_t	found = events[i].events;

		curl_multi_socket_action(multi, events[i].data.fd,
								 (found & EPOLLIN ? CURL_CSELECT_IN : 0) |
								 (found & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
								 (found & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0), &still);
	}
	/* What was just started must not wait for a quiet moment */
	if (ready == 0 || timeout_ms == 0)
		curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &still);
}

static CURL *
new_handle(bool http2, const char *ca_file)
{
	CURL	   *easy = curl_easy_init();

	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
	curl_easy_setopt(easy, CURLOPT_USERPWD, "bench:bench");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 32L * 1024);	/* as yelp_sync receives */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, 30L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
					 http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, (long) http2);
	if (ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	return easy;
}

int
main(int argc, char **argv)
{
	char		line[64];
	long		concurrency;
	CURL	  **handles;

	if (argc < 5)
		die("usage", "download URL PAGE_SIZE CONCURRENCY 1.1|2 [CA_FILE]");
	url = argv[1];
	page_size = atol(argv[2]);
	concurrency = atol(argv[3]);

	curl_global_init(CURL_GLOBAL_ALL);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	multi = curl_multi_init();
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, concurrency);
	handles = calloc(concurrency, sizeof(CURL *));
	for (long i = 0; i < concurrency; i++)
		handles[i] = new_handle(strcmp(argv[4], "2") == 0, argv[5]);

	while (fgets(line, sizeof(line), stdin))
	{
		programs = atol(line);
		next_offset = 0;
		for (long i = 0; i < concurrency; i++)
			start_page(handles[i]);
		while (running > 0)
		{
			wait_for_sockets();
			finish_pages();
		}
		puts("done");
		fflush(stdout);
	}
	return 0;
}
