# Random accounts behind random APIs: however an API describes itself, each sync keeps
# the guarantees; first while the listing stands still, then while it moves.
#
# YELP_SYNC_TEST_SEED and YELP_SYNC_TEST_ROUNDS make other and longer runs, and
# YELP_SYNC_TEST_WORLD a run of a single world.

use strict;
use warnings FATAL => 'all';

use Digest::MD5 ();
use Encode ();
use Test::More;

use YelpSession;
use YelpTest;
use YelpWorld;

my $seed = $ENV{YELP_SYNC_TEST_SEED} // 16;
my $rounds = $ENV{YELP_SYNC_TEST_ROUNDS} // 100;
my $only = $ENV{YELP_SYNC_TEST_WORLD};
my $most_faulty = 40;

my @columns = YelpWorld::column_names();
my @run_columns = qw(status programs listed added updated unchanged deleted missing problems
	failed_pages);

my ($node, $api) = YelpTest::start(
	server => { max_deleted => '100%', retry_delay => '1ms', retry_max_delay => '2ms', max_retry_after => '200ms' },
	conf => "fsync = off\nmax_wal_size = 4GB\n");
my $session = YelpSession->new($node, null => $YelpWorld::null, 'yelp_sync.progress' => 'off');

# ---- one sync, and what is stored after it ----

my $stored_columns = join ', ', map {
	$_ ne 'problems' ? $_
	: "CASE WHEN problems IS NOT NULL THEN ARRAY(SELECT unnest(problems) ORDER BY 1) END"
} @columns;

# Each row's id, where it is (which tells whether it was written), its times and its columns
sub stored_query
{
	my ($account) = @_;
	return qq{SELECT program_id, xmin || ' ' || ctid, created_at, updated_at, $stored_columns
		FROM yelp_programs WHERE username = '$account'};
}

sub run_query
{
	my ($account) = @_;
	return 'SELECT run_id, ' . join(', ', @run_columns)
	  . " FROM yelp_sync_runs WHERE username = '$account' ORDER BY finished_at DESC LIMIT 1";
}

sub parse_stored
{
	my ($text) = @_;
	my %stored;

	foreach my $line (split /\n/, $text)
	{
		my ($id, %row);
		($id, @row{qw(place created updated columns)}) = split /\|/, $line, 5;
		$stored{$id} = \%row;
	}
	return \%stored;
}

