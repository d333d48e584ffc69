# Whatever an API, an operator and a time-out do together: a sync that says it is
# done leaves no listed program out of the table, but for those that it says it skipped; one that fails leaves the table
# alone, and at the end all is right.
#
# YELP_SYNC_TEST_SEED and YELP_SYNC_TEST_ROUNDS make other and longer runs.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;
use YelpWorld qw(pick);

my $seed = $ENV{YELP_SYNC_TEST_SEED} // 29;
my $rounds = $ENV{YELP_SYNC_TEST_ROUNDS} // 40;

note("seed $seed");
srand($seed);

my ($node, $api) = YelpTest::start(
	server => {
		max_deleted => '100%', page_size => 7, retry_delay => '5ms', retry_max_delay => '20ms', timeout => '200ms',
		connect_timeout => '200ms', max_page_bytes => '100kB', max_retry_after => '1s'
	},
	conf => "shared_buffers = 16MB\n");
my $session = YelpSession->new($node);
my $observer = YelpSession->new($node);
$api->config(accounts => { acme => { count => 150 } });

# ---- what may happen ----

my @actions = (
	'close', 'reset', 'stall',
	{ close => { at => 100 } },
	{ reset => { at => 100 } },
	{ chunked_cut => { at => 300 } },
	{ delay_ms => 20 },
	{ delay_ms => 400 },
	{ drip => { at => 50, every_ms => 1 } },
	{ pad => { bytes => 1_000_000, encoding => 'gzip' } },
	{ endless_headers => { bytes => 2_000_000 } },
	{ raw => { text => "nonsense\r\n\r\n" } },
	{ replace => { suffix => 'x' } },
	{ replace => { remove => ['total'] } },
	{ replace => { text => { 'payment_programs.1.program_id' => '17' } } },
	{ replace => { json => { 'payment_programs.2.start_date' => '2026-02-30' } } },
	{ respond => { status => 200, body => '<html>' } },
	{ respond => { status => 302, headers => { Location => '/' } } },
	{ respond => { status => 401 } },
	{ respond => { status => 404 } },
	{ respond => { status => 429 } },
	{ respond => { status => 429, headers => { 'Retry-After' => '1' } } },
	{ respond => { status => 503 } },
	{ respond => { status => 503 } },
	{ respond => { status => 503, headers => { 'Retry-After' => '3600' } } });

sub choose_faults
{
	my @rules = map {
		{
			match => {
				probability => pick(0.02, 0.1, 0.3), seed => int(rand(1e6)) },
			times => pick(1, 2, 5, 20),
			action => pick(@actions)
		}
	} 1 .. pick(0, 1, 1, 2, 3);
	$api->faults(@rules);
	return;
}

sub choose_time_out
{
	my $timeout = pick(0, 0, 0, pick(1 .. 30), pick(30 .. 300));
	$session->value("SET statement_timeout = $timeout");
	return;
}

# What is listed, and what is stored: programs' ids and fingerprints
sub listed
{
	return map { $_->{program_id} => 1 } $api->programs('acme');
}

sub stored
{
	return $observer->value(q{SELECT string_agg(program_id || ' ' || fingerprint, ',' ORDER BY program_id)
		FROM yelp_programs});
}

sub is_stored
{
	return map { s/ .*//r => 1 } split /,/, $_[0];
}

# How many programs could not be stored, as the sync says
sub skipped
{
	my ($result) = @_;
	my ($warning) = grep { $_->{message} =~ /^could not prove/ } @{ $result->{messages} };
	return ($warning->{detail} // '') =~ /^(\d+) programs? (?:was|were) skipped/ ? $1 : 0;
}

# ---- rounds ----

my %seen;
my (@vanished, @touched, @unknown);

foreach my $round (1 .. $rounds)
{
	$api->mutate(seed => $seed * 1000 + $round, remove => pick(0, 1, 3), add => pick(0, 1, 3),
		alter => pick(0, 5), respell => pick(0, 2));
	my $before = stored();
	choose_faults();
	choose_time_out();
	my $result = $session->sync('acme');
	my $state = $result->{sqlstate} // 'done';
	$seen{$state}++;
	if ($state eq 'done')
	{
		my %stored = is_stored(stored());
		my %listed = listed();
		my %was_stored = is_stored($before // '');
		my @missing = grep { !$stored{$_} } keys %listed;
		my @deleted = grep { $was_stored{$_} } @missing;
		push @vanished, "round $round: deleted @deleted" if @deleted;
		push @vanished, "round $round: @missing, $result->{stderr}" if @missing > skipped($result);
	}
	else
	{
		push @touched, "round $round: $state" if stored() ne $before;
		push @unknown, "round $round: $result->{stderr}"
		  if $state !~ /^(08001|08006|22032|28000|53400|54000|57014|HV000|HV021)$/;
	}
	if ($result->{lost})
	{
		push @unknown, "round $round: the session ended";
		$session = YelpSession->new($node);
	}
	$api->disconnect(pick('close', 'reset')) if pick(0, 0, 1);
}

note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
is_deeply(\@vanished, [], 'no sync that is done leaves out what is listed');
is_deeply(\@touched, [], 'no sync that fails changes anything');
is_deeply(\@unknown, [], 'each fails with a reason of its own');
cmp_ok(scalar(keys %seen), '>', 3, 'there were syncs of several ends');
ok($seen{done}, 'some were done');

$api->faults;
$api->release;
$session->value('RESET statement_timeout');
is($session->sync('acme')->{error}, undef, 'at the end all is well');
YelpTest::table_is_listing($node, $api, 'acme', 'and the table is the listing');
is($session->threads, 1, 'no thread is left');
$session->end;
YelpTest::connections_are($api, 0, 'no connection is left');

$observer->end;
$node->stop;
done_testing();
