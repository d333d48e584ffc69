=pod

=head1 NAME

YelpSession - a session that stays, and what its process holds, for TAP tests

=head1 SYNOPSIS

  my $session = YelpSession->new($node);
  my $failed = $session->sync('acme');
  my $next = $session->sync('acme');		# in the same backend

  my $sockets = $session->sockets;
  $session->begin_sync('acme');
  $api->poll_counter('held', 1);
  $node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $session->pid . ')');
  is($session->sync_result->{sqlstate}, '57014');
  is($session->sockets, $sockets);
  $session->end;

C<YelpTest::run> and C<YelpTest::sync> do the same in a session for one call, which stops at its
first error.  Files, sockets, threads and memory are read from F</proc>.

=cut

package YelpSession;

use strict;
use warnings FATAL => 'all';

use Encode ();
use IPC::Run ();
use PostgreSQL::Test::Utils ();

use YelpTest;

=pod

=head1 METHODS

=over

=item YelpSession->new($node, %settings)

Connects to the database C<postgres>.

=cut

sub new
{
	my ($class, $node, %settings) = @_;
	my $self = bless { stdin => '', stdout => '', stderr => '', commands => 0 }, $class;

	$self->{timer} = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$self->{harness} = IPC::Run::start(
		[ YelpTest::psql_command($node, 'postgres') ],
		'<', \$self->{stdin}, '>', \$self->{stdout}, '2>', \$self->{stderr}, $self->{timer});
	$self->run("\\set ON_ERROR_STOP 0\n" . YelpTest::prelude(%settings));
	$self->{pid} = $self->value('SELECT pg_backend_pid()');
	return $self;
}

=pod

=item $session->run($sql)

Runs SQL, goes on after errors, and returns what C<YelpTest::run> does, and C<lost>: true when the
connection is.  That is an error, too, as is all that is begun in such a session; the process is gone
then, and what it did is to be seen.

=item $session->sync($account)

The same for C<yelp_sync($account)>; also C<rows>, as in C<YelpTest::sync>.

=item $session->begin($sql), $session->result, $session->begin_sync($account), $session->sync_result

The two halves of each: begin, and wait for the end.

=cut

# A psql that has ended would be started anew.
sub begin
{
	my ($self, $sql) = @_;
	my $mark = 'end of command ' . ++$self->{commands};

	return if $self->{lost};
	$self->{timer}->start;
	$self->{mark} = qr/^\Q$mark\E\n/m;
	$self->{stdin} .= Encode::encode('UTF-8', $sql) . "\n;\n\\echo '$mark'\n\\warn '$mark'\n";
	$self->{harness}->pump_nb;
	return;
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

sub result
{
	my ($self) = @_;

	if (!$self->{lost})
	{
		while (!$self->_is_marked && $self->_pump('pump')) { }
		$self->{lost} = !$self->_is_marked || $self->_is_disconnected;
		$self->_bury if $self->{lost};
	}
	my ($stdout, $stderr) = map { s/$self->{mark}//r } @$self{qw(stdout stderr)};
	my $result = YelpTest::result($stdout, $stderr);

	$self->{stdout} = $self->{stderr} = '';
	@$result{qw(sqlstate error)} = ('08006', 'the session is lost')
	  if $self->{lost} && !defined $result->{error};
	$result->{lost} = $self->{lost};
	return $result;
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

sub run
{
	my ($self, $sql) = @_;
	$self->begin($sql);
	return $self->result;
}

sub begin_sync
{
	my ($self, $account) = @_;
	$self->begin(YelpTest::sync_query($account));
	return;
}

sub sync_result
{
	my ($self) = @_;
	return YelpTest::with_rows($self->result);
}

sub sync
{
	my ($self, $account) = @_;
	$self->begin_sync($account);
	return $self->sync_result;
}

=pod

=item $session->is_running

Whether what was begun has not come to its end yet.

=item $session->wait_for($pattern)

Waits until the messages of what was begun match.

=item $session->value($sql)

The one value that a query returns; dies on an error.

=item $session->options(%options)

Sets options of the server C<yelp>, as C<YelpTest::set_server> does.

=cut

sub is_running
{
	my ($self) = @_;
	$self->_pump('pump_nb');
	return !$self->_is_marked && $self->{harness}->pumpable;
}

sub wait_for
{
	my ($self, $pattern) = @_;
	until ($self->{stderr} =~ $pattern)
	{
		$self->_pump('pump') or die "the session ended without $pattern: $self->{stderr}\n";
	}
	return;
}

sub value
{
	my ($self, $sql) = @_;
	my $result = $self->run($sql);

	die "$sql: $result->{error}\n" if defined $result->{error};
	return $result->{stdout} =~ s/\n\z//r;
}

sub options
{
	my ($self, %options) = @_;
	my $sql = YelpTest::alter_server([ split /\n/, $self->value(YelpTest::given_options()) ], %options);
	$self->value($sql) if $sql;
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
	$self->{stdin} .= "\\q\n";
	$self->{harness}->finish;
	$self->{lost} = 1;
	$self->wait_until_gone;
	return;
}

sub wait_until_gone
{
	my ($self) = @_;
	YelpTest::poll_until(
		sub {
			my $state = _slurp("/proc/$self->{pid}/stat");
			!defined $state || $state =~ /^\d+ \(.*\) [ZX] /;
		},
		"the end of process $self->{pid}");
	return;
}

=pod

=item $session->pid

The process id.

=item $session->handles, $session->sockets, $session->threads

How many file descriptors that are no files of the cluster's, how many sockets (which are among
them), and how many threads the process has.

=item $session->memory($name)

A figure of F</proc/PID/status> in kB: C<VmRSS>, C<VmHWM>, C<RssAnon>.

=item $session->reset_peak

Lets C<VmHWM> start anew.

=back

=cut

sub pid
{
	my ($self) = @_;
	return $self->{pid};
}

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

1;
