# Everything at once, at random, for a while: accounts that change, an API that fails, memory and
# sockets that run out, cancels, kills and restarts.  After each sync the table is compared with what
# the API lists, or, where the sync failed, with what it was before.
#
# YELP_SYNC_TEST_SECONDS is for how long, YELP_SYNC_TEST_SEED another run of it.

use strict;
use warnings;

use Errno qw(EMFILE ENOSPC);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use YelpApi;
use YelpBackend;
use YelpInject;
use YelpTest;
use YelpWorld;

my $seconds = $ENV{YELP_SYNC_TEST_SECONDS} // 10;
my $seed = $ENV{YELP_SYNC_TEST_SEED} // 30;
my $report_every = 30;			# seconds
my $most_differences = 10;

my @accounts = map { "soak$_" } 1 .. 6;
my @sizes = (0, 1, 7, 20, 60, 150, 400);
my $workers = 3;

# However a sync may fail: by the API, by a lack of something, or ended by somebody
my $fitting = qr/^(?:08001|08006|22032|28000|53000|53100|53200|53400|54000|55P03|57014|57P01|HV000|HV021)$/;

note("seed $seed");
srand($seed);

my $inject = YelpInject->new;
my ($node, $api) = $inject->preload(sub {
	YelpTest::start(conf => "shared_buffers = 16MB\nrestart_after_crash = on\nfsync = off\n"
		  . "max_files_per_process = 150\nwork_mem = 64kB\nlog_statement = none\n");
});
my $observer = YelpBackend->new($node);
my %count = map { $_ => 0 } qw(syncs done partial failed faults cancels kills restarts changes differences);
my %ends;

sub pick
{
	return YelpWorld::pick(@_);
}

sub chance
{
	return YelpWorld::chance(@_);
}

# ---- the server, which may be down ----

sub server_is_up
{
	return $node->psql('postgres', 'SELECT 1', stdout => \my $one) == 0;
}

sub await_server
{
	YelpBackend::poll_until(\&server_is_up, 'the server');
	return;
}

# Once more where the session has ended with its server
sub ask
{
	my ($sql) = @_;
	my $result = $observer->run($sql);

	if ($result->{lost})
	{
		await_server();
		$observer = YelpBackend->new($node);
		$result = $observer->run($sql);
	}
	die "$sql: $result->{stderr}\n" if $result->{error} || $result->{lost};
	return $result->{stdout} =~ s/\n\z//r;
}

sub start_again
{
	$inject->preload(sub {
		YelpBackend::poll_until(sub { $node->start(fail_ok => 1) }, 'the server to start again');
	});
	return;
}

sub restart
{
	my ($mode) = @_;
	$count{restarts}++;
	$node->stop($mode);
	start_again();
	return;
}

sub kill_postmaster
{
	my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	$count{kills}++;
	$count{restarts}++;
	$node->kill9;
	YelpBackend::poll_until(sub { !-e "/proc/$pid" }, 'the end of the postmaster');
	start_again();
	return;
}

# ---- accounts ----

# An account's server, perhaps with other options than before
sub set_server
{
	my ($account, %server) = @_;
	my %tls = (endpoint => $api->https_url, ca_file => $api->ca_file);
	my %options = (
		chance(25) ? %tls : (endpoint => $api->url),
		attempts => pick(1, 3), retry_delay => '1ms', retry_max_delay => '5ms',
		timeout => '1s', connect_timeout => '1s', max_retry_after => '1s', max_page_bytes => '1MB',
		page_size => pick(1 + int(rand(40)), 20, 40), concurrency => pick(1, 5, 100),
		partial => pick('off', 'off', 'on'), trust_total => pick('on', 'on', 'off'),
		max_deleted => pick('50%', '100%'), %server);

	ask("DROP SERVER IF EXISTS $account CASCADE; CREATE SERVER $account FOREIGN DATA WRAPPER yelp_sync "
		  . YelpTest::options(%options)
		  . "; CREATE USER MAPPING FOR CURRENT_USER SERVER $account "
		  . YelpTest::options(username => $account, password => 's3cret'));
	return;
}

