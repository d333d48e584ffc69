# A name with two addresses, of which one is out of order: the other one is tried
# within the same attempt.  A host that is down is not waited for by each account.
use strict;
use warnings FATAL => 'all';

use File::Basename ();
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpProcess;
use YelpRelay;
use YelpSession;
use YelpTest;

# By certificate; not localhost, which libcurl resolves itself
my $name = 'elsewhere.example';

# getaddrinfo() that finds two addresses of this name
sub build_resolver
{
	my $library = PostgreSQL::Test::Utils::tempdir() . '/resolver.so';
	append_to_file("$library.c", <<"C");
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

int getaddrinfo(const char *node, const char *service,
				const struct addrinfo *hints, struct addrinfo **result)
{
	int	(*original) (const char *, const char *, const struct addrinfo *,
					 struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	struct addrinfo *other;
	int	code;

	if (node == NULL || strcmp(node, "$name") != 0)
		return original(node, service, hints, result);
	code = original("127.0.0.2", service, hints, result);
	if (code == 0 && (code = original("127.0.0.1", service, hints, &other)) == 0)
	{
		struct addrinfo *last = *result;

		while (last->ai_next)
			last = last->ai_next;
		last->ai_next = other;
	}
	return code;
}
C
	system_or_bail('cc', '-shared', '-fPIC', '-o', $library, "$library.c", '-ldl');
	return $library;
}

$ENV{LD_PRELOAD} = build_resolver();
my ($node, $api) = YelpTest::start(https => 1, server => { retry_delay => '1ms' });
delete $ENV{LD_PRELOAD};
$api->config(accounts => { acme => { count => 45 } });
my $port = $api->port('wrong_host');
YelpTest::set_server($node, endpoint => "https://$name:$port/programs/v1");

# In new sessions until one meets the other address, because their order is
# random: every one succeeds.
sub check
{
	my ($name, $met, %options) = @_;
	my @errors;

	YelpTest::set_server($node, attempts => 1, %options);
	foreach my $time (1 .. 40)
	{
		last if $time > 4 && $met->();
		my $result = YelpTest::sync($node, 'acme');
		push @errors, "$result->{error}: $result->{detail}" if $result->{error};
	}
	is_deeply(\@errors, [], "$name: every sync succeeds");
	ok($met->(), "$name: one met it");
	YelpTest::set_server($node, attempts => undef, map { $_ => undef } keys %options);
	return;
}

# What listens at the other address; $act is given its connection
sub elsewhere
{
	my ($name, $act) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/met';
	my $relay = YelpRelay->start(
		sub {
			append_to_file($log, "x\n");
			return $act->(@_);
		},
		LocalAddr => '127.0.0.2', LocalPort => $port, ReuseAddr => 1);

	check($name, sub { -s $log });
	$relay->stop;
	return;
}

# The same, by TLS with the right certificate: it reads a request and answers this
my $tls_server = <<'PYTHON';
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listener = socket.create_server(("127.0.0.2", int(sys.argv[2])), backlog=64)
print("listens", flush=True)
while True:
    try:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(65536)
            print("met", flush=True)
            connection.sendall(sys.argv[3].encode())
    except OSError:
        pass
PYTHON

sub answers_elsewhere
{
	my ($name, $answer) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/log';
	my @command = ('/usr/bin/python3', '-c', $tls_server,
		File::Basename::dirname($api->ca_file) . '/wrong_host.pem', $port, $answer);
	my $server = YelpProcess->start(sub { exec @command }, stdout => $log);

	YelpProcess::poll_until(sub { -s $log }, 'a server to listen');
	check($name, sub { slurp_file($log) =~ /met/ }, attempts => 2);
	$server->stop;
	return;
}

my $untrusted = sub { YelpRelay::connect_to('127.0.0.1', $api->port('untrusted')) };
my $wrong_host = sub { YelpRelay::connect_to('127.0.0.1', $api->port('https')) };
check('refused', sub { 1 });
elsewhere('closed in the TLS handshake', sub { });
elsewhere('no TLS', sub { $_[0]->syswrite("HTTP/1.1 400 No\r\n\r\n"); return });
elsewhere('a certificate of another authority', $untrusted);
elsewhere('a certificate for another host', $wrong_host);
answers_elsewhere('closed after the request', '');
answers_elsewhere('status 502', "HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n");

# Silence takes half of connect_timeout; libcurl's own events do not end it
my $swallow = IO::Socket::INET->new(LocalAddr => '127.0.0.2', LocalPort => $port,
	Listen => 1, ReuseAddr => 1) or die "listen: $!\n";
my @fillers = map {
	IO::Socket::INET->new(PeerAddr => '127.0.0.2', PeerPort => $port, Blocking => 0)
} 1 .. 4;
check('silent', sub { 1 }, connect_timeout => 1200 * $YelpApi::slack . 'ms');
close($_) foreach @fillers, $swallow;

# Both out of order: the failure that is reported is that of an address that was tried
my $relay = YelpRelay->start($untrusted, LocalAddr => '127.0.0.2', LocalPort => $api->port('https'), ReuseAddr => 1);
YelpTest::set_server($node, endpoint => "https://$name:" . $api->port('https') . '/programs/v1');
my $result = YelpTest::sync($node, 'acme');
is($result->{sqlstate}, '08001', 'both addresses with a wrong certificate');
like($result->{error}, qr/certificate is (?:not trusted|for another host) \(attempt 1 of \d, stage TLS\)/, '... is reported as that');
$relay->stop;

# ---- a host that is down ----

my @accounts = map { "down$_" } 1 .. 4;
$node->safe_psql('postgres', join '', map {
		YelpTest::create_server($_, endpoint => $api->url('swallow'), attempts => 3, connect_timeout => '300ms', retry_delay => '1ms')
	} @accounts);
$result = YelpTest::run($node, q{CALL yelp_sync_all(ARRAY['down1', 'down2', 'down3', 'down4'])});
like($result->{error}, qr/could not sync 4 of 4/, 'a host that is down');
my @failures = map { $_->{message} } grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };
like($failures[0], qr/attempt 3 of 3/, 'the first account tries as often as it may');
is(scalar(grep { /attempt 1 of 3/ } @failures), 3, 'the others once');
$result = YelpTest::sync($node, 'down2');
like($result->{error}, qr/attempt 3 of 3/, 'and another statement again as often as it may');

$node->stop;
done_testing();
