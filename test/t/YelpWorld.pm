=pod

=head1 NAME

YelpWorld - made-up accounts behind made-up APIs, for TAP tests

=head1 SYNOPSIS

  my $world = YelpWorld->new($seed, $number);
  foreach my $state ($world->states)
  {
	$session->options(%{ $state->{server} });
	$api->config(%{ $state->{api} });
	$api->set_programs($account, $state->texts);
	... sync, and compare with $state->listed ...
  }

A world is an account with its programs, an API with habits of its own, and the states that the
two go through from sync to sync.  It is a function of the seed and the number.  While a sync
reads it nothing in it changes, so that there is one truth to compare with.

C<pick> (one of its arguments), C<chance> (of so many in a hundred) and C<shuffled> are exported to
those who ask for them.

=cut

package YelpWorld;

use strict;
use warnings FATAL => 'all';
use utf8;

use Exporter 'import';

our @EXPORT_OK = qw(pick chance shuffled);

# What stands for NULL among a program's columns
our $null = '~';

my $most_programs = 130;
my $most_pages = 40;

# ---- dice ----

sub roll
{
	my ($sides) = @_;
	return int(rand($sides));
}

sub pick
{
	return $_[ roll(scalar @_) ];
}

sub chance
{
	my ($percent) = @_;
	return rand(100) < $percent;
}

sub shuffled
{
	my (@things) = @_;
	my @shuffled;
	push @shuffled, splice(@things, roll(scalar @things), 1) while @things;
	return @shuffled;
}

# ---- programs ----

# The columns of yelp_programs that a program fills: the name, what kind of value they take,
# and the member in which it lies
my @columns = (
	[ 'program_type', 'text' ], [ 'program_status', 'text' ], [ 'program_pause_status', 'text' ],
	[ 'start_date', 'date' ], [ 'end_date', 'date' ],
	[ 'yelp_business_id', 'text', 'businesses' ], [ 'partner_business_id', 'text', 'businesses' ],
	[ 'budget', 'cents', 'program_metrics' ], [ 'max_bid', 'cents', 'program_metrics' ],
	[ 'ad_cost', 'cents', 'program_metrics' ], [ 'currency', 'text', 'program_metrics' ],
	[ 'fee_period', 'text', 'program_metrics' ], [ 'is_autobid', 'boolean', 'program_metrics' ],
	[ 'billed_impressions', 'count', 'program_metrics' ],
	[ 'billed_clicks', 'count', 'program_metrics' ],
	[ 'active_features', 'list' ], [ 'available_features', 'list' ]);

# A program is a hash of paths to JSON texts; the paths are those in the column problems
my %prefix = (businesses => 'businesses[0].', program_metrics => 'program_metrics.');

# What each kind takes, as pairs of JSON and of what the column shows, and what it does not
my %right = (
	text => [
		'"CPC"' => 'CPC', '"USD"' => 'USD', '"A b"' => 'A b', '"caf\u00e9"' => 'café', '""' => ''
	],
	date => [
		'"2026-03-23"' => '2026-03-23', '"2024-02-29"' => '2024-02-29',
		'"9999-12-31"' => '9999-12-31', '"0001-01-01"' => '0001-01-01'
	],
	cents => [
		'0' => '0.00', '5' => '0.05', '-250' => '-2.50', '1000000' => '10000.00',
		'99999999999999' => '999999999999.99', '1e2' => '1.00', '1.0E+2' => '1.00'
	],
	boolean => [ 'true' => 't', 'false' => 'f' ],
	count => [
		'0' => '0', '17' => '17', '1e2' => '100', '9223372036854775807' => '9223372036854775807'
	],
	list => [ '[]' => '{}', '["A"]' => '{A}', '["A","B_C"]' => '{A,B_C}' ]);
my %wrong = (
	text => [ '17', 'true', '[]' ],
	date => [ '""', '"2026-02-30"', '"soon"', '20260101' ],
	cents => [ '"12"', '1.5', '100000000000000', '1e30' ],
	boolean => [ '"yes"', '1' ],
	count => [ '"7"', '2.5', '1e30', '[]' ],
	list => [ '"A"', '[1]', '{}' ],
	program_metrics => [ '"none"', '7', '[]' ],
	businesses => [ '{}', '["x"]', '"none"' ]);

# As jsonb spells what it spells otherwise
my %canonical = (
	'1e2' => '100', '1.0E+2' => '100', '1e30' => '1' . '0' x 30, '"caf\u00e9"' => '"café"',
	'["A","B_C"]' => '["A", "B_C"]');

