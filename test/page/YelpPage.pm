# YelpPage - the page of examples/sync-page, for TAP tests
#
#   my ($node, $api) = YelpTest::start(tables => 0);
#   YelpPage::set_up($node, acme => 'yelp');
#   my $page = YelpPage->start($node, arguments => [ '--max-syncs', 2 ]);
#   is($page->get('accounts')->{status}, 200);
#   my $stream = $page->sync('acme');
#   while (my $event = $stream->next_event) { ... }

package YelpPage;

use strict;
use warnings FATAL => 'all';

use File::Basename ();
use File::Spec;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use MIME::Base64 ();

use PostgreSQL::Test::Utils ();

use YelpProcess;
use YelpTest;

my $directory = File::Spec->rel2abs(
	File::Basename::dirname(__FILE__) . '/../../examples/sync-page');
my $json = JSON::PP->new->utf8->allow_nonref;

# Of the example
sub directory { return $directory; }

# YelpPage::set_up($node, %accounts)
# Creates the role regress_ads, which is no superuser, maps it to accounts (name to server),
# and has it run setup.sql, which creates the tables.
sub set_up
{
	my ($node, %accounts) = @_;

	YelpTest::must_run($node, q{
		CREATE ROLE regress_ads LOGIN CREATEROLE;
		GRANT CREATE ON DATABASE postgres TO regress_ads;
		GRANT CREATE ON SCHEMA public TO regress_ads}
		  . join '', map {
			"; GRANT USAGE ON FOREIGN SERVER $accounts{$_} TO regress_ads;
			CREATE USER MAPPING FOR regress_ads SERVER $accounts{$_} "
			  . YelpTest::options(username => $_, password => 's3cret')
		} sort keys %accounts);
	run_setup($node);
	return;
}

# Runs setup.sql as regress_ads.
sub run_setup
{
	my ($node) = @_;
	PostgreSQL::Test::Utils::system_or_bail('psql', '-X', '-q',
		'-o', File::Spec->devnull, '-d', $node->connstr('postgres') . ' user=regress_ads',
		'-f', "$directory/setup.sql");
	return;
}

# YelpPage->start($node, %options)
# Starts the server, with the user anna and her password correct horse, and returns when it
# listens.  It ends with the test.  arguments: more for server.py.  environment: a hash.
#
# YelpPage->serve(\@command, %environment)
# The same with a whole command, whose users have anna already.
sub start
{
	my ($class, $node, %options) = @_;
	my $users = PostgreSQL::Test::Utils::tempdir('yelp_page') . '/users';

	set_password({ users => $users }, 'anna', 'correct horse');
	my $self = $class->serve([ "$directory/server.py", '--users', $users, '--port', 0, @{ $options{arguments} // [] } ],
		PGHOST => $node->host,
		PGPORT => $node->port,
		PGDATABASE => 'postgres',
		PGUSER => 'yelp_page',
		PGPASSWORD => 'database-s3cret',
		%{ $options{environment} // {} });
	$self->{users} = $users;
	return $self;
}

sub serve
{
	my ($class, $command, %environment) = @_;
	my $home = PostgreSQL::Test::Utils::tempdir('yelp_page');
	my $log_directory = $PostgreSQL::Test::Utils::log_path || $home;
	my $self = bless {
		messages => "$log_directory/" . File::Basename::basename($home) . '.log',
		http => HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default),
		login => 'anna:correct horse',
	}, $class;

	local %ENV = (%ENV, PYTHONDONTWRITEBYTECODE => 1, %environment);
	pipe(my $reader, my $writer) or die "could not make a pipe: $!";
	$self->{process} = YelpProcess->start(sub { exec @$command },
		stdout => $writer, stderr => $self->{messages});
	close $writer;
	$self->{url} = readline($reader) // die "the page did not start: see $self->{messages}\n";
	chomp $self->{url};
	return $self;
}

# Sends a signal to the server; ends it, with TERM or the given signal.
sub signal { my ($self, $signal) = @_; kill $signal, $self->{process}->pid; return; }

sub stop { my ($self, $signal) = @_; $self->{process}->stop($signal); return; }

# By users.py
sub set_password
{
	my ($self, $name, $password) = @_;
	IPC::Run::run([ "$directory/users.py", $self->{users}, $name ], '<', \"$password\n")
	  or die "users.py failed\n";
	return;
}

# The page's address with a slash at its end; the file of users; the file with what the server says
sub url { return $_[0]{url}; }
sub users { return $_[0]{users}; }
sub messages { return $_[0]{messages}; }

# The requests below take as options: login, other than anna's, undef for none; headers; and
# url, other than the page's own.
sub headers
{
	my ($self, %options) = @_;
	my $login = exists $options{login} ? $options{login} : $self->{login};
	return {
		defined $login ? (Authorization => 'Basic ' . MIME::Base64::encode_base64($login, '')) : (),
		%{ $options{headers} // {} }
	};
}

# What HTTP::Tiny answers; json, where it is JSON.  content: the body.
sub request
{
	my ($self, $method, $path, %options) = @_;
	my $response = $self->{http}->request($method, $self->{url} . $path,
		{
			headers => $self->headers(%options),
			defined $options{content} ? (content => $options{content}) : ()
		});

	$response->{json} = $json->decode($response->{content})
	  if ($response->{headers}{'content-type'} // '') =~ m{^application/json};
	return $response;
}

# GETs /api/reseller/$path.
sub get
{
	my ($self, $path, %query) = @_;
	return $self->request('GET', "api/reseller/$path?" . $self->{http}->www_form_urlencode(\%query));
}

# POSTs it; returns a YelpPage::Stream, as the next two do.
sub post
{
	my ($self, $path, $account, %options) = @_;
	return YelpPage::Stream->open(
		$options{url} // $self->{url}, POST => "api/reseller/$path",
		{ 'Content-Type' => 'application/json', %{ $self->headers(%options) } },
		$json->encode({ username => $account }));
}

sub sync { my ($self, @given) = @_; return $self->post('programs/sync-stream', @given); }

sub follow
{
	my ($self, $account) = @_;
	return YelpPage::Stream->open($self->{url}, GET => 'api/reseller/programs/sync-stream?'
		  . $self->{http}->www_form_urlencode({ username => $account }), $self->headers, '');
}

# An answer of Server-Sent Events, read as it arrives
package YelpPage::Stream;

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

# The next event's data, decoded; undef at the end.  Signs of life are skipped.
sub next_event
{
	my ($self) = @_;

	for (;;)
	{
		while ($self->{unread} =~ s/^(.*?)\n\n//s)
		{
			my $block = $1;
			$block =~ /^data: (.*)$/s or die "no event: $block\n";
			my $event = $json->decode($1);
			return $event unless $event->{type} eq 'alive';
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
