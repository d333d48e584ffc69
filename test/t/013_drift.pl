# Programs are deleted only on proof.  Listings that move while they are read, and APIs that serve
# other pages than those requested: afterwards no program that is still listed is missing from the
# table, none was deleted without proof, and the sync reports how far it can be trusted.
use strict;
use warnings FATAL => 'all';

use JSON::PP ();
use Test::More;

use YelpTest ':all';

my $count = 90;
my $size = 10;
my ($node, $api) = start(server => { max_deleted => '100%', attempts => 2, retry_delay => '1ms', retry_max_delay => '2ms' });
my $session = YelpSession->new($node);
my $json = JSON::PP->new->canonical;
my %options = (page_size => $size, map { $_ => undef } qw(concurrency partial program_status));

sub stored
{
	return split / /, $session->value(q{SELECT string_agg(program_id, ' ' ORDER BY program_id) FROM yelp_programs});
}

sub listed
{
	return sort map { $_->{program_id} } $api->programs;
}

# The members of @$these that are not in @$others
sub without
{
	my ($these, $others) = @_;
	my %others = map { $_ => 1 } @$others;
	return grep { !$others{$_} } @$these;
}

# What is listed is stored
sub begin
{
	my (%more) = @_;
	$api->reset;
	$api->config(accounts => { acme => { count => $count } });
	$session->options(%options, %more);
	$session->run('DELETE FROM yelp_programs');
	is(outcome($session->sync), "added $count", 'a first sync');
	return;
}

# Once the API is well again, so is the table
sub recover
{
	$api->reset('config', 'faults', 'drift');
	$session->options(%options);
	$session->sync;
	is_deeply([ stored() ], [ listed() ], 'the next sync stores exactly what is listed');
	return;
}

# The status partial goes together with a warning that not all was read or deleted.
sub check_status
{
	my ($result, $is_settled) = @_;
	my $status = $session->value(YelpTest::last_run('status'));
	my $warned = grep { / deleted|could not fetch/ } @{ $result->{warnings} };

	is($status, $is_settled ? 'synced' : 'partial', 'the status') if defined $is_settled;
	ok($status eq 'partial' ? $warned > 0 : !@{ $result->{warnings} }, 'warnings') or diag(explain($result->{warnings}));
	return;
}

