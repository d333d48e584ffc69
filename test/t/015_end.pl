# The end of a listing is seen from inside: totals that are cached, capped or wrong,
# and whatever an API answers past its last program, cost requests and no row.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(server => { page_size => 20 });
my $session = YelpSession->new($node);

$session->options(attempts => 2, retry_delay => '1ms', retry_max_delay => '2ms');

sub stored
{
	return $session->value('SELECT count(*) FROM yelp_programs');
}

# As many programs as asked for, all of them stored
sub begin
{
	my ($count) = @_;
	$api->reset;
	$session->options(trust_total => undef, max_deleted => undef);
	$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
	$api->config(accounts => { acme => { count => $count } });
	is($session->sync->{error}, undef, "$count programs");
	is(stored(), $count, '... are stored');
	return;
}

sub status
{
	return $session->value(YelpTest::last_run('status'));
}

sub respond
{
	my ($status, %match) = @_;
	return { match => \%match, action => { respond => { status => $status,
		json => { error => { id => 'SOME_ID', description => 'Some words.' } } } } };
}

# ---- requests and round trips ----

# The number of programs, the page size, and for each sync how many programs change before it, and
# the requests and round trips that it takes
foreach my $case (
	[ 1913, 20, [ 0, 97, 2 ], [ 0, 97, 1 ], [ -1, 194, 2 ], [ 1, 97, 1 ], [ 20, 99, 2 ] ],
	[ 1913, 40, [ 0, 49, 2 ], [ 0, 49, 1 ] ],
	[ 1900, 20, [ 0, 97, 2 ], [ 0, 97, 1 ], [ -1, 193, 2 ], [ 2, 97, 1 ] ],
	[ 1901, 20, [ 0, 97, 2 ], [ 0, 97, 1 ] ],
	[ 20, 20, [ 0, 3, 2 ], [ 0, 3, 1 ] ],
	[ 13, 20, [ 0, 2, 2 ], [ 0, 2, 1 ], [ -1, 4, 2 ], [ 1, 2, 1 ] ],
	[ 2, 20, [ 0, 2, 2 ], [ 0, 2, 1 ] ],
	[ 1, 20, [ 0, 2, 2 ], [ 0, 2, 1 ] ],
	[ 0, 20, [ 0, 1, 1 ], [ 0, 1, 1 ] ])
{
	my ($count, $page_size, @syncs) = @$case;
	subtest "$count programs, $page_size a page" => sub {
		$api->reset;
		$session->options(page_size => $page_size);
		$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
		$api->config(accounts => { acme => { count => $count } }, latency_ms => $count > 100 ? 0 : 60);
		foreach my $sync (@syncs)
		{
			my ($change, $requests, $waves) = @$sync;
			$api->mutate($change < 0 ? (remove => -$change) : (add => $change));
			$api->reset('counters');
			is_deeply($session->sync->{warnings}, [], "$change programs: no warning");
			is($api->counters->{requests}, $requests, '... requests');
			is($api->counters->{waves}, $waves, '... round trips') if $count <= 100;
		}
	};
}
$session->options(page_size => 20);

# ---- what lies past the last program ----

subtest 'a total that stays behind' => sub {
	begin(40);
	$api->mutate(add => 3);
	$api->config(total_offset => -3);
	is_deeply(YelpTest::actions($session->sync), { added => 3 }, 'what lies behind it is added');
	is(stored(), 43, '... and nothing deleted');
	$api->mutate(remove => 1);
	is_deeply(YelpTest::actions($session->sync), { deleted => 1 }, 'what is gone is deleted all the same');
};

subtest 'a capped total' => sub {
	$api->reset;
	$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
	$api->config(accounts => { acme => { count => 200 } }, total_offset => -140);
	my $result = $session->sync;
	is(stored(), 200, 'all that is listed is stored');
	is_deeply($result->{warnings}, [], 'without a warning');
	$api->reset('counters');
	is_deeply($session->sync->{rows}, [], 'a repeat finds nothing new');
	cmp_ok($api->counters->{requests}, '<=', 14, '... with two looks for each end that is possible');
};

