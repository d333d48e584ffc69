# Where a listing ends is looked at: totals that are cached, capped or wrong, and
# whatever an API answers behind its last program, cost requests and no row.
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
	$api->config(latency_ms => 100);
	$api->reset('counters');
	is_deeply($session->sync->{rows}, [], 'a repeat finds nothing new');
	is($api->counters->{waves}, 1, '... in one round trip');
};

foreach my $status (400, 404, 416, 422)
{
	subtest "$status behind the last program" => sub {
		begin(60);
		$api->mutate(remove => 20);
		$api->faults({ match => { from_offset => 40 }, action => { respond => { status => $status } } });
		is_deeply(YelpTest::actions($session->sync), { deleted => 20 }, 'is the end');
		is_deeply($session->sync->{rows}, [], 'and stays it');
	};
}

subtest '500 behind the last program' => sub {
	begin(60);
	$api->mutate(remove => 20);
	$api->faults({ match => { from_offset => 40 }, action => { respond => { status => 500 } } });
	my $result = $session->sync;
	is($result->{error}, undef, 'is no error');
	like($result->{warnings}[0], qr/page at offset 40 of account "acme": HTTP status 500/, 'a WARNING names it');
	is(stored(), 60, 'and nothing is deleted');
	$api->faults;
	is_deeply(YelpTest::actions($session->sync), { deleted => 20 }, 'until the end is seen');
};

subtest 'the last page fails' => sub {
	begin(60);
	$api->config(total_offset => -20);
	$api->faults({ match => { offset => 40 }, action => { respond => { status => 500 } } });
	is($session->sync->{error}, undef, 'behind the total it is no error');
	is(stored(), 60, 'and nothing is deleted');
};

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