# What is listed and no program
my @unusable = (
	'{"program_id":""}', '{"program_id":17,"program_type":"CPC"}', '{"program_type":"CPC"}',
	'{"program_id":"a\u0007b"}', '"text"', 'null', '{"program_id":"nul","x":"\u0000"}');

=pod

=over

=item YelpWorld::column_names

The columns of C<yelp_programs> that a program fills, in the order of C<< $state->listed >>.

=cut

sub column_names
{
	return ((map { $_->[0] } @columns), 'problems', 'data');
}

sub path_of
{
	my ($column) = @_;
	my ($name, undef, $parent) = @$column;
	return ($parent ? $prefix{$parent} : '') . $name;
}

sub any_value
{
	my ($kind, $odd) = @_;
	return pick(@{ $wrong{$kind} }) if chance($odd);
	return 'null' if chance(15);
	return $right{$kind}[ 2 * roll(@{ $right{$kind} } / 2) ];
}

# Sets the object in which other fields lie to null, or to what it must not be
sub set_parent
{
	my ($fields, $parent, $odd) = @_;
	delete @$fields{ grep { /^\Q$prefix{$parent}/ } keys %$fields };
	$fields->{$parent} = chance($odd) ? pick(@{ $wrong{$parent} }) : 'null';
	return;
}

sub set_field
{
	my ($fields, $odd) = @_;
	my $column = pick(@columns);
	my (undef, $kind, $parent) = @$column;

	if (chance(8))
	{
		$fields->{a_field_of_tomorrow} = roll(1000);
	}
	elsif ($parent && chance(5))
	{
		set_parent($fields, $parent, $odd);
	}
	elsif (chance(10))
	{
		delete $fields->{ path_of($column) };
	}
	else
	{
		delete $fields->{$parent} if $parent;
		$fields->{ path_of($column) } = any_value($kind, $odd);
	}
	return;
}

