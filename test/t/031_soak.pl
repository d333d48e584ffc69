# Everything at once, at random, for a while: accounts that change, an API that fails, memory and
# sockets that run out, cancels, kills and restarts.  Accounts are synced by the function and by the
# procedure.  After each sync the rows are compared with what the API lists, or, where the sync failed,
# with what they were; the changes that are recorded, with the difference.
#
# YELP_SYNC_TEST_SECONDS is for how long, YELP_SYNC_TEST_SEED another run of it.

use strict;
use warnings FATAL => 'all';

use Encode ();
use Errno qw(EMFILE ENOSPC);
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use YelpApi;
use YelpSession;
use YelpInject;
use YelpOracle;
use YelpTest;
use YelpWorld qw(pick chance shuffled);

my $seconds = $ENV{YELP_SYNC_TEST_SECONDS} // 10;
my $seed = $ENV{YELP_SYNC_TEST_SEED} // 30;
my $report_every = 30;			# seconds
my $most_differences = 10;
my $kept_rounds = 4;			# of an account, to tell with a difference

my @accounts = map { "soak$_" } 1 .. 6;
my @sizes = (0, 1, 7, 20, 60, 150, 400);
my $workers = 3;

# However a sync may fail: by the API, by a lack of something, or ended by somebody; or as
# the victim of a deadlock with an edit
my $fitting = qr/^(?:08001|08006|22032|28000|53000|53100|53200|40P01|53400|54000|55P03|57014|57P01|HV000|HV021)$/;

note("seed $seed");
srand($seed);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $inject = YelpInject->new;
my ($node, $api) = $inject->preload(sub {
	YelpTest::start(conf => "shared_buffers = 16MB\nrestart_after_crash = on\nfsync = off\n"
		  . "max_files_per_process = 150\nwork_mem = 64kB\nlog_statement = none\n");
});
my $observer = YelpSession->new($node);
my @counted = qw(syncs done partial failed unknown faults cancels kills restarts changes differences);
my %count = map { $_ => 0 } @counted;
my %ends;
my %options;					# of the accounts' servers
my %history;					# by account, what was done in the last rounds
my %habits;						# of the API

sub say_of
{
	my ($account, @what) = @_;
	push @{ $history{$account}[-1] }, @what;
	return;
}

# ---- the server, which may be down ----

# A new session, when the server is there
sub connect_session
{
	my (%settings) = @_;
	return YelpTest::poll_until(sub { eval { YelpSession->new($node, %settings) } }, 'the server');
}

