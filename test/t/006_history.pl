# yelp_sync_runs, and how the next sync uses it to predict the number of pages.
use strict;
use warnings FATAL => 'all';

use JSON::PP ();
use Test::More;

use YelpTest ':all';

my ($node, $api) = start();
my $sync;

# A test: the last run has these values
sub run_is
{
	my ($name, %expected) = @_;
	my @columns = sort keys %expected;
	my %got;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	@got{@columns} = split /\|/, history(join ', ', @columns), -1;
	return is_deeply(\%got, \%expected, $name);
}

# The warnings of the last run of an account
sub warnings
{
	my ($account) = @_;
	return JSON::PP->new->utf8->allow_nonref->decode(history(q{coalesce(to_json(warnings), '"none"')}, $account));
}

# A sync, with counters of its own; with @waves, in as many round trips with so many requests
sub counted_sync
{
	my (@waves) = @_;
	$api->reset('counters');
	$sync = @waves ? sync_in_waves(YelpSession->new($node), 'acme', @waves) : sync('acme');
	return outcome($sync);
}

note 'the columns';

$api->config(latency_ms => 100);
counted_sync();
run_is('the first run', username => 'acme', server => 'yelp', status => 'synced', programs => 1913, pages => 96,
	'requests - retries' => 97, added => 1913, updated => 0, unchanged => 0, deleted => 0, failed_pages => 0,
	received_bytes => $api->counters->{bytes});
is( history(q{fetch_time > '200ms', merge_time > '1ms', fetch_time + merge_time <= finished_at - started_at + '50ms',
		started_at > now() - interval '1 minute' AND started_at < finished_at AND finished_at < now()}),
	't|t|t|t', 'its times');

$api->config(latency_ms => 0);
$api->mutate(seed => 1, add => 3, alter => 12, respell => 4);
$api->faults({ match => { page => 7, nth => 1 }, action => { respond => { status => 503 } } });
set_server(retry_delay => '1ms');
counted_sync();
run_is('changes and a retry', programs => 1916, pages => 96, requests => 98, retries => 1, added => 3, updated => 12,
	unchanged => 1901, deleted => 0, failed_pages => 0);
is($api->counters->{requests}, 98, '... as the API counts');
is(warnings(), 'none', 'without warnings the column is NULL');
$api->faults();
set_server(retry_delay => undef);

$api->mutate(seed => 2, remove => 6);
sync('acme');
run_is('deletions', programs => 1910, added => 0, updated => 0, unchanged => 1910, deleted => 6, pages => 192, 'requests - retries' => 194);

$api->faults({ match => { page => 5 }, action => { respond => { status => 400 } } });
set_server(partial => 'on');
is(counted_sync(), '', 'what was not read is not missing');
run_is('partial', status => 'partial', programs => 1910, pages => 95, failed_pages => 1, missing => 0, added => 0,
	updated => 0, unchanged => 1890, deleted => 0);
is_deeply(warnings(), [ map { defined $_->{detail} ? "$_->{message}: $_->{detail}" : $_->{message} }
		grep { $_->{level} eq 'WARNING' } @{ $sync->{messages} } ], 'its warnings, with their details');