foreach my $beyond ('empty', 'null', 'last', 'first', 204, 404, 410, 416, 500, 503)
{
	subtest "$beyond past the last program" => sub {
		begin(60);
		$api->mutate(remove => 20);
		$api->config(beyond => $beyond);
		my $result = $session->sync;
		is_deeply(YelpTest::actions($result), { deleted => 20 }, 'means nothing');
		is_deeply($result->{warnings}, [], 'no warning');
		$result = $session->sync;
		is_deeply([ @{ $result->{rows} }, @{ $result->{warnings} } ], [], 'and stays so');
	};
}

# Yelp may have reached a limit of its own there, rather than the end
foreach my $beyond (400, 422)
{
	subtest "$beyond where there were programs" => sub {
		begin(60);
		$api->mutate(remove => 20);
		$api->config(beyond => $beyond);
		my $result = $session->sync;
		is(stored(), 60, 'nothing is deleted');
		like($result->{warnings}[0], qr/page at offset 40 of account "acme": HTTP status $beyond/, 'a WARNING');
		like($result->{messages}[-1]{detail} // $result->{stderr}, qr/This page is not available/, '... with the words of the API');
		is(status(), 'partial', 'the status');
		is_deeply(YelpTest::actions($session->sync), { deleted => 20 }, 'the next sync does not ask there');
		begin(59);
		$api->mutate(remove => 1);
		$api->config(beyond => $beyond);
		is_deeply(YelpTest::actions($session->sync), { deleted => 1 }, 'a look past the end is not counted');
	};
}

subtest 'requests past the last program that hang' => sub {
	foreach my $case ([ 60, 20 ], [ 60, 1 ], [ 60, 0 ], [ 61, 30 ])
	{
		my ($count, $removed) = @$case;
		begin($count);
		$api->mutate(remove => $removed);
		$api->faults({ match => { from_offset => $count - $removed }, action => { hold => \1 } });
		$api->reset('counters');
		my $result = $session->sync;
		is_deeply(YelpTest::actions($result), $removed ? { deleted => $removed } : {},
			"$removed of $count programs go");
		my @held = grep { $_->{offset} >= $count - $removed } $api->log;
		is((grep { $_->{status} eq 'gone' } @held), @held, 'what hangs is abandoned');
		is(@{ $result->{warnings} }, 0, 'no warning');
	}
};

subtest 'an account without programs, and 204' => sub {
	begin(20);
	$api->config(beyond => 204);
	$api->set_programs('acme');
	$session->options(max_deleted => '100%');
	is_deeply(YelpTest::actions($session->sync), { deleted => 20 }, 'all are gone');
	is_deeply(YelpTest::actions($session->sync), {}, 'and it stays empty');
	is(status(), 'synced', 'the status');
};

# Requests past 200 are refused: the programs stored by a first sync and its status, and those of
# the next syncs of 300 stored programs.  A look that begins before 200 shows what follows.
foreach my $case (
	[ 'cut', [ 200, 'synced' ], [ 'partial', 300 ], [ 'synced', 200 ] ],
	[ 'offset', [ 239, 'partial' ], [ 'partial', 300 ], [ 'partial', 300 ] ],
	[ 'sum', [ 200, 'partial' ], [ 'partial', 300 ], [ 'partial', 300 ] ])
{
	my ($kind, $first, @next) = @$case;
	subtest "a result window, $kind" => sub {
		$session->options(page_size => 40);
		begin(300);
		$api->config(window => 200, window_kind => $kind);
		foreach my $expected (@next)
		{
			my $result = $session->sync;
			is_deeply([ status(), stored() ], $expected, 'a sync of stored programs');
			like($result->{warnings}[0],
				qr/page at offset \d+ of account "acme": HTTP status 400/, '... with the reason')
			  if $expected->[0] ne 'synced';
		}
		$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
		my $result = $session->sync;
		is_deeply([ stored(), status() ], $first, 'a first sync');
		if ($kind ne 'cut')
		{
			my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };
			like($warning->{detail}, qr/offset \+ limit must be at most 200/, 'the words of the API');
			unlike($warning->{hint}, qr/trust_total/, 'the hint does not lead to a loss');
		}
		$session->options(page_size => 20);
	};
}

