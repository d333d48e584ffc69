# HTTP: the number of round trips, connections, encodings, versions; kept connections that are dead.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpNginx;
use YelpRelay;
use YelpTest ':all';

my ($node, $api) = start(https => 1, server => { retry_delay => '1ms', retry_max_delay => '1ms' });
my ($sync, $counters);

# Lets the next sync be the first one, and resets the counters
sub forget
{
	value('TRUNCATE yelp_programs, yelp_sync_runs');
	$api->reset('counters');
	return;
}

note 'round trips';

my $session = YelpSession->new($node);
is(outcome(sync_in_waves($session, 'acme', 1, 96)), 'added 1913', 'a first sync, in two round trips: the first page, then all others');
my @log = $api->log;
is(scalar(@log), 97, '... one request for each page, and a look at the end');
is_deeply([ sort { $a <=> $b } grep { $_ % 20 == 0 } map { $_->{offset} } @log ], [ map { 20 * $_ } 0 .. 95 ], '... each page once');
is_deeply([ keys %{ { map { (join(" ", @$_{qw(account tls limit program_status accept_encoding)}) => 1) } @log } } ],
	['acme 1 20 ALL gzip'], '... over TLS, with credentials, limit, program_status and gzip');
like($log[0]{user_agent}, qr/^yelp_sync\/\d/, '... with our name');
$api->reset('counters');
is(outcome(sync_in_waves($session, 'acme', 97)), '', 'a repeat finds nothing, in one round trip');
is($api->counters->{requests}, 97, '... with the same requests');
$session->end;

$api->config(latency_ms => 500);
forget();
set_server(page_size => 40, concurrency => 10);
sync('acme');
is_deeply([ @{ $api->counters }{qw(requests max_in_flight)} ], [ 49, 10 ], 'page_size 40, and at most 10 requests at once');
table_is_listing('acme', 'page_size 40: the table');
set_server(page_size => undef, concurrency => undef);

note 'connections';

$api->config(latency_ms => 200);
forget();
run(join ';', (q{SELECT yelp_sync('acme')}) x 3);
$counters = $api->counters;
ok($counters->{connections} >= 95 && $counters->{connections} <= 97,
	'three syncs in a session need as many connections as requests at once') or diag(explain($counters));
cmp_ok($counters->{tls_resumed}, '>', 0, '... which resume the TLS session of the first');
connections_are($api, 0, '... and end with the session');
$api->config(latency_ms => 0);

note 'encodings';

my %bytes;
foreach my $encodings ([], ['gzip'])
{
	my $name = $encodings->[0] // 'none';
	$api->config(encodings => $encodings);
	forget();
	sync('acme');
	table_is_listing('acme', "$name: the table");
	($bytes{$name}, my $retries) = split /\|/, history('received_bytes, retries');
	# A page that is requested twice, on a busy machine, need not be received twice
	cmp_ok($bytes{$name}, $retries > 0 ? '<=' : '==', $api->counters->{bytes}, "$name: received_bytes is what was sent");
}
cmp_ok($bytes{gzip}, '<', $bytes{none} / 2, 'gzip saves more than half');
$api->reset('config');

note 'HTTP/2';

foreach my $endpoint ($api->https_url, $api->url)
{
	set_server(http_version => 2, endpoint => $endpoint);
	forget();
	is(outcome(sync('acme')), 'added 1913', "falls back to 1.1: $endpoint");
}

# Pages that take more memory together than they may: some wait until others are processed
sub test_pauses
{
	my ($version) = @_;
	my $session = YelpSession->new($node);
	$session->sync('acme');
	my $before = $session->memory('VmRSS');
	$session->reset_peak;
	$api->faults({ action => { pad => { bytes => 1 << 20 } } });
	is($session->sync('acme')->{error}, undef, "HTTP/$version: 96 pages of 1 MB at once");
	# Over HTTP/2 they are mixed on one connection: none can wait there for long
	cmp_ok($session->memory('VmHWM') - $before, '<', 80_000 * $YelpApi::slack, '... in less memory than all')
	  if $version eq '1.1';
	$api->faults;
	$session->end;
	return;
}

# Kept connections that have died unnoticed: the retries of the next sync, and of the one after that
sub retries_after
{
	my ($relay, $version, $signal) = @_;
	my $name = "HTTP/$version, kept connections, SIG$signal";
	my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');

	$session->options(http_version => $version, timeout => 2000 * $YelpApi::slack . 'ms');
	is($session->sync('acme')->{error}, undef, "$name: a sync keeps connections");
	my @kept = $relay->connections;
	ok($version eq '2' ? @kept == 1 : @kept > 1, "$name: one, or several");
	kill $signal, @kept;
	$api->mutate(alter => 5);
	is(outcome($session->sync('acme')), 'updated 5', "$name: the next sync works");
	my ($run, $retries) = $session->value(YelpTest::last_run('status, pages, retries')) =~ /(.*)\|(\d+)/;
	is($run, 'synced|12', "$name: all pages");
	kill 'KILL', @kept;
	poll_until(sub { !$relay->connections }, "$name: none is kept") if $signal eq 'STOP';
	is($session->sync('acme')->{error}, undef, "$name: the one after that works");
	my $later = $session->value(YelpTest::last_run('retries'));
	$session->end;
	return ($retries, $later);
}

# A page that waits for a connection is requested twice if making one takes long: on a busy machine, again
sub test_kept
{
	my ($relay, $version, $signal) = @_;
	my $name = "HTTP/$version, kept connections, SIG$signal";
	my ($retries, $later);

	foreach (1 .. 10)
	{
		($retries, $later) = retries_after($relay, $version, $signal);
		last if $retries <= 13 && $later == 0;
	}
	cmp_ok($retries, '<=', 13, "$name: no request meets two dead connections");
	is($later, 0, "$name: the one after that works without a retry");
	return;
}

# nginx speaks HTTP/2, and passes requests on to the stand-in
my $lacks_nginx = YelpNginx->is_lacking;
SKIP:
{
	skip $lacks_nginx, 10 if $lacks_nginx;
	my $nginx = YelpNginx->start($api);

	forget();
	set_server(endpoint => $nginx->https_url);
	$session = YelpSession->new($node);
	is(outcome(sync_in_waves($session, 'acme', 1, 96)), 'added 1913', 'HTTP/2, in two round trips');
	table_is_listing('acme', 'HTTP/2: the table');
	my @answers = $nginx->wait_for_answers(97);
	is_deeply([ keys %{ { map { ("$_->{protocol} $_->{connection}" => 1) } @answers } } ],
		["HTTP/2.0 $answers[0]{connection}"], 'HTTP/2: all requests on one connection');
	is(outcome(sync_in_waves($session, 'acme', 97)), '', 'HTTP/2: the repeat takes one');
	$session->end;
	set_server(http_version => undef);
	sync('acme');
	is(scalar(grep { $_->{protocol} eq 'HTTP/1.1' } $nginx->wait_for_answers(3 * 97)), 97, 'without the option: 1.1');
	test_pauses('1.1');
	set_server(http_version => 2);
	test_pauses('2');

	my $relay = YelpRelay->start(sub { YelpRelay::connect_to('127.0.0.1', $nginx->tls_port) });
	$api->reset('config');
	$api->config(accounts => { acme => { count => 230 } }, latency_ms => 200);
	value('TRUNCATE yelp_programs');
	set_server(endpoint => 'https://localhost:' . $relay->port . '/programs/v1');
	foreach my $version ('1.1', '2')
	{
		test_kept($relay, $version, $_) foreach qw(STOP KILL);
	}
	$relay->stop;
}

done_testing();
