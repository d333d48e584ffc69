# HTTP: TLS that is verified, credentials, connections, encodings, proxies,
# redirects, versions, and how many round trips a sync takes.
use strict;
use warnings FATAL => 'all';

use Encode ();
use IPC::Run ();
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpBackend;
use YelpRelay;
use YelpTest;

my ($node, $api) = YelpTest::start(https => 1);
my ($sync, $counters);

sub said
{
	my ($result) = @_;
	return join "\n", map { $_ // '' } @$result{qw(error detail hint context)};
}

# Alters the server for the syncs to come
sub set_server
{
	my (%options) = @_;
	YelpTest::set_server($node, $_, $options{$_}) foreach keys %options;
	return;
}

sub forget
{
	YelpTest::must_run($node, 'TRUNCATE yelp_programs, yelp_sync_runs');
	$api->reset('counters');
	return;
}

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

note 'round trips';

# Syncs while the API answers only when so many requests have come, one number after the other
sub sync_in_waves
{
	my (@waves) = @_;
	my $session = YelpBackend->new($node);

	$api->faults({ action => { hold => \1 } });
	$session->begin_sync('acme');
	foreach my $requests (@waves)
	{
		$api->poll_counter('held', $requests);
		$api->release;
	}
	my $result = $session->sync_result;
	$session->end;
	$api->faults;
	return $result;
}

$sync = sync_in_waves(1, 95);
is($sync->{sqlstate} // '', '', 'HTTPS with ca_file, in two round trips: the first page, then all others') or diag($sync->{stderr});
is(scalar(@{ $sync->{rows} }), 1913, 'all programs come');
$counters = $api->counters;
is($counters->{requests}, 96, 'the first sync: one request for each page');
is(scalar(grep { !$_->{tls} } $api->log), 0, 'all over TLS');
is(scalar(grep { $_->{account} ne 'acme' } $api->log), 0, 'all with the credentials, from the first one on');
is_deeply([ sort { $a <=> $b } map { $_->{offset} } $api->log ], [ map { 20 * $_ } 0 .. 95 ], 'each page once');
is_deeply([ (sort keys %{ { map { $_->{limit} . $_->{program_status} => 1 } $api->log } }) ], ['20ALL'],
	'with limit and program_status');
like(($api->log)[0]{user_agent}, qr/^yelp_sync\/\d/, 'with our name');
$api->reset('counters');
$sync = sync_in_waves(96);
is_deeply($sync->{rows}, [], 'a repeat finds nothing, in one round trip');
is($api->counters->{requests}, 96, 'the repeat: one request for each page');
$api->config(latency_ms => 500);
forget();
set_server(page_size => 40, concurrency => 10);
YelpTest::sync($node, 'acme');
$counters = $api->counters;
is($counters->{requests}, 48, 'page_size 40: half as many requests');
is($counters->{max_in_flight}, 10, 'concurrency is the most in flight');
YelpTest::table_is_listing($node, $api, 'acme', 'page_size 40: the table');
set_server(page_size => undef, concurrency => undef);
$api->config(latency_ms => 0);

note 'connections';

forget();
my $session = YelpTest::run($node, join ';', (q{SELECT yelp_sync('acme')}) x 4);
is($session->{sqlstate} // '', '', 'four syncs in a session');
$counters = $api->counters;
is($counters->{requests}, 4 * 96, 'with all their requests');
cmp_ok($counters->{connections}, '<=', 100, 'no more connections than the first one made');
$api->config(latency_ms => 200);
forget();
YelpTest::run($node, join ';', (q{SELECT yelp_sync('acme')}) x 3);
$counters = $api->counters;
cmp_ok($counters->{connections}, '<=', 97, 'the same with all requests in flight at once');
cmp_ok($counters->{connections}, '>=', 95, 'which need a connection each');
cmp_ok($counters->{tls_resumed}, '>', 0, 'which resume the TLS session of the first');
$api->config(latency_ms => 0);
$api->poll_until(sub { $api->counters->{open_connections} == 0 }, 'the connections to go with the session');
pass('connections end with the session');

# What the server closed meanwhile is opened anew, and is no failure
$api->faults({ match => { offset => 1900 }, action => { hold => \1 } });
forget();
$session = YelpTest::background($node, q{SELECT yelp_sync('acme'); SELECT yelp_sync('acme')});
$api->poll_counter('held', 1);
$api->faults();
$api->poll_until(sub { $api->counters->{in_flight} == 1 }, 'the others to be answered');
$api->disconnect('close');
$api->release;
is($session->finish->{sqlstate} // '', '', 'connections that the server closed');
$api->config(connection_close => \1);
is(YelpTest::run($node, q{SELECT yelp_sync('acme'); SELECT yelp_sync('acme')})->{sqlstate} // '',
	'', 'a server that keeps none');
$api->reset('config');

note 'certificates';

forget();
my $ca_file = $api->ca_file;

set_server(ca_file => undef);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', "a CA that the system does not know");
like($sync->{error}, qr/^could not fetch the page at offset 0 of account "acme": .*certificate.* stage TLS\)$/, 'is said to be so');
like($sync->{hint}, qr/ca_file/, 'with a hint');
set_server(ca_file => $ca_file, endpoint => $api->url('untrusted'));
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'a certificate of another CA');
like($sync->{hint}, qr/ca_file/, 'with a hint');
set_server(endpoint => $api->url('wrong_host'));
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'a certificate for another host');
like(said($sync), qr/127\.0\.0\.1/, 'names the host');
unlike($sync->{hint} // '', qr/private authority/, 'and does not advise another CA');
$counters = $api->counters;
is($counters->{requests}, 0, 'to none of them a request was sent');
cmp_ok($counters->{failed_handshakes}, '<=', 3, 'and none was tried again');

my $wrong_ca = $node->basedir . '/wrong.pem';
append_to_file($wrong_ca, "no certificate\n");
foreach my $case ([ $wrong_ca, 'without a certificate' ], [ '/nowhere/ca.pem', 'that is not there' ])
{
	my ($file, $what) = @$case;
	set_server(ca_file => $file, endpoint => $api->https_url);
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, '08001', "a ca_file $what");
	like(said($sync), qr/\Q$file\E/, "a ca_file $what is named");
	unlike($sync->{error}, qr/trusted/, "a ca_file $what is not the API's fault");
}
set_server(ca_file => $ca_file);
is(YelpTest::sync($node, 'acme')->{sqlstate} // '', '', 'the right ca_file again');

# A connection that was verified by one CA is not good enough for another
my $changed = YelpTest::run($node, qq{
	SELECT count(*) FROM yelp_sync('acme');
	ALTER SERVER yelp OPTIONS (SET ca_file '$wrong_ca');
	SELECT count(*) FROM yelp_sync('acme')});    # should fail
is($changed->{sqlstate}, '08001', 'another ca_file holds for connections that are open');
set_server(ca_file => $ca_file);

note 'credentials';

forget();
YelpTest::must_run($node, q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 'wrong')});
foreach my $status (401, 403)
{
	$api->config(denied_status => $status);
	$api->reset('counters');
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, '28000', "$status: the SQLSTATE");
	like($sync->{error}, qr/^could not fetch the page at offset 0 of account "acme": API rejected the credentials \(attempt 1 of 3, /,
		"$status: the message");
	like($sync->{detail}, qr/^The API answered with HTTP status $status, "ACCESS_DENIED": The authorization server denied the request\.  The URL was https:\S+$/,
		"$status: the API's own words");
	is($sync->{hint}, 'Check the username and the password of the user mapping.', "$status: a hint");
	is($api->counters->{requests}, 1, "$status: not tried again");
	is(YelpTest::must_run($node, 'SELECT count(*) FROM yelp_programs')->{stdout}, "0\n", "$status: nothing is stored");
}
my $mended = YelpTest::run($node, q{
	\set ON_ERROR_STOP 0
	SELECT count(*) FROM yelp_sync('acme');
	ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 's3cret');
	SELECT count(*) FROM yelp_sync('acme');
	ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 'wrong');
	SELECT count(*) FROM yelp_sync('acme');    -- should fail
});
is($mended->{stdout}, "1913\n", 'a new password holds for the next sync of the session, on connections that are open');
is(scalar(grep { $_->{sqlstate} eq '28000' } @{ $mended->{messages} }), 2, 'as does a wrong one');
YelpTest::must_run($node, q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 's3cret')});
$api->reset('config');

