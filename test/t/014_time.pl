# Timeouts and failing connections: the error and the stage that it names, which are
# retried, and that no resources are leaked.
use strict;
use warnings FATAL => 'all';

use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes ();

use YelpApi;
use YelpSession;
use YelpTest;

my $attempts = 2;
my ($node, $api) = YelpTest::start(server => { max_deleted => '100%', max_retry_after => '1ms' });
my $session = YelpSession->new($node);
my %defaults = (
	endpoint => $api->url,
	attempts => $attempts,
	retry_delay => '1ms',
	map { $_ => undef } qw(ca_file concurrency connect_timeout http_version proxy timeout));

$session->options(%defaults);
$api->config(accounts => { acme => { count => 100 } });
is($session->sync->{error}, undef, 'first sync');

my $state = q{SELECT md5(string_agg(p.ctid || p.xmin::text || p::text, ';' ORDER BY program_id))
	FROM yelp_programs p};
my $nobody = PostgreSQL::Test::Cluster::get_free_port();
my $silent = 'http://127.0.0.1:' . $api->port('silent') . '/programs/v1';
my @tls = (endpoint => $api->https_url, ca_file => $api->ca_file);
my $silent_tls = $api->url('silent');

# Cases: name, SQLSTATE, message, stage, options of the server, and more:
#   faults   of the stand-in
#   offset   of the page that fails, where that is certain
#   detail, hint   patterns
#   final    it is not tried again
#   least    the least time that it takes, in seconds
my @cases = (

	# Resolve: a name with a part of more than 63 characters is no name at all
	[ 'a name that cannot be resolved', '08001', 'connection failed', 'resolve',
		{ endpoint => 'https://' . 'a' x 64 . '.example/programs/v1' },
		detail => qr/^Could not resolve host: a{64}\.example\.  The URL was / ],
	[ 'a proxy that cannot be resolved', '08001', 'connection failed', 'resolve',
		{ @tls, proxy => 'http://' . 'a' x 64 . '.example:3128' },
		detail => qr/^Could not resolve proxy: a{64}\.example\.  The URL was / ],

	# Connect
	[ 'nobody listens', '08001', 'connection failed', 'connect',
		{ endpoint => "http://127.0.0.1:$nobody/programs/v1" },
		detail => qr/(?:port |:)$nobody\b.*refused/ ],
	[ 'nobody listens at the proxy', '08001', 'connection failed', 'connect',
		{ @tls, proxy => "http://127.0.0.1:$nobody" },
		# libcurl 8.22 names the proxy without its port
		detail => qr/port $nobody|proxy 127\.0\.0\.1/ ],
	[ 'connections are swallowed, connect_timeout', '08001', 'timed out', 'connect',
		{ endpoint => $api->url('swallow'), connect_timeout => '300ms' }, least => 0.6 ],
	[ 'connections are swallowed, timeout', '08001', 'timed out', 'connect',
		{ endpoint => $api->url('swallow'), timeout => '300ms' }, least => 0.6 ],
	[ 'the proxy swallows connections', '08001', 'timed out', 'connect',
		{ @tls, proxy => 'http://127.0.0.1:' . $api->port('swallow'), connect_timeout => '300ms' },
		least => 0.6 ],
	[ 'a proxy that refuses', '08001', 'connection failed', 'connect',
		{ @tls, proxy => 'http://127.0.0.1:' . $api->port('http') }, detail => qr/CONNECT/ ],
	[ 'a proxy that is silent', '08001', 'timed out', 'connect',
		{ @tls, proxy => 'http://127.0.0.1:' . $api->port('silent'), connect_timeout => '300ms' },
		least => 0.6 ],

	# TLS
	[ 'silent instead of TLS, connect_timeout', '08001', 'timed out', 'TLS',
		{ endpoint => $silent_tls, connect_timeout => '300ms' }, least => 0.6 ],
	[ 'silent instead of TLS, timeout', '08001', 'timed out', 'TLS',
		{ endpoint => $silent_tls, timeout => '300ms' }, least => 0.6 ],
	[ 'HTTP instead of TLS', '08001', 'connection failed', 'TLS',
		{ endpoint => $api->url =~ s/^http:/https:/r }, detail => qr/SSL|TLS/ ],
	[ 'a certificate for another host', '08001', q{API certificate is for another host}, 'TLS',
		{ endpoint => $api->url('wrong_host'), ca_file => $api->ca_file }, final => 1 ],
	[ 'a certificate of another authority', '08001', q{API certificate is not trusted}, 'TLS',
		{ endpoint => $api->url('untrusted'), ca_file => $api->ca_file }, final => 1,
		hint => qr/ca_file/ ],
	[ 'a certificate that the system does not know', '08001',
		q{API certificate is not trusted}, 'TLS',
		{ endpoint => $api->https_url }, final => 1, hint => qr/ca_file/ ],

	# Receive
	[ 'never an answer', '08006', 'timed out', 'receive',
		{ endpoint => $silent, timeout => '300ms' }, least => 0.6 ],
	[ 'never an answer, with HTTP/2 asked for', '08006', 'timed out', 'receive',
		{ endpoint => $silent, timeout => '300ms', http_version => '2' }, least => 0.6 ],
	[ 'no answer to any request', '08006', 'timed out', 'receive', { timeout => '500ms' },
		faults => [ { action => { hold => \1 } } ], least => 1 ],
	[ 'no answer over TLS', '08006', 'timed out', 'receive',
		{ @tls, timeout => '600ms' },
		faults => [ { action => { hold => \1 } } ], least => 1.2 ],
	[ 'a body that never begins', '08006', 'timed out', 'receive', { timeout => '500ms' },
		faults => [ { action => { stall => { at => 0 } } } ], least => 1 ],
	[ 'a body that stops', '08006', 'timed out', 'receive', { timeout => '500ms' },
		faults => [ { action => { stall => { at => 500 } } } ], least => 1,
		detail => qr/timed out/i ],
	[ 'a byte now and then', '08006', 'timed out', 'receive', { timeout => '500ms' },
		faults => [ { action => { drip => { every_ms => 20 } } } ], least => 1 ],
	[ 'one page that stops', '08006', 'timed out', 'receive', { timeout => '500ms' },
		faults => [ { match => { offset => 60 }, action => { stall => {} } } ], least => 1,
		offset => 60 ],
);