# Another listing, or the same one with changes; respelled programs are the same
sub change
{
	my ($account) = @_;

	$count{changes}++;
	if (chance(10))
	{
		$api->config(accounts => { $account => { count => pick(@sizes), seed => int(rand(1e6)) } });
		return;
	}
	my $listed = $api->programs($account);
	$api->mutate(account => $account, seed => int(rand(1e6)),
		remove => $listed > 60 ? pick(0, 1, 3, 30) : pick(0, $listed > 1 ? 1 : 0),
		add => pick(0, 1, 3, 30),
		$listed > 60 ? (alter => pick(0, 5, 20), respell => pick(0, 2)) : ());
	return;
}

# ---- what goes wrong ----

# What an API does; the last ones make another page of it
my @actions = (
	'close', 'reset', 'stall',
	{ close => { at => 100 } },
	{ chunked_cut => { at => 300 } },
	{ delay_ms => 30 },
	{ drip => { at => 50, every_ms => 1 } },
	{ pad => { bytes => 5_000_000, encoding => 'gzip' } },
	{ endless_headers => { bytes => 2_000_000 } },
	{ raw => { text => "nonsense\r\n\r\n" } },
	{ respond => { status => 200, body => '<html>' } },
	{ respond => { status => 302, headers => { Location => '/' } } },
	(map { { respond => { status => $_ } } } 400, 401, 404, 429, 500, 503, 503),
	{ respond => { status => 429, headers => { 'Retry-After' => '1' } } },
	{ respond => { status => 503, headers => { 'Retry-After' => '3600' } } },
	{ replace => { suffix => 'x' } },
	{ replace => { remove => ['total'] } },
	{ replace => { json => { total => 3 } } },
	{ replace => { json => { payment_programs => [] } } },
	{ replace => { text => { 'payment_programs.0.program_id' => '17' } } });

sub choose_faults
{
	$api->faults(map { {
		match => { account => pick(@accounts), probability => pick(0.05, 0.3, 1), seed => int(rand(1e6)) },
		times => pick(1, 2, 5, 20),
		action => pick(@actions),
	} } 1 .. pick(0, 0, 1, 2, 4));
	return;
}

# How the API is otherwise than usual
sub choose_habits
{
	$api->reset('config');
	$api->config(
		max_limit => 100,
		latency_ms => pick(0, 0, 0, 10),
		total_offset => pick((0) x 8, -1, 1, -20),
		serve_at_most => pick((undef) x 4, 7),
		connection_close => pick(\0, \0, \0, \1),
		beyond => pick(('empty') x 5, 'null', 400, 404, 500, 'last', 'first'),
		echo_offset => pick(('asked') x 4, 'served'));
	return;
}

# A call that fails in one of the sessions
sub choose_injection
{
	my ($worker) = @_;
	my ($call, $code, $most) = @{ pick(
		[ "libcurl's memory", 0, 300 ], [ "extension's memory", 0, 10 ], [ "server's memory", 0, 60 ],
		[ 'socket', EMFILE, 5 ], [ 'write', ENOSPC, 20 ]) };

	$inject->arm($worker->{session}, $call, first => 1 + int(rand($most)), count => pick(1, 1, 1000),
		code => $code);
	return;
}

# What somebody does while syncs are under way
my @events = (
	(sub { }) x 6,
	(sub { cancel($_[0]) }) x 3,
	(sub { $api->disconnect(pick('close', 'reset')) }) x 2,
	(sub { move($_[0]) }) x 2,
	sub { edit($_[0]) },
	sub { sync_twice($_[0]) },
	sub { terminate($_[0]) },
	sub { kill_backend($_[0]) if chance(30) },
	sub { restart(pick('fast', 'immediate')) if chance(30) },
	sub { kill_postmaster() if chance(20) });

sub cancel
{
	my ($worker) = @_;
	$count{cancels}++;
	ask('SELECT pg_cancel_backend(' . $worker->{session}->pid . ')');
	return;
}

