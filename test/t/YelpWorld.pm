# YelpWorld - made-up accounts behind made-up APIs, for TAP tests
#
#   my $world = YelpWorld->new($seed, $number);
#   foreach my $state ($world->states)
#   {
#       $session->options($state->server);
#       $api->config($state->api);
#       $api->set_programs($account, $state->texts);
#       ... sync, and let YelpOracle compare the table with $state->listing ...
#   }
#
# A world is an account with its programs, an API with habits of its own, and the states that the two
# have from sync to sync.  It is a function of the seed and the number.
#
# pick (one of its arguments), chance (in percent) and shuffled are exported on request.

package YelpWorld;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT_OK = qw(pick chance shuffled);

my $max_programs = 130;
my $max_pages = 40;

# ---- dice ----

sub roll { return int(rand($_[0])); }

sub pick { return $_[ roll(scalar @_) ]; }

sub chance { return rand(100) < $_[0]; }

sub shuffled
{
	my (@things) = @_;
	my @shuffled;
	push @shuffled, splice(@things, roll(scalar @things), 1) while @things;
	return @shuffled;
}

# ---- programs ----

# The paths of the members that fill columns, by the kind of value that they take; a dot leads into
# program_metrics or the first business
my %paths = (
	text => [ qw(program_type program_status program_pause_status),
		map({ "businesses.$_" } qw(yelp_business_id partner_business_id)),
		map({ "program_metrics.$_" } qw(currency fee_period)) ],
	date => [qw(start_date end_date)],
	money => [ map { "program_metrics.$_" } qw(budget max_bid ad_cost) ],
	boolean => ['program_metrics.is_autobid'],
	count => [ map { "program_metrics.$_" } qw(billed_impressions billed_clicks) ],
	list => [qw(active_features available_features)]);
my %kind = map { my $kind = $_; map { $_ => $kind } @{ $paths{$kind} } } keys %paths;
my @paths = sort keys %kind;

# What each kind takes, and what it does not
my %right = (
	text => [ '"CPC"', '"USD"', '"A b"', '"caf\u00e9"', '""' ],
	date => [ '"2026-03-23"', '"2024-02-29"', '"9999-12-31"', '"0001-01-01"' ],
	money => [ '0', '5', '-250', '1000000', '99999999999999', '1e2', '1.0E+2' ],
	boolean => [ 'true', 'false' ],
	count => [ '0', '17', '1e2', '9223372036854775807' ],
	list => [ '[]', '["A"]', '["A","B_C"]' ]);
my %wrong = (
	text => [ '17', 'true', '[]' ],
	date => [ '""', '"2026-13-45"', '"soon"', '20260101' ],
	money => [ '"12"', '1.5', '100000000000000', '1e30' ],
	boolean => [ '"yes"', '1' ],
	count => [ '"7"', '2.5', '1e30', '[]' ],
	list => [ '"A"', '[1]', '{}' ],
	program_metrics => [ '"none"', '7', '[]' ],
	businesses => [ '{}', '["x"]', '"none"' ]);

# Elements of the listing that are not programs
my @unusable = (
	'{"program_id":""}', '{"program_id":17,"program_type":"CPC"}', '{"program_type":"CPC"}',
	'{"program_id":"a\u0007b"}', '"text"', 'null', '{"program_id":"nul","x":"\u0000"}');

sub any_value
{
	my ($kind, $odd) = @_;
	return pick(@{ $wrong{$kind} }) if chance($odd);
	return chance(15) ? 'null' : pick(@{ $right{$kind} });
}

# Changes a field, its parent, or an unknown one
sub set_field
{
	my ($fields, $odd) = @_;
	my $path = pick(@paths);
	my ($parent) = $path =~ /(.*)\./;

	if (chance(8))
	{
		$fields->{a_field_of_tomorrow} = roll(1000);
	}
	elsif ($parent && chance(5))
	{
		delete @$fields{ grep { /^$parent\./ } keys %$fields };
		$fields->{$parent} = chance($odd) ? pick(@{ $wrong{$parent} }) : 'null';
	}
	elsif (chance(10))
	{
		delete $fields->{$path};
	}
	else
	{
		delete $fields->{$parent} if $parent;
		$fields->{$path} = any_value($kind{$path}, $odd);
	}
	return;
}

