# How a hostile API, or a file, could block a backend.
use strict;
use warnings FATAL => 'all';

use POSIX qw(mkfifo);
use Test::More;

use YelpFlood;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(server => { page_size => 20 });
my $session = YelpSession->new($node);

$session->options(attempts => 2, retry_delay => '1ms', retry_max_delay => '2ms');
$api->config(accounts => { acme => { count => 20 } });
is($session->sync->{error}, undef, 'all is well at first');

foreach my $coding ('gzip, gzip', 'deflate, gzip, gzip', 'utf-8', 'br')
{
	subtest "Content-Encoding: $coding" => sub {
		$api->faults({ action => { respond => { body => 'x', headers => { 'Content-Encoding' => $coding } } } });
		my $result = $session->sync;
		is($result->{sqlstate}, '08006', 'is refused');
		like($result->{error}, qr/unsupported Content-Encoding/, '... and named');
	};
}

# What is wrong with the body of an error hides neither its status nor its headers
my %odd = (
	br => { body => "\x0b\x02busy", headers => { 'Content-Encoding' => 'br' } },
	zstd => { body => '(', headers => { 'Content-Encoding' => 'zstd' } },
	'gzip that is none' => { body => 'busy', headers => { 'Content-Encoding' => 'gzip' } },
	'over max_page_bytes' => { body => 'x' x 600_000 });
$session->options(max_page_bytes => '512kB');
foreach my $name (sort keys %odd)
{
	subtest "an error in $name" => sub {
		my $respond = sub {
			my ($status, %headers) = @_;
			my %odd = %{ $odd{$name} };
			return { action => { respond => { %odd, status => $status,
						headers => { %{ $odd{headers} // {} }, %headers } } } };
		};
		$api->faults($respond->(404));
		my $result = $session->sync;
		like($result->{error}, qr/HTTP status 404/, 'the status is shown');
		is($result->{sqlstate}, 'HV000', '... by its SQLSTATE');
		$api->faults($respond->(500));
		like($session->sync->{error}, qr/HTTP status 500 \(attempt 2 of 2/, 'it is tried again');
		$api->faults($respond->(429, 'Retry-After' => '3600'));
		$result = $session->sync;
		is($result->{sqlstate}, '53400', 'Retry-After is read');
		like($result->{error}, qr/asked to wait 3600 s/, '... and shown');
	};
}
$session->options(max_page_bytes => undef);

subtest 'long headers are clipped' => sub {
	$api->faults({ action => { respond => { body => 'abc', headers => { 'Content-Type' => 'x' x 90_000 } } } });
	cmp_ok(length $session->sync->{detail}, '<', 600, 'Content-Type');
	$api->faults({ action => { respond => { status => 302, headers => { Location => 'http://h/' . 'x' x 90_000 } } } });
	cmp_ok(length $session->sync->{detail}, '<', 800, 'Location');
};

# Floods that cancel and the like end are in 020_cancel.pl
subtest 'timeout ends a flood' => sub {
	foreach my $what (qw(tickets ack window goaway connect))
	{
		my $flood = YelpFlood->start($api, $what);
		$session->run(YelpTest::create_server("flood_$what", $flood->options, attempts => 1, timeout => '1s'));
		like($session->sync("flood_$what")->{error}, qr/timed out|proxy rejected/, $what);
		$flood->poll('closed');
	}
};

subtest 'codings that one header hides from another' => sub {
	my $flood = YelpFlood->start($api, 'codings');
	$session->run(YelpTest::create_server('codings', $flood->options, attempts => 1));
	my $result = $session->sync('codings');
	like($result->{error}, qr/unsupported Content-Encoding/, 'are refused');
	$flood->poll('closed');
};

# libcurl reads from a connection that it closes
subtest 'a flood over a connection that is kept' => sub {
	my $flood = YelpFlood->start($api, 'idle_tickets');
	$session->run(YelpTest::create_server('a', $flood->options, attempts => 1, concurrency => 1,
			http_version => '1.1'));
	$session->sync('a');
	$flood->idle;
	$flood->poll('floods');
	$api->faults;
	$session->run(q{SET statement_timeout = '20s'});
	is($session->sync->{error}, undef, 'keeps no other server waiting');
	$flood->poll('closed');
	$session->run('RESET statement_timeout');
};

subtest 'an error gives everything back at once' => sub {
	$api->faults({ action => { respond => { status => 404 } } });
	$session->run('BEGIN');
	is($session->sync->{sqlstate}, 'HV000', 'a sync fails in a transaction block');
	$api->poll_until(sub { $api->counters->{open_connections} == 0 }, 'its connections to close');
	pass('its connections are closed before ROLLBACK');
	$session->run('ROLLBACK');
};

subtest 'a ca_file that is no file' => sub {
	my $fifo = PostgreSQL::Test::Utils::tempdir() . '/fifo';
	mkfifo($fifo, 0666) or die "mkfifo: $!";
	$api->faults;
	$session->options(ca_file => $fifo);
	my $result = $session->sync;
	is($result->{sqlstate}, '08001', 'is refused at once');
	like($result->{error}, qr/^ca_file ".*" is not a regular file of at most 10 MB$/, '... and named');
	$session->options(ca_file => undef);
	is($session->sync->{error}, undef, 'without it all is well');
};

SKIP:
{
	skip 'transaction_timeout came with PostgreSQL 17', 3
	  if $session->value(q{SELECT current_setting('server_version_num')::int < 170000}) eq 't';
	$api->faults({ action => { hold => \1 } });
	$session->run(q{SET transaction_timeout = '500ms'});
	my $result = $session->sync;
	is($result->{sqlstate}, '25P04', 'transaction_timeout ends a sync that waits');
	ok($result->{lost}, '... and its session');
	YelpTest::connections_are($api, 0, '... and its connections');
}

# A session that does nothing lets connections go that the API has closed
subtest 'connections that the API closes between two syncs' => sub {
	my $session = YelpSession->new($node);
	my $port = sprintf ':%04X', $api->port('http');
	my $closed_by_api = sub {
		return grep { (split)[2] =~ /$port$/ && (split)[3] eq '08' }
		  split /\n/, PostgreSQL::Test::Utils::slurp_file('/proc/net/tcp');
	};
	$api->faults;
	is($session->sync->{error}, undef, 'a sync keeps connections');
	cmp_ok($api->disconnect('close'), '>', 0, 'the API closes them');
	$api->poll_until($closed_by_api, 'CLOSE_WAIT');
	$api->poll_until(sub { !$closed_by_api->() }, 'the other end to be closed');
	pass('they do not stay in CLOSE_WAIT');
	is($session->sync->{error}, undef, 'the next sync works');
	$session->end;
};

$session->end;
done_testing();