# A case: after a first sync, $prepare changes the API; then comes the sync that is examined.
#   settled   1: nothing is in doubt; 0: partial, and nothing is deleted; left out: either, as long
#             as the sync says which
#   gone      a sub: IDs that must be deleted; by default none
#   may_go    a sub: IDs that may be deleted, because they are no longer listed at the end
#   settles   a sub: IDs that vanish during the first reading: all of them are deleted, or some are
#             kept and the sync is partial
#   moves     whether the listing moves meanwhile
#   options   of the server
sub check
{
	my ($name, $prepare, %expected) = @_;
	subtest $name => sub {
		begin(%{ $expected{options} // {} });
		my @before = stored();
		$prepare->();
		my @to_read = listed();
		my $result = $session->sync;
		my @after = stored();
		my @deleted = sort map { $_->{program_id} } grep { $_->{action} eq 'deleted' } @{ $result->{rows} };
		my @gone = $expected{gone} ? sort $expected{gone}->() : ();
		my @spared = $expected{may_go} ? $expected{may_go}->() : ();
		my $is_settled = $expected{settled};

		if ($expected{settles})
		{
			@gone = sort $expected{settles}->();
			$is_settled = @deleted == @gone;
			@spared = splice(@gone) unless $is_settled;
		}

		# What appeared meanwhile can be expected only of a sync that saw its end
		my @listed = listed();
		@listed = without(\@listed, [ without(\@listed, \@to_read) ]) unless $is_settled;

		is($result->{error}, undef, 'no error');
		is_deeply([ grep { !$_ } $api->faults_used ], [], 'the faults have applied');
		ok(scalar(my @moves = $api->drift_done), 'the listing has moved') if $expected{moves};
		is_deeply([ without(\@listed, \@after) ], [], 'no program that is listed is missing');
		is_deeply([ without([ without(\@before, \@after) ], \@spared) ], \@gone, 'what is proved to be gone is deleted');
		is_deeply(\@deleted, [ without(\@before, \@after) ], '... and reported');
		check_status($result, $is_settled);
		recover();
	};
	return;
}

# Faults: the page at an offset shows the programs at other positions; is empty; has another total
sub misplace
{
	my ($match, @positions) = @_;
	my @texts = map { $json->encode($_) } ($api->programs)[@positions];
	return { match => $match,
		action => { replace => { text => { payment_programs => '[' . join(',', @texts) . ']' } } } };
}

sub emptied
{
	my (%match) = @_;
	return { match => \%match, action => { replace => { json => { payment_programs => [] } } } };
}

sub total
{
	my ($total, %match) = @_;
	return { match => \%match, action => { replace => { json => { total => $total } } } };
}

note 'a listing at rest: 016_oracle.pl has APIs of all kinds';

my @removed;
foreach my $case (
	[ '60 programs are gone', 60 ],
	[ 'pages longer than requested', 3, serve_extra => 13, echo_limit => 'asked' ],
	[ 'pages longer from some page on', 3, serve_extra => 3, serve_from_offset => 40 ],
	[ 'pages with the whole listing from there on', 3, serve_extra => 1000 ],
	[ 'clamped pages', 3, max_limit => 8, over_limit => 'clamp' ])
{
	my ($name, $number, %config) = @$case;
	check($name, sub { $api->config(%config); @removed = @{ $api->mutate(remove => $number)->{removed} } },
		settled => 1, gone => sub { @removed });
	check("$name: the first sync of an account", sub {
		$session->run('TRUNCATE yelp_programs, yelp_sync_runs');
		$api->config(%config);
	}, settled => 1) if %config;
}

note 'pages that fail, with partial';

subtest 'later pages' => sub {
	begin(partial => 'on');
	my @before = stored();
	$api->mutate(remove => 5, add => 5, alter => 5);
	my %faults = (
		40 => [ 'HTTP status 500', { status => 500 } ], 60 => [ 'HTTP status 404', { status => 404 } ],
		80 => [ 'not an object', { body => 'null' } ]);
	$api->faults(map { { match => { offset => 0 + $_ }, action => { respond => $faults{$_}[1] } } } keys %faults);
	my @fetched = (map { $_->{program_id} } $api->programs)[ 0 .. 39, 50 .. 59, 70 .. 79 ];
	my $result = $session->sync;
	my @after = stored();

	is_deeply([ without(\@fetched, \@after) ], [], 'all programs of the other pages are stored');
	is_deeply([ without(\@before, \@after) ], [], 'nothing is deleted');
	check_status($result, 0);
	foreach my $offset (sort keys %faults)
	{
		is((grep { /page at offset $offset of account "acme": .*$faults{$offset}[0]/ } @{ $result->{warnings} }), 1,
			"one warning for the page at offset $offset");
	}
	is($session->value(YelpTest::last_run('failed_pages')), 3, 'the history counts them');
	$api->faults({ match => { offset => 0 }, action => { respond => { status => 500 } } });
	like(failure($session->sync), qr/^HV000: .*page at offset 0 /, 'the first page: an error');
	is_deeply([ stored() ], \@after, '... and nothing is changed');
};

subtest 'a filter other than ALL' => sub {
	begin();
	my @before = stored();
	foreach my $status (qw(CURRENT PAST PAUSED FUTURE))
	{
		$session->options(program_status => $status);
		my $result = $session->sync;
		is_deeply([ $result->{error}, $result->{warnings}, stored() ], [ undef, [], @before ], "$status: nothing is deleted");
	}
	$api->set_programs('acme');
	$session->sync;
	is_deeply([ stored() ], \@before, 'no program with this status: nothing is deleted');
};

note 'pages that are empty, or in the place of others, and totals that differ from page to page';

# The name, the fault, and whether it is settled.  A database that sorts by a column that is not unique
# may list a program twice, in the place of another.
foreach my $case (
	[ 'all pages are empty', sub { emptied() }, 0 ],
	[ 'a page is always empty', sub { emptied(offset => 30) }, 0 ],
	[ 'a page is empty once', sub { emptied(offset => 30, nth => 1) }, 1 ],
	[ 'the last page is always empty', sub { emptied(offset => 80) }, 0 ],
	[ 'all pages from some offset on are empty', sub { emptied(from_offset => 50) }, 0 ],
	[ 'one page has a smaller total', sub { total(7, offset => 50) }, 1 ],
	[ 'one page has a larger total', sub { total(123, offset => 50) }, 0 ],
	[ 'the first page has a smaller total', sub { total(39, offset => 0) }, undef ],
	[ 'the first page has a smaller total once', sub { total(39, offset => 0, nth => 1) }, 1 ],
	[ 'all pages have a total of 0', sub { total(0) }, undef ],
	[ 'an API that ignores offset', sub { misplace({}, 0 .. 9) }, 0 ],
	[ 'an API that caps offset', sub { misplace({ from_offset => 50 }, 40 .. 49) }, 0 ],
	[ 'a page in the place of another', sub { misplace({ offset => 60 }, 20 .. 29) }, 0 ],
	[ 'a program that always occurs twice', sub { misplace({ offset => 40 }, 39, 41 .. 49) }, 0 ],
	[ 'a program that occurs twice, once', sub { misplace({ offset => 40, nth => 1 }, 39, 41 .. 49) }, 1 ])
{
	my ($name, $fault, $is_settled) = @$case;
	check($name, sub { $api->faults($fault->()) }, settled => $is_settled);
}

note 'listings that move';

# One request at a time, so that it is certain what moves before and after the place that is being
# read; each step, by default, when offset 50 is requested for the first time
sub moving
{
	my ($name, $steps, %expected) = @_;
	my @steps = map { $_->{every} ? $_ : { at_offset => 50, %$_ } } @$steps;
	return check($name, sub { $api->drift(@steps) }, options => { concurrency => 1 }, moves => 1, %expected);
}

sub removed_by_drift
{
	return map { @{ $_->{removed} } } $api->drift_done;
}

# 016_oracle.pl has all kinds of single steps
my @settles = (settles => \&removed_by_drift);
moving('ten programs vanish before the place', [ { remove => [ 0 .. 9 ] } ], @settles);
moving('all but one vanish', [ { remove => [ 1 .. 89 ] } ], @settles);
moving('the last program moves to the front', [ { at_offset => 80, move => [ [ 89, 0 ] ] } ], @settles);

# The total stays the same: as many programs arrive, but not the right ones
my @gone_or_not = (may_go => \&removed_by_drift);
moving('a program vanishes before the place, another appears at the end', [ { remove => [5], add => [-1] } ], @gone_or_not);
moving('a program vanishes after, another appears before the place', [ { remove => [70], add => [5] } ], @gone_or_not);
moving('ten programs are replaced', [ { remove => [ 0 .. 9 ], add => [ (-1) x 10 ] } ], @gone_or_not);
moving('a program vanishes, then is replaced', [ { remove => [5] }, { nth => 2, remove => [5], add => [-1] } ], @gone_or_not);
moving('a program is replaced each time', [ map { { nth => $_, remove => [5], add => [-1] } } 1 .. 3 ], @gone_or_not);

my @unsettled = (settled => 0);
moving('a program vanishes each time', [ map { { nth => $_, remove => [5] } } 1 .. 3 ], @unsettled);
moving('a program moves to the front each time', [ map { { nth => $_, move => [ [ 70, 5 ] ] } } 1 .. 3 ], @unsettled);
moving('programs appear and vanish all the time', [ { every => 2, remove => [3], add => [40] } ], @unsettled);

check('programs that appear and vanish under many requests', sub {
	$api->config(latency_ms => 1);
	$api->drift({ after => 4, remove => [ 22, -2 ], add => [ 2, 50, -1 ] });
}, moves => 1, may_go => \&removed_by_drift);

$session->end;
done_testing();
