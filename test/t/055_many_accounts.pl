# The cost of an account does not grow with their number: adding it, syncing it, and its row in
# yelp_accounts and yelp_sync_status.
#
# YELP_SYNC_TEST_ACCOUNTS is the largest number; the notes have the costs for each power of ten.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use YelpApi;
use YelpSession;
use YelpTest;

my $max = 0 + ($ENV{YELP_SYNC_TEST_ACCOUNTS} // 200);
my @counts = ((grep { $_ < $max } 10, 100, 1000), $max);
my ($node, $api) = YelpTest::start(install => 0,
	conf => "shared_buffers = 128MB\nmax_wal_size = 4GB\nfsync = off\n");
$api->config(accounts => { map { ("a$_" => { password => 's3cret', count => 5, style => 'cheap' }) } 1 .. $max });

# Milliseconds for each account
sub cost
{
	my ($session, $sql, $count) = @_;
	my $start = time;
	my $result = $session->run($sql);
	is($result->{error}, undef, "$count: $sql") or BAIL_OUT($result->{stderr});
	return 1000 * (time - $start) / $count;
}

sub measure
{
	my ($session, $before, $count) = @_;
	my %cost;
	$cost{add} = cost($session, "SELECT count(yelp_sync_add_account('a' || i, 's3cret'))
		FROM generate_series($before + 1, $count) AS i", $count - $before);
	$session->value('VACUUM ANALYZE');
	my $syncs = YelpSession->new($node, 'yelp_sync.progress' => 'off', database => 'many');
	my $idle = $syncs->memory('RssAnon');
	$cost{first} = cost($syncs, 'CALL yelp_sync_all()', $count);
	$cost{repeat} = cost($syncs, 'CALL yelp_sync_all()', $count);
	my $grown = $syncs->memory('RssAnon') - $idle;
	$cost{accounts} = cost($syncs, 'SELECT count(*) FROM yelp_accounts', $count);
	$cost{status} = cost($syncs, q{SELECT count(*) FROM yelp_sync_status WHERE last_status = 'synced'}, $count);
	$syncs->end;
	note(sprintf("%6d accounts: %d kB", $count, $grown), map { sprintf(", %s %.3f", $_, $cost{$_}) } sort keys %cost);
	cmp_ok($grown, '<=', 4096 + 8 * $count, "$count: kB more than when idle");
	return \%cost;
}

foreach my $partitions ('NULL', 8)
{
	YelpTest::value($node, 'CREATE DATABASE many');
	YelpTest::value($node, 'CREATE EXTENSION yelp_sync; ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (ADD endpoint '
		. YelpTest::literal($api->url) . "); SELECT yelp_sync_create_tables($partitions)", database => 'many');
	my $session = YelpSession->new($node, database => 'many');
	my $before = 0;
	my @costs;
	note("partitions: $partitions; milliseconds for each account");
	foreach my $count (@counts)
	{
		push @costs, measure($session, $before, $count);
		$before = $count;
	}
	cmp_ok($costs[-1]{$_}, '<=', 3 * $costs[0]{$_}, "$_: as fast for each of $max as of $counts[0]") foreach sort keys %{ $costs[0] };
	$session->end;
	YelpTest::value($node, 'DROP DATABASE many');
}
done_testing();
