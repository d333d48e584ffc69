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
# An account acme with password s3cret and 1,913 programs is there from the start.  What
# the orders take and give is described where they are carried out: config in
# test/api/settings.py, faults in faults.py and deliver.py, drift in drift.py,
# limiter in limiter.py, and all of them in control.py.  Any order that cannot be carried
# out dies with the server's reason.

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
# The port http, https, wrong_host (HTTPS with a certificate for another host),
# untrusted (by a CA that ca_file does not hold), control, swallow (its backlog
# is full: connecting never ends) or silent (accepts and never speaks).
#
# $api->url, $api->url($name)
# The endpoint over HTTP, at 127.0.0.1, or at the named port: over HTTPS where the port speaks
# TLS or nothing at all.
#
# $api->https_url
# The endpoint over HTTPS, at localhost.
#
# $api->ca_file
# The file with the CA that signed the server's certificate.
#
# $api->pid
# The server's process id.
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

# Sends an order to the control port, by GET if it has no content; returns the body of
# the response.
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

# $api->reset, $api->reset(@what)
# Puts all back to the start, or only what is named of config, accounts, faults,
# drift, limiter and counters.
#
# $api->config(%settings)
# Changes settings and accounts (username to password, count, seed, style, or
# undef to remove it); returns all of them.  Booleans are \1 and \0.
#
# $api->mutate(%how)
# Changes an account's programs: account (acme), seed, and how many to remove, add,
# alter and respell; or edit, an array of pairs: a position, and a hash of paths and values.
# Returns what a sync must report, in removed, added, altered (program_id to the
# changed columns) and respelled (which count as unchanged).
sub reset
{
	my ($self, @what) = @_;
	return $self->_order('reset', { what => \@what });
}

sub config
{
	my ($self, %settings) = @_;
	$settings{latency_ms} *= $slack if defined $settings{latency_ms};
	return $self->_order('config', \%settings);
}

sub mutate
{
	my ($self, %how) = @_;
	return $self->_order('mutate', \%how);
}

# $api->programs($account)
# The account's programs as a list of hashes.  JSON::PP is slow: for a thousand programs or
# more let PostgreSQL read programs_json.
#
# $api->programs_json($account)
# The same as a JSON array, in UTF-8 bytes, each program spelt as the API serves it.
#
# $api->set_programs($account, @texts)
# Makes these texts, strings of characters, the account's listing.
sub programs
{
	my ($self, $account) = @_;
	return @{ $json->decode($self->programs_json($account)) };
}

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

# $api->counters
# requests, in_flight, max_in_flight, held, connections (accepted),
# open_connections,
# failed_handshakes, tls_resumed, by_status (status, delivery or gone to its number),
# bytes (of bodies), waves (round trips, where there is latency: the longest chain of
# requests of which each began after the one before had ended), swallow_connecting, silent_open, silent_received.
#
# $api->log
# A list with a hash for each request: n, account, offset, limit, program_status,
# status, fault, connection, tls, bytes, t_start, t_end (seconds) and more.
#
# $api->requests_at($offset)
# How many of them were for the page at an offset.
sub requests_at
{
	my ($self, $offset) = @_;
	return scalar grep { $_->{offset} == $offset } $self->log;
}

sub counters { my ($self) = @_; return $self->_order('counters'); }

sub log { my ($self) = @_; return @{ $self->_order('log') }; }

# $api->faults(@rules), $api->faults_used
# Sets the faults, in place of those before; how often each has applied.
#
# $api->drift(@steps), $api->drift_done
# Sets how the listing moves while it is read, and starts the count of pages anew; what has been
# done: a list of hashes with account, removed, added, moved.
#
# $api->limiter(%limiters)
# Sets the limiters: token_bucket => { rate => 20, burst => 1, retry_after => 'seconds' },
# in_flight => { limit => 30 }, and those of limiter.py; retry_after is seconds, date or none.
#
# $api->release($count)
# Lets requests go on that are held, all of them by default; returns how many.
#
# $api->disconnect($how)
# Closes (close) or resets (reset) the connections that wait for a request; returns how
# many.
sub faults
{
	my ($self, @rules) = @_;
	return $self->_order('faults', { rules => \@rules });
}

sub faults_used { my ($self) = @_; return @{ $self->_order('faults')->{used} }; }

sub drift
{
	my ($self, @steps) = @_;
	return $self->_order('drift', { steps => \@steps });
}

sub drift_done { my ($self) = @_; return @{ $self->_order('drift')->{done} }; }

sub limiter
{
	my ($self, %limiters) = @_;
	return $self->_order('limiter', \%limiters);
}

sub release
{
	my ($self, $count) = @_;
	return $self->_order('release', { count => $count })->{released};
}

sub disconnect
{
	my ($self, $how) = @_;
	return $self->_order('disconnect', { how => $how // 'close' })->{connections};
}

# $api->poll_until(sub { ... }, $what)
# Calls the sub until it returns something true, which is returned; dies when that takes
# longer than PostgreSQL's tests wait.  The sub is given $api.
#
# $api->poll_counter($name, $wanted)
# The same until a counter has this value or a greater one.
sub poll_until
{
	my ($self, $condition, $what) = @_;
	return YelpProcess::poll_until(sub { $condition->($self) }, $what);
}

sub poll_counter
{
	my ($self, $name, $wanted) = @_;
	return $self->poll_until(sub { $self->counters->{$name} >= $wanted },
		"$name to reach $wanted");
}

1;
