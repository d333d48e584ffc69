# The memory of a sync does not grow with the number of programs, and little with the contents of a
# page: the worst pages that max_page_bytes allows take little more than their size, and reading one
# can be cancelled.
#
# YELP_SYNC_TEST_PROGRAMS is their number.  Shared buffers are part of the resident memory of a
# backend that has used them: they are few, and subtracted.
use strict;
use warnings FATAL => 'all';

use IO::Compress::Gzip ();
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest ':all';

my $programs = 0 + ($ENV{YELP_SYNC_TEST_PROGRAMS} // 50_000);
my $tenth = $programs / 10;
my $max_kb = 64 * 1024 * $YelpApi::slack;

my ($node, $api) = start(
	server => { page_size => 100, timeout => '5min' },
	conf => "shared_buffers = 16MB\nwork_mem = 4MB\nmax_wal_size = 4GB\nautovacuum = off\n");
$api->config(max_limit => 100, accounts => { acme => { count => $programs, style => 'cheap' } });

# A test: what runs in a new session takes so many kB more than the idle session
sub memory_is
{
	my ($limit_kb, $name, $code) = @_;
	my $session = YelpSession->new($node);
	my ($idle, $shared) = map { $session->memory($_) } qw(VmRSS RssShmem);

	$session->reset_peak;
	$code->($session);
	my $peak = $session->memory('VmHWM') - $idle - ($session->memory('RssShmem') - $shared);
	cmp_ok($peak, '<=', $limit_kb, "$name: kB more than when idle");
	note("$name: $peak kB more than $idle kB");
	$session->end;
	return;
}

note 'many programs';

foreach my $case (
	[ 'a first sync', "added|$programs" ],
	[ 'a repeat', '' ],
	[ 'a sync that deletes', "deleted|$tenth", sub { $api->mutate(remove => $tenth, seed => 22) } ],
	[ 'a sync that updates', 'updated|' . ($programs - $tenth), sub { value('UPDATE yelp_programs SET budget = budget + 1') } ],
	[ 'a sync that reads twice', '', sub { $api->config(total_offset => 1) } ],
	# Whoever may sync may also write to the history
	[ 'a history that is made up', '', sub { $api->config(total_offset => 0);
			value('UPDATE yelp_sync_runs SET listed = 9223372036854775807; ANALYZE yelp_programs') } ])
{
	my ($name, $expected, $prepare) = @$case;
	$prepare->() if $prepare;
	memory_is($max_kb, $name, sub {
		is($_[0]->value(q{SELECT action, count(*) FROM yelp_sync('acme') GROUP BY action ORDER BY 1}), $expected, "$name: the changes");
	});
}
is(value('SELECT count(*) FROM yelp_programs'), $programs - $tenth, 'all programs are stored');

note 'the worst pages';

my $megabyte = 1024 * 1024;
my $page_bytes = 4 * $megabyte;		# the default of max_page_bytes
my $max_page_kb = 128 * 1024;

# As many copies of an item, separated by commas, as fit between two texts; %d in an item is its number
sub filled
{
	my ($before, $item, $after, $bytes) = @_;
	my $room = ($bytes // $page_bytes) - length($before . $after) + 1;
	my $copies = '';

	return $before . substr("$item," x ($room / length("$item,")), 0, -1) . $after if $item !~ /%d/;
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
	return filled('{"total":1,"payment_programs":[', $item, ']}', $bytes);
}

# One program whose member "a" is filled, or is a single string
sub program_of
{
	my ($before, $item, $after) = @_;
	return filled(qq({"total":1,"payment_programs":[{"program_id":"worst","a":$before), $item, "$after}]}");
}

sub program_with
{
	my ($character, $bytes) = @_;
	my ($before, $after) = ('{"total":1,"payment_programs":[{"program_id":"worst","a":"', '"}]}');
	return $before . $character x (($bytes // $page_bytes) - length($before . $after)) . $after;
}

# The account's page at offset 0 from now on; pages after it are empty
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

my $stored = q{SELECT count(*) FROM yelp_programs WHERE username = 'worst'};
my $tiny = page_of('{"program_id":"%d"}');
my $odd = page_of('{"program_id":"%d","program_metrics":{"budget":"","currency":1,"is_autobid":"",'
	  . '"max_bid":"","ad_cost":"","billed_impressions":"","billed_clicks":"","fee_period":1},'
	  . '"businesses":1,"start_date":1,"end_date":1,"active_features":1,"program_type":1}');

value(create_server('worst', endpoint => $api->url, attempts => 1, timeout => '5min', page_size => 100)
	. create_server('wide', endpoint => $api->url, attempts => 1, timeout => '5min'));
$api->config(accounts => { worst => { count => 0 } });

# The name, the SQLSTATE of the error or the number of programs that are stored then, and the page; the
# last programs are stored already where the name says so
foreach my $case (
	[ 'elements that are not programs', 0, page_of('{}') ],
	[ 'elements that are not objects', 0, page_of('1') ],
	[ 'a member without a name', 0, page_of('{"":[]}') ],
	[ 'tiny programs', scalar(() = $tiny =~ /program_id/g), $tiny ],
	[ 'tiny programs once more', scalar(() = $tiny =~ /program_id/g), $tiny ],
	[ 'fields that cannot be read', scalar(() = $odd =~ /program_id/g), $odd ],
	[ 'a program of numbers', 0, program_of('[', '1', ']') ],
	[ 'a program of lists', 0, program_of('[', '[]', ']') ],
	[ 'a program of members', 0, program_of('{', '"":1', '}') ],
	[ 'a program of strings', 1, program_of('[', '"' . 'x' x 64 . '"', ']') ],
	[ 'other strings once more', 1, program_of('[', '"' . 'y' x 64 . '"', ']') ],
	[ 'a program with a long string', 1, program_with('x') ],
	[ 'another string once more', 1, program_with('y') ],
	[ 'numbers outside of programs', 0, filled('{"total":0,"payment_programs":[],"a":[', '1', ']}') ],
	[ 'members outside of programs', 0, filled('{"total":0,"payment_programs":[],', '"":1', '}') ],
	[ 'numbers that are not a page', 'HV021', filled('[', '1', ']') ],
	[ 'numbers that are truncated', '22032', filled('[', '1', ',') ],
	[ 'numbers in an error', 'HV000', filled('{"error":[', '1', ']}'), 500 ])
{
	my ($name, $expected, $body, $status) = @$case;
	value(q{DELETE FROM yelp_programs WHERE username = 'worst'; DELETE FROM yelp_sync_runs WHERE username = 'worst'})
	  if $name !~ /once more/;
	answer_with($body, $status);
	memory_is($max_page_kb, $name, sub {
		my $ended = $_[0]->run(q{SELECT count(*) FROM yelp_sync('worst')});
		is($ended->{sqlstate} // value($stored), $expected, "$name: the result");
	});
}

note 'many large pages at once: they may have 16 MB together, and the transfer of the others pauses';

my $pages = 24;
my %pad = (pad => { bytes => 3_000_000 });
$api->config(accounts => { wide => { count => 20 * $pages - 10 } });
$api->faults();
$api->reset('counters');
value(q{SELECT count(*) FROM yelp_sync('wide')});
$api->faults({ match => { account => 'wide' }, times => $pages, action => { hold => \1, %pad } },
	{ match => { account => 'wide' }, action => \%pad });
memory_is($max_page_kb, 'large pages', sub {
	my ($session) = @_;
	$session->begin_sync('wide');
	$api->poll_counter('held', $pages);
	$api->release;
	is(outcome($session->sync_result), '', 'large pages: no error, with a single attempt');
});
is(history('listed, status', 'wide'), (20 * $pages - 10) . '|synced', 'all of them are read');
is($api->counters->{requests} - history('retries', 'wide'), 2 * ($pages + 1), '... once');
$api->faults();

note 'a cancel while a page is read';

# CPU time of a process in milliseconds: it does not depend on other processes
sub cpu_ms
{
	my ($session) = @_;
	my ($nanoseconds) = split / /, slurp_file('/proc/' . $session->pid . '/schedstat');
	return $nanoseconds / 1e6;
}

# It takes seconds to read the page, and far less to receive it.  The aim is 100 ms.
value(q{ALTER SERVER worst OPTIONS (ADD max_page_bytes '64MB')});
foreach my $item ('{}', '{"program_id":"a","b":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}')
{
	my $session = YelpSession->new($node);
	answer_with(page_of($item, 64 * $megabyte));
	my $before = cpu_ms($session);
	$session->begin(q{SELECT count(*) FROM yelp_sync('worst')});
	poll_until(sub { cpu_ms($session) > $before + 500 || !$session->is_running }, 'the page to be read');
	my $cancelled = cpu_ms($session);
	value('SELECT pg_cancel_backend(' . $session->pid . ')');
	is($session->result->{sqlstate}, '57014', "elements $item: cancelled");
	cmp_ok(cpu_ms($session) - $cancelled, '<', 500, '... ms of CPU time until then');
	$session->end;
}

# Other timers than those that end a statement do not end a request that takes long
value(q{DELETE FROM yelp_programs WHERE username = 'worst'});
answer_with(program_with('x', 15 * $megabyte));
is(sync('worst', client_connection_check_interval => '1ms')->{error}, undef, 'client_connection_check_interval: no error');
is(value($stored), 1, '... the program is stored');

done_testing();
