# Overloaded APIs: those that answer with 403, 503 or by resetting connections, that
# limit concurrent requests or connections or requests within a period, or that queue
# requests.  A sync gets through, in not much more time than the limit needs.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpApi;
use YelpNginx;
use YelpSession;
use YelpTest;

my $latency_ms = 100;
my $rate = 20;
my $at_a_time = 10;

# Machines are noisy; what is aimed at is 1.5
my $most_time = 2.5 * $YelpApi::slack;

# Cases: name, pages, the least time in seconds, and how to limit the API
my @cases = (
	[ 'nginx, limit_req', 40, 39 / $rate, nginx => {
		http => "limit_req_zone \$server_name zone=api:1m rate=${rate}r/s;",
		location => 'limit_req zone=api;' } ],
	[ 'nginx, limit_conn', 200, 200 / $at_a_time * $latency_ms / 1000, nginx => {
		http => 'limit_conn_zone $server_name zone=api:1m;',
		location => "limit_conn api $at_a_time;" } ],
	[ 'token bucket, 403', 40, 39 / $rate,
		limiter => { token_bucket => { rate => $rate, refusal => 403, retry_after => 'none' } } ],
	[ 'token bucket, resets', 40, 39 / $rate,
		limiter => { token_bucket => { rate => $rate, refusal => 'reset' } } ],
	[ 'so many connections, others are reset', 200, 200 / $at_a_time * $latency_ms / 1000,
		config => { max_connections => $at_a_time } ],
	[ 'so many requests per period, 429', 96, 2 * 3,
		limiter => { period => { limit => 40, seconds => 3 } } ],
	[ 'so many requests per period, 503', 96, 2 * 3,
		limiter => { period => { limit => 40, seconds => 3, refusal => 503 } } ],
	[ 'a queue that is longer than the timeout', 200, 200 / 45, limiter => { queue => { rate => 45 } },
		timeout => '2s' ],
	[ 'so many threads, one per connection', 200, 200 / $at_a_time * $latency_ms / 1000,
		limiter => { threads => { limit => $at_a_time, idle_seconds => 60 } } ]);

my ($node, $api) = YelpTest::start(server => { max_deleted => '100%' });
my $session;

sub sync_seconds
{
	my ($name) = @_;
	my $result = $session->sync;

	is($result->{error}, undef, "$name: no error");
	return split /\|/, $session->value(YelpTest::last_run('extract(epoch FROM fetch_time), retries, status'));
}

foreach my $case (@cases)
{
	my ($name, $pages, $least, $how, $what, %options) = @$case;
	my $programs = $pages * 20 - 7;

	subtest $name => sub {
		my $reason = $how eq 'nginx' ? YelpNginx->is_lacking : undef;
		plan skip_all => $reason if $reason;
		$api->reset;
		$api->config(latency_ms => $latency_ms, max_connections => undef,
			accounts => { acme => { count => $programs, style => 'cheap' } });
		my $nginx = $how eq 'nginx' ? YelpNginx->start($api, %$what) : undef;
		$session = YelpSession->new($node);	# without connections from before
		$session->options(endpoint => $nginx ? $nginx->url : $api->url,
			timeout => undef, %options);
		$session->run('TRUNCATE yelp_programs, yelp_sync_runs');

		# As many requests at once as there are pages
		$session->run("INSERT INTO yelp_sync_runs (username, server, synced_by, status,
			program_status, started_at, finished_at, programs, listed, pages, requests, retries,
			received_bytes, added, updated, unchanged, deleted, missing, problems, failed_pages,
			fetch_time, merge_time)
			SELECT 'acme', 'yelp', current_user, 'synced', 'ALL', now(), now(), $programs, $programs,
				$pages, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '0', '0'");
		$api->limiter(%$what) if $how eq 'limiter';
		$api->config(%$what) if $how eq 'config';
		my ($seconds, $retries, $status) = sync_seconds($name);
		note(sprintf '%s: %.2f times the least time, %d refused', $name, $seconds / $least, $retries);
		is($status, 'synced', 'all of it');
		cmp_ok($retries, '>', 0, 'some requests were refused, or sent again') unless %options;
		cmp_ok($seconds / $least, '>', 0.9, 'the limit was in force');
		cmp_ok($seconds / $least, '<', $most_time, 'and cost not much more time than it must');
		is($session->value('SELECT count(*) FROM yelp_programs'), $programs,
			'all programs are stored');
		$session->end;
	};
}

# ---- what is no overload ----

$api->reset;
$api->config(max_connections => undef, latency_ms => 0, accounts => { acme => { count => 100 } });
$session = YelpSession->new($node);
$session->options(endpoint => $api->url, retry_delay => '1ms', retry_max_delay => '2ms',
	max_retry_after => '0');
is($session->sync->{error}, undef, 'another account');

foreach my $case (
	[ 503, { respond => { status => 503 } }, 'HV000' ],
	[ 403, { respond => { status => 403 } }, 'HV000' ],
	[ 'a reset', 'reset', '08006' ])
{
	my ($name, $action, $sqlstate) = @$case;

	subtest "$name for one page, for ever" => sub {
		$session->options(concurrency => 1);
		$api->reset('counters');
		$api->config(connection_close => \1);
		$api->faults({ match => { offset => 40 }, action => $action });
		my $result = $session->sync;
		is($result->{sqlstate}, $sqlstate, 'an error at last');
		like($result->{error}, qr/page at offset 40 .*\(attempt 3 of 3, /, 'that names the page');
		my $requests = $api->requests_at(40);
		cmp_ok($requests, '<=', 3 + 5, "$requests requests: no more than the pages that arrived allow");
		$api->config(connection_close => \0);
		$session->options(concurrency => undef);
	};
	subtest "$name for every page" => sub {
		$api->reset('counters');
		$api->faults({ action => $action });
		my $result = $session->sync;
		isnt($result->{error}, undef, 'an error');
		like($result->{error}, qr/attempt [13] of 3/, 'after so many attempts');
		cmp_ok($api->counters->{requests}, '<=', 6 * 3, 'with no more requests than that');
		is($session->value('SELECT count(*) FROM yelp_programs'), 100, 'nothing is lost');
		$api->faults;
	};
}

# Nobody listens any more: all pages are asked for a last time, and no page waits
# for another one
subtest 'an API that goes down while it is asked' => sub {
	$api->config(accounts => { acme => { count => 1000 } });
	$session->options(retry_delay => '1s', retry_max_delay => undef, max_retry_after => '1s');
	is($session->sync->{error}, undef, 'a sync');
	$session->run(q{SET statement_timeout = '60s'});
	foreach my $partial ('off', 'on')
	{
		$session->options(partial => $partial);
		$api->reset('counters');
		$api->faults({ match => { from_offset => 200 }, action => { respond => { status => 503 } } });
		my $result = $session->sync;
		is($result->{sqlstate}, $partial eq 'on' ? undef : 'HV000', "partial $partial: ends in time")
		  or diag($result->{stderr});
		is($session->value('SELECT count(*) FROM yelp_programs'), 1000, '... and loses nothing');
	}
	$api->faults;
	$session->options(endpoint => 'http://127.0.0.1:1/programs', retry_delay => '1ms');
	is($session->sync->{sqlstate}, '08001', 'nobody listens, and 50 pages are asked for: an error');
};

$session->end;
done_testing();
