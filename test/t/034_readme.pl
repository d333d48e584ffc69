# The SQL of README.md, block by block, as a new user would run it.
use strict;
use warnings FATAL => 'all';

use FindBin ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(install => 0);
my $readme = slurp_file("$FindBin::RealBin/../../README.md");
my @blocks = $readme =~ /^```sql\n(.*?)^```$/msg;
my $endpoint = YelpTest::options(endpoint => $api->url);

sub value
{
	return YelpTest::value($node, @_);
}

# The block that has this text, once the ones before it have run
sub run_until
{
	my ($text) = @_;
	while (my $block = shift @blocks)
	{
		my $first = (split /\n/, $block)[0];
		$block =~ s/(FOREIGN DATA WRAPPER yelp_sync);/$1 $endpoint;/g;
		if ($block =~ /cron\./)
		{
			note("by 007_cron.pl: $first");
			next;
		}
		my $result = YelpTest::run($node, $block);
		if ($block =~ /yelp_sync_progress/ && $result->{sqlstate})
		{
			is($result->{sqlstate}, '0A000', "$first: not before PostgreSQL 17");
			cmp_ok(value('SHOW server_version_num'), '<', 170000, 'which this is');
			next;
		}
		is($result->{error}, undef, $first) or diag($result->{stderr});
		return $result if index($block, $text) >= 0;
	}
	die "no block has $text";
}

sub syncs
{
	my ($role, $sql, $name) = @_;
	$api->mutate(remove => 1, add => 2);
	my $result = YelpTest::run($node, $sql, role => $role);
	is($result->{error}, undef, $name) or diag($result->{stderr});
	YelpTest::table_is_listing($node, $api, 'acme', "$name: the table");
	return;
}

$api->config(accounts => { map { $_ => { password => 's3cret', count => 60 } } qw(acme globex initech) });

run_until(q{FROM yelp_sync('acme')});
YelpTest::table_is_listing($node, $api, 'acme', 'the quick start: the programs are there');
run_until('TO ads');
syncs('ads', q{SELECT * FROM yelp_sync('acme')}, 'another role syncs');
run_until('yelp_globex');
is(value('SELECT string_agg(username, $$ $$ ORDER BY username) FROM yelp_accounts'), 'acme globex', 'two accounts');
run_until('TO marketing');
value('CREATE ROLE anna IN ROLE marketing');
is(YelpTest::run($node, q{SELECT * FROM yelp_sync('initech')}, role => 'anna')->{error}, undef, 'a member of the team syncs');
YelpTest::table_is_listing($node, $api, 'initech', 'the team\'s table');
run_until('TO web');
syncs('web', 'SELECT * FROM sync_acme()', 'the web backend\'s role syncs');
foreach my $sql (q{SELECT yelp_sync('acme')}, 'DELETE FROM yelp_programs', 'SELECT umoptions FROM pg_user_mapping')
{
	isnt(YelpTest::run($node, $sql, role => 'web')->{error}, undef, "and may not: $sql");
}
run_until('n3w');
$api->config(accounts => { acme => { password => 'n3w', count => 60 } });
is(YelpTest::run($node, 'CALL yelp_sync_all()')->{error}, undef, 'a new password, and all accounts');
is(value(q{SELECT string_agg(DISTINCT username || ' ' || status, ', ' ORDER BY username || ' ' || status)
	FROM yelp_sync_runs}), 'acme synced, globex synced, initech synced', 'are synced');

run_until('record_changes');
$api->mutate(seed => 3, remove => 2, add => 1, alter => 50);
value(q{SELECT yelp_sync('acme')});
my $clicks = value(q{SELECT count(*) FROM yelp_program_changes WHERE changed @> '{billed_clicks}'});
cmp_ok(split(/\n/, run_until('"column"')->{stdout}), '>=', 50, 'what changed last week');
run_until(q{@> '{budget}'});
is(scalar(split /\n/, run_until(q{action = 'deleted'})->{stdout}), 2, 'what vanished');
is(scalar(split /\n/, run_until('billed_clicks')->{stdout}), $clicks ? 1 : 0, 'clicks of one day');
run_until('interval \'1 year\'');
run_until('DROP FUNCTION');
is(scalar(@blocks), 0, 'that was all');
is(value(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'yelp%'}), 0, 'and nothing is left');

$node->stop;
done_testing();