# The result has the rows that were returned, by action and id, those that are stored
# afterwards, and the last row of the history
sub sync
{
	my ($account) = @_;
	my $result = $session->run(
		"SELECT action, program_id, array_to_string(changed, ',') FROM yelp_sync('$account');
		SELECT '='; " . stored_query($account) . "; SELECT '='; " . run_query($account));
	my ($returned, $stored, $run) = split /^=\n/m, $result->{stdout}, -1;

	$result->{$_} = {} foreach qw(added updated deleted missing run);
	foreach my $line (split /\n/, $returned)
	{
		my ($action, $id, $changed) = split /\|/, $line;
		$result->{twice} .= " $id" if exists $result->{$action}{$id};
		$result->{$action}{$id} = $changed;
	}
	$result->{stored} = parse_stored($stored);
	@{ $result->{run} }{ 'run_id', @run_columns } = split /\|/, $run =~ s/\n//r;
	return $result;
}

# ---- what is promised: each sub returns what is not kept ----

# The ids of the first hash that are not in the second
sub without
{
	my ($these, $others) = @_;
	return sort grep { !$others->{$_} } keys %$these;
}

sub none
{
	my ($what, @ids) = @_;
	return @ids ? "$what: @ids" : ();
}

sub same
{
	my ($what, $got, $expected) = @_;
	return "@$got" eq "@$expected" ? () : "$what: (@$got) instead of (@$expected)";
}

sub place_of
{
	my ($stored, $id) = @_;
	return $stored->{$id} ? $stored->{$id}{place} : 'none';
}

# A sync that fails leaves all as it was
sub check_failure
{
	my ($state, $result, $before) = @_;
	my $after = $result->{stored};

	return (
		$state->may_fail ? () : "error: $result->{error}",
		same('SQLSTATE', [ $result->{sqlstate} ], ['HV000']),
		none('written by a sync that failed',
			grep { place_of($before, $_) ne place_of($after, $_) }
			  sort keys %{ { %$before, %$after } }));
}

# How often the listing was read, as the API sees it
sub readings
{
	return scalar grep { $_->{offset} == 0 && $_->{status} == 200 } $api->log;
}

sub stored_otherwise
{
	my ($stored, $listed) = @_;
	return grep { $stored->{$_} && $stored->{$_}{columns} ne $listed->{$_}{columns} }
	  sort keys %$listed;
}

# No listed program is deleted; where all is synced each is stored, and no other is
sub check_stored
{
	my ($state, $result, $before) = @_;
	my ($after, $listed) = ($result->{stored}, $state->listed);
	my @deleted = without($before, $after);
	my @other = stored_otherwise($after, $listed);
	my @broken;

	push @broken, none('deleted and listed', grep { $listed->{$_} } @deleted);
	push @broken, none('deleted without proof', @deleted) unless $state->can_prove;
	push @broken, none('deleted after a single reading', @deleted)
	  if @deleted && readings() < 2;
	push @broken, none('stored and never listed', without($after, { %$before, %$listed }));
	# A page that is not had leaves its programs as they were
	@other = grep { !$before->{$_} || $before->{$_}{place} ne $after->{$_}{place} } @other
	  unless $state->can_read_all;
	push @broken, none('stored otherwise than listed', @other);
	push @broken, none('listed and not stored', grep { !$after->{$_} } $state->readable);
	return @broken;
}

sub check_status
{
	my ($state, $result) = @_;
	my ($after, $listed, $status) = ($result->{stored}, $state->listed, $result->{run}{status});
	my @doubts = grep { !/could not read all fields/ } @{ $result->{warnings} };

	return ("$status, without a WARNING") if $status ne 'synced' && !@doubts;
	return ("$status, though all can be proved: @doubts")
	  if $status ne 'synced' && $state->must_prove;
	return () if $status eq 'partial';
	return (
		none('synced, with a WARNING', @doubts),
		none('synced, listed and not stored', without($listed, $after)),
		none('synced, stored and not listed', without($after, $listed)),
		none('synced, stored otherwise than listed', stored_otherwise($after, $listed)),
		$state->is_broken ? 'synced, and a page was never had' : (),
		$state->unusable ? 'synced, and a program was skipped' : (),
		$status ne 'synced' ? "the status is $status" : ());
}

# An update that was returned: the columns that differ, and "data" for what else does
sub check_changed
{
	my ($id, $changed, $before, $after) = @_;
	my @was = split /\|/, $before->{columns}, -1;
	my @is = split /\|/, $after->{columns}, -1;
	my @expected = map { $columns[$_] } grep { $was[$_] ne $is[$_] } 0 .. $#columns;
	my @shown = grep { $_ ne 'data' } @expected;

	@expected = @shown if @shown && $changed !~ /data/;
	return same("changed of $id", [ split /,/, $changed ], \@expected);
}

# The rows returned are the true differences, and no other row is written
sub check_returned
{
	my ($state, $result, $before, $spelt) = @_;
	my ($after, $listed) = ($result->{stored}, $state->listed);
	my ($updated, $missing) = @$result{qw(updated missing)};
	my @kept = sort grep { $after->{$_} } keys %$before;
	my @changed = grep { $before->{$_}{columns} ne $after->{$_}{columns} } @kept;
	my @same = grep { !exists $updated->{$_} } @kept;
	my @broken;

	push @broken, none('returned twice', $result->{twice} // ());
	push @broken,
	  same('added', [ sort keys %{ $result->{added} } ], [ without($after, $before) ]);
	push @broken,
	  same('deleted', [ sort keys %{ $result->{deleted} } ], [ without($before, $after) ]);
	push @broken, same('updated', [ sort keys %$updated ], \@changed);
	push @broken, $state->can_tell_missing
	  ? same('missing', [ sort keys %$missing ], [ grep { !$listed->{$_} } @kept ])
	  : none('missing and listed', grep { $listed->{$_} } sort keys %$missing);
	push @broken, map { check_changed($_, $updated->{$_}, $before->{$_}, $after->{$_}) } @changed;
	push @broken, none('unchanged and written',
		grep { $before->{$_}{place} ne $after->{$_}{place}
			&& (!$listed->{$_} || $listed->{$_}{text} eq ($spelt->{$_} // q{})) } @same);
	push @broken,
	  none('created_at', grep { $before->{$_}{created} ne $after->{$_}{created} } @kept);
	push @broken, none('updated_at of the unchanged',
		grep { $before->{$_}{updated} ne $after->{$_}{updated} } @same);
	push @broken, none('updated_at of the updated',
		grep { $before->{$_}{updated} eq $after->{$_}{updated} } @changed);
	return @broken;
}

# The history counts what was returned
sub check_history
{
	my ($state, $result) = @_;
	my $run = $result->{run};
	my @broken = map { same("history: $_", [ $run->{$_} ], [ scalar keys %{ $result->{$_} } ]) }
	  qw(added updated deleted missing);

	push @broken, same('history: programs', [ $run->{programs} ], [ $state->{api}{total} ]);
	push @broken, same('history: unchanged', [ $run->{unchanged} ],
		[ $run->{listed} - $run->{added} - $run->{updated} ]);
	push @broken, same('history: listed', [ $run->{listed} ], [ scalar keys %{ $state->listed } ])
	  if $state->can_read_all;
	push @broken, same('history: failed_pages', [ $run->{failed_pages} ], [0])
	  unless $state->is_broken;
	push @broken, check_problems($result);
	return @broken;
}

# The stored programs that have any are counted, changed or not
sub check_problems
{
	my ($result) = @_;
	my $count = grep { (split /\|/, $_->{columns}, @columns)[-2] ne $YelpWorld::null } values %{ $result->{stored} };
	my $warnings = grep { /could not read all fields/ } @{ $result->{warnings} };

	return (
		same('problems', [ $result->{run}{problems} ], [$count]),
		same('warnings of problems', [$warnings], [ $count > 0 ? 1 : 0 ]));
}

# ---- worlds ----

my (%seen, %moving);

sub count_ends
{
	my ($result) = @_;
	$seen{ $result->{sqlstate} // $result->{run}{status} }++;
	$seen{$_} += keys %{ $result->{$_} } foreach qw(added updated deleted missing);
	return;
}

sub describe_result
{
	my ($result) = @_;
	my %run = %{ $result->{run} };
	my @returned = map { "$_ (" . join(' ', sort keys %{ $result->{$_} }) . ')' }
	  grep { %{ $result->{$_} } } qw(added updated deleted missing);
	return join "\n\t", join(' ', map { "$_=" . ($run{$_} // '') } sort keys %run), @returned,
	  map { "$_->{level}: $_->{message}: " . ($_->{detail} // '') } @{ $result->{messages} };
}

sub begin_world
{
	my ($world, $account) = @_;
	my ($first) = $world->states;

	$api->reset;
	$api->config(accounts => { $account => { count => 0 } });
	$api->faults({ match => { probability => 0.3, seed => $world->{number} },
		action => { delay_ms => 4 } }) if $first->{delays};
	$session->options(%{ $first->{server} });
	$session->run(
		"ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET username '$account')");
	return;
}

# What is stored of each account when its world is over
my %left;

sub digest
{
	my ($stored) = @_;
	return Digest::MD5::md5_hex(join ',', map { "$_ $stored->{$_}{place}" } sort keys %$stored);
}

sub digests_query
{
	return q{SELECT username, md5(string_agg(program_id || ' ' || xmin || ' ' || ctid, ','
		ORDER BY program_id)) FROM yelp_programs GROUP BY username};
}

# Returns what went wrong in it, as lines
sub run_world
{
	my ($world) = @_;
	my $account = "world $world->{number}";
	my ($before, $run_id, %spelt) = ({}, '');

	begin_world($world, $account);
	foreach my $state ($world->states)
	{
		$api->reset('counters');
		$api->config(%{ $state->{api} });
		$api->set_programs($account, $state->texts);
		my $result = sync($account);
		$state->settle($result->{stored});
		my @broken =
		    $result->{error} ? check_failure($state, $result, $before)
		  : ($result->{run}{run_id} // '') eq $run_id ? 'no history'
		  : (check_stored($state, $result, $before), check_status($state, $result),
			check_returned($state, $result, $before, \%spelt), check_history($state, $result));

		count_ends($result);
		return (@broken, describe_result($result), $world->describe($state)) if @broken;
		($before, $run_id) = ($result->{stored}, $result->{run}{run_id} // '');
		# A page that is not had may hold another spelling than the one stored
		my $listed = $state->listed;
		$spelt{$_} = $listed->{$_}{text} foreach grep { $state->can_read_all } keys %$listed;
	}
	$left{$account} = digest($before) if %$before;
	return;
}

# The same world, whose listing moves while it is read: a program goes, comes or changes its
# place between two answers.  Returns what was listed all the time and was deleted, or is not
# stored although all was synced.
sub run_moving_world
{
	my ($world) = @_;
	my $account = "world $world->{number}";
	my ($last) = reverse $world->states;
	my @broken;

	return if $last->unusable;
	foreach my $change (YelpWorld::shuffled(qw(remove add move remove add move)))
	{
		my @listed = map { $_->{program_id} } $api->programs($account);
		my $before = parse_stored($session->value(stored_query($account)));
		my ($from, $to) = map { int(rand(@listed)) } 1 .. 2;
		last if @listed < 2;

		$api->reset('counters');
		$api->drift({ account => $account, after => 1 + int(rand(@listed / 10 + 2)),
			$change => [ $change eq 'move' ? [ $from, $to ] : $from ] });
		my $result = sync($account);
		my %removed = map { $_ => 1 } map { @{ $_->{removed} } } $api->drift_done;
		my @always = grep { !$removed{$_} } @listed;
		my $stored = $result->{stored};

		$moving{ $result->{error} ? 'error' : $result->{run}{status} }++;
		push @broken, none("$change: deleted and listed", grep { $before->{$_} && !$stored->{$_} } @always);
		push @broken, none("$change: synced, listed and not stored", grep { !$stored->{$_} } @always)
		  if !$result->{error} && $result->{run}{status} eq 'synced';
		return (@broken, describe_result($result), $world->describe($last)) if @broken;
	}
	$api->drift;
	my $stored = parse_stored($session->value(stored_query($account)));
	delete $left{$account};
	$left{$account} = digest($stored) if %$stored;
	return;
}

my $faulty = 0;
foreach my $number (defined $only ? $only : (1 .. $rounds))
{
	my $world = YelpWorld->new($seed, $number);
	my @faults = run_world($world);
	@faults = run_moving_world($world) unless @faults;
	next unless @faults;
	diag(Encode::encode('UTF-8', join "\n", "world $number:", @faults,
		"once more: YELP_SYNC_TEST_SEED=$seed YELP_SYNC_TEST_WORLD=$number test/run tap 016_oracle.pl"));
	last if ++$faulty == $most_faulty;
}
note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
note('moving: ' . join ', ', map { "$_: $moving{$_}" } sort keys %moving);
is($faulty, 0, 'each sync of each world does what is promised');
my %found = map { split /\|/ } split /\n/, $session->value(digests_query());
is_deeply({ map { $_ => $found{$_} } keys %left }, \%left, 'and touches no other account');
cmp_ok($seen{$_} // 0, '>', 0, "there was something $_")
  foreach defined $only ? () : qw(synced partial HV000 added updated deleted missing);

$session->end;
done_testing();