# A program with these fields, spelled in one of many ways
sub program
{
	my ($fields) = @_;
	my ($comma, $colon) = (pick(',', ', ', ",\n"), pick(':', ' : '));
	my $object = sub {
		my (%members) = @_;
		return '{' . join($comma, map { qq("$_"$colon$members{$_}) } shuffled(sort keys %members)) . '}';
	};
	my %members = map { $_ => $fields->{$_} } grep { !/\./ } keys %$fields;

	foreach my $parent ('businesses', 'program_metrics')
	{
		my %inner = map { /^$parent\.(.*)/ ? ($1 => $fields->{$_}) : () } keys %$fields;
		next unless %inner;
		$members{$parent} = $object->(%inner);
		$members{$parent} = "[$members{$parent}]" if $parent eq 'businesses';
	}
	return { fields => $fields, id => $fields->{program_id} =~ s/"//gr, text => $object->(%members) };
}

# ---- the account ----

sub new_program
{
	my ($self) = @_;
	my %fields = (program_id => '"p' . ++$self->{last_id} . '"');

	foreach my $path (@paths)
	{
		$fields{$path} = any_value($kind{$path}, 0) unless chance(10);
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
	splice(@$programs, $max_programs) if @$programs > $max_programs;
	return;
}

# The listing at one sync: a program may be listed twice, perhaps altered, and other elements may be
# among them.  If the API repeats a page past its end, the repeated program may be the later one.
sub listing
{
	my ($self) = @_;
	my @programs = @{ $self->{programs} };

	if (@programs && chance($self->{twice}))
	{
		my $program = pick(@programs);
		$program = $self->altered($program) if $self->{api}{beyond} !~ /last|first/ && chance(50);
		splice(@programs, roll(@programs + 1), 0, $program);
	}
	if (chance($self->{unusable}))
	{
		splice(@programs, roll(@programs + 1), 0, { text => pick(@unusable) }) for 1 .. pick(1, 1, 2);
	}
	return \@programs;
}

# ---- the API ----

sub choose_api
{
	my ($self) = @_;
	my $size = pick(20, 20, 20, 40, 10, 7, 2 + roll(39), 100);
	my ($clamp, $from) = ($size, 0);

	if ($size > 1 && chance(40))
	{
		$clamp = pick(1, map { 1 + roll($size - 1) } 1 .. 3);
		$from = pick(0, 0, $size, 2 * $size, roll($max_programs));
	}
	$self->{server} = {
		page_size => $size,
		concurrency => pick(1, 3, 100, 100),
		attempts => pick(1, 2),
		partial => pick('off', 'off', 'off', 'on'),
		trust_total => pick('on', 'on', 'off'),
	};
	$self->{smallest_page} = $clamp;
	my $api = $self->{api} = {
		max_limit => 100,
		serve_at_most => $clamp < $size ? $clamp : undef,
		serve_from_offset => $from,
		beyond => pick(('empty') x 3, 'null', 400, 404, 410, 416, 422, 500, 503, 'last', 'first'),
		broken_status => pick(500, 502, 503),
		echo_offset => pick(('asked') x 3, 'served', 'page', 'page_from_1', 'zero'),
		echo_status => pick('upper', 'upper', 'lower', 'title'),
		echo_limit => pick('served', 'asked'),
		omit => [ grep { chance(25) } qw(offset limit program_status) ],
	};
	# The number of a page says where it begins only if the size of pages is known
	@{ $api->{omit} } = grep { $_ ne 'limit' } @{ $api->{omit} } if $api->{echo_offset} =~ /page/;
	$self->choose_total($from + $clamp);
	return;
}

# Which total it reports; one of its pages ends at $page_end
sub choose_total
{
	my ($self, $page_end) = @_;
	my $size = $self->{server}{page_size};
	my $off = pick(1, 1, 2, $size, 1 + roll(60), pick(1 + roll(60), 5000));
	my $cap = $page_end != $size && chance(50) ? $page_end : pick($size, 2 * $size, roll($max_programs));
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
	my $count = pick(0, 1 + roll(3), $self->{server}{page_size} * roll(7), map { roll($max_programs + 1) } 1 .. 4);
	my ($least) = sort { $a <=> $b } $count, $max_programs, $max_pages * $self->{smallest_page};
	return $least;
}

# ---- states ----

sub next_state
{
	my ($self) = @_;
	my $programs = $self->listing;
	my $count = @$programs;

	push @{ $self->{counts} }, $count;
	return bless {
		world => $self,
		programs => $programs,
		server => $self->{server},
		api => {
			%{ $self->{api} },
			total => $self->{total}->($count),
			broken_position => $count && chance($self->{broken}) ? roll($count) : undef,
		},
	}, 'YelpWorld::State';
}

# YelpWorld->new($seed, $number)
#
# $world->states
# The states, each to be synced once; the last one is the one before it once more.
#
# $world->has_delays
# Whether responses are to overtake one another.
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
		# How many percent of fields, listings and syncs are odd
		odd => pick(0, 0, 3, 20),
		twice => pick(0, 0, 0, 50),
		unusable => pick(0, 0, 0, 0, 30),
		broken => pick(0, 0, 0, 40),
	}, $class;

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

sub states { my ($self) = @_; return @{ $self->{states} }; }

sub has_delays { my ($self) = @_; return $self->{delays}; }

package YelpWorld::State;

use strict;
use warnings FATAL => 'all';

# $state->api, $state->server
# What to configure the stand-in and the server with.
#
# $state->texts, $state->listing
# The listing as the API spells it; its programs as a JSON array.
#
# $state->unusable, $state->is_broken
# How many elements of the listing are not programs; whether a page can never be fetched.
#
# $state->may_fail
# Whether the sync may raise an error.
#
# $state->can_read_all, $state->readable
# Whether all programs can be read; the IDs of those that can in any case.
#
# $state->can_tell_missing
# Whether it is certain which programs are not listed.
#
# $state->can_prove, $state->must_prove
# Whether it may be proved that they are gone; whether it must.
#
# $state->describe
# The state as lines of text.
sub api { my ($self) = @_; return %{ $self->{api} }; }

sub server { my ($self) = @_; return %{ $self->{server} }; }

sub texts { my ($self) = @_; return map { $_->{text} } @{ $self->{programs} }; }

sub listing { my ($self) = @_; return '[' . join(',', map { $_->{text} } grep { $_->{id} } @{ $self->{programs} }) . ']'; }

sub unusable { my ($self) = @_; return scalar grep { !$_->{id} } @{ $self->{programs} }; }

sub is_broken { my ($self) = @_; return defined $self->{api}{broken_position}; }

sub can_read_all { my ($self) = @_; return !$self->is_broken; }

# Without its first page a listing has no total
sub may_fail
{
	my ($self) = @_;
	my ($api, $size) = ($self->{api}, $self->{server}{page_size});
	$size = $api->{serve_at_most} // $size if $api->{serve_from_offset} == 0;
	return $self->is_broken && ($self->{server}{partial} eq 'off' || $api->{broken_position} < $size);
}

# What lies after a page that cannot be fetched is read if it is within the total
sub readable
{
	my ($self) = @_;
	my ($programs, $broken) = ($self->{programs}, $self->{api}{broken_position});
	my $size = $self->{server}{page_size};
	my $is_partial = $self->{server}{partial} eq 'on';

	return map { $programs->[$_]{id} // () } grep {
		!defined $broken || $_ <= $broken - $size || ($is_partial && $_ >= $broken + $size && $_ < $self->{api}{total})
	} 0 .. $#$programs;
}

# Pages of one program have no room to show that no other follows; a refusal of what was expected is
# not believed at once
sub can_tell_missing
{
	my ($self) = @_;
	my $size = $self->{api}{serve_at_most} // $self->{server}{page_size};
	return !$self->is_broken && !$self->unusable && (!@{ $self->{programs} } || $size > 1)
	  && $self->{api}{beyond} !~ /400|422/;
}

sub can_prove
{
	my ($self) = @_;
	my %ids = map { $_->{id} ? ($_->{id} => 1) : () } @{ $self->{programs} };
	return !$self->is_broken && !$self->unusable
	  && ($self->{server}{trust_total} eq 'off' || $self->{api}{total} <= keys %ids);
}

sub must_prove { my ($self) = @_; return $self->can_prove && $self->can_tell_missing; }

sub describe
{
	my ($self) = @_;
	my %settings = (%{ $self->{api} }, %{ $self->{server} }, omit => join('+', @{ $self->{api}{omit} }),
		total_is => $self->{world}{total_is}, delays => $self->{world}{delays});
	return (join(', ', map { "$_ $settings{$_}" } grep { ($settings{$_} // '') ne '' } sort keys %settings),
		scalar(@{ $self->{programs} }) . ' programs: ' . join ' ', map { $_->{id} // "<$_->{text}>" } @{ $self->{programs} });
}

1;
