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
use IO::Handle ();
use IPC::Run ();
use JSON::PP ();
use MIME::Base64 ();

use PostgreSQL::Test::Utils ();

use YelpPage::Stream;
use YelpProcess;
use YelpTest;

my $directory = File::Spec->rel2abs(
	File::Basename::dirname(__FILE__) . '/../../examples/sync-page');
my $json = JSON::PP->new->utf8->allow_nonref;

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

# YelpPage::run_setup($node)
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

# $page->stop, $page->stop($signal)
# Ends the server.
sub stop
{
	my ($self, $signal) = @_;
	$self->{process}->stop($signal);
	return;
}

# $page->set_password($name, $password)
# By users.py.
#
# $page->url, $page->users, $page->messages
# The page's address with a slash at its end; the file of users; the file with what the server
# says.
sub directory { return $directory; }

sub set_password
{
	my ($self, $name, $password) = @_;
	IPC::Run::run([ "$directory/users.py", $self->{users}, $name ], '<', \"$password\n")
	  or die "users.py failed\n";
	return;
}

sub url { return $_[0]{url}; }
sub users { return $_[0]{users}; }
sub messages { return $_[0]{messages}; }

# $page->request($method, $path, %options)
# What HTTP::Tiny answers; json, where it is JSON.  login: other than anna's, undef for
# none.  headers, content.
#
# $page->get($path, %query)
# The same for /api/reseller/$path.
#
# $page->post($path, $account, %options)
# POSTs it; returns a YelpPage::Stream.  headers: more of them.  url: other than the page's own.
#
# $page->sync($account, %options), $page->follow($account)
# The same for sync-stream; what a browser follows.
#
# YelpPage::directory()
# That of the example.
sub headers
{
	my ($self, %options) = @_;
	my $login = exists $options{login} ? $options{login} : $self->{login};
	return {
		defined $login ? (Authorization => 'Basic ' . MIME::Base64::encode_base64($login, '')) : (),
		%{ $options{headers} // {} }
	};
}

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

sub get
{
	my ($self, $path, %query) = @_;
	return $self->request('GET',
		"api/reseller/$path?" . $self->{http}->www_form_urlencode(\%query));
}

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

1;
