# Programs are deleted only on proof.  Listings that move while they are read,
# and APIs that serve other pages than those asked for: afterwards no program
# that is still listed is missing from the table, none was deleted without
# proof, and the sync reports how far it can be trusted.
use strict;
use warnings FATAL => 'all';

use JSON::PP ();
use Test::More;

use YelpSession;
use YelpTest;

my $count = 90;
my $size = 10;
my ($node, $api) = YelpTest::start(server => { max_deleted => '100%' });
my $session = YelpSession->new($node, 'yelp_sync.progress' => 'json');
my $json = JSON::PP->new;

# What may differ from case to case, and is put back after each
my @case_options = qw(concurrency page_size partial program_status);

$session->options(attempts => 2, retry_delay => '1ms', retry_max_delay => '2ms');

sub stored
{
	return split / /,
	  $session->value(q{SELECT string_agg(program_id, ' ' ORDER BY program_id) FROM yelp_programs});
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

sub status_of
{
	my ($result) = @_;
	my ($complete) = grep { /"type":"complete"/ } @{ $result->{notices} };
	return $complete ? $json->decode($complete)->{status} : 'none';
}

sub deleted
{
	my ($result) = @_;
	return sort map { $_->{program_id} }
	  grep { $_->{action} eq 'deleted' } @{ $result->{rows} };
}

# All is well, and what is listed is stored.
sub begin
{
	my (%options) = @_;
	$api->reset;
	$api->config(accounts => { acme => { count => $count } });
	$session->options(map({ $_ => undef } @case_options), page_size => $size, %options);
	$session->run('DELETE FROM yelp_programs');
	is($session->sync->{error}, undef, 'it begins with what is listed');
	return;
}

# Afterwards: an API that is well again puts everything right.
sub recover
{
	$api->reset('config', 'faults', 'drift');
	$session->options(map({ $_ => undef } @case_options), page_size => $size);
	is($session->sync->{error}, undef, 'the next sync');
	is_deeply([ stored() ], [ listed() ], '... stores exactly what is listed');
	return;
}

# A status of partial and a warning that not all was deleted go together.
sub check_status
{
	my ($result, $settled) = @_;
	my $warned = grep { / deleted|could not fetch/ } @{ $result->{warnings} };

	is(status_of($result), $settled ? 'synced' : 'partial', 'the status') if defined $settled;
	is($warned > 0, status_of($result) eq 'partial', 'a warning says so where it is partial')
	  or diag(join("\n", @{ $result->{warnings} }));
	is(@{ $result->{warnings} }, 0, 'and there is no other') unless $warned;
	return;
}

# A case: after a first sync, $prepare changes the API; returns the sync that
# follows.  What is to come of it:
#   settled   1: nothing is left to wish for; 0: partial, and nothing is
#             deleted; left out: either, as long as the sync says which
#   gone      ids that must be deleted, returned by a sub; by default none
#   may_go    ids that may be deleted: they are not listed at the end, but the
#             sync need not be sure of that
#   settles   ids that vanish during the first reading: either all of them are
#             deleted, or some are spared and the sync is partial
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
		my @deleted = deleted($result);
		my @gone = $expected{gone} ? sort $expected{gone}->() : ();
		my @spared = $expected{may_go} ? $expected{may_go}->() : ();
		my $settled = $expected{settled};

		if ($expected{settles})
		{
			@gone = sort $expected{settles}->();
			$settled = @deleted == @gone;
			@spared = splice(@gone) unless $settled;
		}

		# What appeared meanwhile can be expected only of a sync that saw the end of it
		my @listed = listed();
		@listed = without(\@listed, [ without(\@listed, \@to_read) ]) unless $settled;

		is($result->{error}, undef, 'no error') or diag($result->{detail});
		is_deeply([ without(\@listed, \@after) ], [], 'no program that is listed is missing');
		is_deeply([ without([ without(\@before, \@after) ], \@spared) ], \@gone,
			'deleted is what is proven to be gone');
		is_deeply(\@deleted, [ without(\@before, \@after) ],
			'... and that is reported');
		check_status($result, $settled);
		recover();
	};
	return;
}

# The page at an offset shows the programs at other positions.
sub misplace
{
	my ($offset, @positions) = @_;
	my @texts = map { $json->canonical->encode($_) } ($api->programs)[@positions];
	return { match => { offset => $offset },
		action => { replace => { text => { payment_programs => '[' . join(',', @texts) . ']' } } } };
}

sub emptied
{
	my (%match) = @_;
	return { match => \%match, action => { replace => { json => { payment_programs => [] } } } };
}

# A listing at rest

{
	my @removed;
	foreach my $number (1, 9, 60, 89)
	{
		check(
			"$number programs are gone",
			sub { @removed = @{ $api->mutate(remove => $number)->{removed} } },
			settled => 1, gone => sub { @removed });
	}
}