like(warnings()->[0], qr/^could not fetch the page at offset 100 of account "acme".*: The API answered /, '... as they were shown');
like(sync('acme', 'yelp_sync.progress' => 'json')->{warnings}[0], qr/^\{"type":"warning"/, 'warnings are shown as JSON');
like(warnings()->[0], qr/^could not fetch the page at offset 100 of account "acme"/, '... and stored as text');
set_server(partial => undef);

my $runs = history('run_id');
is(sync('acme')->{sqlstate}, 'HV000', 'a sync that fails');    # should fail
$api->faults();
value(q{BEGIN; SELECT yelp_sync('acme'); ROLLBACK});
is(history('run_id'), $runs, 'failed and rolled back syncs leave no row');
is(outcome(sync('acme')), '', 'a complete sync');

note 'prediction';

# 015_end.pl has listings that grow and shrink
my $listed = 1505;
$api->mutate(seed => 4, remove => 405);
is(counted_sync(), 'deleted 405', 'the total shrank by twenty pages');
run_is('... the run has the new total', programs => $listed, unchanged => $listed, deleted => 405);

# What is in the history or not: a repeat finds nothing, in one round trip if the prediction is right
my $columns = 'INSERT INTO yelp_sync_runs (username, server, synced_by, started_at, finished_at, status, listed)';
foreach my $case (
	[ 'a repeat', 'SELECT', 1 ],
	# 76 pages, 100 requests in vain and another one for each page, as many in flight, and looks
	[ 'a prediction that is far too high', 'UPDATE yelp_sync_runs SET listed = 100000', 0, 76 + 100 + 76 + 100 + 10 ],
	[ 'a prediction below 0', 'UPDATE yelp_sync_runs SET listed = -5' ],
	[ 'a failed run', "$columns VALUES ('acme', 'yelp', 'me', now(), now() + '1 hour', 'failed', NULL)", 1 ],
	[ 'a run of the future', "$columns VALUES ('acme', 'yelp', 'me', now(), 'infinity', 'synced', 5)", 1 ],
	[ 'no history', 'DELETE FROM yelp_sync_runs', 1 ],
	[ 'a history without rows', 'TRUNCATE yelp_programs', 1, undef, "added $listed" ])
{
	my ($name, $sql, $is_right, $max_requests, $expected) = @$case;
	my $requests = 77;
	value($sql);
	is(counted_sync($is_right ? $requests : ()), $expected // '', "$name: the changes");
	my $retries = value('SELECT retries FROM yelp_sync_runs WHERE finished_at <= now() ORDER BY finished_at DESC LIMIT 1');
	cmp_ok($api->counters->{requests} - $retries, '<=', $max_requests // $requests, "$name: the requests");
	is(value('SELECT programs FROM yelp_sync_runs WHERE finished_at <= now() ORDER BY finished_at DESC LIMIT 1'),
		$listed, "$name: the total");
}

value('DROP USER MAPPING FOR CURRENT_USER SERVER yelp;'
	  . create_server('other', endpoint => $api->url, page_size => 40, username => 'acme'));
counted_sync();
run_is('the history of another server is no prediction', server => 'other', 'requests - retries' => 39, unchanged => $listed);

note 'warnings of a sync within a sync';

$api->config(accounts => { enclosing => { count => 5 }, enclosed => { count => 5 } });
value(create_server($_, endpoint => $api->url)) foreach 'enclosing', 'enclosed';
value(q{CREATE FUNCTION sync_enclosed() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.username = 'enclosing' AND NEW.budget = 1 THEN
			PERFORM yelp_sync('enclosed');
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER sync_enclosed AFTER INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION sync_enclosed()});
$api->mutate(account => 'enclosing', edit => [ [ 0, { start_date => 'soon', program_metrics => { budget => 100 } } ] ]);
$api->mutate(account => 'enclosed', edit => [ [ 0, { end_date => 'never' } ] ]);
is_deeply(sync('enclosing')->{warnings},
	[ map { qq{could not read all fields of 1 program of account "$_"} } 'enclosed', 'enclosing' ], 'both warn');
like(join(';', @{ warnings($_) }), qr/^could not read all fields of 1 program of account "$_": [^;]+$/,
	"each warning is in the row of its account: $_") foreach 'enclosed', 'enclosing';

note 'nothing in the history makes a sync fail';

foreach my $case (
	[ 'a constraint', 1, 'ALTER TABLE yelp_sync_runs ADD CONSTRAINT never CHECK (false) NOT VALID',
		'ALTER TABLE yelp_sync_runs DROP CONSTRAINT never' ],
	[ 'a trigger that refuses', 1, q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
			$$BEGIN RAISE 'not this one' USING ERRCODE = 'P0099', DETAIL = 'Never.'; END$$;
		CREATE TRIGGER refuse BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION refuse()},
		'DROP TRIGGER refuse ON yelp_sync_runs' ],
	[ 'a deferred trigger that refuses', 1, 'CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON yelp_sync_runs
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()',
		'DROP TRIGGER refuse ON yelp_sync_runs' ],
	[ 'a column that was renamed', 1, 'ALTER TABLE yelp_sync_runs RENAME listed TO mine',
		'ALTER TABLE yelp_sync_runs RENAME mine TO listed' ],
	[ 'rows of the same ID', 0, q{ALTER TABLE yelp_sync_runs ALTER run_id SET DEFAULT
			'00000000-0000-0000-0000-000000000000';
		INSERT INTO yelp_sync_runs (username, synced_by, started_at, finished_at, status) VALUES ('x', 'x', now(), now(), 'x')},
		'SELECT' ],
	[ 'DO INSTEAD NOTHING', 0, 'CREATE RULE none AS ON INSERT TO yelp_sync_runs DO INSTEAD NOTHING',
		'DROP RULE none ON yelp_sync_runs' ])
{
	my ($name, $is_warned, $break, $mend) = @$case;

	value($break);
	$api->mutate(account => 'enclosing', seed => length($name), add => 1);
	$sync = sync('enclosing');
	value($mend);
	is(outcome($sync), 'added 1', "$name: the program is stored");
	my @said = grep { /^could not (?:read the history|record the sync) of account "enclosing": / } @{ $sync->{warnings} };
	is(@said > 0 ? 1 : 0, $is_warned, "$name: whether there is a warning");
}
value('DROP TABLE yelp_sync_runs');
is(sync('enclosing')->{error}, undef, 'a history that was dropped: no error');
is(history('username'), 'enclosing', '... and it is created again');

done_testing();
