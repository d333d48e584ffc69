# yelp_program_changes: what each sync changed, if record_changes is on; programs that are kept
# (on_gone); and the programs as they were.
use strict;
use warnings FATAL => 'all';

use Encode ();
use JSON::PP ();
use Test::More;

use YelpTest ':all';

my ($node, $api) = start(tables => 0, accounts => { acme => { count => 95 } });
my $json = JSON::PP->new->utf8->allow_nonref;
my $seed = 0;

# The value of a query, as JSON
sub decoded
{
	my ($sql) = @_;
	return $json->decode(Encode::encode('UTF-8', value($sql)));
}

# The rows that the last run left, by program_id
sub changes
{
	my @rows = @{ decoded(q{SELECT coalesce(json_agg(c), '[]') FROM yelp_program_changes c
		WHERE run_id = (SELECT run_id FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1)}) };
	my %changes = map { my $row = $_; $row->{program_id} => { map { $_ => $row->{$_} } qw(action changed old new) } } @rows;
	is(scalar(keys %changes), scalar(@rows), 'no program is recorded twice');
	return \%changes;
}

# Keeps a copy of the table, to compare with yelp_programs_at()
my $copied = join ', ', qw(username program_id program_type program_status program_pause_status start_date end_date
  yelp_business_id partner_business_id budget max_bid ad_cost currency fee_period is_autobid
  billed_impressions billed_clicks active_features available_features problems data gone_at);