subtest 'the listing is read twice only before anything is deleted' => sub {
	begin();
	$api->mutate(alter => 5);
	$api->reset('counters');
	is($session->sync->{error}, undef, 'no error');
	is($api->counters->{requests}, $count / $size + 2, 'each page once, and two looks at the end');
	my $added = $api->mutate(remove => 1, add => 1);
	$api->reset('counters');
	is_deeply([ deleted($session->sync) ], $added->{removed}, 'a program is gone');
	is($api->counters->{requests}, 2 * ($count / $size + 2), 'each page twice');
};

# Pages that fail

subtest 'pages that fail, and partial' => sub {
	begin(partial => 'on');
	my @before = stored();
	$api->mutate(remove => 5, add => 5, alter => 5);
	$api->faults(
		{ match => { offset => 40 }, action => { respond => { status => 500 } } },
		{ match => { offset => 60 }, action => { respond => { status => 404 } } },
		{ match => { offset => 80 }, action => { respond => { body => 'null' } } });
	my @fetched = (map { $_->{program_id} } $api->programs)[ 0 .. 39, 50 .. 59, 70 .. 79 ];
	my $result = $session->sync;
	my @after = stored();

	is($result->{error}, undef, 'no error');
	is_deeply([ without(\@fetched, \@after) ], [], 'all programs of the other pages are stored');
	is_deeply([ without(\@before, \@after) ], [], 'nothing is deleted');
	check_status($result, 0);
	foreach my $page ([ 40, 'HTTP status 500' ], [ 60, 'HTTP status 404' ], [ 80, 'not an object' ])
	{
		my ($offset, $what) = @$page;
		is((grep { /page at offset $offset of account \\"acme\\": .*$what/ }
				@{ $result->{warnings} }), 1, "one warning tells of the page at offset $offset");
	}
	is($session->value(YelpTest::last_run('failed_pages')), 3, 'the history tells of them');
	recover();
};

subtest 'the first page fails, and partial' => sub {
	begin(partial => 'on');
	my @before = stored();
	$api->faults({ match => { offset => 0 }, action => { respond => { status => 500 } } });
	my $result = $session->sync;
	is($result->{sqlstate}, 'HV000', 'without the first page it is an error');
	like($result->{error}, qr/page at offset 0 /, '... that names it');
	is_deeply([ stored() ], \@before, 'and all is as before');
};

# Lists without programs

foreach my $partial ('off', 'on')
{
	subtest "no program is listed any more, partial $partial" => sub {
		begin(partial => $partial);
		my @before = stored();
		$api->set_programs('acme');
		$session->run("ALTER SERVER yelp OPTIONS (SET max_deleted '50%')");
		my $result = $session->sync;
		is($result->{error}, undef, 'it is no error');
		like(join("\n", @{ $result->{warnings} }), qr/$count of $count programs .* are no longer listed: nothing was deleted/,
			'... but a warning says so');
		is((grep { $_->{action} eq 'missing' } @{ $result->{rows} }), $count, '... and they are missing');
		$session->run("ALTER SERVER yelp OPTIONS (SET max_deleted '100%')");
		is_deeply([ stored() ], \@before, 'and all is as before');
	};
}

subtest 'all pages are empty, with a total' => sub {
	begin();
	my @before = stored();
	$api->faults(emptied());
	my $result = $session->sync;
	is_deeply([ stored() ], \@before, 'nothing is deleted');
	if (defined $result->{error})
	{
		like($result->{error}, qr/lists no program/, 'an error says so');
	}
	else
	{
		check_status($result, 0);
	}
	recover();
};

subtest 'an account that never had programs' => sub {
	begin();
	$session->run('DELETE FROM yelp_programs');
	$api->set_programs('acme');
	my $result = $session->sync;
	is($result->{error}, undef, 'no error');
	is(status_of($result), 'synced', 'the status');
	is(@{ $result->{rows} }, 0, 'no rows');
};

check('a page is always empty',
	sub { $api->faults(emptied(offset => 30)) },
	settled => 0);
check('a page is empty once',
	sub { $api->faults(emptied(offset => 30, nth => 1)) },
	settled => 1);
check('the last page is always empty',
	sub { $api->faults(emptied(offset => 80)) },
	settled => 0);
check('all pages from some offset on are empty',
	sub { $api->faults(emptied(from_offset => 50)) },
	settled => 0);

# Filters

