# Certificates, credentials and proxies: what a session keeps is not used with others.  014_time.pl
# has the errors of connections.
use strict;
use warnings FATAL => 'all';

use Encode ();
use MIME::Base64;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use Test::More;

use YelpRelay;
use YelpTest ':all';

my ($node, $api) = start(https => 1, accounts => { acme => { count => 95 } }, server => { max_retry_after => '1ms', retry_delay => '1ms' });
my $ca_file = $api->ca_file;

# Runs syncs in one session, before each of which a statement is run; returns how they ended: the
# number of rows, or the SQLSTATE
sub sync_after
{
	my (@statements) = @_;
	my $session = YelpSession->new($node);
	my @ends;

	value('TRUNCATE yelp_programs, yelp_sync_runs');
	foreach my $statement (@statements)
	{
		$session->value($statement);
		my $result = $session->sync('acme');
		push @ends, $result->{sqlstate} // scalar(@{ $result->{rows} });
	}
	return \@ends;
}

sub set_mapping
{
	my (%options) = @_;
	return 'ALTER USER MAPPING FOR CURRENT_USER SERVER yelp ' . options(%options) =~ s/(\w+ ')/SET $1/gr;
}

note 'certificates';

my ($wrong_ca, $fifo) = map { $node->basedir . $_ } '/wrong.pem', '/fifo';
append_to_file($wrong_ca, "no certificate\n");
mkfifo($fifo, 0666) or die "mkfifo: $!";
foreach my $file ($wrong_ca, '/nowhere/ca.pem', $fifo)
{
	set_server(ca_file => $file);
	my $failure = failure(sync('acme'));    # should fail
	like($failure, qr/^08001: (?!.*trusted).*\n(?:.*\n)*.*\Q$file\E|^08001: (?!.*trusted).*\Q$file\E/, "ca_file $file is named");
}
like(failure(sync('acme')), qr/is not a regular file of at most 10 MB/, 'a ca_file that is not a file');    # should fail
set_server(ca_file => $ca_file);
is_deeply(sync_after('SELECT', "ALTER SERVER yelp OPTIONS (SET ca_file '$wrong_ca')"), [ 95, '08001' ],
	'another ca_file is used for open connections');
set_server(ca_file => $ca_file);
set_server(endpoint => $api->https_url =~ s/^https/http/r =~ s/localhost/127.0.0.1/r);
like(failure(sync('acme')), qr/^08/, 'HTTP to a port that speaks HTTPS');    # should fail
set_server(endpoint => $api->https_url);

note 'credentials';

is_deeply(
	sync_after(set_mapping(password => 'wrong'), set_mapping(password => 's3cret'), set_mapping(password => 'wrong'),
		set_mapping(password => 's3cret')),
	[ '28000', 95, '28000', 0 ],
	'a changed password is used for the next sync of a session, on open connections');

note 'proxies';

# A proxy that logs what it is asked; returns it and the log's name.  With credentials, it asks for them.
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
like(value(q{CREATE TEMPORARY TABLE e (line text); COPY e FROM PROGRAM 'env' (DELIMITER E'\x01');
	SELECT line FROM e WHERE line LIKE '%proxy%'}), qr/^https_proxy=http:\/\/127.0.0.1:1$/m, 'the environment has proxies');
is(sync('acme')->{error}, undef, 'HTTPS: they are ignored');
set_server(endpoint => $api->url);
is(sync('acme')->{error}, undef, 'HTTP: they are ignored');
set_server(endpoint => $api->https_url, proxy => 'http://127.0.0.1:1');
like(failure(sync('acme')), qr/^08001: .*stage connect\)/, 'the option proxy is used');    # should fail

my ($proxy, $log) = start_proxy();
set_server(proxy => 'http://127.0.0.1:' . $proxy->port);
$api->reset('counters');
is_deeply(sync_after('SELECT'), [95], 'a sync through a proxy');
my $requests = slurp_file($log);
my $https = $api->port('https');
is(scalar(() = $requests =~ /^CONNECT localhost:$https HTTP\/1\.1\r$/mg), $api->counters->{connections}, '... each connection');
unlike($requests, qr/Authorization/i, '... which sees no credentials');
$proxy->stop;

my $secret = "pr\x{f6}xy";
($proxy, $log) = start_proxy(encode_base64(Encode::encode('UTF-8', "carol:$secret"), ''));
set_server(proxy => 'http://127.0.0.1:' . $proxy->port);
$api->reset('counters');
is( failure(sync('acme')) =~ s/DETAIL:.*\n//r =~ s/offset \d+/offset N/r,    # should fail
	'28000: could not fetch the page at offset N of account "acme": proxy rejected the credentials'
	  . " (attempt 1 of 3, stage connect)\nHINT:  Check proxy_user and proxy_password of the user mapping.",
	'a proxy that wants credentials');
is($api->counters->{requests}, 0, '... nothing reaches the API');
is_deeply(
	sync_after(set_mapping(proxy_user => 'carol', proxy_password => $secret) =~ s/SET/ADD/gr, set_mapping(proxy_password => 'other')),
	[ 95, '28000' ], 'with credentials a sync works, and with others, open connections are not used');
value('ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (DROP proxy_user, DROP proxy_password)');
$proxy->stop;

# A proxy's own certificate; the stand-in is none, but speaks TLS
foreach my $case (
	[ untrusted => 'proxy certificate is not trusted', qr/ca_file/ ],
	[ wrong_host => 'proxy certificate is for another host', qr/option proxy/ ])
{
	my ($name, $message, $hint) = @$case;
	set_server(proxy => 'https://localhost:' . $api->port($name));
	like(failure(sync('acme')), qr/^08001: .*: \Q$message\E \(attempt 1 of 3, stage TLS\)\n(?:.*\n)*HINT:  .*$hint/, $message);    # should fail
}
set_server(proxy => $api->https_url =~ s{/programs.*}{}r, attempts => 1);
like(failure(sync('acme')), qr/CONNECT tunnel failed/, 'a proxy whose certificate is trusted');    # should fail

done_testing();
