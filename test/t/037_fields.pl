# Fields that are gone from every program at once, and documents that are only spelt anew.
use strict;
use warnings FATAL => 'all';

use Encode ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(server => { page_size => 40 });
my $json = JSON::PP->new->utf8->canonical;

sub value
{
	return YelpTest::value($node, @_);
}

# ---- fields that are gone ----

# All programs as the API listed them, altered by a sub, as the only page
sub list_altered
{
	my ($alter) = @_;
	my @programs = @{ $json->decode($json->encode([ $api->programs('acme') ])) };

	$alter->($_, \@programs) foreach @programs;
	$api->faults({ match => { offset => 0 }, action => { respond => { status => 200,
		body => Encode::decode('UTF-8', $json->encode({ total => scalar(@programs),
			payment_programs => \@programs, offset => 0, limit => 40 })) } } });
	return;
}

sub gone
{
	my ($name) = @_;
	my $result = YelpTest::sync($node, 'acme');

	is($result->{error}, undef, "$name: works") or diag($result->{stderr});
	return [ grep { /are missing from all programs/ } @{ $result->{warnings} } ];
}

my $said = 'fields are missing from all programs of account "acme": ';
$api->config(accounts => { acme => { count => 30 } });
is_deeply(gone('the first sync'), [], 'and finds nothing gone');

list_altered(sub { my ($program) = @_; delete $program->{program_metrics} });
is_deeply(gone('an object is gone'), [ $said . '"program_metrics"' ], 'which is said');
is(value('SELECT count(*) FROM yelp_programs WHERE budget IS NOT NULL'), 0, 'their columns are NULL');
is_deeply(gone('the next sync'), [], 'it is said once');
is(value('SELECT count(*) FROM yelp_sync_runs WHERE array_to_string(warnings, $$$$) LIKE $$%program_metrics%$$'), 1,
	'the history has it');
$api->faults();
is_deeply(gone('it is back'), [], 'nothing is said of what is there');

list_altered(sub { my ($program) = @_; $program->{type} = delete $program->{program_type};
	delete $program->{program_metrics}{budget} });
is_deeply(gone('a field renamed, and one of an object gone'),
	[ $said . '"program_type", "program_metrics.budget"' ], 'both are named');
$api->faults();
gone('they are back');

my $kept = 0;
list_altered(sub { my ($program) = @_; delete $program->{program_type} if $kept++ });
is_deeply(gone('one program still has it'), [], 'nothing is said');
list_altered(sub { my ($program) = @_; $program->{program_metrics}{$_} = undef foreach keys %{ $program->{program_metrics} } });
is_deeply(gone('null is a value'), [], 'nothing is said');
$api->faults();

# ---- spelt anew ----

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
	cmp_ok($written, '>', $many / 20, "round $seed: of many, some are written");
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
