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

# ---- the worst pages ----

my $page_bytes = 4 * 1024 * 1024;	# the default
my $most_page_kb = 128 * 1024;

# A text around as many copies of an item, numbered, as it may have bytes
sub filled
{
	my ($bytes, $before, $item, $after) = @_;
	my $room = $bytes - length("$before$after");
	my $copies = $item =~ /%/ ? '' : $item x ($room / length $item);

	for (my $number = 0; $item =~ /%/; $number++)
	{
		my $copy = sprintf $item, $number;
		last if length($copies) + length($copy) > $room;
		$copies .= $copy;
	}
	chop $copies;
	return "$before$copies$after";
}

sub page_of
{
	my ($item, $bytes) = @_;
	return filled($bytes // $page_bytes, '{"total":1,"payment_programs":[', $item, ']}');
}

sub program_of
{
	my ($before, $item, $after) = @_;
	return filled($page_bytes, qq({"total":1,"payment_programs":[{"program_id":"worst",$before),
		$item, "$after}]}");
}

# The account's page at offset 0 from now on; what is behind it is empty.
sub answer_with
{
	my ($body, $status) = @_;
	IO::Compress::Gzip::gzip(\$body => \my $zipped) or die 'gzip failed';
	$api->faults({
		match => { offset => 0 },
		action => { respond => { status => $status // 200, base64 => encode_base64($zipped, ''),
			headers => { 'Content-Encoding' => 'gzip' } } } });
	return;
}

sub forget_worst
{
	$node->safe_psql('postgres', q{DELETE FROM yelp_programs WHERE username = 'worst';
		DELETE FROM yelp_sync_runs WHERE username = 'worst'});
	return;
}

sub test_page
{
	my ($name, $result, $body, $status) = @_;
	my $session = YelpBackend->new($node);
	my $idle = $session->memory('VmRSS');

	answer_with($body, $status);
	$session->reset_peak;
	my $ended = $session->sync('worst');
	my $peak = $session->memory('VmHWM') - $idle;
	is($ended->{sqlstate} // scalar(@{ $ended->{rows} }) . ' changed', $result, "$name: the result");
	cmp_ok($peak, '<=', $most_page_kb, "$name: kB more than when idle");
	note("$name: $peak kB more than $idle kB");
	$session->end;
	return;
}

$node->safe_psql('postgres', "ALTER SERVER yelp OPTIONS (SET page_size '20', attempts '1');
	CREATE SERVER worst FOREIGN DATA WRAPPER yelp_sync "
	  . YelpTest::options(endpoint => $api->url, attempts => 1)
	  . '; CREATE USER MAPPING FOR CURRENT_USER SERVER worst '
	  . YelpTest::options(username => 'worst', password => 's3cret'));
$api->config(accounts => { worst => { count => 0 } });
my $key = '"program_metrics":{"budget":"","currency":1,"is_autobid":"","max_bid":"","ad_cost":"",'
  . '"billed_impressions":"","billed_clicks":"","fee_period":1},"businesses":1,"start_date":1,'
  . '"end_date":1,"active_features":1,"available_features":1,"program_type":1';
test_page('objects that are no programs', '0 changed', page_of('{},'));
test_page('numbers', '0 changed', page_of('1,'));
test_page('programs without id', '0 changed', page_of('{"":[]},'));
test_page('tiny programs', '220752 changed', page_of('{"program_id":"%d"},'));
test_page('problems', '0 changed', page_of(qq({"program_id":"%d",$key},)));
test_page('a program of numbers', '0 changed', program_of('"a":[', '1,', ']'));
test_page('a program of lists', '0 changed', program_of('"a":[', '[],', ']'));
test_page('a program of members', '0 changed', program_of('"a":{', '"":1,', '}'));
test_page('a program of strings', '1 changed', program_of('"a":[', '"tiny string it is",', ']'));
test_page('a program that is long', '1 changed', program_of('"a":"', 'x', '"'));
test_page('numbers outside of programs', '0 changed',
	filled($page_bytes, '{"total":0,"payment_programs":[],"x":[', '1,', ']}'));
test_page('members', '54000',
	filled($page_bytes, '{"total":0,"payment_programs":[],', '"":1,', '}'));
test_page('numbers in no page', 'HV021', filled($page_bytes, '[', '1,', ']'));
test_page('numbers that break off', '22032', filled($page_bytes, '[', '1,', ''));
test_page('an error', 'HV000', filled($page_bytes, '{"error":[', '1,', ']}'), 500);
$node->stop;
done_testing();