sub keep_copy
{
	value("CREATE TABLE IF NOT EXISTS copies AS SELECT now() AS at, $copied FROM yelp_programs WITH NO DATA;
		INSERT INTO copies SELECT now(), $copied FROM yelp_programs");
	return;
}

# All programs as they are stored, by program_id
sub stored
{
	return decoded(q{SELECT coalesce(json_object_agg(program_id, to_jsonb(p)), '{}') FROM yelp_programs p});
}

# Tests that a sync after this change has an outcome, and that the changes are what it reported, with
# the values before and after; returns it
sub records
{
	my ($name, $outcome, $change, %options) = @_;
	my %expected;

	$change->();
	my $before = stored();
	my $sync = sync('acme', %options);
	my $after = stored();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(outcome($sync), $outcome, "$name: the outcome");
	keep_copy();
	foreach my $row (grep { $_->{action} ne 'missing' } @{ $sync->{rows} })
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
	is_deeply(changes(), \%expected, "$name: what is recorded");
	return $sync;
}

sub mutation
{
	my (%how) = @_;
	return sub { $api->mutate(seed => ++$seed, %how) };
}

note 'off, which is the default';

is(outcome(sync('acme')), 'added 95', 'a first sync');
is(value('SELECT count(*) FROM yelp_program_changes; DROP TABLE yelp_program_changes'), 0, 'leaves no row, but creates the table');
mutation(alter => 4, remove => 3, add => 2)->();
is(outcome(sync('acme')), 'added 2, deleted 3, updated 4', 'a sync without the table');
is(value(q{SELECT to_regclass('yelp_program_changes') IS NULL}), 't', '... which it does not create');

note 'on; 016_oracle.pl replays the changes of all its syncs';

set_server(record_changes => 'on');
records('a sync that creates the table', qr/^added 2, deleted 3, updated 20$/, mutation(alter => 20, remove => 3, add => 2, respell => 5));
is( value(q{SELECT bool_and(r.run_id IS NOT NULL AND c.changed_at BETWEEN r.started_at AND r.finished_at),
		bool_and(c.changed_at = p.updated_at)
		FROM yelp_program_changes c LEFT JOIN yelp_sync_runs r USING (run_id, username)
		LEFT JOIN yelp_programs p USING (username, program_id)}),
	't|t', 'the rows belong to its run, and have the time of the programs');
is(records('a manual edit', qr/^updated 1$/, sub { value(q{UPDATE yelp_programs SET budget = 0.55, active_features = '{edited}'
	WHERE program_id = (SELECT min(program_id) FROM yelp_programs WHERE budget > 1)}) })->{rows}[0]{changed}[0], 'budget', 'the budget');
records('fields that cannot be read', qr/^updated 1$/,
	sub { $api->mutate(edit => [ [ 0, { start_date => 'soon', program_metrics => { budget => 'much' } } ] ]) });
ok((grep { $_->{new}{problems} } values %{ changes() }), 'problems are among the changes');
records('programs that are missing', qr/^missing 60$/, mutation(remove => 60));
set_server(max_deleted => '100%');
records('... and deleted', qr/^deleted 60$/, sub { });

note 'on_gone = keep';

set_server(on_gone => 'keep');
my @listed = split /\n/, value(q{SELECT data FROM yelp_programs ORDER BY program_id});
my @gone = map { $json->decode(Encode::encode('UTF-8', $_))->{program_id} } @listed[ 0 .. 3 ];
my $altered = $listed[1] =~ s/("program_type": ")\w+/$1X/r;
my $written = q{SELECT count(*), sum(hashtextextended(concat(ctid, xmin, p), 0)) FROM yelp_programs AS p};
my $marked = q{SELECT string_agg(program_id, ' ' ORDER BY program_id) FROM yelp_programs WHERE gone_at IS NOT NULL};

sub list
{
	my (@texts) = @_;
	return sub { $api->set_programs('acme', @texts) };
}

records('programs that are spelled in another way', qr/^$/, list(@listed));
my $sync = records('programs that are no longer listed', qr/^gone 4$/, list(@listed[ 4 .. $#listed ]));
is_deeply([ sort map { $_->{program_id} } @{ $sync->{rows} } ], \@gone, '... are gone');
is(value("$marked AND gone_at = updated_at AND gone_at = (SELECT max(changed_at) FROM yelp_program_changes)"), "@gone",
	'... and stored with the time');
is(history('status, deleted, missing, unchanged'), 'synced|4|0|' . (@listed - 4), '... the run');
my $picture = value($written);
$api->reset('counters');
$sync = sync('acme');
is_deeply([ outcome($sync), $sync->{warnings}, value($written), $api->requests_at(0) ],
	[ '', ['could not read all fields of 1 program of account "acme"'], $picture, 1 ],
	'the next sync says nothing about them, writes nothing, and reads the listing once');

$sync = records('one program is listed again as it was, another one altered', qr/^updated 2$/, list(@listed[ 0, 4 .. $#listed ], $altered));
is_deeply(reported($sync), { $gone[0] => [ 'updated', ['gone_at'] ], $gone[1] => [ 'updated', [ 'program_type', 'gone_at' ] ] },
	'... which is reported');
is(value($marked) . ' ' . history('status'), "@gone[ 2, 3 ] synced", '... and they are no longer gone');

$sync = records('gone_at is edited', qr/^gone 1, updated 1$/, sub {
	value(qq{UPDATE yelp_programs SET gone_at = CASE program_id WHEN '$gone[1]' THEN now() END
		WHERE program_id IN ('$gone[1]', '$gone[2]')}) });
is_deeply(reported($sync), { $gone[2] => [ 'gone', undef ], $gone[1] => [ 'updated', ['gone_at'] ] }, '... and restored');
records('a repeat', qr/^$/, sub { });
is(history('status'), 'synced', '... is synced');

set_server(max_deleted => '10%');
$sync = records('more than max_deleted', qr/^missing 23$/, list(@listed[ 25 .. $#listed ]));
is_deeply([ (grep { /not as listed/ } @{ $sync->{warnings} }), value($marked) ], ["@gone[ 2, 3 ]"], '... are not marked');
records('they are listed again', qr/^$/, list(@listed[ 4 .. $#listed ], $altered, $listed[0]));
set_server(on_gone => 'delete', max_deleted => '100%');
records('on_gone = delete: kept programs stay', qr/^$/, sub { });
value('DELETE FROM yelp_programs WHERE gone_at IS NOT NULL');
records('... until they are deleted manually', qr/^$/, sub { });

note 'in one transaction with the merge';

mutation(alter => 4, remove => 3, add => 2)->();
my $count = value('SELECT count(*) FROM yelp_program_changes');
is(value(q{BEGIN; SELECT count(*) FROM yelp_sync('acme'); ROLLBACK; SELECT count(*) FROM yelp_program_changes}),
	"9\n$count", 'ROLLBACK undoes both');
value(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN RAISE 'not this one' USING ERRCODE = 'P0099'; END$$;
	CREATE TRIGGER refuse BEFORE INSERT ON yelp_program_changes FOR EACH ROW
		WHEN (NEW.action = 'added') EXECUTE FUNCTION refuse()});
$sync = sync('acme');
is(outcome($sync), 'added 2, deleted 3, updated 4', 'a trigger on the changes that refuses: the sync works');
is($sync->{warnings}[-1], 'could not record the changes of account "acme": not this one', '... with a warning');
is_deeply(changes(), {}, '... and records all of its changes or none');
value(q{DROP TRIGGER refuse ON yelp_program_changes;
	CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
	CREATE TRIGGER skip BEFORE DELETE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION skip()});
records('a trigger that prevents deletions', qr/^added 2, updated 4$/, mutation(alter => 4, remove => 3, add => 2));
value('DROP TRIGGER skip ON yelp_programs');

note 'yelp_programs_at()';

value('DELETE FROM copies');
keep_copy();
foreach my $round (1 .. 12)
{
	set_server(on_gone => $round % 3 == 0 ? 'delete' : 'keep');
	$api->mutate(seed => 100 + $round, alter => 20, remove => $round % 4, add => $round % 5, respell => 2);
	$api->set_programs('acme', value(q{SELECT data FROM copies WHERE program_id = (SELECT min(program_id) FROM copies
			WHERE gone_at IS NOT NULL) LIMIT 1}), map { $json->encode($_) } $api->programs('acme'))
	  if $round == 8;
	sync('acme');
	keep_copy();
}
is( value(qq{SELECT count(*) FILTER (WHERE gone_at IS NOT NULL) > 10, count(DISTINCT at) FROM copies;
		SELECT count(*) FROM (SELECT DISTINCT at FROM copies) AS times, LATERAL (
			(SELECT $copied FROM yelp_programs_at(at) EXCEPT ALL SELECT $copied FROM copies c WHERE c.at = times.at)
			UNION ALL (SELECT $copied FROM copies c WHERE c.at = times.at
				EXCEPT ALL SELECT $copied FROM yelp_programs_at(at))) AS differences;
		SELECT (SELECT count(*) FROM yelp_programs_at('infinity')) = count(*) FROM yelp_programs}),
	"t|13\n0\nt", 'shows the programs as they were at 13 times');
set_server(on_gone => undef);

note 'other tables; 032_rights.pl has privileges';

value('DROP TABLE yelp_program_changes; CREATE VIEW yelp_program_changes AS SELECT 1 AS a');
is(sync('acme')->{sqlstate}, '42809', 'a view in the place of the table');    # should fail
value('DROP VIEW yelp_program_changes; DROP TABLE yelp_programs; SELECT yelp_sync_create_tables(partitions => 4);
	ALTER TABLE yelp_program_changes ADD FOREIGN KEY (run_id) REFERENCES yelp_sync_runs DEFERRABLE INITIALLY DEFERRED');
records('partitions, and a foreign key to the runs', qr/^added \d+$/, sub { });
mutation(alter => 10, remove => 1, add => 2)->();
value('CALL yelp_sync_all()');
is(scalar(keys %{ changes() }), 13, 'yelp_sync_all() records changes');

done_testing();
