# Timeouts and failing connections: the error and the stage that it names, which are retried, and
# that no resources are leaked.
use strict;
use warnings FATAL => 'all';

use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes ();

use YelpTest ':all';

my $attempts = 2;
my ($node, $api) = start(
	server => { max_deleted => '100%', max_retry_after => '1ms' },
	accounts => { acme => { count => 100 } });
my $session = YelpSession->new($node);
my %defaults = (
	endpoint => $api->url, attempts => $attempts, retry_delay => '1ms',
	map { $_ => undef } qw(ca_file concurrency connect_timeout http_version page_size proxy timeout));

$session->options(%defaults);
is($session->sync->{error}, undef, 'first sync');

my $nobody = PostgreSQL::Test::Cluster::get_free_port();
my $silent = 'http://127.0.0.1:' . $api->port('silent') . '/programs/v1';
my $long = 'a' x 64 . '.example';    # no host name has such a label
my @tls = (endpoint => $api->https_url, ca_file => $api->ca_file);
my @failed = ('08001', 'connection failed');
my @timed_out = ('08001', 'timed out');
my @received = ('08006', 'timed out', 'receive');

# Cases: SQLSTATE, message, stage, name, options of the server, and more:
#   action   of the stand-in
#   offset   of the page that fails, where that is certain
#   more     a pattern for detail and hint
#   final    it is not retried
#   ms       the time of an attempt, if it is a timeout: an option with this name gets it
my @cases = (
	[ @failed, 'resolve', 'the API', { endpoint => "https://$long/programs/v1" },
		more => qr/^DETAIL:  Could not resolve host: \Q$long\E\.  The URL was /m ],
	[ @failed, 'resolve', 'the proxy', { @tls, proxy => "http://$long:3128" },
		more => qr/^DETAIL:  Could not resolve proxy: \Q$long\E\.  The URL was /m ],

	[ @failed, 'connect', 'nobody listens', { endpoint => "http://127.0.0.1:$nobody/programs/v1" },
		more => qr/(?:port |:)$nobody\b.*refused/ ],
	# libcurl 8.22 names the proxy without its port
	[ @failed, 'connect', 'nobody listens at the proxy', { @tls, proxy => "http://127.0.0.1:$nobody" },
		more => qr/port $nobody|proxy 127\.0\.0\.1/ ],
	[ @timed_out, 'connect', 'connections are swallowed', { endpoint => $api->url('swallow'), connect_timeout => 300 } ],
	[ @timed_out, 'connect', 'connections are swallowed', { endpoint => $api->url('swallow'), timeout => 300 } ],
	[ @timed_out, 'connect', 'the proxy swallows connections',
		{ @tls, proxy => 'http://127.0.0.1:' . $api->port('swallow'), connect_timeout => 300 } ],
	[ @failed, 'connect', 'a proxy that refuses', { @tls, proxy => 'http://127.0.0.1:' . $api->port('http') }, more => qr/CONNECT/ ],
	[ @timed_out, 'connect', 'a proxy that is silent',
		{ @tls, proxy => 'http://127.0.0.1:' . $api->port('silent'), connect_timeout => 300 } ],

	[ @timed_out, 'TLS', 'silence', { endpoint => $api->url('silent'), connect_timeout => 300 } ],
	[ @timed_out, 'TLS', 'silence', { endpoint => $api->url('silent'), timeout => 300 } ],
	[ @failed, 'TLS', 'HTTP instead', { endpoint => $api->url =~ s/^http:/https:/r }, more => qr/SSL|TLS/ ],
	[ '08001', 'API certificate is for another host', 'TLS', 'wrong host',
		{ endpoint => $api->url('wrong_host'), ca_file => $api->ca_file }, final => 1,
		more => qr/127\.0\.0\.1(?!.*private authority)/s ],
	[ '08001', 'API certificate is not trusted', 'TLS', 'another CA',
		{ endpoint => $api->url('untrusted'), ca_file => $api->ca_file }, final => 1, more => qr/HINT:.*ca_file/ ],
	[ '08001', 'API certificate is not trusted', 'TLS', 'a CA that the system does not know',
		{ endpoint => $api->https_url }, final => 1, more => qr/HINT:.*ca_file/ ],

	[ @received, 'silence', { endpoint => $silent, timeout => 300 } ],
	[ @received, 'silence, HTTP/2', { endpoint => $silent, timeout => 300, http_version => '2' } ],
	[ @received, 'no response to any request', { timeout => 500 }, action => { hold => \1 } ],
	[ @received, 'no response over TLS', { @tls, timeout => 600 }, action => { hold => \1 } ],
	[ @received, 'a body that never begins', { timeout => 500 }, action => { stall => { at => 0 } } ],
	[ @received, 'a body that stops', { timeout => 500 }, action => { stall => { at => 500 } }, more => qr/timed out/i ],
	[ @received, 'a byte now and then', { timeout => 500 }, action => { drip => { every_ms => 20 } } ],
	[ @received, 'one page that stops', { timeout => 500 }, action => { stall => {} }, offset => 60 ]);