# What the columns show, problems among them
sub column_values
{
	my ($fields) = @_;
	my @problems = grep { ($fields->{$_} // 'null') ne 'null' } keys %prefix;
	my @values;

	foreach my $column (@columns)
	{
		my $json = $fields->{ path_of($column) } // 'null';
		my %right = ('null' => $null, @{ $right{ $column->[1] } });
		push @values, $right{$json} // $null;
		push @problems, path_of($column) unless exists $right{$json};
	}
	return (@values, @problems ? '{' . join(',', sort @problems) . '}' : $null);
}

# The document: \&leaf spells a value, and \&order sorts the names of members
sub spell
{
	my ($fields, $comma, $colon, $leaf, $order) = @_;
	my %members = map { $_ => $leaf->($fields->{$_}) } grep { !/\./ } keys %$fields;
	my $object = sub {
		my (%members) = @_;
		return '{' . join($comma, map { qq{"$_"$colon$members{$_}} } $order->(keys %members)) . '}';
	};

	foreach my $parent (keys %prefix)
	{
		my %inner = map { s/^\Q$prefix{$parent}//r => $leaf->($fields->{$_}) }
		  grep { /^\Q$prefix{$parent}/ } keys %$fields;
		next unless %inner;
		$members{$parent} = $object->(%inner);
		$members{$parent} = "[$members{$parent}]" if $parent eq 'businesses';
	}
	return $object->(%members);
}

sub in_order_of_jsonb
{
	return sort { length($a) <=> length($b) || $a cmp $b } @_;
}

# A program as it is listed, and as it must be stored
sub program
{
	my ($fields) = @_;
	my $data = spell($fields, ', ', ': ', sub { $canonical{ $_[0] } // $_[0] }, \&in_order_of_jsonb);
	my @values = column_values($fields);

	return {
		fields => $fields,
		id => $fields->{program_id} =~ s/"//gr,
		text => spell($fields, pick(',', ', ', ",\n"), pick(':', ' : '), sub { $_[0] },
			sub { shuffled(sort @_) }),
		columns => join('|', @values, $data),
		odd => $values[-1] ne $null,
	};
}

# ---- the account ----

sub new_program
{
	my ($self) = @_;
	my %fields = (program_id => '"p' . ++$self->{last_id} . '"');

	foreach my $column (@columns)
	{
		$fields{ path_of($column) } = any_value($column->[1], 0) unless chance(10);
	}
	set_field(\%fields, 100) if chance($self->{odd});
	return program(\%fields);
}

sub altered
{
	my ($self, $program) = @_;
	my %fields = %{ $program->{fields} };
	set_field(\%fields, $self->{odd}) for 1 .. pick(1, 1, 3);
	return program(\%fields);
}

sub insert
{
	my ($self, $program) = @_;
	my $end = @{ $self->{programs} };
	my %places = (front => 0, end => $end, random => roll($end + 1));
	splice(@{ $self->{programs} }, $places{ $self->{order} }, 0, $program);
	return;
}

sub take
{
	my ($self) = @_;
	my $programs = $self->{programs};
	return @$programs ? splice(@$programs, roll(scalar @$programs), 1) : ();
}

sub replace
{
	my ($self, $how) = @_;
	my $programs = $self->{programs};
	my $position = roll(scalar @$programs);
	$programs->[$position] = $how->($programs->[$position]) if @$programs;
	return;
}

# Between two syncs
my %changes = (
	add => sub { my ($self) = @_; $self->insert($self->new_program) },
	remove => sub { my ($self) = @_; $self->take },
	move => sub { my ($self) = @_; $self->insert($_) foreach $self->take },
	alter => sub { my ($self) = @_; $self->replace(sub { $self->altered($_[0]) }) },
	respell => sub { my ($self) = @_; $self->replace(sub { program($_[0]{fields}) }) });

sub change
{
	my ($self) = @_;
	my $programs = $self->{programs};

	foreach my $change (sort keys %changes)
	{
		my $many = chance(10) ? roll(@$programs + 1) : 1;
		$changes{$change}->($self) for 1 .. pick(0, 0, 1, 3, $many);
	}
	@$programs = () if chance(2);
	splice(@$programs, $most_programs) if @$programs > $most_programs;
	return;
}

# Once more, perhaps as it was or will be.  Where the API serves a page again behind its last
# program, the one served again may be the later one.
sub again
{
	my ($self, $program) = @_;
	return $self->{api}{beyond} =~ /last|first/ ? $program : pick($program, $self->altered($program));
}

# The listing at one sync: an id may come twice, and what is no program among them
sub listing
{
	my ($self) = @_;
	my @programs = @{ $self->{programs} };

	if (@programs && chance($self->{twice}))
	{
		splice(@programs, roll(@programs + 1), 0, $self->again(pick(@programs)));
	}
	if (chance($self->{unusable}))
	{
		splice(@programs, roll(@programs + 1), 0, { unusable => 1, text => pick(@unusable) })
		  for 1 .. pick(1, 1, 2);
	}
	return \@programs;
}

# ---- the API ----

sub choose_server
{
	my ($self) = @_;
	$self->{server} = {
		page_size => pick(20, 20, 20, 40, 10, 7, 2 + roll(39), 100),
		concurrency => pick(1, 3, 100, 100),
		attempts => pick(1, 2),
		partial => pick('off', 'off', 'off', 'on'),
		trust_total => pick('on', 'on', 'off'),
	};
	return;
}

sub choose_api
{
	my ($self) = @_;
	my $size = $self->{server}{page_size};
	my ($clamp, $from) = ($size, 0);

	if ($size > 1 && chance(40))
	{
		$clamp = pick(1, map { 1 + roll($size - 1) } 1 .. 3);
		$from = pick(0, 0, $size, 2 * $size, roll($most_programs));
	}
	$self->{smallest_page} = $clamp;
	$self->{api} = {
		max_limit => 100,
		serve_at_most => $clamp < $size ? $clamp : undef,
		serve_from_offset => $from,
		beyond => pick(('empty') x 3, 'null', 400, 404, 416, 422, 500, 503, 'last', 'first'),
		broken_status => pick(500, 502, 503),
		echo_offset => pick(('asked') x 3, 'served', 'page', 'page_from_1', 'zero'),
		echo_status => pick('upper', 'upper', 'lower', 'title'),
		echo_limit => pick('served', 'asked'),
		omit => [ grep { chance(25) } qw(offset limit program_status) ],
	};
	my $api = $self->{api};
	# A page's number says where it begins only where the size of pages is known
	@{ $api->{omit} } = grep { $_ ne 'limit' } @{ $api->{omit} } if $api->{echo_offset} =~ /page/;
	# Where pages get smaller, and are said not to, a short one may be the end
	$api->{echo_limit} = 'served' if $from > 0;
	$self->choose_total($from + $clamp);
	return;
}

# Which total it reports; $page_end is where one of its pages ends
sub choose_total
{
	my ($self, $page_end) = @_;
	my $size = $self->{server}{page_size};
	my $off = pick(1, 1, 2, $size, 1 + roll(60), pick(1 + roll(60), 5000));
	my $cap =
	  $page_end != $size && chance(50) ? $page_end : pick($size, 2 * $size, roll($most_programs));
	my $counts = $self->{counts};

	@$self{qw(total_is total)} = @{ pick(
		([ 'exact', sub { $_[0] } ]) x 3,
		[ "$off too small", sub { $_[0] > $off ? $_[0] - $off : 0 } ],
		[ "$off too large", sub { $_[0] + $off } ],
		[ "at most $cap", sub { $_[0] < $cap ? $_[0] : $cap } ],
		[ 'of the sync before', sub { $counts->[ @$counts > 1 ? -2 : -1 ] } ],
		[ 'of the first sync', sub { $counts->[0] } ]) };
	return;
}

sub first_count
{
	my ($self) = @_;
	my $count = pick(0, 1 + roll(3), $self->{server}{page_size} * roll(7),
		map { roll($most_programs + 1) } 1 .. 4);

	foreach my $most ($most_programs, $most_pages * $self->{smallest_page})
	{
		$count = $most if $count > $most;
	}
	return $count;
}

# ---- states ----

# Where nothing is said of the size of pages, and these get smaller, one may end where the
# listing did last time
sub seems_unchanged
{
	my ($self, $total) = @_;
	my ($api, $counts) = @$self{qw(api counts)};
	return @$counts > 1 && $total == $counts->[-2] && $api->{serve_from_offset} > 0
	  && grep { $_ eq 'limit' } @{ $api->{omit} };
}

# What the API and the account are for one sync
sub next_state
{
	my ($self) = @_;
	my $programs = $self->listing;
	my $count = @$programs;

	push @{ $self->{counts} }, $count;
	my $total = $self->{total}->($count);
	$total = $count if $self->seems_unchanged($total);
	return bless {
		programs => $programs,
		server => $self->{server},
		delays => $self->{delays},
		api => {
			%{ $self->{api} },
			total => $total,
			broken_position => $count && chance($self->{broken}) ? roll($count) : undef,
		},
	}, 'YelpWorld::State';
}

=pod

=item YelpWorld->new($seed, $number)

=item $world->states

The states, each to be synced once; the last one is the one before it once more.

=cut

sub new
{
	my ($class, $seed, $number) = @_;
	srand($seed * 1_000_003 + $number);
	my $self = bless {
		number => $number,
		last_id => 0,
		programs => [],
		counts => [],
		order => pick('front', 'end', 'random'),
		delays => chance(30),
		# How many of a hundred fields, listings and syncs are odd
		odd => pick(0, 0, 3, 20),
		twice => pick(0, 0, 0, 50),
		unusable => pick(0, 0, 0, 0, 30),
		broken => pick(0, 0, 0, 40),
	}, $class;

	$self->choose_server;
	$self->choose_api;
	$self->insert($self->new_program) for 1 .. $self->first_count;
	foreach my $sync (1 .. pick(2, 3))
	{
		$self->change if $sync > 1;
		push @{ $self->{states} }, $self->next_state;
	}
	push @{ $self->{states} }, $self->{states}[-1];
	return $self;
}

sub states
{
	my ($self) = @_;
	return @{ $self->{states} };
}

=pod

=item $world->describe($last)

The world as lines of text, up to the state $last.

=cut

sub describe
{
	my ($self, $last) = @_;
	my $api = $self->{api};
	my %settings = (%$api, %{ $self->{server} }, omit => join('+', @{ $api->{omit} }),
		total => $self->{total_is}, delays => $self->{delays});
	my @lines = join ', ', map { "$_ $settings{$_}" }
	  grep { ($settings{$_} // '') ne '' } sort keys %settings;

	foreach my $state ($self->states)
	{
		push @lines, $state->describe;
		last if $state == $last;
	}
	return @lines;
}

package YelpWorld::State;

use strict;
use warnings FATAL => 'all';

=pod

=item $state->{api}, $state->{server}, $state->{delays}

What to configure the stand-in and the server with, and whether answers are to overtake one
another.

=item $state->texts

The listing, as the API spells it.

=item $state->listed

The programs that are listed, by id.  C<text> is how it is spelt, C<columns> what its row must
hold, and C<odd> whether that has problems.

=item $state->settle($stored)

Of a program that is listed twice, the one that arrives first counts, and which that is nobody
knows: it is the one that is stored.

=cut

sub texts
{
	my ($self) = @_;
	return map { $_->{text} } @{ $self->{programs} };
}

sub listed
{
	my ($self) = @_;
	return $self->{listed} //= { map { $_->{id} => $_ } grep { !$_->{unusable} } @{ $self->{programs} } };
}

sub settle
{
	my ($self, $stored) = @_;
	my $listed = $self->listed;

	foreach my $program (grep { !$_->{unusable} } @{ $self->{programs} })
	{
		my $row = $stored->{ $program->{id} } or next;
		$listed->{ $program->{id} } = $program if $row->{columns} eq $program->{columns};
	}
	return;
}

=pod

=item $state->unusable, $state->is_broken

How many elements of the listing are no programs; whether a page can never be had.

=item $state->end_can_be_seen

Whether a look behind the last program shows that there is nothing.

=item $state->may_fail

Whether the sync may raise an error.

=item $state->can_read_all, $state->readable

Whether all programs can be had; the ids of those that can in any case.

=item $state->can_tell_missing

Whether it is certain which programs are not listed.

=item $state->can_prove, $state->must_prove

Whether it may be taken for proved that they are gone; whether it must.

=cut

sub unusable
{
	my ($self) = @_;
	return scalar grep { $_->{unusable} } @{ $self->{programs} };
}

sub is_broken
{
	my ($self) = @_;
	return defined $self->{api}{broken_position};
}

# Pages of one program have no room to show that no other follows.  Where pages get smaller
# within the last one, a short one may seem to be the end.
sub end_can_be_seen
{
	my ($self) = @_;
	return @{ $self->{programs} } < 1
	  || ($self->{api}{serve_at_most} // $self->{server}{page_size}) > 1;
}

# A refusal of what was expected is not believed at once
sub may_be_refused
{
	my ($self) = @_;
	return $self->{api}{beyond} =~ /400|422/;
}

sub first_page_size
{
	my ($self) = @_;
	my ($api, $size) = ($self->{api}, $self->{server}{page_size});
	return $api->{serve_from_offset} == 0 ? $api->{serve_at_most} // $size : $size;
}

# Without its first page a listing has no total
sub may_fail
{
	my ($self) = @_;
	return $self->is_broken
	  && ($self->{server}{partial} eq 'off'
		|| $self->{api}{broken_position} < $self->first_page_size);
}

# What lies behind a page that cannot be had is read where the total says so
sub readable
{
	my ($self) = @_;
	my ($programs, $broken) = ($self->{programs}, $self->{api}{broken_position});
	my $size = $self->{server}{page_size};
	my $partial = $self->{server}{partial} eq 'on';

	return map { $programs->[$_]{id} } grep {
		!$programs->[$_]{unusable} && (!defined $broken || $_ <= $broken - $size
			|| ($partial && $_ >= $broken + $size && $_ < $self->{api}{total}))
	} 0 .. $#$programs;
}

sub can_read_all
{
	my ($self) = @_;
	return !$self->is_broken;
}

sub can_tell_missing
{
	my ($self) = @_;
	return !$self->is_broken && !$self->unusable && $self->end_can_be_seen
	  && !$self->may_be_refused;
}

sub can_prove
{
	my ($self) = @_;
	return !$self->is_broken && !$self->unusable
	  && ($self->{server}{trust_total} eq 'off' || !$self->total_is_above);
}

sub total_is_above
{
	my ($self) = @_;
	return $self->{api}{total} > keys %{ $self->listed };
}

sub must_prove
{
	my ($self) = @_;
	return $self->can_prove && $self->can_tell_missing;
}

=pod

=item $state->describe

The listing as text, programs in a row as C<p1-p20>.

=back

=cut

sub describe
{
	my ($self) = @_;
	my @runs;

	foreach my $program (@{ $self->{programs} })
	{
		my ($number) = ($program->{id} // '') =~ /(\d+)/;
		my $run = $runs[-1];
		my $step = defined $number && $run && exists $run->{to} ? $number - $run->{to} : 0;

		if (!defined $number)
		{
			push @runs, { text => "<$program->{text}>" };
		}
		elsif (abs($step) == 1 && $step == ($run->{step} // $step))
		{
			@$run{qw(text to step)} = ("p$run->{from}-p$number", $number, $step);
		}
		else
		{
			push @runs, { text => "p$number", from => $number, to => $number };
		}
	}
	my ($total, $broken) = @{ $self->{api} }{qw(total broken_position)};
	my $no_page = defined $broken ? ", no page with position $broken" : '';
	return scalar(@{ $self->{programs} }) . " programs, total $total$no_page: "
	  . join(' ', map { $_->{text} } @runs);
}

1;
