# What a hostile API, or a file, could hold a backend with.
use strict;
use warnings FATAL => 'all';

use POSIX qw(mkfifo);
use Test::More;

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

$session->end;
done_testing();