note 'encodings of bodies';

my %bytes;
foreach my $encodings ([], ['gzip'], ['deflate'])
{
	my $name = $encodings->[0] // 'none';
	$api->config(encodings => $encodings);
	forget();
	$sync = YelpTest::sync($node, 'acme');
	is($sync->{sqlstate} // '', '', "$name: no error") or diag($sync->{stderr});
	YelpTest::table_is_listing($node, $api, 'acme', "$name: the table");
	$bytes{$name} = YelpTest::must_run($node, 'SELECT received_bytes FROM yelp_sync_runs')->{stdout} + 0;
	is($bytes{$name}, $api->counters->{bytes}, "$name: received_bytes is what was sent");
}
like(($api->log)[0]{accept_encoding}, qr/gzip.*deflate/, 'both are offered');
cmp_ok($bytes{$_}, '<', $bytes{none} / 2, "$_ saves more than half") foreach qw(gzip deflate);
$api->reset('config');

note 'proxies';

{
	local @ENV{qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY)} = ('http://127.0.0.1:1') x 5;
	$node->restart;
}
like(YelpTest::must_run($node, q{CREATE TEMPORARY TABLE e (line text);
		COPY e FROM PROGRAM 'env' (DELIMITER E'\x01'); SELECT line FROM e WHERE line LIKE '%proxy%'})->{stdout},
	qr/^https_proxy=http:\/\/127.0.0.1:1$/m, 'the server has proxies in its environment');
