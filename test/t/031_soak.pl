# Everything at once, at random, for a while: accounts that change, an API that fails, memory and
# sockets that run out, cancels, timeouts, edits, kills and restarts, with syncs by the function and by
# the procedure.  After each sync the rows are compared with the listing, or, if it failed, with the rows
# before it; the recorded changes, with the difference.
#
# YELP_SYNC_TEST_SECONDS is for how long; YELP_SYNC_TEST_SEED selects another run.
use strict;
use warnings FATAL => 'all';

use Encode ();
use Errno qw(EMFILE ENOSPC);
use JSON::PP ();
use Test::More;
use Time::HiRes ();

use YelpInject;
use YelpOracle;
use YelpTest ':all';
use YelpWorld qw(pick chance shuffled);

my $seconds = $ENV{YELP_SYNC_TEST_SECONDS} // 10;
my $seed = $ENV{YELP_SYNC_TEST_SEED} // 30;
my $max_differences = 5;
my @accounts = map { "soak$_" } 1 .. 6;
my @sizes = (0, 1, 7, 20, 60, 150, 400);
my $max_workers = 3;

# By the API, by a lack of something, or ended by somebody; or the victim of a deadlock with an edit
my $fitting = qr/^(?:08001|08006|22032|28000|53000|53100|53200|40001|40P01|53400|54000|57014|57P01|HV000|HV021)$/;

note("seed $seed");
srand($seed);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $inject = YelpInject->new;
my ($node, $api) = $inject->preload(sub {
	start(conf => "shared_buffers = 16MB\nrestart_after_crash = on\nfsync = off\n"
		  . "max_files_per_process = 150\nwork_mem = 64kB\nlog_statement = none\n");
});
my $observer = YelpSession->new($node);
my %count;						# what happened, and how syncs ended
my %options;					# of the accounts' servers
my %habits;						# of the API

# ---- the server, which may be down ----

sub connect_session
{
	return poll_until(sub { eval { YelpSession->new($node, 'yelp_sync.progress' => 'off') } }, 'the server');
}

