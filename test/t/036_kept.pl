# Connections that were kept after the last sync and have died unnoticed: HTTP/1.1, and HTTP/2,
# where all requests share one.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpNginx;
use YelpRelay;
use YelpTest;

my $lacks_nginx = YelpNginx->is_lacking;
plan(skip_all => $lacks_nginx) if $lacks_nginx;

my $pages = 12;
my ($node, $api) = YelpTest::start();
my $nginx = YelpNginx->start($api);
my $relay = YelpRelay->start(sub { YelpRelay::connect_to('127.0.0.1', $nginx->tls_port) });

sub test_kept
{
	my ($version, $signal, $name) = @_;
	my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');
	my $timeout = 1500 * $YelpApi::slack;

	$session->run("ALTER SERVER yelp OPTIONS (SET http_version '$version', SET timeout '${timeout}ms')");
	is($session->sync('acme')->{error}, undef, "$name: a sync that keeps connections");
	my @kept = $relay->connections;
	$version eq '2' ? is(scalar(@kept), 1, "$name: one for all") : cmp_ok(scalar(@kept), '>', 1, "$name: several");

	kill $signal, @kept;
	$api->mutate(alter => 5);
	my $result = $session->sync('acme');
	is($result->{error}, undef, "$name: the next sync works") or diag($result->{stderr});
	is(scalar(@{ $result->{rows} }), 5, "$name: and brings what has changed");
	my ($status, $retries, $read) = split /\|/, $session->value(YelpTest::last_run('status, retries, pages'));
	is($status, 'synced', "$name: all of it");
	is($read, $pages, "$name: all pages");
	cmp_ok($retries, '<=', $pages + 1, "$name: no page, nor the look at the end, met two dead connections");
	kill 'KILL', @kept;
	is($session->sync('acme')->{error}, undef, "$name: and the one after that works");
	is($session->value(YelpTest::last_run('retries')), 0, "$name: without a retry");
	$session->end;
	return;
}

$api->config(accounts => { acme => { password => 's3cret', count => 20 * $pages - 10 } });
$node->safe_psql('postgres', 'ALTER SERVER yelp OPTIONS (SET endpoint '
	  . YelpTest::literal('https://localhost:' . $relay->port . '/programs/v1')
	  . ', ADD ca_file ' . YelpTest::literal($api->ca_file)
	  . q{, ADD http_version '1.1', ADD timeout '30s', ADD retry_delay '1ms', ADD retry_max_delay '1ms')});
foreach my $version ('1.1', '2')
{
	test_kept($version, 'STOP', "HTTP/$version, silent");
	test_kept($version, 'KILL', "HTTP/$version, reset");
}

$relay->stop;
$node->stop;
done_testing();