foreach my $case (@cases)
{
	my ($name, $sqlstate, $message, $stage, $options, %more) = @$case;
	my $tries = $more{final} ? 1 : $attempts;
	my %slow = map { $_ => $options->{$_} =~ s/^(\d+)(?=ms$)/$1 * $YelpApi::slack/er } keys %$options;

	subtest $name => sub {
		$session->options(%defaults, %slow);
		my $before = $session->value($state);
		my $changed = $api->mutate(alter => 2);
		$api->faults(@{ $more{faults} // [] });
		my $begun = Time::HiRes::time();
		my $failed = $session->sync;
		my $seconds = Time::HiRes::time() - $begun;
		my $offset = $more{offset} // qr/\d+/;

		is($failed->{sqlstate}, $sqlstate, 'the SQLSTATE');
		like($failed->{error},
			qr/^could not fetch the page at offset $offset of account "acme": $message /,
			'what happened');
		like($failed->{error}, qr/ \(attempt $tries of $attempts, stage $stage\)$/,
			'the attempt and the stage');
		like($failed->{detail}, $more{detail} // qr/^\S.*[^.]\.  The URL was \S+$/, 'the detail')
		  and note($failed->{detail});
		like($failed->{hint}, $more{hint}, 'the hint') if $more{hint};
		unlike(join("\n", map { $_ // '' } @$failed{qw(error detail hint context)}), qr/s3cret/,
			'the password is in no part of it');
		if ($more{least})
		{
			my $least = $more{least} * $YelpApi::slack;
			cmp_ok($seconds / $least, '>', 0.95, 'each attempt has its time');
			cmp_ok($seconds / $least, '<', 4, '... and no more');
		}
		is($session->value($state), $before, 'the table is as before');
		$api->poll_until(
			sub {
				my $counters = $api->counters;
				!$counters->{open_connections} && !$counters->{silent_open}
				  && !$counters->{swallow_connecting};
			},
			'connections to be closed');
		pass('no connection is left');

		$api->faults;
		$session->options(%defaults);
		my $next = $session->sync;
		is($next->{error}, undef, 'the next sync in this session works');
		is(@{ $next->{rows} }, keys %{ $changed->{altered} }, '... and brings what had changed');
	};
}

subtest 'timeout is for a request, not for all' => sub {
	$session->options(%defaults, timeout => 600 * $YelpApi::slack . 'ms', concurrency => 1);
	$api->config(latency_ms => 200);
	my $begun = Time::HiRes::time();
	is($session->sync->{error}, undef, 'no error');
	cmp_ok((Time::HiRes::time() - $begun) / $YelpApi::slack, '>', 0.9, 'all took longer than timeout');
	$api->config(latency_ms => 0);
};

subtest 'connections that take long, but not too long' => sub {
	$session->options(%defaults, @tls, connect_timeout => '5s');
	$api->config(connection_delay_ms => 200);
	is($session->sync->{error}, undef, 'no error');
	$api->config(connection_delay_ms => 0);
};

subtest 'connections that the API closed meanwhile' => sub {
	$session->options(%defaults);
	foreach my $how ('close', 'reset')
	{
		is($session->sync->{error}, undef, 'a sync leaves connections');
		cmp_ok($api->disconnect($how), '>', 0, "the API gives them up: $how");
		$session->options(attempts => 1);
		is($session->sync->{error}, undef, 'the next sync costs no attempt');
		$session->options(attempts => $attempts);
	}
};

# libcurl itself repeats a request five times over such connections
subtest 'connections that the API resets when they are used again' => sub {
	$session->options(%defaults, page_size => 4);
	$api->config(latency_ms => 200);
	$session->sync;
	$api->config(latency_ms => 0);
	cmp_ok($api->counters->{open_connections}, '>', 20, 'a sync leaves many');
	$api->mutate(remove => 98);
	$session->options(attempts => 1);
	$api->faults({ match => { up_to_connection => max(map { $_->{connection} } $api->log) }, action => 'reset' });
	is($session->sync->{error}, undef, 'the next sync costs no attempt');
	cmp_ok(($api->faults_used)[0], '>', 5, '... though all that it tried were reset');
	$api->faults;
	$session->options(%defaults, page_size => undef);
};

YelpTest::table_is_listing($node, $api, 'acme', 'at the end the table holds what is listed');
$session->end;
done_testing();
