# The end of a listing is seen from inside: totals that are cached, capped or wrong, and whatever an
# API returns past its last program, cost requests and no row.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my ($node, $api) = start(server => { attempts => 2, retry_delay => '1ms', retry_max_delay => '2ms' });
my $session = YelpSession->new($node);

sub stored
{
	return $session->value('SELECT count(*) FROM yelp_programs');
}

# No program and no run is stored, so many are listed
sub forget
{
	my ($count, %config) = @_;
	$api->reset;
	$session->options(map { $_ => undef } qw(trust_total max_deleted partial page_size));
	$session->run('TRUNCATE yelp_programs, yelp_sync_runs');
	$api->config(accounts => { acme => { count => $count } }, %config);
	return;
}

# As many programs as requested, all of them stored
sub begin
{
	my ($count) = @_;
	forget($count);
	is(outcome($session->sync), "added $count", "$count programs");
	return;
}

# A test: a sync returns these rows, with a warning that matches, or none; returns the whole warning
sub sync_is
{
	my ($expected, $warning, $name) = @_;
	my $result = $session->sync;
	my ($first) = map { join "\n", @$_{qw(message detail)}, $_->{hint} // '' }
	  grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(outcome($result), $expected, $name);
	defined $warning ? like($first // '', $warning, "$name: a warning") : is($first, undef, "$name: no warning");
	is($session->value(YelpTest::last_run('status')), defined $warning ? 'partial' : 'synced', "$name: the status");
	return $first;
}

sub respond
{
	my ($status, %match) = @_;
	return { match => \%match, action => { respond => { status => $status,
		json => { error => { id => 'SOME_ID', description => 'Some words.' } } } } };
}

note 'requests and round trips';

# listing_test.c has other sizes.  For each sync how many programs change before it, and the requests and
# round trips that it takes; without latency, round trips cannot be counted.
foreach my $case (
	[ 1913, [ 0, 97, 2 ], [ 0, 97, 1 ], [ -1, 194, 2 ], [ 1, 97, 1 ], [ 20, 99, 2 ] ],
	[ 13, [ 0, 2, 2 ], [ 0, 2, 1 ], [ -1, 4, 2 ], [ 1, 2, 1 ] ],
	[ 0, [ 0, 1, 1 ], [ 0, 1, 1 ] ])
{
	my ($count, @syncs) = @$case;
	my $has_latency = $count <= 100;
	forget($count, latency_ms => $has_latency ? 60 : 0);
	foreach my $sync (@syncs)
	{
		my ($change, $requests, $waves) = @$sync;
		$api->mutate($change < 0 ? (remove => -$change) : (add => $change));
		$api->reset('counters');
		my $result = $session->sync;
		my $counters = $api->counters;
		is_deeply([ $counters->{requests} - $session->value(YelpTest::last_run('retries')),
				$has_latency ? $counters->{waves} : $waves, $result->{warnings} ],
			[ $requests, $waves, [] ], "$count programs, $change: requests, round trips, no warning");
	}
}

note 'what lies past the last program';

subtest 'a capped total' => sub {
	forget(200, total_offset => -140);
	sync_is('added 200', undef, 'all that is listed is stored');
	$api->reset('counters');
	sync_is('', undef, 'a repeat');
	cmp_ok($api->counters->{requests}, '<=', 14, '... with two looks at each possible end');
};

subtest '204 past the last program' => sub {
	begin(60);
	$session->options(max_deleted => '100%');
	$api->mutate(remove => 20);
	$api->config(beyond => 204);
	sync_is('deleted 20', undef, 'means nothing');
	$api->set_programs('acme');
	sync_is('deleted 40', undef, 'an account that becomes empty');
	sync_is('', undef, 'it stays empty');
};

# The API may have reached a limit of its own there, rather than the end
foreach my $beyond (400, 422)
{
	subtest "$beyond where there were programs" => sub {
		begin(60);
		$api->mutate(remove => 20);
		$api->config(beyond => $beyond);
		sync_is('', qr/page at offset 40 of account "acme": HTTP status $beyond.*\n.*This page is not available/, 'nothing is deleted');
		sync_is('deleted 20', undef, 'the next sync does not ask there');
		begin(59);
		$api->mutate(remove => 1);
		$api->config(beyond => $beyond);
		sync_is('deleted 1', undef, 'a look past the end does not count');
	};
}

foreach my $case ([ 60, 20 ], [ 60, 1 ], [ 60, 0 ], [ 61, 30 ])
{
	my ($count, $removed) = @$case;
	my $listed = $count - $removed;
	subtest "requests past the last of $listed programs hang" => sub {
		begin($count);
		$api->mutate(remove => $removed);
		$api->faults({ match => { from_offset => $listed }, action => { hold => \1 } });
		$api->reset('counters');
		sync_is($removed ? "deleted $removed" : '', undef, 'the sync ends');
		is_deeply([ grep { $_->{offset} >= $listed && $_->{status} ne 'gone' } $api->log ], [], 'they are abandoned');
	};
}

# Requests past 200 are refused.  Expected: of the next syncs of 300 stored programs, and of a first
# sync, the status and the number of stored programs.  A look that begins before 200 shows what follows.
foreach my $case (
	[ 'cut', [ 'partial|300', 'synced|200' ], 'synced|200' ],
	[ 'offset', [ 'partial|300', 'partial|300' ], 'partial|239' ],
	[ 'sum', [ 'partial|300', 'partial|300' ], 'partial|200' ])
{
	my ($kind, $next, $first) = @$case;
	subtest "a result window, $kind" => sub {
		my $check = sub {
			my ($expected, $name) = @_;
			my $result = $session->sync;
			my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };
			is($session->value(YelpTest::last_run('status, (SELECT count(*) FROM yelp_programs)')), $expected, $name);
			like($result->{warnings}[0], qr/page at offset \d+ of account "acme": HTTP status 400/,
				'... with the reason') if $expected !~ /synced/;
			return join ' ', map { $_ // '' } @$warning{qw(detail hint)};
		};
		begin(300);
		$session->options(page_size => 40);
		$api->config(window => 200, window_kind => $kind);
		$check->($_, 'a sync of stored programs') foreach @$next;
		$session->run('TRUNCATE yelp_programs, yelp_sync_runs');
		my $warning = $check->($first, 'a first sync');
		like($warning, qr/offset \+ limit must be at most 200(?!.*trust_total)/,
			'the words of the API, and no hint that would lead to a loss') if $kind ne 'cut';
	};
}

note 'pages that cannot be fetched';

foreach my $case ([ 'the total', 500 ], [ 'what is stored', 404, -20 ])
{
	my ($what, $status, $offset) = @$case;
	subtest "status $status of the last page, which exists according to $what" => sub {
		begin(100);
		$api->config(total_offset => $offset // 0);
		$api->faults(respond($status, from_offset => 61));
		like(failure($session->sync), qr/^HV000: .*page at offset 80 of account "acme": HTTP status $status.*\n.*"SOME_ID": Some words\./, 'an error');
		$session->options(partial => 'on');
		is($session->sync->{error}, undef, 'partial: no error');
		is($session->value(YelpTest::last_run('status, failed_pages, listed')), 'partial|1|80', '... the page is counted');
		is(stored(), 100, 'nothing is deleted');
	};
}

subtest 'status 500 of the last page of a first sync' => sub {
	forget(100, total_offset => -20);
	$api->faults(respond(500, offset => 80));
	like($session->sync->{error}, qr/page at offset 80 /, 'a look shows that it exists: an error');
	$api->faults(respond(500, from_offset => 61));
	sync_is('added 80', qr/HTTP status 500/, 'no look shows it: what arrived is stored');
};

note 'totals that are wrong';

subtest 'a list that is null' => sub {
	begin(40);
	my $null = '{"program_status":"ALL","total":0,"offset":0,"limit":20,"payment_programs":null}';
	$api->faults({ action => { respond => { body => $null } } });
	sync_is('missing 40', qr/^40 of 40 programs of account "acme" are no longer listed: nothing was deleted/, 'is an empty one');
	$session->options(max_deleted => '100%');
	sync_is('deleted 40', undef, 'max_deleted allows it');
};

subtest 'a total that is always one too large' => sub {
	begin(50);
	$api->config(total_offset => 1);
	my $removed = $api->mutate(remove => 1)->{removed};
	my $result = $session->sync;
	is_deeply($result->{rows}, [ { action => 'missing', program_id => $removed->[0], changed => undef } ], 'nothing is deleted');
	like($result->{stderr}, qr/HINT:.*trust_total/, 'the hint names the way out');
	$session->run("DELETE FROM yelp_programs WHERE program_id = '$removed->[0]'");
	$api->reset('counters');
	sync_is('', qr/./, 'nothing is missing');
	is($api->requests_at(0), 1, '... the listing is read once');
	$api->config(total_offset => 2);
	$api->reset('counters');
	sync_is('', qr/./, 'two too large: a program may have been missed');
	is($api->requests_at(0), 2, '... the listing is read twice');
	$api->config(total_offset => 1);
	$api->mutate(remove => 1, seed => 1);
	sync_is('missing 1', qr/./, 'another program goes');
	$session->options(trust_total => 'off');
	sync_is('deleted 1', undef, 'trust_total off');
	sync_is('', undef, 'a repeat');
};

foreach my $case ([ 60, 40 ], [ 45, 40 ], [ 7, 0 ])
{
	my ($count, $offset) = @$case;
	subtest "trust_total off, and the page at $offset of $count programs arrives empty" => sub {
		forget($count);
		$session->options(trust_total => 'off');
		$api->faults({ match => { offset => $offset }, times => 1,
			action => { replace => { json => { payment_programs => [] } } } });
		sync_is("added $count", undef, 'it is looked at once more');
	};
}

subtest 'trust_total off, and a total that is too large' => sub {
	begin(50);
	$session->options(trust_total => 'off');
	$api->config(total_offset => 1);
	$api->mutate(add => 1);
	foreach my $case ([ 'added 1', 2, 'something is new' ], [ '', 1, 'nothing is new' ], [ '', 2, 'after a partial sync' ])
	{
		my ($expected, $readings, $name) = @$case;
		$session->run(q{UPDATE yelp_sync_runs SET status = 'partial'}) if $name =~ /partial/;
		$api->reset('counters');
		sync_is($expected, undef, $name);
		is($api->requests_at(0), $readings, "$name: readings");
	}
};

note 'max_deleted: 004_progress.pl runs the command of its hint';

foreach my $case (
	[ 30, 20, undef, 'deleted' ], [ 30, 21, undef, 'missing' ], [ 42, 21, undef, 'deleted' ], [ 100, 60, '60%', 'deleted' ],
	[ 30, 20, '1%', 'deleted' ], [ 30, 1, '0%', 'missing' ], [ 30, 1, '0.1%', 'deleted' ], [ 5, 5, undef, 'missing' ])
{
	my ($count, $removed, $max_deleted, $action) = @$case;
	my $name = "$removed of $count programs, max_deleted " . ($max_deleted // '50%');
	subtest $name => sub {
		begin($count);
		$session->options(max_deleted => $max_deleted);
		$api->mutate(remove => $removed);
		sync_is("$action $removed", $action eq 'missing' ? qr/^$removed of $count programs? of account "acme" (is|are) no longer listed/ : undef, $action);
	};
}

note 'tables';

subtest 'a trigger that syncs the same account' => sub {
	begin(20);
	$session->run(q{CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN PERFORM yelp_sync('acme'); RETURN NEW; END $$;
		CREATE TRIGGER again BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION again()});
	$api->mutate(alter => 1);
	is($session->sync->{sqlstate}, '55P03', 'is refused at once');
	$session->run('DROP TRIGGER again ON yelp_programs');
	sync_is('updated 1', undef, 'without it');
};

$session->end;
done_testing();
