# yelp_program_changes: what each sync changed, where record_changes is on.
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
	my %got = map { my $row = $_; $row->{program_id} => { map { $_ => $row->{$_} } qw(action changed old new) } }
	  values %{ changes() };

	foreach my $row (@{ $sync->{rows} })
	{
		my ($id, $action, $changed) = @$row{qw(program_id action changed)};
		my %change = (action => $action, changed => $changed, old => undef, new => undef);
		$change{old} = $before->{$id}{data} if $action eq 'deleted';
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
