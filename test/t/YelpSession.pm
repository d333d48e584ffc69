=pod

=head1 NAME

YelpSession - several commands in one session, for TAP tests

=head1 SYNOPSIS

  my $session = YelpSession->new($node);
  my $failed = $session->sync('acme');
  my $next = $session->sync('acme');		# in the same backend
  $session->end;

=cut

package YelpSession;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils ();

use YelpTest;

my $json = JSON::PP->new->utf8->allow_nonref;

=pod

=head1 METHODS

=over

=item YelpSession->new($node, %settings)

Connects to the database C<postgres>.

=cut

sub new
{
	my ($class, $node, %settings) = @_;
	my $self = bless {
		stdin => '', stdout => '', stderr => '', commands => 0,
		options => { endpoint => 1 },	# as YelpTest::install sets it
	}, $class;

	$self->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$self->{harness} = IPC::Run::start(
		[ YelpTest::psql_command($node, 'postgres') ],
		'<', \$self->{stdin}, '>', \$self->{stdout}, '2>', \$self->{stderr}, $self->{timer});
	$self->run("\\set ON_ERROR_STOP 0\n" . YelpTest::prelude(%settings));
	return $self;
}

=pod

=item $session->run($sql)

Runs SQL, goes on after errors, and returns what C<YelpTest::run> does.

=item $session->sync($account)

The same for C<yelp_sync($account)>; also C<rows>, as in C<YelpTest::sync>.

=item $session->begin($sql), $session->result, $session->begin_sync($account), $session->sync_result

The two halves of each: begin, and wait for the end.

=cut

sub begin
{
	my ($self, $sql) = @_;
	my $mark = 'end of command ' . ++$self->{commands};

	$self->{timer}->start;
	$self->{mark} = qr/^\Q$mark\E\n/m;
	$self->{stdin} .= "$sql\n;\n\\echo '$mark'\n\\warn '$mark'\n";
	$self->{harness}->pump_nb;
	return;
}

sub result
{
	my ($self) = @_;

	until ($self->{stdout} =~ $self->{mark} && $self->{stderr} =~ $self->{mark})
	{
		die "the session ended: $self->{stderr}\n" unless $self->{harness}->pumpable;
		$self->{harness}->pump;
	}
	my ($stdout, $stderr) = map { s/$self->{mark}//r } @$self{qw(stdout stderr)};
	$self->{stdout} = $self->{stderr} = '';
	return YelpTest::result($stdout, $stderr);
}

sub run
{
	my ($self, $sql) = @_;
	$self->begin($sql);
	return $self->result;
}

sub begin_sync
{
	my ($self, $account) = @_;
	$self->begin('SELECT row_to_json(s) FROM yelp_sync(' . YelpTest::literal($account) . ') AS s');
	return;
}

sub sync_result
{
	my ($self) = @_;
	my $result = $self->result;
	$result->{rows} = [ map { $json->decode($_) } split /\n/, $result->{stdout} ];
	return $result;
}

sub sync
{
	my ($self, $account) = @_;
	$self->begin_sync($account // 'acme');
	return $self->sync_result;
}

=pod

=item $session->wait_for($pattern)

Waits until the messages of what was begun match.

=item $session->value($sql)

The one value that a query returns; dies on an error.

=cut

sub wait_for
{
	my ($self, $pattern) = @_;
	until ($self->{stderr} =~ $pattern)
	{
		die "the session ended without $pattern\n" unless $self->{harness}->pumpable;
		$self->{harness}->pump;
	}
	return;
}

sub value
{
	my ($self, $sql) = @_;
	my $result = $self->run($sql);

	die "$sql: $result->{error}\n" if defined $result->{error};
	chomp(my $value = $result->{stdout});
	return $value;
}

=pod

=item $session->options(%options)

Sets options of the server C<yelp>, and drops those whose value is undef.  Only this method
may set them, but for the endpoint: it knows what is set.

=item $session->end

Ends the session.

=back

=cut

sub options
{
	my ($self, %options) = @_;
	my @actions;

	foreach my $option (sort keys %options)
	{
		my $value = $options{$option};
		my $action = !$self->{options}{$option} ? 'ADD' : defined $value ? 'SET' : 'DROP';

		next if $action eq 'ADD' && !defined $value;
		push @actions, "$action $option " . (defined $value ? YelpTest::literal($value) : '');
		$self->{options}{$option} = defined $value;
	}
	return unless @actions;
	my $result = $self->run('ALTER SERVER yelp OPTIONS (' . join(', ', @actions) . ')');
	die "@actions: $result->{error}\n" if defined $result->{error};
	return;
}

sub end
{
	my ($self) = @_;
	$self->{stdin} .= "\\q\n";
	$self->{harness}->finish;
	return;
}

1;
