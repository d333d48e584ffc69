# More than one machine: logical replication of yelp_programs, and a database whose programs are on
# several clusters behind postgres_fdw.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use Test::More;

use YelpTest ':all';

my ($main, $api) = start(conf => "wal_level = logical\nmax_wal_senders = 4\n",
	accounts => { acme => { count => 250 }, east => { count => 120 }, west => { count => 80 } });
my $shard = PostgreSQL::Test::Cluster->new('shard');

init($shard);
$shard->start;

note 'logical replication';

sub is_replicated
{
	my ($name) = @_;
	my $content = q{SELECT count(*), sum(hashtextextended(p::text, 0)) FROM yelp_programs p};
	$main->wait_for_catchup('programs');
	return is(value($shard, $content), value($content), "$name: the same rows");
}

value($shard, 'CREATE EXTENSION yelp_sync; SELECT yelp_sync_create_tables()');
sync('acme');
value('CREATE PUBLICATION programs FOR TABLE yelp_programs');
value($shard, 'CREATE SUBSCRIPTION programs CONNECTION ' . literal($main->connstr('postgres')) . ' PUBLICATION programs');
$shard->wait_for_subscription_sync($main, 'programs');
is_replicated('what existed');
foreach my $seed (1 .. 3)
{
	$api->mutate(seed => $seed, remove => 3, add => 4, alter => 20, respell => 5);
	is(outcome(sync('acme')), 'added 4, deleted 3, updated 20', "changes of seed $seed");
	is_replicated("after changes of seed $seed");
}
sync('acme');
is_replicated('after a sync without changes');
value(q{UPDATE yelp_programs SET budget = -1 WHERE program_id = (SELECT min(program_id) FROM yelp_programs)});
is_replicated('after a manual edit');
sync('acme');
is_replicated('after the next sync');

# The subscriber takes over
value($shard, 'DROP SUBSCRIPTION programs');
value($shard, create_server('acme', endpoint => $api->url));
$api->mutate(seed => 9, remove => 1, add => 1, alter => 1);
is(outcome(sync($shard, 'acme')), 'added 1, deleted 1, updated 1', 'the other cluster takes over, and finds what has changed');
table_is_listing($shard, $api, 'acme', '... its table');
is(outcome(sync($shard, 'acme')), '', '... and then nothing');

note 'one account per cluster, and all of them in one table';

value($shard, 'DROP SERVER acme CASCADE; TRUNCATE yelp_programs, yelp_sync_runs;' . create_server('west', endpoint => $api->url));
value('TRUNCATE yelp_programs, yelp_sync_runs; CREATE EXTENSION postgres_fdw;' . create_server('east', endpoint => $api->url)
	  . 'CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw '
	  . options(dbname => 'postgres', host => $shard->host, port => $shard->port) . q{;
	CREATE USER MAPPING FOR CURRENT_USER SERVER shard;
	CREATE TABLE all_programs (LIKE yelp_programs) PARTITION BY LIST (username);
	CREATE FOREIGN TABLE programs_west PARTITION OF all_programs FOR VALUES IN ('west')
		SERVER shard OPTIONS (table_name 'yelp_programs');
	ALTER TABLE yelp_programs ADD CHECK (username = 'east');
	ALTER TABLE all_programs ATTACH PARTITION yelp_programs FOR VALUES IN ('east')});
sync('east');
sync($shard, 'west');
is(value('SELECT username, count(*) FROM all_programs GROUP BY 1 ORDER BY 1'), "east|120\nwest|80", 'all programs');
foreach my $seed (1 .. 2)
{
	$api->mutate(account => $_, seed => $seed, remove => 2, add => 3, alter => 10) foreach qw(east west);
	is(outcome(sync('east')), 'added 3, deleted 2, updated 10', "seed $seed: changes here");
	is(outcome(sync($shard, 'west')), 'added 3, deleted 2, updated 10', "seed $seed: changes there");
	my $sum = 'SELECT sum(hashtext(data::text)) FROM';
	is(value("$sum all_programs"), value("$sum yelp_programs") + value($shard, "$sum yelp_programs"), "seed $seed: one table has both");
}
table_is_listing('east');
table_is_listing($shard, $api, 'west');
like(value(q{EXPLAIN (COSTS off, VERBOSE) SELECT sum(budget) FROM all_programs WHERE username = 'west'}),
	qr/Remote SQL: SELECT budget FROM public\.yelp_programs WHERE .*west/,
	'a query of one account uses its cluster only, and only the columns that it needs');

$_->stop foreach $main, $shard;
done_testing();