# Once more where the session has ended with its server
sub ask
{
	my ($sql, $may_fail) = @_;
	my $result;

	while (($result = $observer->run($sql))->{lost})
	{
		$observer = connect_session();
	}
	die "$sql: $result->{stderr}\n"
	  if $result->{error} && $result->{sqlstate} ne ($may_fail // '');
	return $result->{stdout} =~ s/\n\z//r;
}

sub start_again
{
	$inject->preload(sub { YelpTest::start_again($node) });
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
	$count{kills}++;
	$count{restarts}++;
	YelpTest::kill_postmaster($node);
	start_again();
	return;
}

# ---- accounts ----

# An account's server, perhaps with other options than before
sub set_server
{
	my ($account, %server) = @_;
	my %tls = (endpoint => $api->https_url, ca_file => $api->ca_file);
	my %its_options = (
		chance(25) ? %tls : (endpoint => $api->url),
		attempts => pick(1, 3), retry_delay => '1ms', retry_max_delay => '5ms',
		timeout => '1s', connect_timeout => '1s', max_retry_after => '1s', max_page_bytes => '1MB',
		page_size => pick(1 + int(rand(40)), 20, 40), concurrency => pick(1, 5, 100),
		partial => pick('off', 'off', 'on'), trust_total => pick('on', 'on', 'off'),
		max_deleted => pick('50%', '100%'), record_changes => pick('off', 'on'), %server);

	$options{$account} = \%its_options;
	say_of($account, 'server: ' . YelpTest::options(%its_options));
	ask("DROP SERVER IF EXISTS $account CASCADE;" . YelpTest::create_server($account, %its_options));
	return;
}

# Another listing, or the same one with changes; respelled programs are the same
sub change
{
	my ($account) = @_;
	my $listed = () = $api->programs_json($account) =~ /"program_id"/g;
	my %how =
	  chance(10)
	  ? (count => pick(@sizes), seed => int(rand(1e6)))
	  : (
		seed => int(rand(1e6)),
		remove => $listed > 60 ? pick(0, 1, 3, 30) : pick(0, $listed > 1 ? 1 : 0),
		add => pick(0, 1, 3, 30),
		$listed > 60 ? (alter => pick(0, 5, 20), respell => pick(0, 2)) : ());

	$count{changes}++;
	say_of($account, 'listing: ' . $json->encode(\%how));
	defined $how{count}
	  ? $api->config(accounts => { $account => \%how })
	  : $api->mutate(account => $account, %how);
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
	my @rules = map { {
		match => { account => pick(@accounts), probability => pick(0.05, 0.3, 1), seed => int(rand(1e6)) },
		times => pick(1, 2, 5, 20),
		action => pick(@actions),
	} } 1 .. pick(0, 0, 1, 2, 4);

	$api->faults(@rules);
	return @rules;
}

# How the API is otherwise than usual
sub choose_habits
{
	%habits = (
		max_limit => 100,
		latency_ms => pick(0, 0, 0, 10),
		total_offset => pick((0) x 8, -1, 1, -20),
		serve_at_most => pick((undef) x 4, 7),
		connection_close => pick(\0, \0, \0, \1),
		beyond => pick(('empty') x 5, 'null', 400, 404, 500, 'last', 'first'),
		echo_offset => pick(('asked') x 4, 'served'));

	$api->reset('config');
	$api->config(%habits);
	return;
}

# A call that fails in one of the sessions
sub choose_injection
{
	my ($worker) = @_;
	my ($call, $code, $most) = @{ pick(
		[ "libcurl's memory", 0, 300 ], [ "extension's memory", 0, 10 ], [ "server's memory", 0, 60 ],
		[ 'socket', EMFILE, 5 ], [ 'write', ENOSPC, 20 ]) };
	my %which = (first => 1 + int(rand($most)), count => pick(1, 1, 1000), code => $code);

	$inject->arm($worker->{session}, $call, %which);
	$worker->{injection} = "$call " . $json->encode(\%which);
	return;
}

# What somebody does while syncs are under way
my @events = (
	([ 'nothing', sub { } ]) x 6,
	([ 'cancel', \&cancel ]) x 3,
	([ 'disconnect', sub { $api->disconnect(pick('close', 'reset')) } ]) x 2,
	([ 'move', \&move ]) x 2,
	[ 'edit', \&edit ],
	[ 'sync twice', \&sync_twice ],
	[ 'terminate', \&terminate ],
	[ 'kill a backend', sub { kill_backend($_[0]) if chance(30) } ],
	[ 'restart', sub { restart(pick('fast', 'immediate')) if chance(30) } ],
	[ 'kill the postmaster', sub { kill_postmaster() if chance(20) } ]);

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

# After which the server ends all sessions and starts anew
sub kill_backend
{
	my ($worker) = @_;
	return if $worker->{session}{lost};
	$count{kills}++;
	$count{restarts}++;
	kill 'KILL', $worker->{session}->pid;
	$worker->{session}->wait_until_gone;
	YelpTest::poll_until(sub { $observer->run('SELECT 1')->{lost} }, 'the end of all sessions');
	$observer = connect_session();
	return;
}

# The listing moves while it is read
sub move
{
	my ($worker) = @_;
	my $sync = pick(@{ $worker->{syncs} });

	change($sync->{account});
	push @{ $sync->{listings} }, $api->programs_json($sync->{account});
	return;
}

# Rows are edited by hand while they are merged
sub edit
{
	my ($worker) = @_;
	my $sync = pick(@{ $worker->{syncs} });

	$sync->{is_edited} = 1;
	# It locks rows in another order than the merge; one of the two may be the victim
	ask(YelpOracle::edit($sync->{account}), '40P01');
	return;
}

# One more of the same account: the first to get there, one that is refused, or one that comes later
sub sync_twice
{
	my ($worker) = @_;
	my $sync = pick(@{ $worker->{syncs} });
	my $session = connect_session('yelp_sync.progress' => 'off');

	$sync->{second} = $session->run("SELECT FROM yelp_sync('$sync->{account}')");
	$session->end;
	return;
}

# ---- what has to be ----

# What is listed between syncs
sub complain
{
	my ($sync, @what) = @_;
	my ($before, @rounds) = @{ $history{ $sync->{account} } };
	my @lines = ("sync $count{syncs} of \"$sync->{account}\": " . shift(@what), @what, 'this round and those before:',
		map { @$_ } reverse($before, @rounds));

	$count{differences}++;
	# A row may be long
	diag(join "\n\t", map { Encode::encode('UTF-8', substr($_, 0, 3000)) } @lines);
	return;
}

# How a sync ended: done, failed, or unknown where it may be either
sub end_of
{
	my ($sync, $worker, $result) = @_;

	return 'unknown' if $result->{lost};
	return 'done' unless $result->{error};
	return 'failed' unless $worker->{is_procedure};
	# It goes on after an account that failed, and says so at the end
	return 'unknown' unless $result->{error} =~ /^could not sync \d+ of \d+ account/;
	return $result->{detail} =~ /^Account "\Q$sync->{account}\E": /m ? 'failed' : 'done';
}

# Of an account that the procedure could not sync; memory may be short once more
sub check_record
{
	my ($sync, $worker, $result, @failures) = @_;
	my %warned = map { $_->{sqlstate} => 1 }
	  grep { $_->{message} =~ /^could not sync account "\Q$sync->{account}\E": / } @{ $result->{messages} };
	my $state = $sync->{is_edited} ? qr/$fitting|^40001$|^40P01$/ : $fitting;

	complain($sync, scalar(@failures) . ' failures are recorded')
	  if @failures > 1 || !@failures && !$worker->{injection};
	foreach my $failure (@failures)
	{
		$ends{"recorded $failure->{sqlstate}"}++;
		complain($sync, "recorded with $failure->{sqlstate}")
		  if $failure->{sqlstate} !~ $state || !$warned{ $failure->{sqlstate} };
	}
	return;
}

# How often it has to be done in all, at least and at most
sub expected_runs
{
	my ($sync, $end) = @_;
	my %least = (done => 1, failed => 0, unknown => 0);
	my %most = (done => 1, failed => 0, unknown => 1);
	my $second = $sync->{second};

	return ($least{$end}, $most{$end}) unless $second;
	return ($least{$end}, $most{$end} + 1) if $second->{lost};
	complain($sync, "a second sync: $second->{stderr}")
	  if $second->{error} && $second->{sqlstate} !~ $fitting;
	$ends{ 'second ' . ($second->{sqlstate} // 'done') }++;
	return ($least{$end} + !$second->{error}, $most{$end} + !$second->{error});
}

sub check_sync
{
	my ($sync, $worker, $result) = @_;
	my $account = $sync->{account};
	my $end = end_of($sync, $worker, $result);
	my @runs = YelpOracle::runs(ask(YelpOracle::runs_query($account)));
	my @done = grep { $_->{status} ne 'failed' } @runs;
	my @failures = grep { $_->{status} eq 'failed' } @runs;
	my ($least, $most) = expected_runs($sync, $end);

	say_of($account, "it is $end; runs:", map { $_->{told} } @runs);
	$count{syncs}++;
	$count{unknown}++ if $end eq 'unknown';
	$count{failed}++ if $end eq 'failed';
	$count{ $_->{status} eq 'synced' ? 'done' : 'partial' }++ foreach @done;
	complain($sync, scalar(@done) . ' runs are recorded') if @done < $least || @done > $most;
	complain($sync, 'failed and recorded') if @failures && !$worker->{is_procedure};
	check_record($sync, $worker, $result, @failures) if $worker->{is_procedure} && $end eq 'failed';

	my @wrong = split /\n/, @done ? wrong_rows($sync, @done)
	  : ask(YelpOracle::touched($account, $sync->{is_edited}));
	complain($sync, @done ? $done[-1]{status} : 'failed, but rows changed', @wrong) if @wrong;
	return;
}

# Did the API list programs as gone, so that nobody could tell?  A page that comes without its programs
# is seen by the total; where that is too small, or not trusted, once more by the next reading.
sub is_deceived
{
	my ($sync) = @_;
	my $empty = 0;

	foreach my $fault (grep { $_->{match}{account} eq $sync->{account} } @{ $sync->{faults} })
	{
		my $replace = ref $fault->{action} && $fault->{action}{replace};
		$empty += $fault->{used} if $replace && $replace->{json} && $replace->{json}{payment_programs};
	}
	return $empty > 0 if ($habits{total_offset} // 0) < 0;
	return $empty > 1 && $options{ $sync->{account} }{trust_total} eq 'off';
}

# The listing as it is now is the one that it was last
sub wrong_rows
{
	my ($sync, @done) = @_;

	ask(YelpOracle::load(@{ $sync->{listings} }));
	return ask(YelpOracle::wrong($sync->{account},
		is_synced => $done[-1]{status} eq 'synced',
		is_partial => !(grep { $_->{status} eq 'synced' } @done),
		is_edited => $sync->{is_edited},
		is_recorded => $options{ $sync->{account} }{record_changes} eq 'on',
		is_deceived => is_deceived($sync)));
}

sub check
{
	my ($worker, $result) = @_;
	my $end = $result->{lost} ? 'lost' : $result->{sqlstate} // 'done';

	$ends{ ($worker->{is_procedure} ? 'procedure ' : '') . $end }++;
	complain($worker->{syncs}[0], "failed with $result->{stderr}")
	  if $result->{error} && !$result->{lost} && $end !~ $fitting;
	check_sync($_, $worker, $result) foreach @{ $worker->{syncs} };
	return;
}

# ---- rounds ----

sub begin_sync
{
	my ($account, $round) = @_;
	my $history = $history{$account} //= [];

	push @$history, ["round $round of seed $seed, API: " . $json->encode(\%habits)];
	shift @$history if @$history > $kept_rounds;
	set_server($account) if chance(20);
	change($account) if chance(70);
	ask(YelpOracle::remember($account));
	return { account => $account, listings => [ $api->programs_json($account) ] };
}

# A session, perhaps one that was used before, and what it is to sync
sub begin
{
	my ($worker, $round, @its_accounts) = @_;

	$worker->{session} = connect_session('yelp_sync.progress' => 'off')
	  if !$worker->{session} || $worker->{session}{lost};
	$worker->{injection} = '';
	$worker->{is_procedure} = @its_accounts > 1 || chance(20);
	$worker->{syncs} = [ map { begin_sync($_, $round) } @its_accounts ];
	$worker->{timeout} = pick(0, 0, 0, 0, 1 + int(rand(100)));
	$worker->{session}->run("SET statement_timeout = $worker->{timeout}");
	return;
}

sub statement
{
	my ($worker) = @_;
	my @names = map { $_->{account} } @{ $worker->{syncs} };

	return "SELECT FROM yelp_sync('@names')" unless $worker->{is_procedure};
	return 'CALL yelp_sync_all()' if @names == @accounts;
	return 'CALL yelp_sync_all(ARRAY[' . join(', ', map { "'$_'" } @names) . '])';
}

# Some of the workers, with different accounts, or one of them with all
sub begin_all
{
	my ($round) = @_;
	my @all = map { [$_] } shuffled(@accounts);
	my @parts = chance(5) ? [@accounts] : @all[ 0 .. int(rand($workers)) ];
	my @left = @all[ $workers .. $#all ];

	# What the procedure is to sync beside the first one
	push @{ $parts[0] }, map { $_->[0] } @left[ 0 .. int(rand(@left)) ] if @{ $parts[0] } == 1 && chance(20);
	return map { my $part = $_; sub { begin($_[0], $round, @$part); return $_[0] } } @parts;
}

sub describe_round
{
	my ($worker, $result, $faults, $event, $its_worker) = @_;
	foreach my $sync (@{ $worker->{syncs} })
	{
		$sync->{faults} = $faults;
		my @listed = map { scalar(() = /"program_id"/g) } @{ $sync->{listings} };
		say_of($sync->{account},
			"process $worker->{session}{pid}: " . statement($worker) . ", time-out $worker->{timeout} ms, fails: $worker->{injection}",
			"$event" . ($its_worker == $worker ? '' : ' in another session')
			  . ($sync->{is_edited} ? ', rows edited' : '') . '; listed: ' . join(' then ', @listed),
			(map { 'fault: ' . $json->encode($_) } grep { $_->{match}{account} eq $sync->{account} } @$faults),
			($sync->{second} ? "second sync: $sync->{second}{stderr}" : ()),
			($result->{lost} ? 'lost: ' : 'said: ') . $result->{stderr});
	}
	return;
}

sub run_round
{
	my ($all, $round) = @_;

	choose_habits() if chance(20);
	my @faults = choose_faults();
	my @begins = begin_all($round);
	my @busy = map { $begins[$_]->($all->[$_]) } 0 .. $#begins;
	choose_injection($busy[0]) if chance(30);
	$_->{session}->begin(statement($_)) foreach @busy;
	Time::HiRes::sleep(rand(0.05));
	my ($event, $action) = @{ pick(@events) };
	my $meddled = pick(@busy);
	$action->($meddled);
	my @results = map { $_->{session}->result } @busy;

	my @used = $api->faults_used;
	$faults[$_]{used} = $used[$_] foreach 0 .. $#faults;
	$count{faults} += $_ foreach @used, $inject->failed;
	$inject->disarm;
	$api->faults;
	$api->release;
	describe_round($busy[$_], $results[$_], \@faults, $event, $meddled) foreach 0 .. $#busy;
	check($busy[$_], $results[$_]) foreach 0 .. $#busy;
	return;
}

sub summary
{
	return join ', ', map { "$_ $count{$_}" } @counted;
}

my @workers = map { {} } 1 .. $workers;
ask('DROP SERVER yelp CASCADE');
ask(YelpOracle::install());
$api->config(max_limit => 100, accounts => { map { $_ => { count => pick(@sizes) } } @accounts });
foreach my $account (@accounts)
{
	$history{$account} = [ [] ];
	set_server($account);
}
$inject->arm($observer, 'nothing', first => 1);

# Until the time is over, and longer where the machine was too slow for all to happen
my @needed = qw(done partial failed faults changes);
my $end = Time::HiRes::time() + $seconds;
my $next_report = Time::HiRes::time() + $report_every;
for (my $round = 1; $count{differences} < $most_differences; $round++)
{
	last if Time::HiRes::time() >= $end && !grep { $count{$_} == 0 } @needed;
	run_round(\@workers, $round);
	next if Time::HiRes::time() < $next_report;
	note(summary());
	$next_report += $report_every;
}

# ---- the end ----

$api->reset('config');
$api->config(max_limit => 100);
my $last = connect_session('yelp_sync.progress' => 'off');
foreach my $account (@accounts)
{
	set_server($account, attempts => 3, timeout => '30s', connect_timeout => '30s', partial => 'off',
		max_deleted => '100%');
	is($last->run("SELECT FROM yelp_sync('$account')")->{error}, undef, "$account: in the end a sync works");
	YelpTest::table_is_listing($node, $api, $account, "$account: and the table is the listing");
}
is($count{differences}, 0, 'the table never differed from what it had to be');
cmp_ok($count{$_}, '>', 0, "there were $_") foreach @needed;

$_->{session} && $_->{session}->end foreach @workers;
$last->end;
$observer->end;
YelpTest::connections_are($api, 0, 'no connection outlives the sessions');
note('ends: ' . join ', ', map { "$_ $ends{$_}" } sort keys %ends);
note(summary());
$node->stop;
done_testing();
