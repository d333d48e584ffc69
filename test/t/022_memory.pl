# The memory of a sync does not grow with the number of programs, nor much with
# what a page holds: the worst pages that max_page_bytes allows take little more
# than their size, and reading one can be cancelled.
#
# YELP_SYNC_TEST_PROGRAMS is how many there are.  Shared buffers count as the
# backend's memory as soon as it touches them, so they are few.

use strict;
use warnings;

use IO::Compress::Gzip ();
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpBackend;
use YelpTest;

my $programs = 0 + ($ENV{YELP_SYNC_TEST_PROGRAMS} // 200_000);
my $most_kb = 64 * 1024;

my ($node, $api) = YelpTest::start(
	server => { page_size => 100, timeout => '5min' },
	conf => "shared_buffers = 16MB\nwork_mem = 4MB\nmax_wal_size = 4GB\nautovacuum = off\n");

$api->config(
	max_limit => 100,
	accounts => { acme => { count => $programs, style => 'cheap' } });

sub test_memory
{
	my ($expected, $name) = @_;
	my $session = YelpBackend->new($node);
	my $idle = $session->memory('VmRSS');

	$session->reset_peak;
	is($session->value(q{SELECT action, count(*) FROM yelp_sync('acme') GROUP BY action ORDER BY 1}),
		$expected, "$name: what changed");
	my $peak = $session->memory('VmHWM') - $idle;
	cmp_ok($peak, '<=', $most_kb, "$name: kB more than when idle");
	note("$name: $programs programs, $peak kB more than $idle kB");
	$session->end;
	return;
}

my $tenth = $programs / 10;
test_memory("added|$programs", 'a first sync');
test_memory('', 'a repeat sync');
$api->mutate(remove => $tenth, seed => 22);
test_memory("deleted|$tenth", 'a sync that deletes');
$node->safe_psql('postgres', 'UPDATE yelp_programs SET budget = budget + 1');
test_memory('updated|' . ($programs - $tenth), 'a sync that puts all right');
$api->config(total_offset => 1);
test_memory('', 'a sync that reads twice');
$api->config(total_offset => 0);

is($node->safe_psql('postgres', 'SELECT count(*) FROM yelp_programs'), $programs - $tenth,
	'all are stored');

$node->stop;
done_testing();
