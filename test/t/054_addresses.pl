# A name with two addresses, of which one does not work: the other one is tried within the same
# attempt.  A host that is down is not waited for by each account.
use strict;
use warnings FATAL => 'all';

use File::Basename ();
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpInject;
use YelpRelay;
use YelpTest ':all';

my $other = '127.0.0.2';
my $inject = YelpInject->new;
my ($node, $api) = $inject->preload(
	sub { start(https => 1, server => { retry_delay => '1ms' }, accounts => { acme => { count => 45 } }) },
	other_address => $other);
my $port = $api->port('wrong_host');    # whose certificate is for this name
my %listen = (LocalAddr => $other, LocalPort => $port, ReuseAddr => 1);
set_server(endpoint => "https://elsewhere.example:$port/programs/v1");

# The calls of getaddrinfo() of a first sync over so many connections.  Pages that are requested
# again, as happens on a busy machine, may need others: such a sync is repeated.
sub calls
{
	my ($concurrency) = @_;

	foreach (1 .. 50)
	{
		my $session = YelpSession->new($node);
		value('TRUNCATE yelp_programs, yelp_sync_runs');
		$session->options(page_size => 2, concurrency => $concurrency);
		$inject->arm($session, 'getaddrinfo', first => 1000);
		is(outcome($session->sync('acme')), 'added 45', "a sync, concurrency $concurrency");
		my $calls = $inject->calls;
		$inject->disarm;
		$session->options(page_size => undef, concurrency => undef);
		$session->end;
		return $calls if history('retries') == 0;
	}
	return 'no sync without retries';
}

# Versions of libcurl since 2026 call it once for each address family
my $calls = calls(1);
like($calls, qr/^[12]$/, 'one connection needs a look-up');
is(calls(100), $calls, 'many connections do with one');

# Syncs in new sessions until one uses the other address, because their order is random: all succeed.
sub check
{
	my ($name, $met, %options) = @_;
	my @errors;

	set_server(attempts => 1, %options);
	foreach my $time (1 .. 40)
	{
		last if $time > 4 && $met->();
		my $result = sync('acme');
		push @errors, failure($result) if $result->{error};
	}
	is_deeply(\@errors, [], "$name: every sync succeeds");
	ok($met->(), "$name: one used that address");
	set_server(attempts => undef, map { $_ => undef } keys %options);
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
		%listen);

	check($name, sub { -s $log });
	$relay->stop;
	return;
}

# The same over TLS with the right certificate: it reads a request and sends a response
my $tls_server = <<'PYTHON';
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listener = socket.create_server((sys.argv[2], int(sys.argv[3])), backlog=64)
print("listens", flush=True)
while True:
    try:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(65536)
            print("met", flush=True)
            connection.sendall(sys.argv[4].encode())
    except OSError:
        pass
PYTHON

sub answers_elsewhere
{
	my ($name, $answer) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/log';
	my @command = ('/usr/bin/python3', '-c', $tls_server, File::Basename::dirname($api->ca_file) . '/wrong_host.pem',
		$other, $port, $answer);
	my $server = YelpProcess->start(sub { exec @command }, stdout => $log);

	poll_until(sub { -s $log }, 'a server to listen');
	check($name, sub { slurp_file($log) =~ /met/ }, attempts => 2);
	$server->stop;
	return;
}

my $untrusted = sub { YelpRelay::connect_to('127.0.0.1', $api->port('untrusted')) };
check('refused', sub { 1 });
elsewhere('closed in the TLS handshake', sub { });
elsewhere('no TLS', sub { $_[0]->syswrite("HTTP/1.1 400 No\r\n\r\n"); return });
elsewhere('a certificate of another authority', $untrusted);
elsewhere('a certificate for another host', sub { YelpRelay::connect_to('127.0.0.1', $api->port('https')) });
answers_elsewhere('closed after the request', '');
answers_elsewhere('status 502', "HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n");

# Silence takes half of connect_timeout; libcurl's own events do not end it
my $swallow = IO::Socket::INET->new(%listen, Listen => 1) or die "listen: $!\n";
my @fillers = map { IO::Socket::INET->new(PeerAddr => $other, PeerPort => $port, Blocking => 0) } 1 .. 4;
check('silent', sub { 1 }, connect_timeout => 1200 * $YelpApi::slack . 'ms');
close($_) foreach @fillers, $swallow;

$port = $api->port('https');
my $relay = YelpRelay->start($untrusted, %listen, LocalPort => $port);
set_server(endpoint => "https://elsewhere.example:$port/programs/v1");
like(failure(sync('acme')), qr/^08001: .*certificate is (?:not trusted|for another host) \(attempt 1 of \d, stage TLS\)/,
	'both addresses with a wrong certificate: the failure of an address that was tried is reported');
$relay->stop;

note 'a host that is down';

value(join '', map {
		create_server("down$_", endpoint => $api->url('swallow'), attempts => 3, connect_timeout => '300ms', retry_delay => '1ms')
	} 1 .. 4);
my $result = run(q{CALL yelp_sync_all('down1', 'down2', 'down3', 'down4')});
is($result->{error}, 'could not sync 4 of 4 accounts', 'no account can be synced');
is(join(' ', map { /attempt (\d) of 3/ } @{ $result->{warnings} }), '3 1 1 1', 'the first account uses all attempts, the others one');
like(sync('down2')->{error}, qr/attempt 3 of 3/, 'another statement uses all attempts again');

done_testing();
