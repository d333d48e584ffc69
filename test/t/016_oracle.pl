# Random accounts behind random APIs: however an API describes itself, each sync keeps the guarantees;
# first while the listing does not change, then while it moves.
#
# YELP_SYNC_TEST_SEED and YELP_SYNC_TEST_ROUNDS select other and longer runs, and YELP_SYNC_TEST_WORLD
# a single world.
use strict;
use warnings FATAL => 'all';

use Encode ();
use Test::More;

use YelpOracle;
use YelpTest ':all';
use YelpWorld qw(pick shuffled);

my $seed = $ENV{YELP_SYNC_TEST_SEED} // 16;
my $rounds = $ENV{YELP_SYNC_TEST_ROUNDS} // 100;
my $only = $ENV{YELP_SYNC_TEST_WORLD};
my $max_faulty = 40;

my ($node, $api) = start(
	server => { max_deleted => '100%', retry_delay => '1ms', retry_max_delay => '2ms', max_retry_after => '200ms',
		record_changes => 'on' },
	conf => "fsync = off\nmax_wal_size = 4GB\nlog_statement = none\n");
my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');
my %seen;
my %left;						# what is stored of each account when its world is over

$session->value(YelpOracle::install());

# A sync, and its run
sub sync_world
{
	my ($account) = @_;

	$session->value(YelpOracle::remember($account));
	$api->reset('counters');
	my $result = $session->run(YelpOracle::reporting_sync($account));
	my ($run) = YelpOracle::runs($session->value(YelpOracle::runs_query($account)));
	$seen{ $result->{sqlstate} // $run->{status} // 'no history' }++;
	$seen{$_} += $run->{$_} // 0 foreach qw(added updated deleted missing);
	return ($result, $run // {});
}

# What is wrong about the status and the history of a sync
sub check_run
{
	my ($state, $result, $run) = @_;
	my $status = $run->{status} // 'no history';
	my @problems = grep { /could not read all fields/ } @{ $result->{warnings} };
	my @doubts = grep { !/could not read all fields/ } @{ $result->{warnings} };
	my %api = $state->api;
	my $readings = grep { $_->{offset} == 0 && $_->{status} == 200 } $api->log;
	my %wrong = (
		"status $status" => $status !~ /^(synced|partial)$/,
		'partial without a warning' => $status eq 'partial' && !@doubts,
		'partial, although all can be proved' => $status eq 'partial' && $state->must_prove,
		'synced with a warning' => $status eq 'synced' && @doubts > 0,
		'synced, and a page could not be fetched' => $status eq 'synced' && $state->is_broken,
		'synced, and a program was skipped' => $status eq 'synced' && $state->unusable,
		'deleted after a single reading' => $run->{deleted} && $readings < 2,
		'programs is not the total' => ($run->{programs} // -1) != $api{total},
		'failed_pages, without any' => $run->{failed_pages} && !$state->is_broken,
		'one warning of problems, if there are any' => @problems != ($run->{problems} ? 1 : 0));

	return grep { $wrong{$_} } sort keys %wrong;
}

# What went wrong in a world, as lines
sub run_world
{
	my ($world, $account) = @_;

	foreach my $state ($world->states)
	{
		$session->options($state->server);
		$api->config($state->api);
		$api->set_programs($account, $state->texts);
		my ($result, $run) = sync_world($account);
		my @wrong;

		if ($result->{error})
		{
			@wrong = split /\n/, $session->value(YelpOracle::touched($account));
			push @wrong, 'an error' unless $state->may_fail && $result->{sqlstate} eq 'HV000';
		}
		else
		{
			$session->value(YelpOracle::load($state->listing));
			@wrong = (check_run($state, $result, $run), split /\n/, $session->value(YelpOracle::wrong($account,
				synced => $run->{status} eq 'synced',
				partial => $run->{status} ne 'synced' || !$state->can_prove,
				complete => $state->can_read_all,
				readable => [ $state->readable ],
				tells_missing => $state->can_tell_missing,
				reported => 1, recorded => 1)));
		}
		return (@wrong, $result->{stderr}, $state->describe) if @wrong;
	}
	return;
}

# The same world, whose listing moves while it is read: a program vanishes, appears or changes its place
# between two responses
sub run_moving_world
{
	my ($world, $account) = @_;
	my ($last) = reverse $world->states;

	return if $last->unusable;
	foreach my $change (shuffled(qw(remove add move remove add move)))
	{
		my $listing = $api->programs_json($account);
		my $count = () = $listing =~ /"program_id"/g;
		my ($from, $to) = map { int(rand($count)) } 1 .. 2;
		last if $count < 2;

		$api->drift({ account => $account, after => 1 + int(rand($count / 10 + 2)),
			$change => [ $change eq 'move' ? [ $from, $to ] : $from ] });
		my ($result, $run) = sync_world($account);
		next if $result->{error};
		$session->value(YelpOracle::load($listing, $api->programs_json($account)));
		my $wrong = $session->value(YelpOracle::wrong($account, synced => $run->{status} eq 'synced', recorded => 1));
		return ("$change: $wrong", $result->{stderr}, $last->describe) if $wrong ne '';
	}
	return;
}

my $faulty = 0;
my $digests = q{SELECT username, md5(string_agg(program_id || ' ' || xmin || ' ' || ctid, ',' ORDER BY program_id))
	FROM yelp_programs GROUP BY username};
foreach my $number ($only // (1 .. $rounds))
{
	my $world = YelpWorld->new($seed, $number);
	my $account = "world $number";

	$api->reset;
	$api->config(accounts => { $account => { count => 0 } });
	$api->faults({ match => { probability => 0.3, seed => $number }, action => { delay_ms => 4 } }) if $world->has_delays;
	$session->run("ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET username '$account')");
	my @wrong = run_world($world, $account);
	@wrong = run_moving_world($world, $account) unless @wrong;
	$left{$account} = $session->value("SELECT * FROM ($digests) AS d WHERE username = '$account'");
	next unless @wrong;
	diag(Encode::encode('UTF-8', join "\n", "world $number:", @wrong,
		"once more: YELP_SYNC_TEST_SEED=$seed YELP_SYNC_TEST_WORLD=$number test/run tap 016_oracle.pl"));
	last if ++$faulty == $max_faulty;
}
note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
is($faulty, 0, 'each sync of each world keeps the guarantees');
is(join("\n", sort split /\n/, $session->value($digests)), join("\n", sort grep { $_ ne '' } values %left),
	'... and does not affect other accounts');
is_deeply([ grep { !$seen{$_} } qw(synced partial HV000 added updated deleted missing) ], [], 'each outcome has occurred')
  unless defined $only;

$session->end;
done_testing();