# ---- pages that cannot be had ----

foreach my $case ([ 'the total says', {} ], [ 'what is stored says', { total_offset => -20 } ])
{
	my ($who, $config) = @$case;
	foreach my $status (500, 404)
	{
		subtest "the last page is not to be had, $status, and $who that it is there" => sub {
			begin(100);
			$api->config(%$config);
			$api->mutate(alter => 5);
			$api->faults(respond($status, from_offset => 61));
			my $result = $session->sync;
			is($result->{sqlstate}, 'HV000', 'an error');
			like($result->{error}, qr/page at offset 80 of account "acme": HTTP status $status/, '... names it');
			like($result->{detail}, qr/"SOME_ID": Some words\./, '... with the words of the API');
			$session->options(partial => 'on');
			$result = $session->sync;
			is($result->{error}, undef, 'partial: no error');
			is_deeply([ split /\|/, $session->value(YelpTest::last_run('status, failed_pages, listed')) ],
				[ 'partial', 1, 80 ], '... and the page is counted');
			is(stored(), 100, 'nothing is deleted');
			$session->options(partial => undef);
		};
	}
}

subtest 'only the last page is not to be had' => sub {
	begin(100);
	$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
	$api->config(total_offset => -20);
	$api->faults(respond(500, offset => 80));
	like($session->sync->{error}, qr/page at offset 80 /, 'a look shows that it is there: an error');
	is(stored(), 0, 'nothing is stored');
	$api->faults(respond(500, from_offset => 61));
	my $result = $session->sync;
	is_deeply([ status(), stored() ], [ 'partial', 80 ], 'where no look shows it, what came is stored');
	like($result->{warnings}[0], qr/HTTP status 500/, '... and a WARNING has the reason');
};

# ---- totals that are wrong ----

subtest 'a list that is null' => sub {
	begin(40);
	my $null = '{"program_status":"ALL","total":0,"offset":0,"limit":20,"payment_programs":null}';
	$api->faults({ action => { respond => { body => $null } } });
	my $result = $session->sync;
	is($result->{error}, undef, 'is an empty one');
	is_deeply(YelpTest::actions($result), { missing => 40 }, 'and that is not believed at once');
	$session->options(max_deleted => '100%');
	is_deeply(YelpTest::actions($session->sync), { deleted => 40 }, '... unless max_deleted allows it');
};

subtest 'a total that is always one above' => sub {
	begin(50);
	$api->config(total_offset => 1);
	my $removed = $api->mutate(remove => 1)->{removed};
	my $result = $session->sync;
	is_deeply([ map { "$_->{action} $_->{program_id}" } @{ $result->{rows} } ], ["missing $removed->[0]"],
		'nothing is deleted, and what is not listed is returned');
	my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };
	like($warning->{hint}, qr/trust_total/, 'the hint names the way out');
	$session->run("DELETE FROM yelp_programs WHERE program_id = '$removed->[0]'");
	$api->reset('counters');
	is_deeply($session->sync->{rows}, [], 'with nothing missing');
	is($api->requests_at(0), 1, '... the listing is read once');
	is($session->value(YelpTest::last_run('status')), 'partial',
		'... and the sync is partial all the same');
	$api->config(total_offset => 2);
	$api->reset('counters');
	is_deeply($session->sync->{rows}, [], 'two above');
	is($api->requests_at(0), 2, '... may be a program that was missed: the listing is read twice');
	$api->config(total_offset => 1);
	$removed = $api->mutate(remove => 1, seed => 1)->{removed};
	is_deeply($session->sync->{rows}, [ { action => 'missing', program_id => $removed->[0], changed => undef } ],
		'another program goes, and is missing');
	$session->options(trust_total => 'off');
	is_deeply(YelpTest::actions($session->sync), { deleted => 1 }, 'which helps');
	is_deeply($session->sync->{warnings}, [], 'for good');
};