is(YelpTest::sync($node, 'acme')->{sqlstate} // '', '', 'HTTPS: they are ignored');
set_server(endpoint => $api->url);
is(YelpTest::sync($node, 'acme')->{sqlstate} // '', '', 'HTTP: they are ignored');
set_server(endpoint => $api->https_url);
set_server(proxy => 'http://127.0.0.1:1');
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'the option proxy is not');
like(said($sync), qr/stage connect/, 'the stage is told');

forget();
my ($proxy, $proxy_log) = start_proxy();
set_server(proxy => 'http://127.0.0.1:' . $proxy->port);
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
forget();
set_server(proxy => 'http://127.0.0.1:' . $proxy->port);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '28000', 'a proxy that wants credentials');
like($sync->{error}, qr/proxy rejected the credentials \(attempt 1 of 3, stage connect\)$/, 'is told from the API');
is($sync->{hint}, 'Check proxy_user and proxy_password of the user mapping.', 'with a hint');
is($api->counters->{requests}, 0, 'and nothing reaches the API');
my $many = YelpTest::run($node, join "\n",
	set_mapping(proxy_user => 'carol', proxy_password => $secret),
	q{SELECT count(*) FROM yelp_sync('acme');},
	'\set ON_ERROR_STOP 0',
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
	set_server(proxy => 'https://localhost:' . $api->port($name));
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, '08001', "$name: the proxy's certificate");
	like($sync->{error}, qr/: \Q$message\E \(attempt 1 of 3, stage TLS\)$/, "$name: is told from the API's");
	like($sync->{hint}, $hint, "$name: with a hint");
}
set_server(proxy => $api->https_url =~ s{/programs.*}{}r, attempts => 1);
$sync = YelpTest::sync($node, 'acme');    # should fail
like($sync->{detail}, qr/CONNECT tunnel failed/, 'a proxy\'s certificate is checked by ca_file, and this one is fine');
set_server(proxy => undef, attempts => undef);
$node->restart;

note 'redirects';

forget();
set_server(endpoint => $api->url);
foreach my $status (301, 302, 307, 308)
{
	$api->reset('counters');
	$api->faults({ match => { request => 1 }, action => { respond => { status => $status,
		headers => { Location => $api->https_url . '?offset=0&limit=20' } } } });
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, 'HV000', "$status: an error");
	like($sync->{error}, qr/: HTTP status $status \(/, "$status: which is named");
	like($sync->{hint}, qr/endpoint/, "$status: with a hint");
	is($api->counters->{requests}, 1, "$status: not followed");
}
$api->faults();

note 'no server';

