# Hundreds of cancelled and failed syncs leave a session with no more file descriptors, threads and
# memory than the first twenty did.
#
# YELP_SYNC_TEST_SYNCS is the number of each.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use Test::More;

use YelpTest ':all';

my $syncs = 0 + ($ENV{YELP_SYNC_TEST_SYNCS} // 200);
my $few = 20;

# What the heap of malloc() may grow by because it is fragmented.  A leak of 2 kB a sync is more.
my $tolerated_kb = 2048 * $YelpApi::slack;

# With few files, sockets that are counted and forgotten are soon too many
my ($node, $api) = start(
	server => { attempts => 1, page_size => 5, max_retry_after => '1ms' },
	conf => "shared_buffers = 16MB\nmax_files_per_process = 64\nlog_min_messages = fatal\nlog_statement = none\n"
	  . "log_min_error_statement = panic\n");
my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');
my $unauthorized = { respond => { status => 401 } };
my $free_port = PostgreSQL::Test::Cluster::get_free_port();

# Accounts whose syncs fail: the SQLSTATE, and a fault or options of the server; accounts whose syncs
# wait for something
my %failing = (
	refused => [ '28000', { action => $unauthorized } ],
	denied => [ 'HV000', { match => { offset => 10 }, action => $unauthorized } ],
	html => [ '22032', { match => { offset => 5 }, action => { respond => { body => '<html>' } } } ],
	missing => [ 'HV021', { action => { replace => { remove => ['payment_programs'] } } } ],
	reset => [ '08006', { match => { offset => 15 }, action => 'reset' } ],
	truncated => [ '08006', { match => { offset => 10 }, action => 'close' } ],
	untrusted => [ '08001', undef, endpoint => $api->url('untrusted'), ca_file => $api->ca_file ],
	unwelcome => [ '08001', undef, endpoint => "http://127.0.0.1:$free_port/v1" ],
	unwelcome_twice => [ '08001', undef, endpoint => "https://localhost:$free_port/v1" ],
	timed_out => [ '08001', undef, endpoint => $api->url('swallow'), connect_timeout => '5ms' ]);
my %waiting = (
	held => [ undef, { match => { from_offset => 5 }, action => { hold => \1 } } ],
	stalled => [ undef, { action => 'stall' } ],
	dripping => [ undef, { action => { drip => { every_ms => 5 } } } ],
	swallowed => [ undef, undef, endpoint => $api->url('swallow') ],
	silenced => [ undef, undef, endpoint => $api->url('silent') ]);
my %accounts = (%failing, %waiting);

$api->config(accounts => { map { $_ => { count => 18 } } 'acme', keys %accounts });
$api->faults(map {
	my $fault = $accounts{$_}[1];
	$fault ? { match => { account => $_, %{ $fault->{match} // {} } }, action => $fault->{action} } : ()
} sort keys %accounts);
foreach my $account (sort keys %accounts)
{
	my (undef, undef, %server) = @{ $accounts{$account} };
	$session->value(create_server($account, endpoint => $api->url, attempts => 1, page_size => 5,
			max_retry_after => '1ms', %server));
}

sub held
{
	return {
		handles => $session->handles,
		threads => $session->threads,
		resident => $session->memory('VmRSS'),
		contexts => $session->value('SELECT sum(total_bytes) FROM pg_backend_memory_contexts'),
		sets => $session->value('SELECT count(*) FROM pg_backend_memory_contexts'),
	};
}

my %tolerated = (contexts => 64 * 1024, resident => $tolerated_kb);
my $changes = 0;

# Runs few syncs, then many, after which no more may be held, and a sync works
sub test_leaks
{
	my ($name, $run) = @_;

	$run->($few);
	my $before = held();
	$run->($syncs);
	my $after = held();
	note(join ', ', map { "$_ $before->{$_} -> $after->{$_}" } sort keys %$after);
	is_deeply([ grep { $after->{$_} > $before->{$_} + ($tolerated{$_} // 0) } sort keys %$after ], [], "$name: no more is held");

	is($session->run(q{SELECT count(*) FROM yelp_sync('acme')})->{error}, undef, "$name: the next sync works");
	table_is_listing('acme', "$name: the table");
	is($session->value(q{SELECT count(*) FROM yelp_programs WHERE username <> 'acme'}), 0, "$name: failed syncs stored nothing");
	$api->mutate(alter => 3, remove => 1, add => 1, seed => ++$changes);
	return;
}

$session->value(q{
	CREATE FUNCTION fail(accounts text[], n integer) RETURNS TABLE (account text, state text) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			account = accounts[1 + i % cardinality(accounts)];
			BEGIN
				PERFORM yelp_sync(account);
				state = 'worked';
			EXCEPTION WHEN OTHERS THEN
				state = SQLSTATE;
			END;
			RETURN NEXT;
		END LOOP;
	END $$});
test_leaks('failed syncs', sub {
	my ($count) = @_;
	my $accounts = 'ARRAY[' . join(', ', map { "'$_'" } sort keys %failing) . ']';
	my %states = map { split /\|/ } split /\n/,
	  $session->value("SELECT account, string_agg(DISTINCT state, ' ') FROM fail($accounts, $count) GROUP BY 1");
	is_deeply(\%states, { map { $_ => $failing{$_}[0] } keys %failing }, "$count syncs failed as they should");
});

# Runs statements, the errors of which must be timeouts; returns their number
sub time_outs
{
	my ($script) = @_;
	my @states = map { $_->{sqlstate} } grep { $_->{level} eq 'ERROR' }
	  @{ $session->run("$script; RESET statement_timeout")->{messages} };
	is_deeply([ grep { $_ ne '57014' } @states ], [], 'all errors are timeouts');
	return scalar @states;
}

test_leaks('cancelled syncs', sub {
	my ($count) = @_;
	my @names = sort keys %waiting;
	is(time_outs(join ';', 'SET statement_timeout = 12', map { "SELECT FROM yelp_sync('$names[$_ % @names]')" } 1 .. $count),
		$count, "$count syncs were cancelled");
});

# Now and then, such a sync is not cancelled
test_leaks('syncs that are cancelled anywhere', sub {
	my ($count) = @_;
	time_outs(join ';', map { 'SET statement_timeout = ' . (1 + $_ % 9), q{SELECT FROM yelp_sync('acme')} } 1 .. $count / 4);
	$session->sync('acme');		# whose connections are kept
});

$session->end;
connections_are($api, 0, 'no connection outlives the session');
done_testing();
