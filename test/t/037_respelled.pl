# Documents that are only spelt anew.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(server => { page_size => 40 });

sub value
{
	return YelpTest::value($node, @_);
}

# What a sync of programs that are all spelt anew writes: rows, and what it says of them
sub respell
{
	my ($account, $count, $seed) = @_;
	my $rows = 'SELECT xmin::text || ctid::text, program_id FROM yelp_programs WHERE username = ' . "'$account'";
	value("CREATE TABLE before AS $rows");
	$api->mutate(account => $account, seed => $seed, respell => $count) if $seed;
	my $result = YelpTest::sync($node, $account);
	my $written = value("SELECT count(*) FROM ($rows EXCEPT ALL TABLE before) r");

	value('DROP TABLE before');
	is($result->{error}, undef, "$account: a sync of programs that are spelt anew") or diag($result->{stderr});
	is_deeply($result->{rows}, [], "$account: they are no changes");
	is(value(YelpTest::last_run('updated, unchanged, status', $account)),
		"0|$count|synced", "$account: they count as unchanged");
	return $written;
}

sub add_account
{
	my ($account, $count) = @_;
	value(YelpTest::create_server($account, endpoint => $api->url, page_size => 40));
	$api->config(accounts => { $account => { count => $count } });
	is(YelpTest::sync($node, $account)->{error}, undef, "$account: the first sync");
	return;
}

add_account('few', 400);
is(respell('few', 400, 1), 400, 'few rows are written at once');
is(respell('few', 400), 0, 'so that the next sync knows them');

my $many = 2500;
add_account('many', $many);
foreach my $seed (1 .. 3)
{
	my $written = respell('many', $many, $seed);
	# Later, many of the tenth that is chosen can have been written before
	cmp_ok($written, '>', $seed == 1 ? $many / 20 : 0, "round $seed: of many, some are written");
	cmp_ok($written, '<', $many / 5, "round $seed: and not many more than one in ten");
}
my ($last, $rounds) = ($many, 0);
while ($last > 0 && $rounds < 100)
{
	$rounds++;
	$last = respell('many', $many);
}
is($last, 0, "what is no longer spelt anew is settled after some syncs");
YelpTest::table_is_listing($node, $api, $_, "$_: the table") foreach qw(few many);

$node->stop;
done_testing();