subtest 'a page that arrives empty where the total is not trusted' => sub {
	foreach my $case ([ 60, 40 ], [ 45, 40 ], [ 7, 0 ])
	{
		my ($count, $offset) = @$case;
		$api->reset;
		$session->options(trust_total => 'off', max_deleted => undef);
		$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
		$api->config(accounts => { acme => { count => $count } });
		$api->faults({ match => { offset => $offset }, times => 1,
			action => { replace => { json => { payment_programs => [] } } } });
		is_deeply(YelpTest::actions($session->sync), { added => $count },
			"$count programs: the page at offset $offset is looked at once more");
		is($session->value(YelpTest::last_run('status')), 'synced', '... and proves it');
	}
};

subtest 'a total that is above, and not trusted' => sub {
	begin(50);
	$session->options(trust_total => 'off');
	$api->config(total_offset => 1);
	$api->mutate(add => 1);
	foreach my $readings (2, 1)
	{
		$api->reset('counters');
		is($session->sync->{error}, undef, 'a sync');
		is($session->value(YelpTest::last_run('status')), 'synced', '... is proved');
		is($api->requests_at(0), $readings, $readings > 1 ? '... by two readings' : '... by one, where nothing is new about it');
	}
	$session->run("UPDATE yelp_sync_runs SET status = 'partial'");
	$api->reset('counters');
	is($session->sync->{error}, undef, 'after a sync that was partial');
	is($api->requests_at(0), 2, '... it takes two');
};

subtest 'most programs are no longer listed' => sub {
	begin(100);
	$api->mutate(remove => 60);
	my $result = $session->sync;
	is_deeply(YelpTest::actions($result), { missing => 60 }, 'nothing is deleted');
	like($result->{warnings}[0], qr/^60 of 100 programs of account "acme" are no longer listed/, 'a WARNING says so');
	foreach my $max_deleted (undef, '50%')
	{
		$session->options(max_deleted => $max_deleted);
		my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $session->sync->{messages} };
		my ($sql) = $warning->{hint} =~ /(ALTER SERVER .*?;)/;
		is($session->run("BEGIN; $sql ROLLBACK")->{error}, undef, "its hint can be run: $sql");
	}
	$session->options(max_deleted => '60%');
	is_deeply(YelpTest::actions($session->sync), { deleted => 60 }, 'max_deleted decides');
};

foreach my $case (
	[ 30, 20, undef, 'deleted' ], [ 30, 21, undef, 'missing' ], [ 42, 21, undef, 'deleted' ],
	[ 30, 20, '1%', 'deleted' ], [ 30, 1, '0%', 'missing' ], [ 30, 1, '0.1%', 'deleted' ],
	[ 5, 5, undef, 'missing' ])
{
	my ($count, $removed, $max_deleted, $action) = @$case;
	subtest "$removed of $count programs go, max_deleted " . ($max_deleted // '50%') => sub {
		begin($count);
		$session->options(max_deleted => $max_deleted);
		$api->mutate(remove => $removed);
		my $result = $session->sync;
		is_deeply(YelpTest::actions($result), { $action => $removed }, $action);
		is(@{ $result->{warnings} }, $action eq 'missing' ? 1 : 0, 'a warning where they are kept');
	};
}

subtest 'a trigger that syncs the same account' => sub {
	begin(20);
	$session->run(q{CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN PERFORM yelp_sync('acme'); RETURN NEW; END $$;
		CREATE TRIGGER again BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION again()});
	$api->mutate(alter => 1);
	is($session->sync->{sqlstate}, '55P03', 'is refused at once');
	$session->run('DROP TRIGGER again ON yelp_programs');
	is_deeply(YelpTest::actions($session->sync), { updated => 1 }, 'without it all is well');
};

subtest 'tables that inherit, and a successor' => sub {
	begin(40);
	$session->run(q{CREATE TABLE copies () INHERITS (yelp_programs);
		INSERT INTO copies SELECT * FROM yelp_programs;
		UPDATE copies SET program_id = program_id || 'x'});
	$session->run(q{CREATE UNIQUE INDEX one_each ON yelp_programs (yelp_business_id, program_type)
		WHERE program_status = 'ACTIVE'});
	$api->mutate(remove => 1, add => 1);
	is($session->sync->{error}, undef, 'no error');
	is($session->value('SELECT count(*) FROM copies'), 40, 'inheriting rows stay');
	$session->run('DROP TABLE copies');
};

$session->end;
done_testing();