# Repeats the statement if the session was lost
sub ask
{
	my ($sql, $may_fail) = @_;
	my $result;

	$observer = connect_session() while ($result = $observer->run($sql))->{lost};
	die "$sql: $result->{stderr}\n" if $result->{error} && $result->{sqlstate} ne ($may_fail // '');
	return $result->{stdout} =~ s/\n\z//r;
}

sub restart
{
	my ($stop) = @_;
	$stop->();
	$inject->preload(sub { start_again($node) });
	return;
}

# The server ends all sessions then
sub kill_backend
{
	my ($session) = @_;
	return if $session->{lost};
	kill 'KILL', $session->pid;
	$session->wait_until_gone;
	poll_until(sub { $observer->run('SELECT 1')->{lost} }, 'the end of all sessions');
	return;
}

# ---- accounts and the API ----

sub set_options
{
	my ($account, %server) = @_;

	$options{$account} = {
		chance(25) ? (endpoint => $api->https_url, ca_file => $api->ca_file) : (endpoint => $api->url),
		attempts => pick(1, 3), retry_delay => '1ms', retry_max_delay => '5ms',
		timeout => '1s', connect_timeout => '1s', max_retry_after => '1s', max_page_bytes => '1MB',
		page_size => pick(2 .. 40), concurrency => pick(1, 5, 100),
		partial => pick('off', 'off', 'on'), trust_total => pick('on', 'on', 'off'),
		max_deleted => pick('50%', '100%'), record_changes => pick('off', 'on'), %server };
	ask("DROP SERVER IF EXISTS $account CASCADE;" . create_server($account, %{ $options{$account} }));
	return;
}

# Another listing, or the same one with changes
sub change
{
	my ($account) = @_;
	my $listed = () = $api->programs_json($account) =~ /"program_id"/g;
	my $many = $listed > 60;

	return $api->config(accounts => { $account => { count => pick(@sizes), seed => int(rand(1e6)) } }) if chance(10);
	return $api->mutate(account => $account, seed => int(rand(1e6)), add => pick(0, 1, 3, 30),
		remove => $many ? pick(0, 1, 3, 30) : pick(0, $listed > 1 ? 1 : 0),
		$many ? (alter => pick(0, 5, 20), respell => pick(0, 2)) : ());
}

# What the API does to single requests; the last ones make another page of it
my @actions = (
	'close', 'reset', 'stall',
	{ close => { at => 100 } },
	{ reset => { at => 100 } },
	{ chunked_cut => { at => 300 } },
	{ delay_ms => 30 },
	{ delay_ms => 1200 },
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

# What the API does to all of them
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

# A call that fails in a session
sub choose_injection
{
	my ($worker) = @_;
	my ($call, $code, $most) = @{ pick(
		[ "libcurl's memory", 0, 300 ], [ "extension's memory", 0, 10 ], [ "server's memory", 0, 60 ],
		[ 'socket', EMFILE, 5 ], [ 'write', ENOSPC, 20 ]) };
	$inject->arm($worker->{session}, $call, first => pick(1 .. $most), count => pick(1, 1, 1000), code => $code);
	return;
}

# What somebody does while the syncs run, and how often; each is given a worker and one of its syncs
my %events = (
	nothing => [ 60, sub { } ],
	cancel => [ 30, sub { ask('SELECT pg_cancel_backend(' . $_[0]{session}->pid . ')') } ],
	disconnect => [ 20, sub { $api->disconnect(pick('close', 'reset')) } ],
	move => [ 20, sub {
		change($_[1]{account});
		push @{ $_[1]{listings} }, $api->programs_json($_[1]{account}) } ],
	# It locks rows in another order than the merge: one of the two may be the victim
	edit => [ 10, sub {
		$_[1]{is_edited} = 1;
		ask(YelpOracle::edit($_[1]{account}), '40P01') } ],
	terminate => [ 10, sub { ask('SELECT pg_terminate_backend(' . $_[0]{session}->pid . ')') } ],
	kill => [ 3, sub { kill_backend($_[0]{session}) } ],
	stop => [ 3, sub { restart(sub { $node->stop(pick('fast', 'immediate')) }) } ],
	'kill the postmaster' => [ 2, sub { restart(sub { kill_postmaster($node) }) } ]);
my @events = map { ($_) x $events{$_}[0] } sort keys %events;

# ---- what must be true after a sync ----

sub complain
{
	my ($sync, @what) = @_;
	$count{differences}++;
	diag(join "\n\t", map { Encode::encode('UTF-8', substr($_, 0, 3000)) }
		  "$sync->{account}, $sync->{round}: " . shift(@what), @what);
	return;
}

# done, failed, or unknown if it may be either
sub end_of
{
	my ($sync, $worker, $result) = @_;

	return 'unknown' if $result->{lost};
	return 'done' unless $result->{error};
	return 'failed' unless $worker->{is_procedure};
	# It continues after an account that failed, and names it at the end
	return 'unknown' unless $result->{error} =~ /^could not sync \d+ of \d+ account/;
	return $result->{detail} =~ /^Account "\Q$sync->{account}\E": /m ? 'failed' : 'done';
}

# Whether the API listed programs as gone without a way to notice.  A page without its programs is noticed
# by the total; if that is too small, or not trusted, by the next reading.
sub is_deceived
{
	my ($sync, @faults) = @_;
	my $empty = 0;

	foreach my $fault (grep { $_->{match}{account} eq $sync->{account} } @faults)
	{
		my $replace = ref $fault->{action} && $fault->{action}{replace};
		$empty += $fault->{used} if $replace && $replace->{json} && $replace->{json}{payment_programs};
	}
	return $empty > 0 if ($habits{total_offset} // 0) < 0;
	return $empty > 1 && $options{ $sync->{account} }{trust_total} eq 'off';
}

sub check_sync
{
	my ($sync, $worker, $result, @faults) = @_;
	my $account = $sync->{account};
	my $end = end_of($sync, $worker, $result);
	my @runs = YelpOracle::runs(ask(YelpOracle::runs_query($account)));
	my @done = grep { $_->{status} ne 'failed' } @runs;
	my @failures = grep { $_->{status} eq 'failed' } @runs;
	my $wrong;

	$count{ $end eq 'done' ? $done[-1]{status} // 'none' : $end }++;
	$count{ $_->{sqlstate} }++ foreach @failures;
	complain($sync, "$end, and recorded " . @done . ' times')
	  if @done > 1 || $end ne 'unknown' && @done != ($end eq 'done');
	complain($sync, 'recorded failures', map { $json->encode($_) } @failures)
	  if @failures > $worker->{is_procedure} || grep { $_->{sqlstate} !~ $fitting } @failures;

	if (@done)
	{
		my $is_synced = $done[0]{status} eq 'synced';
		my $is_deceived = is_deceived($sync, @faults);
		ask(YelpOracle::load(@{ $sync->{listings} }));
		$wrong = ask(YelpOracle::wrong($account,
			synced => $is_synced,
			partial => !$is_synced,
			complete => $is_synced && @{ $sync->{listings} } == 1 && !$is_deceived,
			edited => $sync->{is_edited},
			recorded => $options{$account}{record_changes} eq 'on',
			deceived => $is_deceived));
	}
	else
	{
		$wrong = ask(YelpOracle::touched($account, $sync->{is_edited}));
	}
	complain($sync, @done ? $done[0]{status} : 'failed, but rows changed', $wrong,
		$result->{stderr}, map { $json->encode($_) } $options{$account}, \%habits, @faults)
	  if $wrong ne '';
	return;
}

# ---- rounds ----

sub begin
{
	my ($worker, $round, @its_accounts) = @_;
	my $list = join ', ', map { "'$_'" } @its_accounts;

	$worker->{session} = connect_session() if !$worker->{session} || $worker->{session}{lost};
	$worker->{is_procedure} = @its_accounts > 1 || chance(20) ? 1 : 0;
	$worker->{syncs} = [];
	foreach my $account (@its_accounts)
	{
		set_options($account) if chance(20);
		change($account) if chance(70);
		ask(YelpOracle::remember($account));
		push @{ $worker->{syncs} },
		  { account => $account, round => "round $round", listings => [ $api->programs_json($account) ] };
	}
	$worker->{session}->run('SET statement_timeout = ' . pick(0, 0, 0, 0, 1 + int(rand(100))));
	$worker->{sql} = $worker->{is_procedure} ? "CALL yelp_sync_all(ARRAY[$list])" : "SELECT FROM yelp_sync($list)";
	return;
}

# Some of the workers, with different accounts, or one of them with all
sub begin_all
{
	my ($round, @workers) = @_;
	my @free = shuffled(@accounts);

	@workers = $workers[0] if chance(5);
	begin($_, $round, splice @free, 0, @workers == 1 ? @free : chance(20) ? 2 : 1) foreach @workers;
	return @workers;
}

sub run_round
{
	my ($round, @workers) = @_;

	choose_habits() if chance(20);
	my @faults = choose_faults();
	@workers = begin_all($round, @workers[ 0 .. int(rand(@workers)) ]);
	choose_injection($workers[0]) if chance(30);
	$_->{session}->begin($_->{sql}) foreach @workers;
	Time::HiRes::sleep(rand(0.05));
	my ($event, $worker) = (pick(@events), pick(@workers));
	my $sync = pick(@{ $worker->{syncs} });
	$sync->{round} .= ", $event";
	$count{$event}++;
	$events{$event}[1]->($worker, $sync);
	my @results = map { $_->{session}->result } @workers;

	my @used = $api->faults_used;
	$faults[$_]{used} = $used[$_] foreach 0 .. $#faults;
	$count{faults} += $_ foreach @used, $inject->failed;
	$inject->disarm;
	$api->faults;
	$api->release;
	foreach my $i (0 .. $#workers)
	{
		my ($state, $syncs) = ($results[$i]{sqlstate}, $workers[$i]{syncs});
		$count{$state}++ if $state;
		complain($syncs->[0], "failed with $results[$i]{stderr}")
		  if $state && !$results[$i]{lost} && $state !~ $fitting;
		check_sync($_, $workers[$i], $results[$i], @faults) foreach @$syncs;
	}
	return;
}

ask('DROP SERVER yelp CASCADE;' . YelpOracle::install());
$api->config(max_limit => 100, accounts => { map { $_ => { count => pick(@sizes) } } @accounts });
set_options($_) foreach @accounts;
$inject->arm($observer, 'nothing', first => 1);

# Until the time is over, or longer if the machine is too slow for everything to happen
my @needed = qw(synced partial failed faults);
my @workers = map { {} } 1 .. $max_workers;
my $end = Time::HiRes::time() + $seconds;
for (my $round = 1; ($count{differences} // 0) < $max_differences; $round++)
{
	last if Time::HiRes::time() >= $end && !grep { !$count{$_} } @needed;
	run_round($round, @workers);
}

# ---- the end ----

$api->reset('config');
$api->config(max_limit => 100);
my $last = connect_session();
foreach my $account (@accounts)
{
	set_options($account, attempts => 3, timeout => '30s', connect_timeout => '30s', partial => 'off', max_deleted => '100%');
	is($last->run("SELECT FROM yelp_sync('$account')")->{error}, undef, "$account: a sync works in the end");
	table_is_listing($account, "$account: the table is the listing");
}
is($count{differences} // 0, 0, 'after each sync, rows and history were as they should be');
is($last->threads, 1, 'no thread is left');
$_->{session} && $_->{session}->end foreach @workers;
$_->end foreach $last, $observer;
connections_are($api, 0, 'no connection outlives the sessions');
note(join ', ', map { "$_ $count{$_}" } sort keys %count);
done_testing();
