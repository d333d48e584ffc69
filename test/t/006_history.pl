# yelp_sync_runs, and how the next sync uses it to predict the number of pages.
use strict;
use warnings FATAL => 'all';

use JSON::PP ();

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start();
my ($sync, $run);

# The last run as a hash, with differences of times in seconds
sub last_run
{
	my @names = qw(run_id username server programs pages requests retries received_bytes added
	  updated unchanged deleted missing status failed_pages fetch merge took age);
	my $values = YelpTest::must_run($node, q{
		SELECT run_id, username, server, programs, pages, requests, retries, received_bytes, added,
			updated, unchanged, deleted, missing, status, failed_pages, extract(epoch FROM fetch_time),
			extract(epoch FROM merge_time), extract(epoch FROM finished_at - started_at),
			extract(epoch FROM clock_timestamp() - started_at)
		FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1})->{stdout};
	chomp $values;
	my %run;
	@run{@names} = split /\|/, $values, -1;
	return \%run;
}

# The warnings of the last run of an account
sub warnings
{
	my ($account) = @_;
	my $warnings = YelpTest::must_run($node, q{SELECT coalesce(to_json(warnings), '"none"') FROM yelp_sync_runs
		WHERE username = } . YelpTest::literal($account // 'acme') . q{ ORDER BY finished_at DESC LIMIT 1})->{stdout};
	return JSON::PP->new->utf8->allow_nonref->decode($warnings);
}

sub is_run
{
	my ($run, $name, %expected) = @_;
	my %got = map { $_ => $run->{$_} } keys %expected;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(\%got, \%expected, $name);
}

# A sync after a change, with counters of its own
sub sync_with
{
	my ($change) = @_;
	$change->();
	$api->reset('counters');
	my $result = YelpTest::sync($node, 'acme');
	diag($result->{stderr}) if $result->{error};
	return $result;
}

note 'the columns';

$api->config(latency_ms => 100);
$sync = YelpTest::sync($node, 'acme');
$run = last_run();
is_run($run, 'the first run', username => 'acme', server => 'yelp', programs => 1913,
	pages => 96, requests => 97, retries => 0, added => 1913, updated => 0, unchanged => 0,
	deleted => 0, failed_pages => 0, received_bytes => $api->counters->{bytes});
cmp_ok($run->{fetch}, '>', 0.2, 'fetch_time: two latencies at least');
cmp_ok($run->{merge}, '>', 0.001, 'merge_time');
cmp_ok($run->{fetch} + $run->{merge}, '<=', $run->{took} + 0.05, 'both are within the whole');
cmp_ok($run->{took}, '<', $run->{age}, 'started_at and finished_at are of now');
cmp_ok($run->{age}, '<', 60, 'and not of long ago');

$api->mutate(seed => 1, add => 3, alter => 12, respell => 4);
$api->reset('counters');
$api->faults({ match => { page => 7, nth => 1 }, action => { respond => { status => 503 } } });
YelpTest::set_server($node, retry_delay => '1ms');
YelpTest::sync($node, 'acme');
is_run(last_run(), 'changes and a retry', programs => 1916, pages => 96, requests => 98,
	retries => 1, added => 3, updated => 12, unchanged => 1901, deleted => 0, failed_pages => 0);
is($api->counters->{requests}, 98, 'as the API counts');
is(warnings(), 'none', 'without warnings the column is NULL');
$api->faults();
YelpTest::set_server($node, retry_delay => undef);

$api->mutate(seed => 2, remove => 6);
YelpTest::sync($node, 'acme');
is_run(last_run(), 'deletions', programs => 1910, added => 0, updated => 0, unchanged => 1910, deleted => 6);
is(last_run()->{requests}, last_run()->{pages} + 2, 'requests and pages of both readings, and a look at the end of each');

$api->faults({ match => { page => 5 }, action => { respond => { status => 400 } } });
YelpTest::set_server($node, partial => 'on');
$sync = YelpTest::sync($node, 'acme');
is_deeply($sync->{rows}, [], 'what was not read is not missing');
is_run(last_run(), 'partial', programs => 1910, pages => 95, failed_pages => 1, missing => 0, added => 0, updated => 0,
	unchanged => 1890, deleted => 0);
is_deeply(
	warnings(),
	[ map { defined $_->{detail} ? "$_->{message}: $_->{detail}" : $_->{message} }
		grep { $_->{level} eq 'WARNING' } @{ $sync->{messages} } ],
	'its warnings, with their details');
like(warnings()->[0], qr/^could not fetch the page at offset 100 of account "acme".*: The API answered /, 'are what was said');
$sync = YelpTest::sync($node, 'acme', 'yelp_sync.progress' => 'json');
like($sync->{warnings}[0], qr/^\{"type":"warning"/, 'in JSON mode they are said as JSON');
like(warnings()->[0], qr/^could not fetch the page at offset 100 of account "acme"/, 'and kept as text');
YelpTest::set_server($node, partial => undef);

note 'no row';

my $runs = last_run()->{run_id};
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, 'HV000', 'a sync that fails');
is(last_run()->{run_id}, $runs, 'leaves no row');
$api->faults();
YelpTest::must_run($node, q{BEGIN; SELECT yelp_sync('acme'); ROLLBACK});
is(last_run()->{run_id}, $runs, 'nor does one that is rolled back');
YelpTest::must_run($node, q{SELECT yelp_sync('acme')});
isnt(last_run()->{run_id}, $runs, 'the next one does');

note 'the guess';

my $listed = 1910;
$sync = sync_with(sub { $api->mutate(seed => 3, add => 60); $listed += 60 });
is(scalar(@{ $sync->{rows} }), 60, 'the total grew by three pages: all come');
is($api->counters->{waves}, 2, 'in a second round trip');
is_run(last_run(), 'each page once, and looks at the old and at the new end', programs => $listed, pages => 99,
	requests => 101);
YelpTest::table_is_listing($node, $api, 'acme', 'grown: the table');

$sync = sync_with(sub { });
is($api->counters->{waves}, 1, 'then in one again');

$sync = sync_with(sub { $api->mutate(seed => 4, remove => 410); $listed -= 410 });
is(scalar(grep { $_->{action} eq 'deleted' } @{ $sync->{rows} }), 410, 'the total shrank by twenty pages: these are gone');
is_run(last_run(), 'the run tells the new total', programs => $listed, unchanged => $listed, deleted => 410);
YelpTest::table_is_listing($node, $api, 'acme', 'shrunk: the table');
$sync = sync_with(sub { });
is($api->counters->{waves}, 1, 'the repeat: in one round trip');
is($api->counters->{requests}, $listed / 20 + 2, 'with no request too many');

# A guess that is far off, in both directions
YelpTest::must_run($node, 'UPDATE yelp_sync_runs SET listed = 100000');
$sync = sync_with(sub { });
is_deeply($sync->{rows}, [], 'a guess far too high: nothing is wrong');
is(last_run()->{programs}, $listed, 'the true total is kept');
cmp_ok($api->counters->{requests}, '<=', 300, 'and the API is not asked for all that');
YelpTest::must_run($node, 'UPDATE yelp_sync_runs SET listed = 0');
$sync = sync_with(sub { });
is_deeply($sync->{rows}, [], 'a guess far too low: nothing is wrong');
is($api->counters->{requests}, $listed / 20 + 2, 'each page once');
YelpTest::must_run($node, 'UPDATE yelp_sync_runs SET listed = -5');
$sync = sync_with(sub { });
is_deeply($sync->{rows}, [], 'a guess below nothing: nothing is wrong');

# Nor is a row without the size of a listing
YelpTest::must_run($node, q{UPDATE yelp_sync_runs SET listed = } . $listed . q{;
	INSERT INTO yelp_sync_runs (username, server, synced_by, started_at, finished_at, status, sqlstate, error)
	VALUES ('acme', 'yelp', 'me', now(), now() + '1 hour', 'failed', '08001', 'nobody listens')});
$sync = sync_with(sub { });
is($api->counters->{waves}, 1, 'a failed run is no guess: in one round trip');
YelpTest::must_run($node, q{INSERT INTO yelp_sync_runs (username, server, synced_by, started_at, finished_at, status, listed)
	VALUES ('acme', 'yelp', 'me', now(), 'infinity', 'synced', 5)});
$sync = sync_with(sub { });
is($api->counters->{waves}, 1, 'nor is one of the future');

# Without a history, the number of stored rows is used
YelpTest::must_run($node, 'DELETE FROM yelp_sync_runs');
$sync = sync_with(sub { });
is($api->counters->{waves}, 1, 'without a history: in one round trip');
YelpTest::must_run($node, 'TRUNCATE yelp_programs');
$sync = sync_with(sub { });
is(scalar(@{ $sync->{rows} }), $listed, 'a history without rows: all come');
is($api->counters->{waves}, 1, 'in one round trip');

# Another server's history is no guess
YelpTest::must_run($node, 'DROP USER MAPPING FOR CURRENT_USER SERVER yelp;'
	  . YelpTest::create_server('other', endpoint => $api->url, page_size => 40, username => 'acme'));
$sync = sync_with(sub { });
is_run(last_run(), 'another server', server => 'other', requests => $listed / 40 + 2, unchanged => $listed);

note 'sizes';

foreach my $count (0, 1, 20, 39, 40, 41, 80, 81)
{
	my $account = "of_$count";
	$api->config(accounts => { $account => { count => $count } });
	YelpTest::must_run($node, 'ALTER USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (SET username '
		. YelpTest::literal($account) . ')');
	$api->reset('counters');
	$sync = YelpTest::sync($node, $account);
	is(scalar(@{ $sync->{rows} }), $count, "$count programs");
	my $pages = $count == 0 ? 1 : int(($count + 39) / 40);
	# And a look at the end, or two if the last page is full
	my $requests = $pages + ($count == 0 ? 0 : $count % 40 == 0 ? 2 : 1);
	is_run(last_run(), "$count programs: the run", programs => $count, pages => $pages, requests => $requests);
	is($api->counters->{requests}, $requests, "$count programs: the requests");
	$api->reset('counters');
	is_deeply(YelpTest::sync($node, $account)->{rows}, [], "$count programs: a repeat");
	is($api->counters->{requests}, $requests, "$count programs: its requests");
	is($api->counters->{waves}, 1, "$count programs: in one round trip");
}

# All gone at once is not believed
YelpTest::must_run($node, q{ALTER USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (SET username 'of_41')});
$api->mutate(account => 'of_41', remove => 41);
$sync = YelpTest::sync($node, 'of_41');
is($sync->{error}, undef, 'an API that lists no program any more');
like($sync->{warnings}[0], qr/^41 of 41 programs of account "of_41" are no longer listed: nothing was deleted/,
	'is not believed');
is((grep { $_->{action} eq 'missing' } @{ $sync->{rows} }), 41, 'they are returned as missing');
is(last_run()->{missing}, 41, '... and counted');
is(last_run()->{status}, 'partial', 'the sync is partial');
YelpTest::must_run($node, "ALTER SERVER other OPTIONS (ADD max_deleted '100%')");
is((grep { $_->{action} eq 'deleted' } @{ YelpTest::sync($node, 'of_41')->{rows} }), 41,
	'max_deleted 100% allows it');

note 'warnings of a sync within a sync';

$api->config(accounts => { enclosing => { count => 5 }, enclosed => { count => 5 } });
foreach my $account ('enclosing', 'enclosed')
{
	YelpTest::must_run($node, YelpTest::create_server($account, endpoint => $api->url));
}
YelpTest::must_run($node, q{CREATE FUNCTION sync_enclosed() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.username = 'enclosing' AND NEW.budget = 1 THEN
			PERFORM yelp_sync('enclosed');
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER sync_enclosed AFTER INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION sync_enclosed()});
my %wrong = (start_date => 'soon');
$api->mutate(account => 'enclosing', edit => [ [ 0, { %wrong, program_metrics => { budget => 100 } } ] ]);
$api->mutate(account => 'enclosed', edit => [ [ 0, { end_date => 'never' } ] ]);
$sync = YelpTest::sync($node, 'enclosing');
is($sync->{error}, undef, 'no error') or diag($sync->{stderr});
is_deeply($sync->{warnings}, [ map { qq{could not read all fields of 1 program of account "$_"} } 'enclosed', 'enclosing' ],
	'both warn');
like(join(';', @{ warnings($_) }), qr/^could not read all fields of 1 program of account "$_": [^;]+$/,
	"each warning is in its own account's row: $_") foreach 'enclosed', 'enclosing';

note 'nothing in the history fails a sync';

my $rows = "INSERT INTO yelp_sync_runs (username, synced_by, started_at, finished_at, status)";
foreach my $case (
	[ 'a constraint', 'ALTER TABLE yelp_sync_runs ADD CONSTRAINT never CHECK (false) NOT VALID',
		'ALTER TABLE yelp_sync_runs DROP CONSTRAINT never', '23514' ],
	[ 'a trigger that refuses', q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
			$$BEGIN RAISE 'not this one' USING ERRCODE = 'P0099', DETAIL = 'Never.'; END$$;
		CREATE TRIGGER refuse BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION refuse()},
		'DROP TRIGGER refuse ON yelp_sync_runs', 'P0099' ],
	[ 'a column that was dropped', 'ALTER TABLE yelp_sync_runs RENAME listed TO mine',
		'ALTER TABLE yelp_sync_runs RENAME mine TO listed', '42703' ],
	[ 'rows of the same ID', q{ALTER TABLE yelp_sync_runs ALTER run_id SET DEFAULT
		'00000000-0000-0000-0000-000000000000'; } . $rows . q{ VALUES ('x', 'x', now(), now(), 'x')}, '', '' ],
	[ 'DO INSTEAD NOTHING', 'CREATE RULE none AS ON INSERT TO yelp_sync_runs DO INSTEAD NOTHING',
		'DROP RULE none ON yelp_sync_runs', '' ])
{
	my ($name, $break, $mend, $sqlstate) = @$case;

	YelpTest::must_run($node, $break);
	$api->mutate(account => 'enclosing', seed => length($name), add => 1);
	$sync = YelpTest::sync($node, 'enclosing');
	YelpTest::must_run($node, $mend);
	is($sync->{error}, undef, "$name: no error");
	is((grep { $_->{action} eq 'added' } @{ $sync->{rows} }), 1, "$name: the program is stored");
	my @said = grep { /^could not (?:read the history|record the sync) of account "enclosing": / } @{ $sync->{warnings} };
	is(scalar(@said) > 0, $sqlstate ne '', "$name: a warning, if any");
}
YelpTest::must_run($node, q{DELETE FROM yelp_sync_runs WHERE username = 'enclosing'; DROP TABLE yelp_sync_runs});
$sync = YelpTest::sync($node, 'enclosing');
is($sync->{error}, undef, 'a history that was dropped: no error');
is(last_run()->{username}, 'enclosing', '... is made anew');

done_testing();
