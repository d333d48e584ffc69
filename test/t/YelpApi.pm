# YelpApi - the stand-in for Yelp's programs API, for TAP tests
#
#   my $api = YelpApi->start;
#   $api->config(latency_ms => 500, accounts => { acme => { count => 100 } });
#   $api->faults({
#       match => { offset => 40, nth => 1 },
#       action => { respond => { status => 503, headers => { 'Retry-After' => '1' } } } });
#   ... sync from $api->https_url with ca_file $api->ca_file ...
#   is($api->counters->{requests}, 6);
#
# An account acme with password s3cret and 1,913 programs is there from the start.  The orders
# are documented in test/api/control.py; an order that cannot be carried out dies with the
# server's reason.

package YelpApi;

use strict;
use warnings FATAL => 'all';

use File::Basename ();
use File::Spec;
use HTTP::Tiny;
use JSON::PP ();

use PostgreSQL::Test::Utils ();

use YelpProcess;

my $server = File::Spec->rel2abs(
	File::Basename::dirname(__FILE__) . '/../api/server.py');
my $json = JSON::PP->new->utf8->allow_nonref;

# How many times more time and memory than usual a server may take, and how many
# times longer the API's latencies are: for a server that was made slow
our $slack = $ENV{YELP_SYNC_TEST_SLACK} // 1;

# YelpApi->start(@arguments)
# Starts a server and returns when it listens.  It ends with the test.  @arguments go to
# server.py.  What it says is in the test's log directory.
sub start
{
	my ($class, @arguments) = @_;

	my $directory = PostgreSQL::Test::Utils::tempdir('yelp_api');
	my $log_directory = $PostgreSQL::Test::Utils::log_path || $directory;
	my $log = "$log_directory/" . File::Basename::basename($directory) . '.log';
	my $ready_file = "$directory/ready";
	my @command = ('/usr/bin/python3', $server, '--ready-file', $ready_file,
		'--certs', "$PostgreSQL::Test::Utils::tmp_check/certs", @arguments);
	my $self = bless {
		process => YelpProcess->start(sub { exec @command }, stdout => $log),
		http => HTTP::Tiny->new(
			keep_alive => 0,
			timeout => $PostgreSQL::Test::Utils::timeout_default),
	}, $class;

	$self->poll_until(sub { $self->{process}->check($log); -e $ready_file }, 'the stand-in to listen');
	$self->{ready} = $json->decode(PostgreSQL::Test::Utils::slurp_file($ready_file));
	return $self;
}

# $api->stop
# Ends the server.  Done by itself at the end of the test.
sub stop
{
	my ($self) = @_;
	$self->{process}->stop;
	return;
}

# $api->port($name)
# The port http, https, control, or one of those that server.py describes.
#
# $api->url, $api->url($name), $api->https_url
# The endpoint over HTTP at 127.0.0.1; at a named port; over HTTPS at localhost.
sub port
{
	my ($self, $name) = @_;
	return $self->{ready}{ports}{$name} // die "no port \"$name\"";
}

sub url
{
	my ($self, $name) = @_;
	$name //= 'http';
	my $scheme = $name eq 'http' || $name eq 'swallow' ? 'http' : 'https';
	return "$scheme://127.0.0.1:" . $self->port($name) . '/programs/v1';
}

sub https_url
{
	my ($self) = @_;
	return 'https://localhost:' . $self->port('https') . '/programs/v1';
}

sub ca_file { my ($self) = @_; return $self->{ready}{ca_file}; }

sub pid { my ($self) = @_; return $self->{process}->pid; }

# Sends an order, by GET if it has no content; returns the body of the response
sub _order_raw
{
	my ($self, $path, $what) = @_;

	my $url = 'http://127.0.0.1:' . $self->port('control') . "/$path";
	my $response =
	  defined $what
	  ? $self->{http}->post($url, { content => $json->encode($what) })
	  : $self->{http}->get($url);
	die "/$path: $response->{status} $response->{content}\n" unless $response->{success};
	return $response->{content};
}

sub _order
{
	my ($self, $path, $what) = @_;
	return $json->decode($self->_order_raw($path, $what));
}

# $api->config(%settings)
# Changes settings and accounts; returns all of them.  Booleans are \1 and \0.
#
# $api->reset(@what), $api->mutate(%how), $api->drift(@steps), $api->limiter(%limiters)
# As control.py has them.
#
# $api->programs($account), $api->programs_json($account)
# The listing as a list of hashes; as a JSON array in UTF-8, each program as the API spells it.
#
# $api->set_programs($account, @texts)
# Makes these texts, strings of characters, the account's listing.
#
# $api->faults(@rules), $api->faults_used
# Replaces the faults; how often each of them has applied.
#
# $api->release($count), $api->disconnect($how)
# Releases held requests (all); closes (close) or resets (reset) idle connections.  Both return
# how many.
#
# $api->counters, $api->log, $api->requests_at($offset)
# The counters; a hash for each request; how many requests there were for an offset.
sub reset { my ($self, @what) = @_; return $self->_order('reset', { what => \@what }); }

sub config
{
	my ($self, %settings) = @_;
	$settings{latency_ms} *= $slack if defined $settings{latency_ms};
	return $self->_order('config', \%settings);
}

sub mutate { my ($self, %how) = @_; return $self->_order('mutate', \%how); }

sub drift { my ($self, @steps) = @_; return $self->_order('drift', { steps => \@steps }); }

sub drift_done { my ($self) = @_; return @{ $self->_order('drift')->{done} }; }

sub limiter { my ($self, %limiters) = @_; return $self->_order('limiter', \%limiters); }

sub programs { my ($self, $account) = @_; return @{ $json->decode($self->programs_json($account)) }; }

sub programs_json
{
	my ($self, $account) = @_;
	return $self->_order_raw('programs', { account => $account // 'acme' });
}

sub set_programs
{
	my ($self, $account, @texts) = @_;
	return $self->_order('programs', { account => $account, texts => \@texts });
}

sub faults { my ($self, @rules) = @_; return $self->_order('faults', { rules => \@rules }); }

sub faults_used { my ($self) = @_; return @{ $self->_order('faults')->{used} }; }

sub release { my ($self, $count) = @_; return $self->_order('release', { count => $count })->{released}; }

sub disconnect
{
	my ($self, $how) = @_;
	return $self->_order('disconnect', { how => $how // 'close' })->{connections};
}

sub counters { my ($self) = @_; return $self->_order('counters'); }

sub log { my ($self) = @_; return @{ $self->_order('log') }; }

sub requests_at
{
	my ($self, $offset) = @_;
	return scalar grep { $_->{offset} == $offset } $self->log;
}

# $api->poll_until(sub { ... }, $what)
# Calls the sub with $api until it returns something true, which is returned.
#
# $api->poll_counter($name, $wanted)
# Waits until a counter has this value or a greater one.
sub poll_until
{
	my ($self, $condition, $what) = @_;
	return YelpProcess::poll_until(sub { $condition->($self) }, $what);
}

sub poll_counter
{
	my ($self, $name, $wanted) = @_;
	return $self->poll_until(sub { $self->counters->{$name} >= $wanted }, "$name to reach $wanted");
}

1;
