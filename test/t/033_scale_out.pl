# More than one machine: logical replication of yelp_programs, and a database whose programs
# are on several clusters behind postgres_fdw.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my %accounts = (acme => 250, east => 120, west => 80);
my ($main, $api) = YelpTest::start(conf => "wal_level = logical\nmax_wal_senders = 4\n");
my $shard = PostgreSQL::Test::Cluster->new('shard');
my $content = q{SELECT count(*), sum(hashtextextended(p::text, 0)) FROM yelp_programs p};

$api->config(accounts => { map { $_ => { password => 's3cret', count => $accounts{$_} } } keys %accounts });
YelpTest::init($shard);
$shard->start;

note 'logical replication';

sub is_replicated
{
	my ($name) = @_;
	$main->wait_for_catchup('programs');
	is(YelpTest::value($shard, $content), YelpTest::value($main, $content), "$name: the same rows");
	return;
}

YelpTest::value($shard, 'CREATE EXTENSION yelp_sync; SELECT yelp_sync_create_tables()');
YelpTest::sync($main, 'acme');
YelpTest::value($main, 'CREATE PUBLICATION programs FOR TABLE yelp_programs');
YelpTest::value($shard, 'CREATE SUBSCRIPTION programs CONNECTION '
	  . YelpTest::literal($main->connstr('postgres'))
	  . ' PUBLICATION programs');
$shard->wait_for_subscription_sync($main, 'programs');
is_replicated('what was there');
foreach my $seed (1 .. 3)
{
	$api->mutate(seed => $seed, remove => 3, add => 4, alter => 20, respell => 5);
	is(scalar(@{ YelpTest::sync($main, 'acme')->{rows} }), 27, "changes of seed $seed");
	is_replicated("after them");
}
YelpTest::sync($main, 'acme');
is_replicated('after a sync without changes');
YelpTest::value($main, q{UPDATE yelp_programs SET budget = -1 WHERE program_id = (SELECT min(program_id) FROM yelp_programs)});
is_replicated('after an edit by hand');
YelpTest::sync($main, 'acme');
is_replicated('put right again');

# The subscriber takes over: its fingerprints are of another cluster, its programs are not
YelpTest::value($shard, 'DROP SUBSCRIPTION programs');
YelpTest::value($shard, YelpTest::create_server('acme', endpoint => $api->url));
$api->mutate(seed => 9, remove => 1, add => 1, alter => 1);
is(scalar(@{ YelpTest::sync($shard, 'acme')->{rows} }), 3, 'the other cluster takes over, and finds what has changed');
YelpTest::table_is_listing($shard, $api, 'acme', 'its table');
is_deeply(YelpTest::sync($shard, 'acme')->{rows}, [], 'and then nothing');
YelpTest::value($shard, 'DROP SERVER acme CASCADE; TRUNCATE yelp_programs, yelp_sync_runs');

note 'one account to a cluster, and all of them in one table';

YelpTest::value($main, 'TRUNCATE yelp_programs, yelp_sync_runs; CREATE EXTENSION postgres_fdw');
YelpTest::value($main, YelpTest::create_server('east', endpoint => $api->url));
YelpTest::value($shard, YelpTest::create_server('west', endpoint => $api->url));
YelpTest::value($main, q{CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname 'postgres', host '}
	  . $shard->host . q{', port '} . $shard->port . q{');
	CREATE USER MAPPING FOR CURRENT_USER SERVER shard;
	CREATE TABLE all_programs (LIKE yelp_programs) PARTITION BY LIST (username);
	CREATE FOREIGN TABLE programs_west PARTITION OF all_programs FOR VALUES IN ('west')
		SERVER shard OPTIONS (table_name 'yelp_programs')});
# What is here is a partition as well: the table of the syncs itself
YelpTest::value($main, q{ALTER TABLE yelp_programs ADD CHECK (username = 'east');
	ALTER TABLE all_programs ATTACH PARTITION yelp_programs FOR VALUES IN ('east')});

YelpTest::sync($main, 'east');
YelpTest::sync($shard, 'west');
is(YelpTest::value($main, 'SELECT username, count(*) FROM all_programs GROUP BY 1 ORDER BY 1'), "east|120\nwest|80",
	'all programs, wherever they are');
foreach my $seed (1 .. 2)
{
	$api->mutate(account => $_, seed => $seed, remove => 2, add => 3, alter => 10) foreach qw(east west);
	is(scalar(@{ YelpTest::sync($main, 'east')->{rows} }), 15, "seed $seed: changes here");
	is(scalar(@{ YelpTest::sync($shard, 'west')->{rows} }), 15, "seed $seed: and there");
	is(YelpTest::value($main, 'SELECT sum(hashtext(data::text)) FROM all_programs'),
		YelpTest::value($main, 'SELECT sum(hashtext(data::text)) FROM yelp_programs')
		  + YelpTest::value($shard, 'SELECT sum(hashtext(data::text)) FROM yelp_programs'),
		"seed $seed: one table has both");
}
YelpTest::table_is_listing($main, $api, 'east', 'the table here');
YelpTest::table_is_listing($shard, $api, 'west', 'the table there');
like(YelpTest::value($main, q{EXPLAIN (COSTS off, VERBOSE) SELECT sum(budget) FROM all_programs WHERE username = 'west'}),
	qr/Remote SQL: SELECT budget FROM public\.yelp_programs WHERE .*west/,
	'a query of one account asks its cluster alone, and for what it needs');

$main->stop;
$shard->stop;
done_testing();
