# The merge: exactly the differences are written and reported, and manual edits are undone.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my ($node, $api) = start(conf => "autovacuum = off\ncheckpoint_timeout = 1h\nfull_page_writes = off\n");

# A checksum of the table, including the location and the version of each row
sub picture
{
	return value('SELECT count(*), sum(hashtextextended(concat(ctid, xmin, xmax, p), 0)) FROM yelp_programs AS p');
}

sub complete_line
{
	my ($sync) = @_;
	return $sync->{notices}[-1] =~ s/ in [\d.]+ s$//r;
}

note 'a repeat writes nothing';

sync('acme');
table_is_listing('acme', 'the first sync');
# Hint bits and the visibility map are written now, so that it is not done below
value('VACUUM (FREEZE) yelp_programs; CHECKPOINT; CREATE EXTENSION pg_walinspect');
my $before = picture();
my $wal = q{pg_get_wal_records_info('} . value('SELECT pg_current_wal_insert_lsn()') . q{', pg_current_wal_flush_lsn())};
my $repeat = run(qq{
	BEGIN;
	SELECT count(*) FROM yelp_sync('acme');
	SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables WHERE relname = 'yelp_programs';
	COMMIT;
	SELECT count(*) FROM $wal
	WHERE block_ref LIKE ANY (SELECT format('%%rel %s/%s/%s %%',
			CASE reltablespace WHEN 0 THEN 1663 ELSE reltablespace END, d.oid, pg_relation_filenode(c.oid))
		FROM pg_class c, pg_database d WHERE datname = current_database()
		AND c.oid IN ('yelp_programs'::regclass, 'yelp_programs_pkey'::regclass,
			(SELECT reltoastrelid FROM pg_class WHERE relname = 'yelp_programs')));
	SELECT count(*) > 0 FROM $wal
	WHERE block_ref LIKE (SELECT format('%%rel 1663/%s/%s %%', oid, pg_relation_filenode('yelp_sync_runs'))
		FROM pg_database WHERE datname = current_database())});
is($repeat->{stdout}, "0\n0|0|0\n0\nt\n", 'no row, no tuple, no WAL record of yelp_programs; those of the history are seen');
is(picture(), $before, 'no row has changed or moved');
is(complete_line($repeat), 'yelp_sync: complete: +0 added, ~0 updated, =1913 unchanged, -0 deleted', 'the notice');

note 'added, updated with what changed, deleted, spelled in another way';

my $what = $api->mutate(seed => 1, remove => 5, add => 5, alter => 30, respell => 10);
my $sync = sync('acme');
reports($sync, $what, '5 deleted, 5 added, 30 updated');
is(complete_line($sync), 'yelp_sync: complete: +5 added, ~30 updated, =1878 unchanged, -5 deleted',
	'the notice counts programs that are only spelled in another way as unchanged');
table_is_listing('acme', 'the table after the changes');
is( value(q{SELECT count(*) FILTER (WHERE updated_at > created_at),
		count(DISTINCT updated_at) FILTER (WHERE updated_at > created_at),
		count(*) FILTER (WHERE created_at = updated_at AND created_at > started_at)
		FROM yelp_programs, (SELECT max(started_at) FROM yelp_sync_runs) AS r(started_at)}),
	'30|1|5', 'updated_at of the updated programs, created_at of the added ones');
# 016_oracle.pl has changes of all kinds
$what = $api->mutate(seed => 6, alter => 92);
reports(sync('acme'), $what, 'many changes');
table_is_listing('acme', 'the table after many changes');
my %seen = map { $_ => 1 } map { @$_ } values %{ $what->{altered} };
my @filled = grep { $_ ne 'problems' } split /\n/, value(q{SELECT attname FROM pg_attribute
	WHERE attrelid = 'yelp_sync_values'::regclass ORDER BY attname});
is_deeply([ sort keys %seen ], [ sort @filled, 'data' ], 'these were changes of all columns');