subtest 'a filter other than ALL' => sub {
	begin();
	my @before = stored();
	foreach my $status (qw(CURRENT PAST PAUSED FUTURE))
	{
		$session->options(program_status => $status);
		my $result = $session->sync;
		is($result->{error}, undef, "$status: no error");
		is_deeply([ stored() ], \@before, '... nothing is deleted');
		is_deeply($result->{warnings}, [], '... and that needs no warning');
	}
	$api->set_programs('acme');
	is($session->sync->{error}, undef, 'no program with this status: no error');
	is_deeply([ stored() ], \@before, '... nothing is deleted');
};

# Pages of other sizes

foreach my $case (
	[ 'smaller than asked', serve_at_most => 7 ],
	[ 'smaller, without telling', serve_at_most => 7, echo_limit => 'asked' ],
	[ 'smaller, and silent', serve_at_most => 3, omit => [ 'limit', 'offset' ] ],
	[ 'one by one', serve_at_most => 1, echo_limit => 'asked' ],
	[ 'smaller from some page on', serve_at_most => 4, serve_from_offset => 50 ],
	[ 'smaller from some page on, without telling',
		serve_at_most => 4, serve_from_offset => 50, echo_limit => 'asked' ],
	[ 'longer than asked', serve_extra => 5 ],
	[ 'longer than asked, without telling', serve_extra => 13, echo_limit => 'asked' ],
	[ 'longer from some page on', serve_extra => 3, serve_from_offset => 40 ],
	[ 'with the whole listing from there on', serve_extra => 1000 ],
	[ 'clamped', max_limit => 8, over_limit => 'clamp' ])
{
	my ($name, %config) = @$case;
	# Pages of one program have no room to show that no other follows
	my $settled = $name ne 'one by one';
	my @removed;
	check(
		"pages $name",
		sub { $api->config(%config); @removed = @{ $api->mutate(remove => 3)->{removed} } },
		settled => $settled, gone => sub { $settled ? @removed : () });
	subtest "pages $name: the first sync of an account" => sub {
		begin();
		$session->run('DELETE FROM yelp_programs; DELETE FROM yelp_sync_runs');
		$api->config(%config);
		my $result = $session->sync;
		is($result->{error}, undef, 'no error');
		is_deeply([ stored() ], [ listed() ], 'all programs are stored');
		check_status($result, $settled);
	};
}

# Totals that are wrong

foreach my $off (1, 5, 10, 35)
{
	# An API that lists fewer programs than its total may be hiding some
	check("a total that is $off too large",
		sub { $api->config(total_offset => $off) },
		settled => 0);
	foreach my $concurrency (1, 100)
	{
		check("a total that is $off too small, $concurrency requests at once",
			sub { $api->config(total_offset => -$off) },
			options => { concurrency => $concurrency });
	}
}

subtest 'a total that is far too large' => sub {
	begin();
	my @before = stored();
	$api->config(total_offset => 1_000_000);
	$api->mutate(alter => 5);
	$api->reset('counters');
	my $result = $session->sync;
	is($result->{error}, undef, 'no error');
	is(@{ $result->{rows} }, 5, 'what came is stored');
	is_deeply([ stored() ], \@before, 'nothing is deleted');
	check_status($result, 0);
	cmp_ok($api->counters->{requests}, '<', 500, 'the empty pages are not all asked for');
	recover();
};

sub telling
{
	my ($total, %match) = @_;
	return { match => \%match, action => { replace => { json => { total => $total } } } };
}

# Two equal readings settle it
check('one page tells a smaller total',
	sub { $api->faults(telling(7, offset => 50)) },
	settled => 1);
check('one page tells a larger total',
	sub { $api->faults(telling(123, offset => 50)) },
	settled => 0);
check('the first page tells a smaller total', sub { $api->faults(telling(39, offset => 0)) });
check('the first page tells a smaller total, once',
	sub { $api->faults(telling(39, offset => 0, nth => 1)) },
	settled => 1);
check('all pages tell a total of 0', sub { $api->faults(telling(0)) });

# Pages that come in the place of others

check('an API that ignores offset',
	sub { $api->faults({ %{ misplace(undef, 0 .. 9) }, match => {} }) },
	settled => 0);
check('an API that caps offset',
	sub { $api->faults(map { misplace($_, 40 .. 49) } 50, 60, 70, 80) },
	settled => 0);
check('a page that is another\'s',
	sub { $api->faults(misplace(60, 20 .. 29)) },
	settled => 0);
# As of a database that sorts by a column that is not unique
check('a program that always comes twice, in the place of another',
	sub { $api->faults(misplace(40, 39, 41 .. 49)) },
	settled => 0);
check('a program that comes twice, once',
	sub {
		my $rule = misplace(40, 39, 41 .. 49);
		$rule->{match}{nth} = 1;
		$api->faults($rule);
	},
	settled => 1);