sub terminate
{
	my ($worker) = @_;
	$count{kills}++;
	ask('SELECT pg_terminate_backend(' . $worker->{session}->pid . ')');
	return;
}

sub kill_backend
{
	my ($worker) = @_;
	$count{kills}++;
	$count{restarts}++;
	kill 'KILL', $worker->{session}->pid;
	$worker->{session}->wait_until_gone;
	await_server();
	return;
}

# The listing moves while it is read
sub move
{
	my ($worker) = @_;
	$worker->{moved} = 1;
	change($worker->{account});
	return;
}

# Rows are edited by hand while they are merged
sub edit
{
	my ($worker) = @_;
	$worker->{edited} = 1;
	ask(qq{UPDATE yelp_programs SET budget = 17 WHERE username = '$worker->{account}'
		AND program_id < 'I'});
	return;
}

sub sync_twice
{
	my ($worker) = @_;
	my $result = YelpTest::run($node, "SELECT FROM yelp_sync('$worker->{account}')");

	$count{syncs}++;
	$ends{ $result->{sqlstate} // 'second' }++;
	# It may have been the first to get there, or have come when the other one had ended
	$worker->{edited} = 1 unless $result->{error};
	differ($worker, "a second sync: $result->{stderr}")
	  if $result->{error} && $result->{sqlstate} !~ $fitting;
	return;
}

# ---- what has to be ----

sub differ
{
	my ($worker, @what) = @_;
	$count{differences}++;
	diag("sync $count{syncs} of \"$worker->{account}\": " . join("\n", @what));
	return;
}

# A digest of the account's rows, and how many syncs are recorded
sub state_of
{
	my ($account) = @_;
	return ask(qq{
		SELECT md5(string_agg(p::text, ',' ORDER BY program_id)) FROM yelp_programs p WHERE username = '$account'
		UNION ALL
		SELECT count(*)::text FROM yelp_sync_runs WHERE username = '$account'});
}

sub status_of
{
	my ($account) = @_;
	return split /\|/, ask(qq{SELECT status, failed_pages, problems FROM yelp_sync_runs
		WHERE username = '$account' ORDER BY run_id DESC LIMIT 1});
}

# Those that are listed and not stored
sub unstored
{
	my ($account, @ids) = @_;
	my %stored = map { $_ => 1 } split /\n/,
	  ask("SELECT program_id FROM yelp_programs WHERE username = '$account'");
	return grep { !$stored{$_} } @ids;
}

sub listed
{
	my ($account) = @_;
	return map { $_->{program_id} } $api->programs($account);
}

# One that is done: "synced" stands for equal; else no listed program may be missing, unless its page
# is or somebody meddled
sub check_done
{
	my ($worker) = @_;
	my $account = $worker->{account};
	my ($status, $failed_pages) = status_of($account);
	my %before = map { $_ => 1 } @{ $worker->{listed} };
	my @throughout = grep { $before{$_} } listed($account);

	$count{ $status eq 'synced' ? 'done' : 'partial' }++;
	if ($status eq 'synced' && !$worker->{moved} && !$worker->{edited})
	{
		my @differences = YelpTest::differences($node, $api, $account);
		differ($worker, 'synced, but', @differences) if @differences;
	}
	else
	{
		my @lost = unstored($account, @throughout);
		differ($worker, "$status, not stored: @lost") if @lost && $status eq 'synced';
		# A program without an id, or on a page that failed, leaves the others where they were
		@lost = grep { $worker->{stored}{$_} } @lost;
		differ($worker, "$status, deleted: @lost") if @lost;
	}
	return;
}

# One that failed leaves all as it was.  One whose session was lost may have been committed.
sub check_failed
{
	my ($worker, $result) = @_;
	my $account = $worker->{account};

	$count{failed}++;
	return if $worker->{edited} || state_of($account) eq $worker->{before};
	return differ($worker, "failed, but the rows changed: $result->{stderr}") unless $result->{lost};
	check_done($worker);
	return;
}

sub check
{
	my ($worker, $result) = @_;
	my $end = $result->{lost} ? 'lost' : $result->{sqlstate} // 'done';

	$count{syncs}++;
	$ends{$end}++;
	differ($worker, "failed with $result->{stderr}")
	  if $result->{error} && !$result->{lost} && $end !~ $fitting;
	$end eq 'done' ? check_done($worker) : check_failed($worker, $result);
	return;
}

# ---- rounds ----

sub begin
{
	my ($worker, $account) = @_;

	if (!$worker->{session} || $worker->{session}{lost})
	{
		$worker->{session} = YelpBackend->new($node, 'yelp_sync.progress' => 'off');
	}
	@$worker{qw(account moved edited)} = ($account, 0, 0);
	set_server($account) if chance(20);
	change($account) if chance(70);
	$worker->{listed} = [ listed($account) ];
	$worker->{before} = state_of($account);
	$worker->{stored} = { map { $_ => 1 } split /\n/,
		ask("SELECT program_id FROM yelp_programs WHERE username = '$account'") };
	$worker->{session}->run('SET statement_timeout = ' . pick(0, 0, 0, 0, 1 + int(rand(100))));
	return;
}

sub run_round
{
	my ($all) = @_;
	my @busy = @$all[ 0 .. int(rand(@$all)) ];
	my @shuffled = YelpWorld::shuffled(@accounts);

	choose_habits() if chance(20);
	choose_faults();
	begin($_, shift @shuffled) foreach @busy;
	choose_injection($busy[0]) if chance(30);
	$_->{session}->begin("SELECT FROM yelp_sync('$_->{account}')") foreach @busy;
	Time::HiRes::sleep(rand(0.05));
	pick(@events)->(pick(@busy));
	my @results = map { $_->{session}->result } @busy;

	$count{faults} += $_ foreach $api->faults_used;
	$count{faults} += $inject->failed;
	$inject->disarm;
	$api->faults;
	$api->release;
	await_server() if grep { $_->{lost} } @results;
	check($busy[$_], $results[$_]) foreach 0 .. $#busy;
	return;
}

sub summary
{
	return join ', ', map { "$_ $count{$_}" }
	  qw(syncs done partial failed faults cancels kills restarts changes differences);
}

my @workers = map { {} } 1 .. $workers;
$api->config(accounts => { map { $_ => { count => pick(@sizes) } } @accounts });
set_server($_) foreach @accounts;
$inject->arm($observer, 'nothing', first => 1);

my $end = Time::HiRes::time() + $seconds;
my $next_report = Time::HiRes::time() + $report_every;
while (Time::HiRes::time() < $end && $count{differences} < $most_differences)
{
	run_round(\@workers);
	next if Time::HiRes::time() < $next_report;
	note(summary());
	$next_report += $report_every;
}

# ---- the end ----

await_server();
$api->reset('config');
$api->config(max_limit => 100);
my $last = YelpBackend->new($node, 'yelp_sync.progress' => 'off');
foreach my $account (@accounts)
{
	set_server($account, attempts => 3, timeout => '30s', connect_timeout => '30s', partial => 'off',
		max_deleted => '100%');
	is($last->run("SELECT FROM yelp_sync('$account')")->{error}, undef, "$account: in the end a sync works");
	YelpTest::table_is_listing($node, $api, $account, "$account: and the table is the listing");
}
is($count{differences}, 0, 'the table never differed from what it had to be');
cmp_ok($count{$_}, '>', 0, "there were $_") foreach qw(done failed faults changes);

$_->{session} && $_->{session}->end foreach @workers;
$last->end;
$observer->end;
my $open;
eval { $api->poll_until(sub { ($open = $api->counters->{open_connections}) == 0 }, 'none') };
is($open, 0, 'no connection outlives the sessions');
note('ends: ' . join ', ', map { "$_ $ends{$_}" } sort keys %ends);
note(summary());
$node->stop;
done_testing();
