=pod

=head1 NAME

YelpApi - the stand-in for Yelp's programs API, for TAP tests

=head1 SYNOPSIS

  my $api = YelpApi->start;
  $api->config(latency_ms => 500, accounts => { acme => { count => 100 } });
  $api->faults({
      match => { offset => 40, nth => 1 },
      action => { respond => { status => 503, headers => { 'Retry-After' => '1' } } } });
  ... sync from $api->https_url with ca_file $api->ca_file ...
  is($api->counters->{requests}, 6);

An account C<acme> with password C<s3cret> and 1,913 programs is there from the start.  What
the orders take and give is described where they are carried out: config in
F<test/api/settings.py>, faults in F<faults.py> and F<deliver.py>, drift in F<drift.py>,
limiter in F<limiter.py>, and all of them in F<control.py>.  Any order that cannot be carried
out dies with the server's reason.

=cut

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

=pod

=head1 METHODS

=over

=item YelpApi->start(@arguments)

Starts a server and returns when it listens.  It ends with the test.  @arguments go to
F<server.py>.  What it says is in the test's log directory.

=cut

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

=pod

=item $api->stop

Ends the server.  Done by itself at the end of the test.

=cut

sub stop
{
	my ($self) = @_;
	$self->{process}->stop;
	return;
}

=pod

=item $api->port($name)

The port C<http>, C<https>, C<wrong_host> (HTTPS with a certificate for another host),
C<untrusted> (by a CA that F<ca_file> does not hold), C<control>, C<swallow> (its backlog
is full: connecting never ends) or C<silent> (accepts and never speaks).

=item $api->url, $api->url($name)

The endpoint over HTTP, at 127.0.0.1, or at the named port: over HTTPS where the port speaks
TLS or nothing at all.

=item $api->https_url

The endpoint over HTTPS, at localhost.

=item $api->ca_file

The file with the CA that signed the server's certificate.

=item $api->pid

The server's process id.

=cut

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

sub ca_file
{
	my ($self) = @_;
	return $self->{ready}{ca_file};
}

sub pid
{
	my ($self) = @_;
	return $self->{process}->pid;
}

# One order to the control port, a GET where there is nothing to tell; returns
# the answer's body.
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

=pod

=item $api->reset, $api->reset(@what)

Puts all back to the start, or only what is named of C<config>, C<accounts>, C<faults>,
C<drift>, C<limiter> and C<counters>.

=item $api->config(%settings)

Changes settings and C<accounts> (username to C<password>, C<count>, C<seed>, C<style>, or
undef to remove it); returns all of them.  Booleans are C<\1> and C<\0>.

=item $api->mutate(%how)

Changes an account's programs: C<account> (acme), C<seed>, and how many to C<remove>, C<add>,
C<alter> and C<respell>; or C<edit>, an array of pairs: a position, and a hash of paths and values.
Returns what a sync must report, in C<removed>, C<added>, C<altered> (program_id to the
changed columns) and C<respelled> (which count as unchanged).

=cut

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

=pod

=item $api->programs($account)

The account's programs as a list of hashes.  JSON::PP is slow: for a thousand programs or
more let PostgreSQL read programs_json.

=item $api->programs_json($account)

The same as a JSON array, in UTF-8 bytes, each program spelt as the API serves it.

=item $api->set_programs($account, @texts)

Makes these texts, strings of characters, the account's listing.

=cut

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

=pod

=item $api->counters

C<requests>, C<in_flight>, C<max_in_flight>, C<held>, C<connections> (accepted),
C<open_connections>,
C<failed_handshakes>, C<tls_resumed>, C<by_status> (status, delivery or C<gone> to its number),
C<bytes> (of bodies), C<waves> (round trips, where there is latency: the longest chain of
requests of which each began after the one before had ended), C<swallow_connecting>, C<silent_open>, C<silent_received>.

=item $api->log

A list with a hash for each request: C<n>, C<account>, C<offset>, C<limit>, C<program_status>,
C<status>, C<fault>, C<connection>, C<tls>, C<bytes>, C<t_start>, C<t_end> (seconds) and more.

=item $api->requests_at($offset)

How many of them were for the page at an offset.

=cut

sub requests_at
{
	my ($self, $offset) = @_;
	return scalar grep { $_->{offset} == $offset } $self->log;
}

sub counters
{
	my ($self) = @_;
	return $self->_order('counters');
}

sub log
{
	my ($self) = @_;
	return @{ $self->_order('log') };
}

=pod

=item $api->faults(@rules), $api->faults_used

Sets the faults, in place of those before; how often each has applied.

=item $api->drift(@steps), $api->drift_done

Sets how the listing moves while it is read, and starts the count of pages anew; what has been
done: a list of hashes with C<account>, C<removed>, C<added>, C<moved>.

=item $api->limiter(%limiters)

Sets the limiters: C<< token_bucket => { rate => 20, burst => 1, retry_after => 'seconds' } >>,
C<< in_flight => { limit => 30 } >>, both or none.  C<retry_after> is seconds, date or none.

=item $api->release($count)

Lets requests go on that are held, all of them by default; returns how many.

=item $api->disconnect($how)

Closes (C<close>) or resets (C<reset>) the connections that wait for a request; returns how
many.

=cut

sub faults
{
	my ($self, @rules) = @_;
	return $self->_order('faults', { rules => \@rules });
}

sub faults_used
{
	my ($self) = @_;
	return @{ $self->_order('faults')->{used} };
}

sub drift
{
	my ($self, @steps) = @_;
	return $self->_order('drift', { steps => \@steps });
}

sub drift_done
{
	my ($self) = @_;
	return @{ $self->_order('drift')->{done} };
}

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

=pod

=item $api->poll_until(sub { ... }, $what)

Calls the sub until it returns something true, which is returned; dies when that takes
longer than PostgreSQL's tests wait.  The sub is given C<$api>.

=item $api->poll_counter($name, $wanted)

The same until a counter has this value or a greater one.

=back

=cut

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
