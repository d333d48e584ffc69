# HTTP: the number of round trips, connections, encodings, versions.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpSession;
use YelpNginx;
use YelpTest;

my ($node, $api) = YelpTest::start(https => 1);
my ($sync, $counters);

note 'round trips';

# Syncs from an API that answers only after a number of requests has arrived, for each of the numbers
sub sync_in_waves
{
	my (@waves) = @_;
	my $session = YelpSession->new($node);

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
is($counters->{requests}, 97, 'the first sync: one request for each page, and a look at the end');
is(scalar(grep { !$_->{tls} } $api->log), 0, 'all over TLS');
is(scalar(grep { $_->{account} ne 'acme' } $api->log), 0, 'all with the credentials, from the first one on');
is_deeply([ sort { $a <=> $b } grep { $_ % 20 == 0 } map { $_->{offset} } $api->log ],
	[ map { 20 * $_ } 0 .. 95 ], 'each page once');
is_deeply([ (sort keys %{ { map { $_->{limit} . $_->{program_status} => 1 } $api->log } }) ], ['20ALL'],
	'with limit and program_status');
like(($api->log)[0]{user_agent}, qr/^yelp_sync\/\d/, 'with our name');
$api->reset('counters');
$sync = sync_in_waves(96);
is_deeply($sync->{rows}, [], 'a repeat finds nothing, in one round trip');
is($api->counters->{requests}, 97, 'the repeat: the same');
$api->config(latency_ms => 500);
YelpTest::forget($node, $api);
YelpTest::set_server($node, page_size => 40, concurrency => 10);
YelpTest::sync($node, 'acme');
$counters = $api->counters;
is($counters->{requests}, 49, 'page_size 40: half as many requests');
is($counters->{max_in_flight}, 10, 'concurrency is the most in flight');
YelpTest::table_is_listing($node, $api, 'acme', 'page_size 40: the table');
YelpTest::set_server($node, page_size => undef, concurrency => undef);
$api->config(latency_ms => 0);

note 'connections';

$api->config(latency_ms => 200);
YelpTest::forget($node, $api);
YelpTest::run($node, join ';', (q{SELECT yelp_sync('acme')}) x 3);
$counters = $api->counters;
cmp_ok($counters->{connections}, '<=', 97, 'three syncs in a session: no more connections than requests at once');
cmp_ok($counters->{connections}, '>=', 95, 'which need a connection each');
cmp_ok($counters->{tls_resumed}, '>', 0, 'which resume the TLS session of the first');
$api->config(latency_ms => 0);
$api->poll_until(sub { $api->counters->{open_connections} == 0 }, 'the connections to go with the session');
pass('connections end with the session');

note 'encodings of bodies';

my %bytes;
foreach my $encodings ([], ['gzip'])
{
	my $name = $encodings->[0] // 'none';
	$api->config(encodings => $encodings);
	YelpTest::forget($node, $api);
	$sync = YelpTest::sync($node, 'acme');
	is($sync->{sqlstate} // '', '', "$name: no error") or diag($sync->{stderr});
	YelpTest::table_is_listing($node, $api, 'acme', "$name: the table");
	$bytes{$name} = YelpTest::must_run($node, 'SELECT received_bytes FROM yelp_sync_runs')->{stdout} + 0;
	is($bytes{$name}, $api->counters->{bytes}, "$name: received_bytes is what was sent");
}
is(($api->log)[0]{accept_encoding}, 'gzip', 'gzip is offered');
cmp_ok($bytes{gzip}, '<', $bytes{none} / 2, 'gzip saves more than half');
$api->reset('config');

# Pages that take more memory together than they may: some wait until others are processed
sub test_pauses
{
	my ($version) = @_;
	my $session = YelpSession->new($node);
	$session->sync('acme');
	my $before = $session->memory('VmRSS');
	$session->reset_peak;
	$api->faults({ action => { pad => { bytes => 1 << 20 } } });
	is($session->sync('acme')->{error}, undef, "$version: 96 pages of 1 MB at once");
	# Over HTTP/2 they are mixed on one connection: none can be left waiting there for long
	cmp_ok($session->memory('VmHWM') - $before, '<', 80_000 * $YelpApi::slack, 'in less memory than all')
	  if $version eq 'HTTP/1.1';
	$api->faults;
	$session->end;
	return;
}

note 'HTTP/2';

YelpTest::forget($node, $api);
YelpTest::set_server($node, http_version => 2, endpoint => $api->https_url);
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 1913, 'falls back to 1.1 over HTTPS') or diag($sync->{stderr});
YelpTest::forget($node, $api);
YelpTest::set_server($node, endpoint => $api->url);
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 1913, 'falls back to 1.1 over HTTP') or diag($sync->{stderr});

# nginx speaks HTTP/2, and passes on to the stand-in
my $lacks_nginx = YelpNginx->is_lacking;
SKIP:
{
	skip $lacks_nginx, 10 if $lacks_nginx;
	my $nginx = YelpNginx->start($api);
	my @answers;

	YelpTest::forget($node, $api);
	$api->config(latency_ms => 300);
	YelpTest::set_server($node, endpoint => $nginx->https_url);
	$sync = YelpTest::sync($node, 'acme');
	is(scalar(@{ $sync->{rows} }), 1913, 'HTTP/2') or diag($sync->{stderr});
	YelpTest::table_is_listing($node, $api, 'acme', 'HTTP/2: the table');
	@answers = $nginx->wait_for_answers(97);
	is(scalar(grep { $_->{protocol} eq 'HTTP/2.0' } @answers), 97, 'HTTP/2: the version of all requests');
	my %connections = map { $_->{connection} => 1 } @answers;
	is(scalar(keys %connections), 1, 'HTTP/2: one connection for all of them');
	is($api->counters->{waves}, 2, 'HTTP/2: in two round trips');
	$api->reset('counters');
	YelpTest::sync($node, 'acme');
	is($api->counters->{waves}, 1, 'HTTP/2: the repeat in one');
	YelpTest::set_server($node, http_version => undef);
	YelpTest::sync($node, 'acme');
	@answers = $nginx->wait_for_answers(3 * 97);
	is(scalar(grep { $_->{protocol} eq 'HTTP/1.1' } @answers), 97, 'without the option: 1.1');
	test_pauses('HTTP/1.1');
	YelpTest::set_server($node, http_version => 2);
	test_pauses('HTTP/2');
}

done_testing();
