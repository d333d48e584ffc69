# The memory of a sync does not grow with the number of programs, and little with
# the contents of a page: the worst pages that max_page_bytes allows take little more
# than their size, and reading one can be cancelled.
#
# YELP_SYNC_TEST_PROGRAMS is their number.  Shared buffers that the backend
# has touched are in its resident memory, but are not its own: they are few, and
# left out.

use strict;
use warnings FATAL => 'all';

use IO::Compress::Gzip ();
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my $programs = 0 + ($ENV{YELP_SYNC_TEST_PROGRAMS} // 50_000);
my $most_kb = 64 * 1024 * $YelpApi::slack;

my ($node, $api) = YelpTest::start(
	server => { page_size => 100, timeout => '5min' },
	conf => "shared_buffers = 16MB\nwork_mem = 4MB\nmax_wal_size = 4GB\nautovacuum = off\n");

$api->config(
	max_limit => 100,
	accounts => { acme => { count => $programs, style => 'cheap' } });

sub test_memory
{
	my ($expected, $name) = @_;
	my $session = YelpSession->new($node);
	my ($idle, $shared) = map { $session->memory($_) } qw(VmRSS RssShmem);

	$session->reset_peak;
	is($session->value(q{SELECT action, count(*) FROM yelp_sync('acme') GROUP BY action ORDER BY 1}),
		$expected, "$name: what changed");
	my $buffers = $session->memory('RssShmem') - $shared;
	my $peak = $session->memory('VmHWM') - $idle - $buffers;
	cmp_ok($peak, '<=', $most_kb, "$name: kB more than when idle");
	note("$name: $programs programs, $peak kB more than $idle kB, and $buffers kB of shared buffers");
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

# Whoever may sync may also write to the history
$node->safe_psql('postgres', q{UPDATE yelp_sync_runs SET listed = 9223372036854775807; ANALYZE yelp_programs});
test_memory('', 'a history that is made up');

# ---- the worst pages ----

my $megabyte = 1024 * 1024;
my $page_bytes = 4 * $megabyte;		# the default of max_page_bytes
my $most_page_kb = 128 * 1024;

# A text around as many copies of an item as it may have bytes, with commas
# between them; %d in an item is its number.
sub filled
{
	my ($bytes, $before, $item, $after) = @_;
	my $room = $bytes - length($before . $after) + 1;
	my $copies = '';

	return $before . substr("$item," x ($room / length("$item,")), 0, -1) . $after
	  if $item !~ /%d/;
	for (my $number = 1;; $number++)
	{
		my $copy = sprintf "$item,", $number;
		last if length($copies) + length($copy) > $room;
		$copies .= $copy;
	}
	return $before . substr($copies, 0, -1) . $after;
}

sub page_of
{
	my ($item, $bytes) = @_;
	return filled($bytes // $page_bytes, '{"total":1,"payment_programs":[', $item, ']}');
}

# One program whose member "a" is filled
sub program_of
{
	my ($before, $item, $after) = @_;
	return filled($page_bytes, qq({"total":1,"payment_programs":[{"program_id":"worst","a":$before),
		$item, "$after}]}");
}

# One program with a single long string
sub program_with
{
	my ($character) = @_;
	my ($before, $after) =
	  ('{"total":1,"payment_programs":[{"program_id":"worst","a":"', '"}]}');
	return $before . $character x ($page_bytes - length($before . $after)) . $after;
}

# The account's page at offset 0 from now on; pages after it are empty.
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

sub worst_stored
{
	return $node->safe_psql('postgres',
		q{SELECT count(*) FROM yelp_programs WHERE username = 'worst'});
}

# The result is the SQLSTATE of an error, or how many programs are stored then.
sub test_page
{
	my ($name, $result, $body, $status) = @_;
	my $session = YelpSession->new($node);
	my $idle = $session->memory('VmRSS');

	answer_with($body, $status);
	$session->reset_peak;
	my $ended = $session->run(q{SELECT count(*) FROM yelp_sync('worst')});
	my $peak = $session->memory('VmHWM') - $idle;
	is($ended->{sqlstate} // worst_stored(), $result, "$name: the result");
	cmp_ok($peak, '<=', $most_page_kb, "$name: kB more than when idle");
	note("$name: $peak kB more than $idle kB");
	$session->end;
	return;
}

# The same where the account has nothing stored before
sub test_first_page
{
	$node->safe_psql('postgres', q{DELETE FROM yelp_programs WHERE username = 'worst';
		DELETE FROM yelp_sync_runs WHERE username = 'worst'});
	test_page(@_);
	return;
}

$node->safe_psql('postgres',
	YelpTest::create_server('worst', endpoint => $api->url, attempts => 1, timeout => '5min', page_size => 100));
$api->config(accounts => { worst => { count => 0 } });

my $tiny = page_of('{"program_id":"%d"}');
my $odd = page_of('{"program_id":"%d","program_metrics":{"budget":"","currency":1,"is_autobid":"",'
	  . '"max_bid":"","ad_cost":"","billed_impressions":"","billed_clicks":"","fee_period":1},'
	  . '"businesses":1,"start_date":1,"end_date":1,"active_features":1,"program_type":1}');

test_first_page('elements that are no programs', 0, page_of('{}'));
test_first_page('elements that are no objects', 0, page_of('1'));
test_first_page('a member without a name', 0, page_of('{"":[]}'));
test_first_page('tiny programs', scalar(() = $tiny =~ /program_id/g), $tiny);
test_page('tiny programs once more', scalar(() = $tiny =~ /program_id/g), $tiny);
test_first_page('fields that cannot be read', scalar(() = $odd =~ /program_id/g), $odd);
test_first_page('a program of numbers', 0, program_of('[', '1', ']'));
test_first_page('a program of lists', 0, program_of('[', '[]', ']'));
test_first_page('a program of members', 0, program_of('{', '"":1', '}'));
test_first_page('a program of strings', 1, program_of('[', '"' . 'x' x 64 . '"', ']'));
test_page('other strings', 1, program_of('[', '"' . 'y' x 64 . '"', ']'));
test_first_page('a program with a long string', 1, program_with('x'));
test_page('another string', 1, program_with('y'));
test_first_page('numbers outside of programs', 0,
	filled($page_bytes, '{"total":0,"payment_programs":[],"a":[', '1', ']}'));
test_first_page('members outside of programs', 0,
	filled($page_bytes, '{"total":0,"payment_programs":[],', '"":1', '}'));
test_first_page('numbers that are no page', 'HV021', filled($page_bytes, '[', '1', ']'));
test_first_page('numbers that break off', '22032', filled($page_bytes, '[', '1', ','));
test_first_page('numbers in an error', 'HV000', filled($page_bytes, '{"error":[', '1', ']}'), 500);

# ---- many large pages at once ----

# They arrive at the same time, and may have 16 MB together: the transfer of the others pauses
my $wide_pages = 24;
$node->safe_psql('postgres',
	YelpTest::create_server('wide', endpoint => $api->url, attempts => 1, timeout => '5min'));
$api->config(accounts => { wide => { count => 20 * $wide_pages - 10 } });
$api->faults();
$api->reset('counters');
$node->safe_psql('postgres', q{SELECT count(*) FROM yelp_sync('wide')});
$api->faults({ match => { account => 'wide' }, times => $wide_pages, action => { hold => \1, pad => { bytes => 3_000_000 } } },
	{ match => { account => 'wide' }, action => { pad => { bytes => 3_000_000 } } });
my $wide = YelpSession->new($node);
my $wide_idle = $wide->memory('VmRSS');
$wide->reset_peak;
$wide->begin_sync('wide');
$api->poll_counter('held', $wide_pages);
$api->release;
my $wide_result = $wide->sync_result;
is($wide_result->{error}, undef, 'many large pages at once: no error, with a single attempt');
is($node->safe_psql('postgres', YelpTest::last_run('listed, status', 'wide')),
	(20 * $wide_pages - 10) . '|synced', 'all of them are read');
is($api->counters->{requests}, 2 * ($wide_pages + 1), 'none is requested twice');
cmp_ok($wide->memory('VmHWM') - $wide_idle, '<=', $most_page_kb, 'kB more than when idle');
$wide->end;
$api->faults();

# ---- a cancel while a page is read ----

# CPU time of a process in milliseconds: what it takes does not depend on who else runs
sub cpu_ms
{
	my ($session) = @_;
	my ($nanoseconds) = split / /, slurp_file('/proc/' . $session->pid . '/schedstat');
	return $nanoseconds / 1e6;
}

# The page takes seconds to read, and far less to receive; a cancel is looked for
# when it has begun.
sub test_cancel
{
	my ($name, $item) = @_;
	my $observer = YelpSession->new($node);
	my $session = YelpSession->new($node);
	my $begun_ms = 500;
	my $most_ms = 500;				# what is aimed at is 100

	answer_with(page_of($item, 64 * $megabyte));
	my $before = cpu_ms($session);
	$session->begin(q{SELECT count(*) FROM yelp_sync('worst')});
	YelpTest::poll_until(
		sub { cpu_ms($session) > $before + $begun_ms || !$session->is_running },
		'the page to be read');
	my $cancelled = cpu_ms($session);
	$observer->value('SELECT pg_cancel_backend(' . $session->pid . ')');
	is($session->result->{sqlstate}, '57014', "$name: cancelled");
	my $took = cpu_ms($session) - $cancelled;
	cmp_ok($took, '<', $most_ms, "$name: ms of CPU time until then");
	note("$name: $took ms");
	$_->end for $session, $observer;
	return;
}

$node->safe_psql('postgres', q{ALTER SERVER worst OPTIONS (ADD max_page_bytes '64MB')});
test_cancel('elements that are no programs', '{}');
test_cancel('programs', '{"program_id":"a","b":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}');

# Other timers than those that end a statement do not end a request that takes long
$node->safe_psql('postgres', q{ALTER SERVER worst OPTIONS (SET attempts '1'); DELETE FROM yelp_programs WHERE username = 'worst'});
answer_with('{"total":1,"payment_programs":[{"program_id":"worst","a":"' . 'x' x (15 * $megabyte) . '"}]}');
my $patient = YelpTest::sync($node, 'worst', client_connection_check_interval => '1ms');
is($patient->{error}, undef, 'client_connection_check_interval: no error') or diag($patient->{detail});
is(worst_stored(), 1, 'client_connection_check_interval: the program is stored');

$node->stop;
done_testing();
