# Connections that are kept from the last sync and have died since, unseen: by HTTP/1.1 and by
# HTTP/2, where all requests share one.
use strict;
use warnings FATAL => 'all';

use File::Basename ();
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpBackend;
use YelpNginx;
use YelpTest;

my $lacks_nginx = YelpNginx->is_lacking;
plan(skip_all => $lacks_nginx) if $lacks_nginx;

my $pages = 12;
my ($node, $api) = YelpTest::start();
my $certificate = File::Basename::dirname($api->ca_file) . '/server.pem';
my $tls_port = PostgreSQL::Test::Cluster::get_free_port();
my $backend = 'http://127.0.0.1:' . $api->port('http');
my $nginx = YelpNginx->start($api, location => '', http => <<"END");
	server {
		listen 127.0.0.1:$tls_port ssl http2;
		ssl_certificate $certificate;
		ssl_certificate_key $certificate;
		keepalive_requests 10000;
		location / { proxy_pass $backend; }
	}
END
my ($relay, $relay_port) = start_relay();

# In front of nginx, a process for each connection, which can be stopped or killed
sub start_relay
{
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 200) or die $!;
	my $pid = fork() // die $!;
	return ($pid, $listener->sockport) if $pid;
	YelpTest::detach();
	$SIG{CHLD} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		next if fork();
		close $listener;
		eval { relay($client) };
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}

sub relay
{
	my ($client) = @_;
	my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $tls_port) or return;
	my $both = IO::Select->new($client, $server);

	while (my @ready = $both->can_read)
	{
		foreach my $from (@ready)
		{
			my $to = $from == $client ? $server : $client;
			$from->sysread(my $data, 65536) or return;
			for (my $at = 0; $at < length $data;)
			{
				$at += $to->syswrite($data, length($data) - $at, $at) // return;
			}
		}
	}
	return;
}

# The processes of the connections that there are
sub relays
{
	return map { /^(\d+)/ ? $1 : () } split / /, slurp_file("/proc/$relay/task/$relay/children");
}

sub last_run
{
	my ($session) = @_;
	return split /\|/, $session->value('SELECT status, retries, pages FROM yelp_sync_runs ORDER BY run_id DESC LIMIT 1');
}

sub test_kept
{
	my ($version, $signal, $name) = @_;
	my $session = YelpBackend->new($node, 'yelp_sync.progress' => 'off');
	my $timeout = 1500 * $YelpApi::slack;

	$session->run("ALTER SERVER yelp OPTIONS (SET http_version '$version', SET timeout '${timeout}ms')");
	is($session->sync('acme')->{error}, undef, "$name: a sync that keeps connections");
	my @kept = relays();
	$version eq '2' ? is(scalar(@kept), 1, "$name: one for all") : cmp_ok(scalar(@kept), '>', 1, "$name: several");

	kill $signal, @kept;
	$api->mutate(alter => 5);
	my $result = $session->sync('acme');
	is($result->{error}, undef, "$name: the next sync works") or diag($result->{stderr});
	is(scalar(@{ $result->{rows} }), 5, "$name: and brings what has changed");
	my ($status, $retries, $read) = last_run($session);
	is($status, 'synced', "$name: all of it");
	is($read, $pages, "$name: all pages");
	cmp_ok($retries, '<=', $pages, "$name: no page met two dead connections");
	kill 'KILL', @kept;
	is($session->sync('acme')->{error}, undef, "$name: and the one after that works");
	is((last_run($session))[1], 0, "$name: without a retry");
	$session->end;
	return;
}

$api->config(accounts => { acme => { password => 's3cret', count => 20 * $pages - 10 } });
$node->safe_psql('postgres', 'ALTER SERVER yelp OPTIONS (SET endpoint '
	  . YelpTest::literal("https://localhost:$relay_port/programs/v1")
	  . ', ADD ca_file ' . YelpTest::literal($api->ca_file)
	  . q{, ADD http_version '1.1', ADD timeout '30s', ADD retry_delay '1ms', ADD retry_max_delay '1ms')});
foreach my $version ('1.1', '2')
{
	test_kept($version, 'STOP', "HTTP/$version, silent");
	test_kept($version, 'KILL', "HTTP/$version, reset");
}

kill 'KILL', relays(), $relay;
waitpid($relay, 0);
$node->stop;
done_testing();
