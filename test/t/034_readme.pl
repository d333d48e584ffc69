# The SQL of README.md and of the pages in doc/, block by block, as a new user would run it.
use strict;
use warnings FATAL => 'all';

use FindBin ();
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest ':all';

my ($node, $api) = start(install => 0, accounts => { map { $_ => { count => 60 } } qw(acme globex initech) });
my $top = "$FindBin::RealBin/../..";
my $endpoint = options(endpoint => $api->url);
my @blocks;

# The SQL blocks of a page
sub blocks_of
{
	my ($page) = @_;
	return slurp_file("$top/$page") =~ /^```sql\n(.*?)^```$/msg;
}

# Runs a block as it is, but against the stand-in
sub run_block
{
	my ($block) = @_;
	my $first = (split /\n/, $block)[0];
	$block =~ s/(CREATE SERVER \w+ FOREIGN DATA WRAPPER yelp_sync);/$1 $endpoint;/g;
	if ($block =~ /\bcron\b/)
	{
		note("in 007_cron.pl: $first");
		return;
	}
	my $result = run($block);
	is($result->{error}, undef, $first) or diag($result->{stderr});
	return $result;
}

# The block that has this text, once the ones before it have run
sub run_until
{
	my ($text) = @_;
	while (my $block = shift @blocks)
	{
		my $result = run_block($block);
		return $result if index($block, $text) >= 0;
	}
	die "no block has $text";
}

sub syncs
{
	my ($role, $sql, $name) = @_;
	$api->mutate(remove => 1, add => 2);
	my $result = run($sql, role => $role);
	is($result->{error}, undef, $name) or diag($result->{stderr});
	table_is_listing('acme', "$name: the table");
	return;
}

@blocks = blocks_of('README.md');
run_until(q{FROM yelp_sync('acme')});
table_is_listing('acme', 'the quick start: the programs are stored');
run_until('TO ads');
syncs('ads', q{SELECT * FROM yelp_sync('acme')}, 'another role syncs');
run_until('yelp_sync_add_account');
value(q{ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (ADD endpoint '} . $api->url . q{')});
is(value('SELECT string_agg(username, $$ $$ ORDER BY username) FROM yelp_accounts'), 'acme globex', 'two accounts');
run_until('TO web');
syncs('web', 'SELECT * FROM sync_acme()', 'the web backend\'s role syncs');
foreach my $sql (q{SELECT yelp_sync('acme')}, 'DELETE FROM yelp_programs', 'SELECT umoptions FROM pg_user_mapping')
{
	isnt(run($sql, role => 'web')->{error}, undef, "and may not: $sql");
}
run_until('n3w');
$api->config(accounts => { acme => { password => 'n3w', count => 60 } });
run_until('yelp_sync_status');
run_until('record_changes');
my $uninstall = pop @blocks;
run_block($_) foreach @blocks;

# The other pages
@blocks = blocks_of('doc/tables.md');
run_until('listed_programs');
run_until('interval \'1 year\'');
value('DROP VIEW listed_programs');

@blocks = blocks_of('doc/options.md');
run_block($_) foreach @blocks;
value('ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (DROP record_changes)');

@blocks = blocks_of('doc/progress.md');
run_block($_) foreach @blocks;

value(q{ALTER SERVER yelp OPTIONS (DROP record_changes)});
@blocks = blocks_of('doc/queries.md');
run_until('record_changes');
value(q{SELECT yelp_sync('acme')});
my $before = value(q{SELECT count(*) FROM yelp_program_changes WHERE action = 'deleted'});
$api->mutate(seed => 3, remove => 2, add => 1, alter => 50);
value(q{SELECT yelp_sync('acme')});
run_until(q{@> '{budget}'});
is(scalar(split /\n/, run_until(q{action = 'deleted'})->{stdout}), $before + 2, 'what was deleted');
is(scalar(split /\n/, run_until('AS clicks')->{stdout}), 1, 'clicks of one day');
run_until('deleted_programs');

@blocks = blocks_of('doc/operations.md');
run_until('yelp_sync_status');
run_until('TO marketing');
value('CREATE ROLE anna IN ROLE marketing');
is(run(q{SELECT * FROM yelp_sync('initech')}, role => 'anna')->{error}, undef, 'a member of the team syncs');
table_is_listing('initech', 'the team\'s table');

run_block($uninstall);
is(value(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'yelp%'}), 0, 'and nothing is left');

$node->stop;
done_testing();
