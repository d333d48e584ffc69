# YelpPage::Stream - an answer of Server-Sent Events, read as it arrives

package YelpPage::Stream;

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();

use PostgreSQL::Test::Utils ();

my $json = JSON::PP->new->utf8;

# YelpPage::Stream->open($url, $method, $path, \%headers, $body)
# Returns when the answer's head is here.  HTTP/1.0, so that the body is not in chunks.
sub open
{
	my ($class, $url, $method, $path, $headers, $body) = @_;
	my ($host) = $url =~ m{^http://([^/]+)/$} or die "not an URL: $url";
	my $socket = IO::Socket::INET->new(PeerAddr => $host) or die "could not connect: $@";
	my $self = bless { socket => $socket, text => '', unread => '' }, $class;
	my %headers = (Host => $host, 'Content-Length' => length $body, %$headers);

	$socket->print("$method /$path HTTP/1.0\r\n",
		(map { "$_: $headers{$_}\r\n" } sort keys %headers), "\r\n", $body);
	$self->read_more until $self->{unread} =~ s/^(.*?)\r\n\r\n//s;
	$self->{head} = $1;
	return $self;
}

sub read_more
{
	my ($self) = @_;

	IO::Select->new($self->{socket})->can_read($PostgreSQL::Test::Utils::timeout_default)
	  or die "timed out waiting for the page\n";
	my $count = sysread($self->{socket}, my $read, 65536);
	return 0 unless $count;
	$self->{text} .= $read;
	$self->{unread} .= $read;
	return 1;
}

sub status { my ($self) = @_; return ($self->{head} =~ m{^HTTP/\S+ (\d+)})[0]; }

sub header { my ($self, $name) = @_; return ($self->{head} =~ /^\Q$name\E: *(.*?)\r?$/mi)[0]; }

# The next event's data, decoded; undef at the end
sub next_event
{
	my ($self) = @_;

	for (;;)
	{
		while ($self->{unread} =~ s/^(.*?)\n\n//s)
		{
			my $block = $1;
			return $json->decode($1) if $block =~ /^data: (.*)$/s;
			die "neither event nor comment: $block\n" unless $block =~ /^:/;
		}
		return undef unless $self->read_more;
	}
}

# The next one of this type, which must come
sub next_of
{
	my ($self, $type) = @_;

	while (my $event = $self->next_event)
	{
		return $event if $event->{type} eq $type;
	}
	die "no event $type: $self->{text}\n";
}

# All that follow, and the last one of them
sub rest
{
	my ($self) = @_;
	my @events;

	while (my $event = $self->next_event)
	{
		push @events, $event;
	}
	return @events;
}

sub end { my ($self) = @_; return ($self->rest)[-1]; }

# What came so far, as it came
sub text { my ($self) = @_; return $self->{text}; }

# Turns away, as a closed tab does.
sub close { my ($self) = @_; close $self->{socket}; return; }

1;
