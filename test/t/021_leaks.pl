# Hundreds of cancelled and failed syncs in one session leave it with no more
# file descriptors, threads and memory than the first twenty did.
#
# YELP_SYNC_TEST_SYNCS is the number of each.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my $syncs = 0 + ($ENV{YELP_SYNC_TEST_SYNCS} // 200);
my $few = 20;
my $files = 64;					# so that sockets counted and forgotten are soon too many

# What the heap of malloc() may grow by, being cut into pieces otherwise.  A
# leak of 2 kB a sync is more.
my $tolerated_kb = 2048 * $YelpApi::slack;

my ($node, $api) = YelpTest::start(
	server => { attempts => 1, page_size => 5, max_retry_after => '1ms' },
	conf => "shared_buffers = 16MB\nmax_files_per_process = $files\nlog_min_messages = fatal\nlog_statement = none\n"
	  . "log_min_error_statement = panic\n");
my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');

$api->config(accounts => {
	map { $_ => { password => 's3cret', count => 18 } }
	  qw(acme refused denied html missing reset cut held stalled dripping) });
$api->faults(
	{ match => { account => 'refused' }, action => { respond => { status => 401 } } },
	{
		match => { account => 'denied', offset => 10 },
		action => { respond => { status => 401 } }
	},
	{
		match => { account => 'html', offset => 5 },
		action => { respond => { body => '<html>' } }
	},
	{
		match => { account => 'missing' },
		action => { replace => { remove => ['payment_programs'] } }
	},
	{ match => { account => 'reset', offset => 15 }, action => 'reset' },
	{ match => { account => 'cut', offset => 10 }, action => 'close' },
	{ match => { account => 'held', from_offset => 5 }, action => { hold => \1 } },
	{ match => { account => 'stalled' }, action => 'stall' },
	{ match => { account => 'dripping' }, action => { drip => { every_ms => 5 } } });

# A server has one mapping for each user: each account has a server.
sub add_account
{
	my ($account, %server) = @_;
	$session->value(YelpTest::create_server($account, endpoint => $api->url, attempts => 1, page_size => 5,
			max_retry_after => '1ms', %server));
	return;
}

add_account($_) foreach qw(refused denied html missing reset cut held stalled dripping);
add_account('untrusted', endpoint => $api->url('untrusted'), ca_file => $api->ca_file);
add_account('unwelcome',
	endpoint => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . '/v1');
add_account('swallowed', endpoint => $api->url('swallow'));
add_account('silenced', endpoint => $api->url('silent'));

# ---- the resources of a session ----

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

sub test_no_more_held
{
	my ($before, $name) = @_;
	my $after = held();

	cmp_ok($after->{handles}, '<=', $before->{handles}, "$name: no more file descriptors");
	is($after->{threads}, $before->{threads}, "$name: no more threads");
	cmp_ok($after->{contexts}, '<=', $before->{contexts} + 64 * 1024,
		"$name: no more memory of the server's");
	cmp_ok($after->{sets}, '<=', $before->{sets}, "$name: no more memory contexts");
	cmp_ok($after->{resident}, '<=', $before->{resident} + $tolerated_kb,
		"$name: no more memory in all");
	note(join ', ', map { "$_ $before->{$_} -> $after->{$_}" } sort keys %$after);
	return;
}

my $changes = 0;

sub test_syncs
{
	my ($name) = @_;
	my $result = $session->run(q{SELECT count(*) FROM yelp_sync('acme')});

	is($result->{error}, undef, "$name: the next sync works");
	YelpTest::table_is_listing($node, $api, 'acme', "$name: and brings what the API lists");
	is($session->value(q{SELECT count(*) FROM yelp_programs WHERE username <> 'acme'}), 0,
		"$name: those that failed stored nothing");
	$api->mutate(alter => 3, remove => 1, add => 1, seed => ++$changes);
	return;
}

# ---- syncs that fail ----

my %failing = (
	refused => '28000', denied => 'HV000', html => '22032', missing => 'HV021', reset => '08006',
	cut => '08006', untrusted => '08001', unwelcome => '08001');

$session->value(q{
	CREATE FUNCTION fail(accounts text[], n integer) RETURNS TABLE (account text, state text, times bigint)
	LANGUAGE plpgsql AS $$
	DECLARE
		counts jsonb = '{}';
		name text;
		key text;
	BEGIN
		FOR i IN 1 .. n LOOP
			name = accounts[1 + i % cardinality(accounts)];
			BEGIN
				PERFORM yelp_sync(name);
				key = name || ' worked';
			EXCEPTION WHEN OTHERS THEN
				key = name || ' ' || SQLSTATE;
			END;
			counts = jsonb_set(counts, ARRAY[key], to_jsonb(COALESCE(counts->>key, '0')::bigint + 1));
		END LOOP;
		RETURN QUERY SELECT split_part(c.key, ' ', 1), split_part(c.key, ' ', 2), c.value::bigint
			FROM jsonb_each_text(counts) AS c;
	END $$});

sub fail_syncs
{
	my ($count) = @_;
	my $accounts = 'ARRAY[' . join(', ', map { "'$_'" } sort keys %failing) . ']';
	return $session->value(
		"SELECT account, state, times FROM fail($accounts, $count) ORDER BY 1, 2");
}

fail_syncs($few);
my $before = held();
my @counts = split /\n/, fail_syncs($syncs);
my $failed = 0;

foreach my $line (@counts)
{
	my ($account, $state, $times) = split /\|/, $line;
	is($state, $failing{$account}, "$times syncs of \"$account\" failed");
	$failed += $times if $state eq $failing{$account};
}
is($failed, $syncs, 'all failed');
test_no_more_held($before, 'failed syncs');
test_syncs('after failed syncs');

# ---- syncs that are cancelled ----

sub cancel
{
	my ($count) = @_;
	my @accounts = qw(held stalled dripping swallowed silenced);
	my $script = join ";\n",
	  map { "SELECT FROM yelp_sync('$accounts[$_ % @accounts]')" } 1 .. $count;
	my $result = $session->run("SET statement_timeout = 12;\n$script;\nRESET statement_timeout");
	my @others = grep { $_->{sqlstate} !~ /^(57014|00000)$/ } @{ $result->{messages} };
	diag("$others[0]{sqlstate}: $others[0]{message}") if @others;
	return scalar grep { $_->{sqlstate} eq '57014' } @{ $result->{messages} };
}

cancel($few);
$before = held();
is(cancel($syncs), $syncs, 'all were cancelled');
test_no_more_held($before, 'cancelled syncs');
test_syncs('after cancelled syncs');

# Cancelled anywhere, as the time-out has it; now and then a sync is through before
sub cancel_anywhere
{
	my ($count) = @_;
	my $script = join '',
	  map { 'SET statement_timeout = ' . (1 + $_ % 9) . ";\nSELECT FROM yelp_sync('acme');\n" }
	  1 .. $count;
	my $result = $session->run("$script;\nRESET statement_timeout");
	is(scalar(grep { $_->{sqlstate} ne '57014' } @{ $result->{messages} }), 0,
		'a time-out that comes anywhere is a time-out');
	$session->sync('acme');		# whose connections are kept
	return;
}

cancel_anywhere($few);
$before = held();
cancel_anywhere($syncs / 4);
test_no_more_held($before, 'syncs cancelled anywhere');
test_syncs('after syncs cancelled anywhere');

$session->end;
YelpTest::connections_are($api, 0, 'no connection outlives the session');
$node->stop;
done_testing();
