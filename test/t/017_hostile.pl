# How a hostile API, or a file, could block a backend.  020_cancel.pl has what ends a sync during floods.
use strict;
use warnings FATAL => 'all';

use POSIX qw(mkfifo);
use Test::More;

use YelpFlood;
use YelpTest ':all';

my ($node, $api) = start(
	server => { attempts => 2, retry_delay => '1ms', retry_max_delay => '2ms' },
	accounts => { acme => { count => 20 } });
my $session = YelpSession->new($node);

is(outcome($session->sync), 'added 20', 'a first sync');

sub sync_with
{
	my (%respond) = @_;
	$api->faults({ action => { respond => \%respond } });
	return failure($session->sync);
}

note 'codings and headers';

foreach my $coding ('gzip, gzip', 'deflate, gzip, gzip', 'utf-8', 'br')
{
	like(sync_with(body => 'x', headers => { 'Content-Encoding' => $coding }),
		qr/^08006: .*unsupported Content-Encoding/, "Content-Encoding: $coding");
}

# A body that cannot be read hides neither its status nor its headers
my %odd = (
	br => { body => "\x0b\x02busy", headers => { 'Content-Encoding' => 'br' } },
	zstd => { body => '(', headers => { 'Content-Encoding' => 'zstd' } },
	'gzip that is not' => { body => 'busy', headers => { 'Content-Encoding' => 'gzip' } },
	'over max_page_bytes' => { body => 'x' x 600_000, headers => {} });
$session->options(max_page_bytes => '512kB');
foreach my $name (sort keys %odd)
{
	my %respond = %{ $odd{$name} };
	like(sync_with(%respond, status => 404), qr/^HV000: .*HTTP status 404/, "$name: the status");
	like(sync_with(%respond, status => 500), qr/HTTP status 500 \(attempt 2 of 2/, "$name: ... which is retried");
	like(sync_with(%respond, status => 429, headers => { %{ $respond{headers} }, 'Retry-After' => '3600' }),
		qr/^53400: .*asked to wait 3600 s/, "$name: Retry-After");
}
$session->options(max_page_bytes => undef);
cmp_ok(length sync_with(body => 'abc', headers => { 'Content-Type' => 'x' x 90_000 }), '<', 900, 'a long Content-Type is clipped');
cmp_ok(length sync_with(status => 302, headers => { Location => 'http://h/' . 'x' x 90_000 }), '<', 1100, 'a long Location is clipped');

note 'floods';

foreach my $what (qw(tickets ack window goaway connect))
{
	my $flood = YelpFlood->start($api, $what);
	$session->run(create_server("flood_$what", $flood->options, attempts => 1, timeout => '1s'));
	like($session->sync("flood_$what")->{error}, qr/timed out|proxy rejected/, "timeout ends a flood: $what");
	$flood->poll('closed');
}

# Codings between which a header looks like a status line
my $flood = YelpFlood->start($api, 'codings');
$session->run(create_server('codings', $flood->options, attempts => 1));
like($session->sync('codings')->{error}, qr/unsupported Content-Encoding/, 'codings that one header hides from another');
$flood->poll('closed');

# libcurl reads from a connection that it closes
$flood = YelpFlood->start($api, 'idle_tickets');
$session->run(create_server('idle', $flood->options, attempts => 1, concurrency => 1, http_version => '1.1'));
$session->sync('idle');
$flood->idle;
$flood->poll('floods');
$api->faults;
$session->run(q{SET statement_timeout = '20s'});
is($session->sync->{error}, undef, 'a flood over a kept connection does not delay a sync of another server');
$flood->poll('closed');
$session->run('RESET statement_timeout');

note 'connections and files';

$api->faults({ action => { respond => { status => 404 } } });
is($session->run(q{BEGIN; SELECT yelp_sync('acme')})->{sqlstate}, 'HV000', 'a sync that fails in a transaction block');
connections_are($api, 0, '... has closed its connections before ROLLBACK');
$session->run('ROLLBACK');
$api->faults;

my $fifo = PostgreSQL::Test::Utils::tempdir() . '/fifo';
mkfifo($fifo, 0666) or die "mkfifo: $!";
$session->options(ca_file => $fifo);
like(failure($session->sync), qr/^08001: ca_file ".*" is not a regular file of at most 10 MB/, 'a ca_file that is not a file');
$session->options(ca_file => undef);

# An idle session closes connections that the API has closed
my $port = sprintf ':%04X', $api->port('http');
my $closed_by_api = sub {
	return grep { (split)[2] =~ /$port$/ && (split)[3] eq '08' }
	  split /\n/, PostgreSQL::Test::Utils::slurp_file('/proc/net/tcp');
};
is($session->sync->{error}, undef, 'a sync keeps connections');
cmp_ok($api->disconnect('close'), '>', 0, 'the API closes them');
$api->poll_until($closed_by_api, 'CLOSE_WAIT');
$api->poll_until(sub { !$closed_by_api->() }, 'the other end to be closed');
is($session->sync->{error}, undef, 'they do not stay in CLOSE_WAIT, and the next sync works');

SKIP:
{
	skip 'transaction_timeout came with PostgreSQL 17', 2
	  if $session->value(q{SELECT current_setting('server_version_num')::int < 170000}) eq 't';
	$api->faults({ action => { hold => \1 } });
	$session->run(q{SET transaction_timeout = '500ms'});
	my $result = $session->sync;
	is_deeply([ @$result{qw(sqlstate lost)} ], [ '25P04', !!1 ], 'transaction_timeout ends a sync that waits, and its session');
	connections_are($api, 0, '... and its connections');
}

$session->end;
done_testing();
