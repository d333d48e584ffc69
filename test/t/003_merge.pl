# The merge: exactly the differences are written and reported, and manual edits are undone.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest;

my ($node, $api) = YelpTest::start(conf => q{
	autovacuum = off
	checkpoint_timeout = 1h
	full_page_writes = off
});

sub value
{
	return YelpTest::value($node, @_);
}

# A checksum of the table, including the location and the times of each row
sub picture
{
	return value('SELECT count(*), sum(hashtextextended(concat(ctid, xmin, xmax, p), 0))
		FROM yelp_programs AS p');
}

sub complete_line
{
	my ($sync) = @_;
	return $sync->{notices}[-1] =~ s/ in [\d.]+ s$//r;
}

note 'a repeat writes nothing';

YelpTest::sync($node, 'acme');
YelpTest::table_is_listing($node, $api, 'acme', 'the first sync');
# Hint bits and the visibility map are written now, so that it is not done below
$node->safe_psql('postgres', 'VACUUM (FREEZE) yelp_programs; CHECKPOINT; CREATE EXTENSION pg_walinspect');
my $before = picture();
my $wal = q{pg_get_wal_records_info('} . value('SELECT pg_current_wal_insert_lsn()')
  . q{', pg_current_wal_flush_lsn())};
my $repeat = YelpTest::run($node, qq{
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
		FROM pg_database WHERE datname = current_database())
});
is($repeat->{stdout}, "0\n0|0|0\n0\nt\n",
	'no row, no tuple, no WAL record of yelp_programs; those of the history are seen')
  or diag($repeat->{stderr});
is(picture(), $before, 'each row is where it was, and as it was');
is( complete_line($repeat),
	'yelp_sync: complete: +0 added, ~0 updated, =1913 unchanged, -0 deleted', 'the notice');

note 'added, updated with what changed, deleted, spelt anew';

my $what = $api->mutate(seed => 1, remove => 5, add => 5, alter => 30, respell => 10);
my $sync = YelpTest::sync($node, 'acme');
YelpTest::reports($sync, $what, '5 gone, 5 new and 30 altered: these 40 rows');
is(scalar(@{ $sync->{rows} }), 40, '40 rows');
is( complete_line($sync),
	'yelp_sync: complete: +5 added, ~30 updated, =1878 unchanged, -5 deleted',
	'the notice counts those spelt anew as unchanged');
YelpTest::table_is_listing($node, $api, 'acme', 'the table after the changes');
is(value('SELECT count(*) FROM yelp_programs WHERE updated_at > created_at'),
	'30', 'updated_at moved for the 30 altered programs, and for no other');
is( value('SELECT count(DISTINCT updated_at) FROM yelp_programs WHERE updated_at > created_at'),
	'1',
	'all at one time');
is( value(q{SELECT count(*), count(*) FILTER (WHERE created_at = updated_at) FROM yelp_programs
		WHERE created_at > (SELECT max(started_at) FROM yelp_sync_runs)}),
	'5|5',
	'created_at is the time of the sync that added the row');
$before = picture();
is(scalar(@{ YelpTest::sync($node, 'acme')->{rows} }), 0, 'a repeat finds nothing');
is(picture(), $before, 'and touches nothing, not even what was spelt anew');

# Every kind of change, more than once, with other values
foreach my $seed (2 .. 6)
{
	$what = $api->mutate(seed => $seed, remove => $seed, add => 2 * $seed, alter => 92, respell => 3);
	YelpTest::reports(YelpTest::sync($node, 'acme'), $what, "changes of seed $seed");
	YelpTest::table_is_listing($node, $api, 'acme', "the table after seed $seed");
}
my %seen = map { $_ => 1 } map { @$_ } values %{ $what->{altered} };
# All columns from a program's document; other tests cover problems
my @filled = grep { $_ ne 'problems' } split /\n/, value(q{SELECT attname FROM pg_attribute
	WHERE attrelid = 'yelp_sync_values'::regclass ORDER BY attname});
is_deeply([ sort keys %seen ], [ sort @filled, 'data' ],
	'among them, every column that a document fills, and none together with data');

# Several columns at once, and a change that columns and data show
$what = $api->mutate(edit => [ [ 3, { program_type => 'X', start_date => '2001-01-01', 'unknown' => 1 } ] ]);
my ($id) = keys %{ $what->{altered} };
my $row = YelpTest::reported(YelpTest::sync($node, 'acme'))->{$id};
is($row->[0], 'updated', 'several columns at once');
is_deeply([ sort grep { $_ ne 'data' } @{ $row->[1] } ], [ 'program_type', 'start_date' ], 'are named');

note 'hand edits and deletions are put right';

my @edits = (
	[ program_type => q{'EDITED'} ], [ program_status => 'NULL' ], [ program_pause_status => q{''} ],
	[ start_date => q{'1999-01-01'} ], [ end_date => q{'infinity'} ],
	[ yelp_business_id => q{'x'} ], [ partner_business_id => q{'x'} ], [ budget => '0.55' ],
	[ max_bid => '-1' ], [ ad_cost => '123456789012.34' ], [ currency => q{'XXX'} ],
	[ fee_period => q{'never'} ], [ is_autobid => 'NOT coalesce(is_autobid, false)' ],
	[ billed_impressions => '-5' ], [ billed_clicks => '-6' ], [ active_features => q{'{edited}'} ],
	[ available_features => q{'{{1},{2}}'} ]);
is_deeply([ sort map { $_->[0] } @edits ], \@filled, 'an edit of each column');
foreach my $edit (@edits)
{
	my ($column, $value) = @$edit;
	value("UPDATE yelp_programs SET $column = $value WHERE ctid IN (SELECT ctid FROM yelp_programs LIMIT 2)");
	my $rows = YelpTest::reported(YelpTest::sync($node, 'acme'));
	is_deeply([ values %$rows ], [ ([ 'updated', [$column] ]) x 2 ], "a hand edit of $column");
}
value(q{UPDATE yelp_programs SET data = '{}' WHERE ctid IN (SELECT ctid FROM yelp_programs LIMIT 1)});
is_deeply([ map { $_->{action} } @{ YelpTest::sync($node, 'acme')->{rows} } ],
	['updated'], 'a hand edit of data');
value(q{UPDATE yelp_programs SET fingerprint = NULL});
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [], 'without fingerprints all is compared, and nothing is reported');
value(q{UPDATE yelp_programs SET program_type = 'EDITED'});
$sync = YelpTest::sync($node, 'acme');
is( scalar(grep { $_->{action} eq 'updated' && "@{ $_->{changed} }" eq 'program_type' } @{ $sync->{rows} }),
	value('SELECT count(*) FROM yelp_programs'),
	'an edit of all rows');
value(q{UPDATE yelp_programs SET program_id = 'renamed' WHERE program_id = (SELECT min(program_id) FROM yelp_programs)});
is_deeply([ sort map { $_->{action} } @{ YelpTest::sync($node, 'acme')->{rows} } ],
	[ 'added', 'deleted' ], 'an edit of the key');
value(q{INSERT INTO yelp_programs (username, program_id, data) VALUES ('acme', 'mine', '{}')});
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [ { action => 'deleted', program_id => 'mine', changed => undef } ],
	'a row of one\'s own');
my @gone = split /\n/, value('DELETE FROM yelp_programs WHERE ctid IN
	(SELECT ctid FROM yelp_programs LIMIT 3) RETURNING program_id');
is_deeply([ sort map { "$_->{action} $_->{program_id}" } @{ YelpTest::sync($node, 'acme')->{rows} } ],
	[ sort map { "added $_" } @gone ], 'rows deleted by hand come back');
value('TRUNCATE yelp_programs');
is(scalar(@{ YelpTest::sync($node, 'acme')->{rows} }),
	value('SELECT count(*) FROM yelp_programs'), 'all rows deleted by hand come back');
YelpTest::table_is_listing($node, $api, 'acme', 'the table is whole again');

note 'accounts do not touch each other';

$api->config(accounts => { other => { count => 33, seed => 'acme' } });
value(YelpTest::create_server('other', endpoint => $api->url));
$before = picture();
is(scalar(@{ YelpTest::sync($node, 'other')->{rows} }), 33, 'another account with the same programs');
is(value(q{SELECT count(*) FROM yelp_programs a JOIN yelp_programs b USING (program_id)
		WHERE a.username = 'acme' AND b.username = 'other'}) > 10, 1, 'the same program_ids');
$what = $api->mutate(account => 'other', seed => 1, remove => 3, alter => 10);
YelpTest::reports(YelpTest::sync($node, 'other'), $what, 'its changes');
YelpTest::table_is_listing($node, $api, 'other', 'its table');
value(q{DELETE FROM yelp_programs WHERE username = 'other'});
is(picture(), $before, 'and the first account\'s rows are as they were');

done_testing();