set_server(endpoint => 'http://127.0.0.1:1/programs/v1', retry_delay => '1ms');
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'nobody listens');
like($sync->{error}, qr/ \(attempt 3 of 3, stage connect\)$/, 'after all attempts');
like($sync->{detail}, qr/127\.0\.0\.1/, 'the address is named');
set_server(endpoint => 'https://api.invalid/programs/v1', attempts => 1, connect_timeout => '3s');
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'no such host');
like($sync->{error}, qr/ stage resolve\)$/, 'the stage is told');
like($sync->{detail}, qr/api\.invalid|resol/i, 'and what was looked for');
set_server(endpoint => $api->url . '/elsewhere', connect_timeout => undef);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, 'HV000', 'no API at this path');
like($sync->{detail}, qr/404.*NOT_FOUND/, 'as the API says');
set_server(endpoint => $api->https_url =~ s/^https/http/r =~ s/localhost/127.0.0.1/r);
$sync = YelpTest::sync($node, 'acme');    # should fail
like($sync->{sqlstate}, qr/^08/, 'HTTP to a port that speaks HTTPS');
set_server(endpoint => $api->url =~ s/^http/https/r);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'HTTPS to a port that speaks HTTP');
set_server(attempts => undef, retry_delay => undef);

note 'HTTP/2';

forget();
set_server(http_version => 2, endpoint => $api->https_url);
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 1913, 'falls back to 1.1 over HTTPS') or diag($sync->{stderr});
forget();
set_server(endpoint => $api->url);
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 1913, 'falls back to 1.1 over HTTP') or diag($sync->{stderr});

# nginx speaks HTTP/2, and passes on to the stand-in
my $dir = PostgreSQL::Test::Utils::tempdir('nginx');
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $certificate = $ca_file =~ s/[^\/]*$/server/r;
append_to_file("$dir/nginx.conf", <<"END");
daemon off;
pid $dir/pid;
error_log $dir/error.log;
events { worker_connections 1024; }
http {
	log_format protocol '\$server_protocol \$connection';
	access_log $dir/access.log protocol;
	client_body_temp_path $dir/b;
	proxy_temp_path $dir/p;
	fastcgi_temp_path $dir/f;
	uwsgi_temp_path $dir/u;
	scgi_temp_path $dir/s;
	server {
		listen 127.0.0.1:$port ssl http2;
		ssl_certificate $certificate.crt;
		ssl_certificate_key $certificate.key;
		http2_max_concurrent_streams 256;
		location / { proxy_pass http://127.0.0.1:@{[ $api->port('http') ]}; }
	}
}
END

# nginx writes a request's line when it has sent the answer: maybe after we have it
sub access_log
{
	my ($count) = @_;
	my @lines;
	$api->poll_until(sub { @lines = split /\n/, slurp_file("$dir/access.log"); @lines >= $count },
		"$count lines in nginx's log");
	return @lines;
}

my $nginx = IPC::Run::start([ 'nginx', '-p', $dir, '-c', "$dir/nginx.conf" ], '>', \my $output, '2>&1');
$api->poll_until(sub { -s "$dir/pid" }, 'nginx to start');
forget();
$api->config(latency_ms => 300);
set_server(endpoint => "https://localhost:$port/programs/v1");
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 1913, 'HTTP/2') or diag($sync->{stderr});
YelpTest::table_is_listing($node, $api, 'acme', 'HTTP/2: the table');
my @access = access_log(96);
is(scalar(grep { /^HTTP\/2\.0 / } @access), 96, 'HTTP/2: the version of all requests');
my %connections = map { $_ => 1 } @access;
is(scalar(keys %connections), 1, 'HTTP/2: one connection for all of them');
is($api->counters->{waves}, 2, 'HTTP/2: in two round trips');
$api->reset('counters');
YelpTest::sync($node, 'acme');
is($api->counters->{waves}, 1, 'HTTP/2: the repeat in one');
set_server(http_version => undef);
unlink "$dir/access.log";
kill 'USR1', slurp_file("$dir/pid") + 0;
$api->poll_until(sub { -e "$dir/access.log" }, 'nginx to open its log anew');
YelpTest::sync($node, 'acme');
@access = access_log(96);
is(scalar(grep { /^HTTP\/1\.1 / } @access), 96, 'without the option: 1.1');
kill 'TERM', slurp_file("$dir/pid") + 0;
$nginx->finish;

done_testing();
