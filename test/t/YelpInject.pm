# YelpInject - calls that fail in a backend, and names with odd addresses, for TAP tests
#
#   my $inject = YelpInject->new;
#   my ($node, $api) = $inject->preload(sub { start() });
#   my $session = YelpSession->new($node);
#   $inject->arm($session, "libcurl's memory", first => 17);
#   my $result = $session->sync('acme');
#   $inject->disarm;
#   is($inject->failed, 1, 'the seventeenth allocation has failed');
#
# The calls that can fail are in inject.c: functions of libcurl and of the system, by their names,
# and extension's memory, libcurl's memory, server's memory, write (of rows that spill to disk).

package YelpInject;

use strict;
use warnings FATAL => 'all';

use File::Basename ();
use File::Spec;

use PostgreSQL::Test::Utils ();

my $source = File::Spec->rel2abs(File::Basename::dirname(__FILE__) . '/inject.c');

# struct Orders: the orders, and the answer
my $orders = 'l4Z32l2';
my $answer = 'l3';
my $answer_at = length(pack('l4Z32', 0, 0, 0, 0, ''));

# YelpInject->new
# Builds the library.
#
# $inject->preload(sub { ... }, %names)
# Calls the sub, with the library preloaded into the programs that it starts, and returns its
# result.  elsewhere.example has the address of the stand-in; other_address: another one before it.
# stall: a file; looking up stalled.test does not return while it exists.
sub new
{
	my ($class) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir('yelp_inject');
	my $self = bless {
		library => "$directory/inject.so",
		path => "$directory/orders",
		pid => 0,
	}, $class;
	my @flags = split ' ', `curl-config --cflags`;

	PostgreSQL::Test::Utils::system_or_bail('cc', '-O1', '-shared', '-fPIC', @flags,
		'-o', $self->{library}, $source, '-ldl');
	open($self->{file}, '+>', $self->{path}) or die "$self->{path}: $!\n";
	$self->_write(0, pack("$orders l", (0) x 4, '', (0) x 3));
	return $self;
}

sub preload
{
	my ($self, $start, %names) = @_;
	local %ENV = (%ENV, LD_PRELOAD => $self->{library}, YELP_SYNC_TEST_INJECT => $self->{path},
		map { 'YELP_SYNC_TEST_' . uc($_) => $names{$_} } keys %names);
	return $start->();
}

sub _write
{
	my ($self, $at, $bytes) = @_;
	sysseek($self->{file}, $at, 0);
	syswrite($self->{file}, $bytes) == length($bytes) or die "$self->{path}: $!\n";
	return;
}

sub _answer
{
	my ($self) = @_;
	sysseek($self->{file}, $answer_at, 0);
	sysread($self->{file}, my $bytes, 12) == 12 or die "$self->{path}: $!\n";
	return unpack($answer, $bytes);
}

# $inject->arm($session, $call, %options)
# Makes calls of this name fail in the session's process: count (1) of them, beginning with
# number first.  code: with this errno or code of libcurl.
#
# $inject->disarm
# Ends that.
#
# $inject->calls, $inject->failed, $inject->blocks
# How many calls there have been, and how many have failed, since it was armed; how many blocks of
# memory from malloc() the extension and libcurl hold, if that has changed since.
sub arm
{
	my ($self, $session, $call, %options) = @_;
	$self->{pid} = $session->pid;
	$self->_write(0, pack($orders, $self->{pid}, $options{first}, $options{count} // 1,
			$options{code} // 0, $call, 0, 0));
	return;
}

sub disarm
{
	my ($self) = @_;
	$self->_write(0, pack('l4Z32', $self->{pid}, (0) x 3, ''));
	return;
}

sub calls { my ($self) = @_; return ($self->_answer)[0]; }

sub failed { my ($self) = @_; return ($self->_answer)[1]; }

sub blocks { my ($self) = @_; return ($self->_answer)[2]; }

1;