note 'manual edits are undone';

my @edits = (
	[ program_type => q{'EDITED'} ], [ program_status => 'NULL' ], [ program_pause_status => q{''} ],
	[ start_date => q{'1999-01-01'} ], [ end_date => q{'infinity'} ], [ yelp_business_id => q{'x'} ],
	[ partner_business_id => q{'x'} ], [ budget => '0.55' ], [ max_bid => '-1' ], [ ad_cost => '123456789012.34' ],
	[ currency => q{'XXX'} ], [ fee_period => q{'never'} ], [ is_autobid => 'NOT coalesce(is_autobid, false)' ],
	[ billed_impressions => '-5' ], [ billed_clicks => '-6' ], [ active_features => q{'{edited}'} ],
	[ available_features => q{'{{1},{2}}'} ]);
is_deeply([ sort map { $_->[0] } @edits ], \@filled, 'an edit of each column');
foreach my $edit (@edits)
{
	my ($column, $value) = @$edit;
	value("UPDATE yelp_programs SET $column = $value WHERE ctid IN (SELECT ctid FROM yelp_programs LIMIT 2)");
	is_deeply([ values %{ reported(sync('acme')) } ], [ ([ 'updated', [$column] ]) x 2 ], "a manual edit of $column");
}
my $one = 'ctid IN (SELECT ctid FROM yelp_programs LIMIT 1)';
my $all = value('SELECT count(*) FROM yelp_programs');
foreach my $case (
	[ "UPDATE yelp_programs SET data = '{}' WHERE $one", 'updated 1' ],
	[ 'UPDATE yelp_programs SET fingerprint = NULL', '' ],
	[ "UPDATE yelp_programs SET program_type = 'EDITED'", "updated $all" ],
	[ "UPDATE yelp_programs SET program_id = 'renamed' WHERE $one", 'added 1, deleted 1' ],
	[ q{INSERT INTO yelp_programs (username, program_id, data) VALUES ('acme', 'mine', '{}')}, 'deleted 1' ],
	[ "DELETE FROM yelp_programs WHERE $one", 'added 1' ],
	[ 'TRUNCATE yelp_programs', "added $all" ])
{
	my ($sql, $expected) = @$case;
	value($sql);
	is(outcome(sync('acme')), $expected, $sql);
}
table_is_listing('acme', 'the table is as before');

note 'documents that are only spelled in another way';

# How many rows a sync writes if all programs are spelled in another way, or still are
sub respell
{
	my ($account, $count, $seed) = @_;
	my $rows = "SELECT xmin::text || ctid::text, program_id FROM yelp_programs WHERE username = '$account'";

	value("CREATE TABLE before AS $rows");
	$api->mutate(account => $account, seed => $seed, respell => $count) if $seed;
	is(outcome(sync($account)), '', "$account: no program has changed");
	is(history('updated, unchanged, status', $account), "0|$count|synced", "$account: all count as unchanged");
	return value("SELECT count(*) FROM ($rows EXCEPT ALL TABLE before) r; DROP TABLE before");
}

my %count = (few => 400, many => 2500);
foreach my $account (sort keys %count)
{
	value(create_server($account, endpoint => $api->url, page_size => 40));
	$api->config(accounts => { $account => { count => $count{$account} } });
	sync($account);
}
is(respell('few', 400, 1), 400, 'few rows are written at once');
is(respell('few', 400), 0, '... so that the next sync recognizes them');
my $written = respell('many', $count{many}, 1);
ok($written > $count{many} / 20 && $written < $count{many} / 5, 'of many, about one in ten is written')
  or diag($written);
my $rounds = 0;
while (respell('many', $count{many}) > 0 && ++$rounds < 100) { }
cmp_ok($rounds, '<', 100, 'after some syncs, all are recognized');
table_is_listing($_) foreach qw(few many);

done_testing();