foreach my $case (@cases)
{
	my ($sqlstate, $message, $stage, $name, $options, %more) = @$case;
	my $tries = $more{final} ? 1 : $attempts;
	my ($timeout) = grep { /timeout/ } keys %$options;
	my $seconds = $timeout ? $tries * $options->{$timeout} / 1000 * $YelpApi::slack : undef;

	subtest "stage $stage: $name" . ($timeout ? ", $timeout" : '') => sub {
		$session->options(%defaults, %$options, $timeout ? ($timeout => $options->{$timeout} * $YelpApi::slack . 'ms') : ());
		my $before = $session->value(YelpTest::content_query());
		my $changed = $api->mutate(alter => 2);
		my $offset = $more{offset} // '\d+';
		$api->reset('counters');
		$api->faults({ match => { $more{offset} ? (offset => $more{offset}) : () }, action => $more{action} }) if $more{action};
		my $begun = Time::HiRes::time();
		my $failed = $session->sync;
		my $took = Time::HiRes::time() - $begun;

		like(failure($failed), qr/^$sqlstate: could not fetch the page at offset $offset of account "acme": $message [^\n]*\(attempt $tries of $attempts, stage $stage\)\nDETAIL:  \S.*[^.]\.  The URL was \S+/,
			'the error');
		like(failure($failed), $more{more}, 'detail and hint') if $more{more};
		unlike(failure($failed), qr/s3cret/, 'no password');
		ok($took > 0.95 * $seconds && $took < 4 * $seconds, 'each attempt has its time, and no more') or diag($took)
		  if $seconds;
		is_deeply([ $api->counters->{requests}, $api->counters->{failed_handshakes} <= 7 ], [ 0, 1 ], 'no request is sent')
		  if $more{final};
		is($session->value(YelpTest::content_query()), $before, 'the tables are unchanged');
		$api->poll_until(
			sub { !grep { $_ } @{ $api->counters }{qw(open_connections silent_open swallow_connecting)} },
			'connections to be closed');

		$api->faults;
		$session->options(%defaults);
		is(outcome($session->sync), 'updated 2', 'the next sync of this session works');
	};
}

note 'what is no failure';

$session->options(timeout => 600 * $YelpApi::slack . 'ms', concurrency => 1);
$api->config(latency_ms => 200);
my $begun = Time::HiRes::time();
is($session->sync->{error}, undef, 'a sync that takes longer than timeout, which is for a request');
cmp_ok((Time::HiRes::time() - $begun) / $YelpApi::slack, '>', 0.9, '... takes longer');
$session->options(%defaults, @tls, connect_timeout => '5s');
$api->config(latency_ms => 0, connection_delay_ms => 200);
is($session->sync->{error}, undef, 'connections that take long, but not too long');
$api->config(connection_delay_ms => 0);

$session->options(%defaults);
foreach my $how ('close', 'reset')
{
	is($session->sync->{error}, undef, 'a sync keeps connections');
	cmp_ok($api->disconnect($how), '>', 0, "the API gives them up: $how");
	$session->options(attempts => 1);
	is($session->sync->{error}, undef, 'the next sync costs no attempt');
	$session->options(attempts => $attempts);
}

# libcurl itself repeats a request five times over connections that are reset when they are used again
$session->options(page_size => 4);
$api->config(latency_ms => 200);
$session->sync;
$api->config(latency_ms => 0);
cmp_ok($api->counters->{open_connections}, '>', 20, 'a sync keeps many connections');
$api->mutate(remove => 98);
$session->options(attempts => 1);
$api->faults({ match => { up_to_connection => max(map { $_->{connection} } $api->log) }, action => 'reset' });
is($session->sync->{error}, undef, 'the next sync costs no attempt');
cmp_ok(($api->faults_used)[0], '>', 5, '... although all connections that it tried were reset');
$api->faults;
$session->options(%defaults);

table_is_listing('acme', 'the table in the end');
$session->end;
done_testing();
