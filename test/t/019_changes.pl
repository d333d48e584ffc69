# yelp_program_changes: what each sync changed, if record_changes is on.
use strict;
use warnings FATAL => 'all';

use Encode ();
use JSON::PP ();

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(tables => 0);
my $json = JSON::PP->new->utf8->allow_nonref;
my $seed = 0;

$api->config(accounts => { acme => { count => 95 } });

sub value
{
	return YelpTest::value($node, @_);
}

sub sync
{
	my (%options) = @_;
	my $result = YelpTest::sync($node, 'acme', %options);
	diag($result->{stderr}) if $result->{error};
	return $result;
}

# The rows that the last run left, by program_id
sub changes
{
	my $rows = value(q{SELECT coalesce(json_agg(c), '[]') FROM yelp_program_changes c
		WHERE run_id = (SELECT run_id FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1)});
	my @rows = @{ $json->decode(Encode::encode('UTF-8', $rows)) };
	my %changes = map { $_->{program_id} => $_ } @rows;
	is(scalar(keys %changes), scalar(@rows), 'no program is there twice');
	return \%changes;
}

# Keeps a copy of the table, for a look back
my @copied = qw(username program_id program_type program_status program_pause_status start_date end_date
  yelp_business_id partner_business_id budget max_bid ad_cost currency fee_period is_autobid
  billed_impressions billed_clicks active_features available_features problems data gone_at);

