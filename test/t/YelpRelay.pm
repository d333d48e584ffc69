# YelpRelay - forwards connections to a server, each in a process of its own, for TAP tests
#
#   my $relay = YelpRelay->start(sub {
#       my ($client) = @_;
#       return YelpRelay::connect_to('127.0.0.1', $port);
#   });
#   ... sync through $relay->port ...
#   kill 'STOP', $relay->connections;    # they have gone silent
#   $relay->stop;

package YelpRelay;

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;

use YelpProcess;

# YelpRelay->start($connect, %where)
# Listens on a port of 127.0.0.1, or where the arguments of IO::Socket::INET say.  $connect is called
# with the socket of each connection, and returns the socket that it leads to, or nothing to close it.
#
# YelpRelay::connect_to($host, $port)
# A socket, or undef.
#
# $relay->connections
# The process IDs of its connections.
sub start
{
	my ($class, $connect, %where) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 200, %where) or die $!;
	my $serve = sub {
		$SIG{CHLD} = 'IGNORE';
		while (my $client = $listener->accept)
		{
			next if fork();
			close $listener;
			eval { _relay($client, $connect->($client)) };
			POSIX::_exit(0);
		}
	};

	return bless { process => YelpProcess->start($serve), port => $listener->sockport }, $class;
}

sub connect_to
{
	my ($host, $port) = @_;
	return IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port);
}

sub _relay
{
	my ($client, $server) = @_;
	return unless $server;
	my $both = IO::Select->new($client, $server);

	while (my @ready = $both->can_read)
	{
		foreach my $from (@ready)
		{
			my $to = $from == $client ? $server : $client;
			$from->sysread(my $data, 65536) or return;
			for (my $at = 0; $at < length $data;)
			{
				$at += $to->syswrite($data, length($data) - $at, $at) // return;
			}
		}
	}
	return;
}

sub port { my ($self) = @_; return $self->{port}; }

sub connections
{
	my ($self) = @_;
	my $pid = $self->{process}->pid;
	return split / /, slurp_file("/proc/$pid/task/$pid/children");
}

sub stop
{
	my ($self) = @_;
	kill 'KILL', $self->connections;
	$self->{process}->stop;
	return;
}

1;