subtest 'a program that comes twice, and differs' => sub {
	begin();
	my ($program) = ($api->programs)[5];
	my $id = $program->{program_id};
	$api->faults({ match => { offset => 80 }, action => { replace => { text => {
		'payment_programs.3' => $json->encode({ %$program, program_type => 'LATER' }) } } } });
	is($session->sync->{error}, undef, 'no error');
	is($session->value("SELECT count(*) FROM yelp_programs WHERE program_id = '$id'"), 1, 'one of them is stored');
	is_deeply([ without([ listed() ], [ stored() ]) ], [], 'no program that is listed is missing');
	recover();

	begin();
	($program) = ($api->programs)[5];
	$id = $program->{program_id};
	$api->faults({ match => { offset => 0 }, action => { replace => { text => {
		'payment_programs.7' => $json->encode({ %$program, program_type => 'LATER' }) } } } });
	is($session->sync->{error}, undef, 'twice on one page: no error');
	is($session->value("SELECT count(*), min(program_type) FROM yelp_programs
		WHERE program_id = '$id'"), "1|$program->{program_type}", 'the first place wins');
	recover();
};

# Listings that move.  One request at a time: the pages are served in order, so
# that it is certain what moves before and behind the place that is being read.

sub moving
{
	my ($name, $steps, %expected) = @_;
	return check($name, sub { $api->drift(@$steps) }, options => { concurrency => 1 }, %expected);
}

sub removed_by_drift
{
	return map { @{ $_->{removed} } } $api->drift_done;
}
my @settles = (settles => \&removed_by_drift);

moving('a program vanishes behind the reader', [ { at_offset => 50, remove => [5] } ], @settles);
moving('a program vanishes before the reader', [ { at_offset => 50, remove => [70] } ], @settles);
moving('ten programs vanish behind the reader',
	[ { at_offset => 50, remove => [ 0 .. 9 ] } ], @settles);
moving('the last page vanishes', [ { at_offset => 50, remove => [ 80 .. 89 ] } ], @settles);
moving('all but one vanish', [ { at_offset => 50, remove => [ 1 .. 89 ] } ], @settles);
moving('a program appears behind the reader', [ { at_offset => 50, add => [0] } ], @settles);
moving('a program appears before the reader', [ { at_offset => 50, add => [-1] } ], @settles);
moving('twelve programs appear at the end',
	[ { at_offset => 50, add => [ (-1) x 12 ] } ], @settles);
moving('a program moves from before to behind',
	[ { at_offset => 50, move => [ [ 70, 5 ] ] } ], @settles);
moving('a program moves from behind to before',
	[ { at_offset => 50, move => [ [ 5, 70 ] ] } ], @settles);
moving('the last program moves to the front',
	[ { at_offset => 80, move => [ [ 89, 0 ] ] } ], @settles);

# The total stays the same: as many come as it says, and yet not the right ones
my @gone_or_not = (may_go => \&removed_by_drift);
moving('a program vanishes behind, another appears before the reader',
	[ { at_offset => 50, remove => [5], add => [85] } ], @gone_or_not);
moving('a program vanishes behind, another appears at the end',
	[ { at_offset => 50, remove => [5], add => [-1] } ], @gone_or_not);
moving('a program vanishes before, another appears behind the reader',
	[ { at_offset => 50, remove => [70], add => [5] } ], @gone_or_not);
moving('ten programs are replaced',
	[ { at_offset => 50, remove => [ 0 .. 9 ], add => [ (-1) x 10 ] } ], @gone_or_not);
moving('a program vanishes, then is replaced',
	[
		{ at_offset => 50, nth => 1, remove => [5] },
		{ at_offset => 50, nth => 2, remove => [5], add => [-1] }
	], @gone_or_not);
moving('a program is replaced each time',
	[ map { { at_offset => 50, nth => $_, remove => [5], add => [-1] } } 1 .. 3 ], @gone_or_not);

# The listing does not settle
my @unsettled = (settled => 0);
moving('a program vanishes each time',
	[ map { { at_offset => 50, nth => $_, remove => [5] } } 1 .. 3 ], @unsettled);
moving('a program moves to the front each time',
	[ map { { at_offset => 50, nth => $_, move => [ [ 70, 5 ] ] } } 1 .. 3 ], @unsettled);
moving('programs appear and vanish all the time',
	[ { every => 2, remove => [3], add => [40] } ], @unsettled);
moving('programs appear at the front all the time', [ { every => 3, add => [0] } ], @unsettled);

# The same with many requests at once, where it is uncertain what is read when
foreach my $seed (1 .. 3)
{
	check(
		"appearing and vanishing under many requests, $seed",
		sub {
			$api->config(latency_ms => 1);
			$api->drift({ after => 2 * $seed, remove => [ $seed * 11, -2 ], add => [ 2, 50, -1 ] });
		},
		may_go => \&removed_by_drift);
}

$session->end;
done_testing();