sub keep_copy
{
	local $" = ', ';
	value("CREATE TABLE IF NOT EXISTS copies AS SELECT now() AS at, @copied FROM yelp_programs WITH NO DATA;
		INSERT INTO copies SELECT now(), @copied FROM yelp_programs");
	return;
}

# All programs as they are stored, by program_id
sub stored
{
	my $rows = value(q{SELECT json_object_agg(program_id, to_jsonb(p)) FROM yelp_programs p});
	return $json->decode(Encode::encode('UTF-8', $rows));
}

# A test: the changes are what the sync reported, with the values before and after
sub changes_are
{
	my ($sync, $before, $name) = @_;
	my $after = stored();
	my %expected;

	keep_copy();
	my %got = map { my $row = $_; $row->{program_id} => { map { $_ => $row->{$_} } qw(action changed old new) } }
	  values %{ changes() };

	foreach my $row (@{ $sync->{rows} })
	{
		my ($id, $action, $changed) = @$row{qw(program_id action changed)};
		my %change = (action => $action, changed => $changed, old => undef, new => undef);
		$change{old} = $before->{$id}{data} if $action =~ /^(deleted|gone)$/;
		$change{new} = $after->{$id}{data} if $action eq 'added';
		if ($action eq 'updated')
		{
			$change{old} = { map { $_ => $before->{$id}{$_} } @$changed, 'data' };
			$change{new} = { map { $_ => $after->{$id}{$_} } @$changed };
		}
		$expected{$id} = \%change;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(\%got, \%expected, $name);
}

note 'off, which is the default';

is(scalar(@{ sync()->{rows} }), 95, 'a first sync');
is(value('SELECT count(*) FROM yelp_program_changes'), 0, 'leaves no row, but the table is there');
value('DROP TABLE yelp_program_changes');
$api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2);
is(scalar(@{ sync()->{rows} }), 9, 'a sync without the table');
is(value(q{SELECT to_regclass('yelp_program_changes') IS NULL}), 't', 'which it does not need');

note 'on';

YelpTest::set_server($node, record_changes => 'on');
my $before = stored();
$api->mutate(seed => ++$seed, alter => 20, remove => 3, add => 2, respell => 5);
my $sync = sync();
is($sync->{error}, undef, 'a sync that makes the table');
changes_are($sync, $before, 'what it changed, with old and new values');
is( value(q{SELECT count(*) FROM yelp_program_changes c JOIN yelp_sync_runs r USING (run_id, username)
		WHERE c.changed_at BETWEEN r.started_at AND r.finished_at}),
	scalar(@{ $sync->{rows} }), 'each row is of its run');
is( value(q{SELECT bool_and(c.changed_at = p.updated_at) FROM yelp_program_changes c
		JOIN yelp_programs p USING (username, program_id)}),
	't', 'and of the time that the program has');

foreach my $round (1 .. 4)
{
	$before = stored();
	$api->mutate(seed => ++$seed, alter => 60, remove => $round, add => $round, respell => 3);
	changes_are(sync(), $before, "more changes, $round");
}
is(scalar(keys %{ stored() }), value(q{
		SELECT 95 - 3 + 2 + count(*) FILTER (WHERE action = 'added') - count(*) FILTER (WHERE action = 'deleted')
		FROM yelp_program_changes}), 'added and deleted add up');
my %seen = map { $_ => 1 } split /\n/, value('SELECT DISTINCT unnest(changed) FROM yelp_program_changes');
cmp_ok(scalar(keys %seen), '>', 15, 'among them most columns');
ok($seen{data}, 'and data');

my $count = value('SELECT count(*) FROM yelp_program_changes');
is(scalar(@{ sync()->{rows} }), 0, 'a repeat');
$api->mutate(seed => ++$seed, respell => 20);
is(scalar(@{ sync()->{rows} }), 0, 'programs that are spelt in another way');
is(value('SELECT count(*) FROM yelp_program_changes'), $count, 'leave no row');

value(q{UPDATE yelp_programs SET budget = 0.55, active_features = '{edited}'
	WHERE program_id = (SELECT min(program_id) FROM yelp_programs WHERE budget > 1)});
$before = stored();
$sync = sync();
changes_are($sync, $before, 'an edit by hand');
is($sync->{rows}[0]{changed}[0], 'budget', 'that was of the budget');

$api->mutate(edit => [ [ 0, { start_date => 'soon', program_metrics => { budget => 'much' } } ] ]);
$before = stored();
changes_are(sync(), $before, 'fields that cannot be read');
ok((grep { $_->{new}{problems} } values %{ changes() }), 'problems are among the changes');

# What is not deleted is no change
$before = stored();
$api->mutate(seed => ++$seed, remove => 60);
$sync = sync();
is((grep { $_->{action} eq 'missing' } @{ $sync->{rows} }), 60, 'programs that are missing');
is_deeply(changes(), {}, 'are no change');
YelpTest::set_server($node, max_deleted => '100%');
changes_are(sync(), $before, 'until they are deleted');

note 'programs that are gone are kept';

YelpTest::set_server($node, on_gone => 'keep');
my @listed = split /\n/, value(q{SELECT data FROM yelp_programs ORDER BY program_id});
my @gone = map { $json->decode(Encode::encode('UTF-8', $_))->{program_id} } @listed[ 0 .. 3 ];
my $written = q{SELECT count(*), sum(hashtextextended(concat(ctid, xmin, p), 0)) FROM yelp_programs AS p};
$api->set_programs('acme', @listed);
is(scalar(@{ sync()->{rows} }), 0, 'programs that are spelt anew');
$api->set_programs('acme', @listed[ 4 .. $#listed ]);
$before = stored();
$sync = sync();
is_deeply([ sort map { "$_->{action} $_->{program_id}" } @{ $sync->{rows} } ], [ map { "gone $_" } @gone ],
	'programs that are no longer listed are gone');
changes_are($sync, $before, 'which is recorded, with what they were');
is(value('SELECT string_agg(program_id, $$ $$ ORDER BY program_id) FROM yelp_programs
		WHERE gone_at = updated_at AND gone_at = (SELECT max(changed_at) FROM yelp_program_changes)'), "@gone",
	'they are stored, with the time');
is(value('SELECT status, deleted, missing, unchanged FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'),
	'synced|4|0|' . (@listed - 4), 'the run');
my $picture = value($written);
$api->reset('counters');
$sync = sync();
is_deeply([ $sync->{rows}, $sync->{warnings} ], [ [], ['could not read all fields of 1 program of account "acme"'] ],
	'the next sync has nothing to say of them');
is(value($written), $picture, 'and writes nothing');
is(scalar(grep { $_->{offset} == 0 } $api->log), 1, 'and does not read the listing again');

# One returns as it was, one altered
my $altered = $listed[1] =~ s/("program_type": ")\w+/$1X/r;
$api->set_programs('acme', @listed[ 0, 4 .. $#listed ], $altered);
$before = stored();
$sync = sync();
my $returned = YelpTest::reported($sync);
is(value('SELECT status FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), 'synced', 'programs return');
is_deeply($returned, { $gone[0] => [ 'updated', ['gone_at'] ], $gone[1] => [ 'updated', [ 'program_type', 'gone_at' ] ] },
	'programs that are listed again');
changes_are($sync, $before, 'are recorded with the time');
is(value('SELECT string_agg(program_id, $$ $$ ORDER BY program_id) FROM yelp_programs WHERE gone_at IS NOT NULL'),
	"@gone[ 2, 3 ]", 'and are no longer gone');

# Somebody clears the time, or sets it
value(qq{UPDATE yelp_programs SET gone_at = NULL WHERE program_id = '$gone[2]';
	UPDATE yelp_programs SET gone_at = now() WHERE program_id = '$gone[1]'});
$returned = YelpTest::reported(sync());
is(scalar(@{ sync()->{rows} }), 0, 'at once');
is(value('SELECT status FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), 'synced', 'and synced');
is_deeply($returned, { $gone[2] => [ 'gone', undef ], $gone[1] => [ 'updated', ['gone_at'] ] },
	'a time that was set by hand is put right');
keep_copy();

# Not more than may be deleted
YelpTest::set_server($node, max_deleted => '10%');
$api->set_programs('acme', @listed[ 25 .. $#listed ]);
$sync = sync();
is((grep { $_->{action} eq 'missing' } @{ $sync->{rows} }), 23, 'more than max_deleted are missing, not gone');
is(scalar(grep { /not as listed/ } @{ $sync->{warnings} }), 0, 'which is as it should be');
is(value('SELECT count(*) FROM yelp_programs WHERE gone_at IS NOT NULL'), 2, 'and are not marked');
$api->set_programs('acme', @listed[ 4 .. $#listed ], $altered, $listed[0]);
is(scalar(@{ sync()->{rows} }), 0, 'they are listed again');
YelpTest::set_server($node, on_gone => 'delete', max_deleted => '100%');
is(scalar(@{ sync()->{rows} }), 0, 'with on_gone = delete, those that were kept stay');
value('DELETE FROM yelp_programs WHERE gone_at IS NOT NULL');
is(scalar(@{ sync()->{rows} }), 0, 'until they are deleted by hand');

note 'in one transaction with the merge';

$api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2);
$count = value('SELECT count(*) FROM yelp_program_changes');
is(value(q{BEGIN; SELECT count(*) FROM yelp_sync('acme'); ROLLBACK; SELECT count(*) FROM yelp_program_changes}),
	"9\n$count", 'ROLLBACK undoes both');
value(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE 'not this one' USING ERRCODE = 'P0099'; END$$;
	CREATE TRIGGER refuse BEFORE INSERT ON yelp_program_changes FOR EACH ROW
		WHEN (NEW.action = 'added') EXECUTE FUNCTION refuse()});
$sync = sync();
is($sync->{error}, undef, 'a trigger on the changes that refuses fails no sync');
is(scalar(@{ $sync->{rows} }), 9, '... whose changes are made');
is($sync->{warnings}[-1], 'could not record the changes of account "acme": not this one', '... says so');
is_deeply(changes(), {}, '... and records all of them or none');
value('DROP TRIGGER refuse ON yelp_program_changes');
$api->mutate(seed => ++$seed, alter => 4, remove => 3, add => 2);
$before = stored();
value(q{CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
	CREATE TRIGGER skip BEFORE DELETE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION skip()});
$sync = sync();
is((grep { $_->{action} eq 'deleted' } @{ $sync->{rows} }), 0, 'deletions that a trigger prevents');
changes_are($sync, $before, 'are no change');
value('DROP TRIGGER skip ON yelp_programs');

note 'the table as it was';

value(q{DELETE FROM copies});
keep_copy();

foreach my $round (1 .. 12)
{
	YelpTest::set_server($node, on_gone => $round % 3 == 0 ? 'delete' : 'keep');
	$api->mutate(seed => 100 + $round, alter => 20, remove => $round % 4, add => $round % 5, respell => 2);
	$api->set_programs('acme', value(q{SELECT data FROM copies WHERE program_id = (SELECT min(program_id) FROM copies
			WHERE gone_at IS NOT NULL) LIMIT 1}), map { $json->encode($_) } $api->programs('acme'))
	  if $round == 8;
	sync();
	keep_copy();
}
my $columns = join ', ', @copied;
cmp_ok(value('SELECT count(*) FROM copies WHERE gone_at IS NOT NULL'), '>', 10, 'copies with programs that are gone');
is(value('SELECT count(DISTINCT at) FROM copies'), 13, 'copies of many times');
is( value(qq{SELECT count(*) FROM (SELECT DISTINCT at FROM copies) AS times, LATERAL (
		(SELECT $columns FROM yelp_programs_at(at) EXCEPT ALL
			SELECT $columns FROM copies c WHERE c.at = times.at)
		UNION ALL (SELECT $columns FROM copies c WHERE c.at = times.at
			EXCEPT ALL SELECT $columns FROM yelp_programs_at(at))) AS differences}),
	0, 'yelp_programs_at() shows each of them');
is(value(q{SELECT count(*) FROM yelp_programs_at('infinity')}), value('SELECT count(*) FROM yelp_programs'),
	'... what is, in the future');
YelpTest::set_server($node, on_gone => undef);

note 'rights';

value(q{CREATE ROLE regress_syncer;
	GRANT USAGE ON FOREIGN SERVER yelp TO regress_syncer;
	CREATE USER MAPPING FOR regress_syncer SERVER yelp OPTIONS (username 'acme', password 's3cret');
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO regress_syncer;
	GRANT SELECT, INSERT ON yelp_sync_runs TO regress_syncer});
my $requests = $api->counters->{requests};
my $refused = YelpTest::sync($node, 'acme', role => 'regress_syncer');    # should fail
is($refused->{sqlstate}, '42501', 'without INSERT on the table');
like($refused->{hint}, qr/^Run: GRANT INSERT ON public\.yelp_program_changes TO \w+;$/, 'which the hint names');
is($api->counters->{requests}, $requests, 'nothing is asked for');
value('GRANT INSERT ON yelp_program_changes TO regress_syncer');
$before = stored();
$api->mutate(seed => ++$seed, alter => 4, add => 2);
$sync = sync(role => 'regress_syncer');
changes_are($sync, $before, 'INSERT is enough, without a right to the sequence');
YelpTest::set_server($node, record_changes => undef);
value('REVOKE INSERT ON yelp_program_changes FROM regress_syncer');
is(sync(role => 'regress_syncer')->{error}, undef, 'where nothing is recorded it is not needed');
YelpTest::set_server($node, record_changes => 'on');

note 'tables that were altered';

value('DROP TABLE yelp_program_changes; CREATE VIEW yelp_program_changes AS SELECT 1 AS a');
is(YelpTest::sync($node, 'acme')->{sqlstate}, '42809', 'a view in the place of the table');    # should fail
value('DROP VIEW yelp_program_changes');
value('DROP TABLE yelp_programs; SELECT yelp_sync_create_tables(partitions => 4)');
$before = {};
changes_are(sync(), $before, 'partitions: a first sync');
$before = stored();
$api->mutate(seed => ++$seed, alter => 10, remove => 1, add => 2);
changes_are(sync(), $before, 'partitions: changes');

# In transactions of its own
$before = stored();
$api->mutate(seed => ++$seed, alter => 10, remove => 1, add => 2);
value('CALL yelp_sync_all()');
is(scalar(keys %{ changes() }), 13, 'yelp_sync_all() records them, too');

$node->stop;
done_testing();
