# Proxies: those in the environment, which are ignored, and the server's option.
use strict;
use warnings FATAL => 'all';

use Encode ();
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpRelay;
use YelpTest;

my ($node, $api) = YelpTest::start(https => 1, server => { max_retry_after => '1ms' });
my $sync;

# A proxy that logs what it is asked; returns it and the log's name.  With
# credentials, it asks for them.
sub start_proxy
{
	my ($credentials) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir('proxy') . '/log';

	return (YelpRelay->start(sub { tunnel(shift, $log, $credentials) }), $log);
}

# The socket that a client asks a proxy for
sub tunnel
{
	my ($client, $log, $credentials) = @_;
	my $request = '';

	$client->sysread($request, 1, length $request) or return until $request =~ /\r\n\r\n\z/;
	append_to_file($log, $request);
	my ($host, $port) = $request =~ /^CONNECT (\S+):(\d+) / or return;
	if (defined $credentials && $request !~ /^Proxy-Authorization: Basic \Q$credentials\E\r$/m)
	{
		$client->syswrite("HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n");
		return;
	}
	my $server = YelpRelay::connect_to($host, $port) or return;
	$client->syswrite("HTTP/1.1 200 Connected\r\n\r\n");
	return $server;
}

{
	local @ENV{qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY)} = ('http://127.0.0.1:1') x 5;
	$node->restart;
}
like(YelpTest::must_run($node, q{CREATE TEMPORARY TABLE e (line text);
		COPY e FROM PROGRAM 'env' (DELIMITER E'\x01'); SELECT line FROM e WHERE line LIKE '%proxy%'})->{stdout},
	qr/^https_proxy=http:\/\/127.0.0.1:1$/m, 'the server has proxies in its environment');
is(YelpTest::sync($node, 'acme')->{sqlstate} // '', '', 'HTTPS: they are ignored');
YelpTest::set_server($node, endpoint => $api->url);
is(YelpTest::sync($node, 'acme')->{sqlstate} // '', '', 'HTTP: they are ignored');
YelpTest::set_server($node, endpoint => $api->https_url);
YelpTest::set_server($node, proxy => 'http://127.0.0.1:1');
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'the option proxy is not');
like($sync->{error}, qr/stage connect\)$/, 'the stage is told');

YelpTest::forget($node, $api);
my ($proxy, $proxy_log) = start_proxy();
YelpTest::set_server($node, proxy => 'http://127.0.0.1:' . $proxy->port);
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 1913, 'through the proxy that the option names') or diag($sync->{stderr});
my $through = slurp_file($proxy_log);
my $https = $api->port('https');
is(scalar(() = $through =~ /^CONNECT localhost:$https HTTP\/1\.1\r$/mg), $api->counters->{connections},
	'each connection goes through it');
unlike($through, qr/Authorization/i, 'and it learns no credentials');
$proxy->stop;

# A proxy that asks for credentials; in one session, so that connections are kept
sub set_mapping
{
	return 'ALTER USER MAPPING FOR CURRENT_USER SERVER yelp ' . YelpTest::options(@_) =~ s/(proxy_\w+)/ADD $1/gr . ';';
}

my $secret = "pr\x{f6}xy";
my $in_utf8 = encode_base64(Encode::encode('UTF-8', "carol:$secret"), '');
($proxy, $proxy_log) = start_proxy($in_utf8);
YelpTest::forget($node, $api);
YelpTest::set_server($node, proxy => 'http://127.0.0.1:' . $proxy->port);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '28000', 'a proxy that wants credentials');
like($sync->{error}, qr/proxy rejected the credentials \(attempt 1 of 3, stage connect\)$/, 'is told from the API');
is($sync->{hint}, 'Check proxy_user and proxy_password of the user mapping.', 'with a hint');
is($api->counters->{requests}, 0, 'and nothing reaches the API');
my $many = YelpTest::run($node, join "\n",
	set_mapping(proxy_user => 'carol', proxy_password => $secret),
	q{SELECT count(*) FROM yelp_sync('acme');},
	q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET proxy_password 'other');},
	q{SELECT count(*) FROM yelp_sync('acme');    -- should fail});
is($many->{stdout}, "1913\n", 'with them, a sync goes through');
is_deeply([ map { $_->{sqlstate} } grep { $_->{level} eq 'ERROR' } @{ $many->{messages} } ], ['28000'],
	'and with others the connections that are open are not used');
YelpTest::must_run($node, 'ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (DROP proxy_user, DROP proxy_password)');
$proxy->stop;

# A proxy's own certificate; the stand-in is none, but speaks TLS
foreach my $case (
	[ untrusted => "proxy certificate is not trusted", qr/ca_file/ ],
	[ wrong_host => "proxy certificate is for another host", qr/option proxy/ ])
{
	my ($name, $message, $hint) = @$case;
	YelpTest::set_server($node, proxy => 'https://localhost:' . $api->port($name));
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, '08001', "$name: the proxy's certificate");
	like($sync->{error}, qr/: \Q$message\E \(attempt 1 of 3, stage TLS\)$/, "$name: is told from the API's");
	like($sync->{hint}, $hint, "$name: with a hint");
}
YelpTest::set_server($node, proxy => $api->https_url =~ s{/programs.*}{}r, attempts => 1);
$sync = YelpTest::sync($node, 'acme');    # should fail
like($sync->{detail}, qr/CONNECT tunnel failed/, 'a proxy\'s certificate is checked by ca_file, and this one is fine');
YelpTest::set_server($node, proxy => undef, attempts => undef);
$node->restart;

done_testing();
