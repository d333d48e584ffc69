# Overloaded APIs: those that refuse requests (429, 403, 503, resets), limit their rate, their
# number at a time or in a period, limit connections, or queue requests.  A sync succeeds, in not
# much more time than the limit needs.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpNginx;
use YelpTest ':all';

my $latency_ms = 100;
my $rate = 20;
my $at_a_time = 10;

# Machines are noisy; the aim is 1.5
my $most_time = 2.5 * $YelpApi::slack;

# The least time that 40 pages need, including the pause, in whole seconds, that the API asks for
# when it refuses the first requests
my $forty = 39 / $rate;
my $two_hundred = 200 / $at_a_time * $latency_ms / 1000;

# Cases: name, pages, the least time in seconds, and how to limit the API
my @cases = (
	(map { [ "nginx, limit_req, $_", 40, $forty, nginx => {
		http => "limit_req_zone \$server_name zone=api:1m rate=${rate}r/s; limit_req_status $_;",
		location => 'limit_req zone=api;' } ] } 429, 503),
	[ 'nginx, limit_conn', 200, $two_hundred, nginx => {
		http => 'limit_conn_zone $server_name zone=api:1m;', location => "limit_conn api $at_a_time;" } ],
	[ 'token bucket, Retry-After in seconds', 40, $forty + 1,
		limiter => { token_bucket => { rate => $rate, burst => 2 } } ],
	[ 'token bucket, Retry-After as a date', 40, $forty + 1.5,
		limiter => { token_bucket => { rate => $rate, burst => 2, retry_after => 'date' } } ],
	[ 'token bucket, 403', 40, $forty,
		limiter => { token_bucket => { rate => $rate, refusal => 403, retry_after => 'none' } } ],
	[ 'token bucket, resets', 40, $forty,
		limiter => { token_bucket => { rate => $rate, refusal => 'reset' } } ],
	[ 'a limit of connections, others are reset', 200, $two_hundred, config => { max_connections => $at_a_time } ],
	[ 'a limit in each period, 429', 96, 2 * 3, limiter => { period => { limit => 40, seconds => 3 } } ],
	[ 'a limit in each period, 503', 96, 2 * 3, limiter => { period => { limit => 40, seconds => 3, refusal => 503 } } ],
	[ 'a queue that is longer than the timeout', 200, 200 / 45, limiter => { queue => { rate => 45 } }, timeout => '2s' ],
	[ 'a limit of threads, one per connection', 200, $two_hundred,
		limiter => { threads => { limit => $at_a_time, idle_seconds => 60 } } ]);

my ($node, $api) = start(server => { max_deleted => '100%' });
my $session;

# After the first refusals are known, few requests are refused: each page's first request does not count
sub later_refusals
{
	my ($pages, @answers) = @_;
	my (%asked, $number);
	return grep { $_->{status} =~ /^(429|503)$/ && ($asked{ $_->{offset} }++ || ++$number > $pages) } @answers;
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
		$session = YelpSession->new($node);	# without kept connections
		$session->options(endpoint => $nginx ? $nginx->url : $api->url, timeout => undef, %options);

		# As many requests at once as there are pages
		$session->run("TRUNCATE yelp_programs, yelp_sync_runs;
			INSERT INTO yelp_sync_runs (username, server, synced_by, status, started_at, finished_at, listed)
			VALUES ('acme', 'yelp', current_user, 'synced', now(), now(), $programs)");
		$api->limiter(%$what) if $how eq 'limiter';
		$api->config(%$what) if $how eq 'config';
		is(outcome($session->sync), "added $programs", 'all programs are stored');
		my ($status, $read, $seconds, $requests, $retries) =
		  split /\|/, $session->value(YelpTest::last_run('status, pages, extract(epoch FROM fetch_time), requests, retries'));
		note(sprintf '%s: %.2f times the least time, %d refused', $name, $seconds / $least, $retries);
		is("$status $read", "synced $pages", 'all pages');
		cmp_ok($retries, '>', 0, 'some requests were refused, or sent again') unless %options;
		cmp_ok($seconds / $least, '>', 0.9, 'the limit was in force');
		cmp_ok($seconds / $least, '<', $most_time, '... and did not cost much more time than it must');
		if ($name =~ /limit_req|Retry-After/)
		{
			my @answers = $nginx ? $nginx->answers : $api->log;
			is($requests, @answers, 'the history counts the requests');
			cmp_ok(later_refusals($pages, @answers) / @answers, '<', 0.25, 'few are refused once the limit is known');
		}
		$session->end;
	};
}

note 'what is not overload';

$api->reset;
$api->config(max_connections => undef, latency_ms => 0, accounts => { acme => { count => 100 } });
$session = YelpSession->new($node);
$session->options(endpoint => $api->url, retry_delay => '1ms', retry_max_delay => '2ms', max_retry_after => '0');
is($session->sync->{error}, undef, 'another account');

foreach my $case (
	[ 503, { respond => { status => 503 } }, 'HV000' ],
	[ 403, { respond => { status => 403 } }, 'HV000' ],
	[ 'a reset', 'reset', '08006' ])
{
	my ($name, $action, $sqlstate) = @$case;

	$session->options(concurrency => 1);
	$api->reset('counters');
	$api->config(connection_close => \1);
	$api->faults({ match => { offset => 40 }, action => $action });
	like(failure($session->sync), qr/^$sqlstate: .*page at offset 40 .*\(attempt 3 of 3, /, "$name for one page, permanently: an error");
	cmp_ok($api->requests_at(40), '<=', 3 + 5, '... after no more requests than the pages that arrived allow');
	$api->config(connection_close => \0);
	$session->options(concurrency => undef);
	$api->reset('counters');
	$api->faults({ action => $action });
	like(failure($session->sync), qr/attempt [13] of 3/, "$name for every page: an error");
	cmp_ok($api->counters->{requests}, '<=', 6 * 3, '... after no more requests than attempts');
	is($session->value('SELECT count(*) FROM yelp_programs'), 100, '... and nothing is deleted');
	$api->faults;
}

# All pages are requested a last time, and no page waits for another one
$api->config(accounts => { acme => { count => 1000 } });
$session->options(retry_delay => '1s', retry_max_delay => undef, max_retry_after => '1s');
is($session->sync->{error}, undef, 'an account of 1,000 programs');
$session->run(q{SET statement_timeout = '60s'});
foreach my $partial ('off', 'on')
{
	$session->options(partial => $partial);
	$api->faults({ match => { from_offset => 200 }, action => { respond => { status => 503 } } });
	is($session->sync->{sqlstate}, $partial eq 'on' ? undef : 'HV000', "an API that goes down, partial $partial: the sync ends in time");
	is($session->value('SELECT count(*) FROM yelp_programs'), 1000, '... and deletes nothing');
}
$session->options(endpoint => 'http://127.0.0.1:1/programs', retry_delay => '1ms');
is($session->sync->{sqlstate}, '08001', 'nobody listens, and 50 pages are requested: an error');

$session->end;
done_testing();
