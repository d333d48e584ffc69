# YelpFlood - a server that never stops sending, for TAP tests
#
#   my $flood = YelpFlood->start($api, 'tickets');
#   ... sync from $flood->options ...
#   $flood->poll('floods');
#   ... end it ...
#   $flood->poll('closed');    # by the client, or the test dies

package YelpFlood;

use strict;
use warnings FATAL => 'all';

use File::Basename ();
use PostgreSQL::Test::Utils ();

use YelpProcess;

my $program = File::Basename::dirname(__FILE__) . '/../api/flood.py';

# YelpFlood->start($api, $what)
# Starts it with the certificate of the stand-in.  test/api/flood.py describes what it can send.
#
# $flood->options
# The options of a server that syncs from it.
#
# $flood->count($word), $flood->poll($word)
# How many floods have begun (floods), or have ended because the client closed the connection
# (closed); waits for the next one.
#
# $flood->idle
# Tells it that its connections are idle.
sub start
{
	my ($class, $api, $what) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir('flood') . '/log';
	my @command = ('/usr/bin/python3', $program, $what, '--certificate',
		File::Basename::dirname($api->ca_file) . '/server.pem');
	my $self = bless { what => $what, api => $api, log => $log, seen => {} }, $class;

	$self->{process} = YelpProcess->start(sub { exec @command }, stdout => $log);
	$self->poll('listens');
	return $self;
}

sub options
{
	my ($self) = @_;
	my ($port) = PostgreSQL::Test::Utils::slurp_file($self->{log}) =~ /^listens (\d+)$/m;
	my %tls = (ca_file => $self->{api}->ca_file);

	return (%tls, endpoint => $self->{api}->https_url, proxy => "http://127.0.0.1:$port")
	  if $self->{what} eq 'connect';
	return (endpoint => "http://127.0.0.1:$port/programs/v1") if $self->{what} eq 'codings';
	return (%tls, endpoint => "https://localhost:$port/programs/v1",
		$self->{what} =~ /tickets/ ? () : (http_version => '2'));
}

sub count
{
	my ($self, $word) = @_;
	return 0 unless -e $self->{log};
	my $said = PostgreSQL::Test::Utils::slurp_file($self->{log});
	return scalar(() = $said =~ /^$word\b/mg);
}

sub poll
{
	my ($self, $word) = @_;
	my $wanted = ++$self->{seen}{$word};

	YelpProcess::poll_until(
		sub {
			$self->{process}->check($self->{log});
			$self->count($word) >= $wanted;
		},
		"a flood: $word");
	return;
}

sub idle
{
	my ($self) = @_;
	kill 'USR1', $self->{process}->pid;
	return;
}

1;
