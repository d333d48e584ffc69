=pod

=head1 NAME

YelpBackend - a session that may be ended, and what its process holds, for TAP tests

=head1 SYNOPSIS

  my $session = YelpBackend->new($node);
  my $sockets = $session->sockets;
  $session->begin(q{SELECT yelp_sync('acme')});
  $api->poll_counter('held', 1);
  $node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $session->pid . ')');
  is($session->result->{sqlstate}, '57014');
  is($session->sockets, $sockets);

It is a YelpSession.  Files, sockets, threads and memory are read from F</proc>.

=cut

package YelpBackend;

use strict;
use warnings FATAL => 'all';

use Time::HiRes ();

use PostgreSQL::Test::Utils ();

use YelpTest;

use parent 'YelpSession';

my $poll_interval_s = 0.005;

=pod

=head1 METHODS

=over

=item YelpBackend->new($node, %settings)

Connects to the database C<postgres>.

=item $session->pid

The process id.

=item $session->is_running

Whether what was begun has not come to its end yet.

=item $session->result

What C<YelpTest::run> returns, and C<lost>: true when the connection is.  What is begun in a
session that is lost ends so, too; the process is gone then, and what it did is to be seen.

=cut

sub new
{
	my ($class, @arguments) = @_;
	my $self = $class->SUPER::new(@arguments);
	$self->{pid} = $self->value('SELECT pg_backend_pid()');
	die "the session ended at once\n" if $self->{lost};
	return $self;
}

# A psql that has ended would be started anew.
sub begin
{
	my ($self, $sql) = @_;
	$self->SUPER::begin($sql) unless $self->{lost};
	return;
}

sub pid
{
	my ($self) = @_;
	return $self->{pid};
}

sub _is_marked
{
	my ($self) = @_;
	return $self->{stdout} =~ $self->{mark} && $self->{stderr} =~ $self->{mark};
}

# psql may end, its connection lost, between a look at it and this.
sub _pump
{
	my ($self, $method) = @_;
	return $self->{harness}->pumpable
	  && (eval { $self->{harness}->$method; 1 } || $@ =~ /ended prematurely/ || die $@);
}

sub is_running
{
	my ($self) = @_;
	$self->_pump('pump_nb');
	return !$self->_is_marked && $self->{harness}->pumpable;
}

sub result
{
	my ($self) = @_;

	return { %{ YelpTest::result('', '') }, lost => 1 } if $self->{lost};
	while (!$self->_is_marked && $self->_pump('pump')) { }
	$self->{lost} = !$self->_is_marked || $self->_is_disconnected;
	$self->_bury if $self->{lost};
	my ($stdout, $stderr) = map { s/$self->{mark}//r } @$self{qw(stdout stderr)};
	$self->{stdout} = $self->{stderr} = '';
	return { %{ YelpTest::result($stdout, $stderr) }, lost => $self->{lost} };
}

# A server that ends says so with FATAL, or with a WARNING where it crashes.  psql may go on without a
# connection then, and without an error.
sub _is_disconnected
{
	my ($self) = @_;
	return $self->{stderr} =~ /^psql:[^:]*:\d+: (?:FATAL|PANIC|WARNING:  57P0[12]:|no connection to the server|server closed the connection)/m;
}

# The process may live a little longer than its connection.  A psql that goes on without one waits
# for more, and need not see the end of its input: a server that was started since may hold that open.
sub _bury
{
	my ($self) = @_;
	$self->{stdin} .= "\\q\n" if $self->_is_marked;
	$self->{harness}->finish;
	$self->wait_until_gone if $self->{pid};
	return;
}

=pod

=item $session->end

Disconnects, and returns when the process is gone.

=item $session->wait_until_gone

Returns when it is gone, whatever ends it.

=cut

sub end
{
	my ($self) = @_;
	return if $self->{lost};
	$self->SUPER::end;
	$self->{lost} = 1;
	$self->wait_until_gone;
	return;
}

sub wait_until_gone
{
	my ($self) = @_;
	poll_until(
		sub {
			my $state = _slurp("/proc/$self->{pid}/stat");
			!defined $state || $state =~ /^\d+ \(.*\) [ZX] /;
		},
		"the end of process $self->{pid}");
	return;
}

=pod

=item $session->handles, $session->sockets, $session->threads

How many file descriptors that are no files of the cluster's, how many sockets (which are among
them), and how many threads the process has.

=item $session->memory($name)

A figure of F</proc/PID/status> in kB: C<VmRSS>, C<VmHWM>, C<RssAnon>.

=item $session->reset_peak

Lets C<VmHWM> start anew.

=cut

# A file's content, or undef where there is none
sub _slurp
{
	my ($path) = @_;
	local $/;
	open(my $file, '<', $path) or return undef;
	return scalar readline $file;
}

sub _list
{
	my ($path) = @_;
	opendir(my $directory, $path) or die "$path: $!\n";
	return grep { !/^\./ } readdir $directory;
}

sub _descriptors
{
	my ($self) = @_;
	my $path = "/proc/$self->{pid}/fd";
	return map { readlink("$path/$_") // () } _list($path);
}

# The server keeps the cluster's files open for as long as it may.
sub handles
{
	my ($self) = @_;
	return scalar grep { !m{^/.*/(base|global|pg_\w+)/} } $self->_descriptors;
}

sub sockets
{
	my ($self) = @_;
	return scalar grep { /^socket:/ } $self->_descriptors;
}

sub threads
{
	my ($self) = @_;
	return scalar(my @threads = _list("/proc/$self->{pid}/task"));
}

sub memory
{
	my ($self, $name) = @_;
	my ($kilobytes) = (_slurp("/proc/$self->{pid}/status") // '') =~ /^$name:\s*(\d+) kB$/m;
	return $kilobytes // die "no $name of process $self->{pid}\n";
}

sub reset_peak
{
	my ($self) = @_;
	open(my $file, '>', "/proc/$self->{pid}/clear_refs") or die "clear_refs: $!\n";
	print $file '5';
	close($file) or die "clear_refs: $!\n";
	return;
}

=pod

=item YelpBackend::poll_until(sub { ... }, $what)

Calls the sub until it returns something true, which is returned; dies when that takes
longer than PostgreSQL's tests wait.

=back

=cut

sub poll_until
{
	my ($condition, $what) = @_;
	my $deadline = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;

	while (Time::HiRes::time() < $deadline)
	{
		my $result = $condition->();
		return $result if $result;
		Time::HiRes::sleep($poll_interval_s);
	}
	die "timed out waiting for $what\n";
}

1;
