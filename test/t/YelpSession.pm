# YelpSession - a session, and the resources of its process, for TAP tests
#
#   my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');
#   $session->begin_sync('acme');
#   $api->poll_counter('held', 1);
#   value('SELECT pg_cancel_backend(' . $session->pid . ')');
#   is($session->sync_result->{sqlstate}, '57014');
#   is($session->sockets, 1);
#   $session->end;
#
# YelpTest::run and YelpTest::sync use a session for one call.  Files, sockets, threads and
# memory are read from /proc.

package YelpSession;

use strict;
use warnings FATAL => 'all';

use Encode ();
use IO::Select;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils ();

use YelpTest;

my $protocol = 3 << 16;

# YelpSession->new($node, %settings)
# Connects.  database: other than postgres.  null (the empty text): how a null is returned.
# All other %settings are the server's.
sub new
{
	my ($class, $node, %settings) = @_;
	my $self = $class->connect($node, %settings{qw(database null)});

	delete @settings{qw(database null)};
	$self->value(YelpTest::prelude(%settings));
	return $self;
}

# Speaks the protocol itself, which takes a tenth of the processor time of starting psql
sub connect
{
	my ($class, $node, %options) = @_;
	my $path = $node->host . '/.s.PGSQL.' . $node->port;
	my %startup = (
		user => $options{user} // scalar getpwuid($<),
		database => $options{database} // 'postgres',
		client_encoding => 'UTF8',
		application_name => $ENV{PGAPPNAME} // '');
	my $socket = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!\n";
	my $self = bless { node => $node, socket => $socket, null => $options{null} // '', input => '' }, $class;

	$socket->blocking(0);
	$self->_expect(1);
	$self->_send('', pack 'N(Z*)*x', $protocol, %startup);
	my $result = $self->result;
	die "$path: $result->{error}\n" if $self->{lost};
	return $self;
}

# ---- the protocol's messages ----

# Reads meanwhile, since the server may do nothing else until that is done
sub _send
{
	my ($self, $type, $body) = @_;
	my $output = $type . pack('N', length($body) + 4) . $body;
	my $socket = IO::Select->new($self->{socket});

	while (length $output && !$self->{lost})
	{
		my $written = syswrite $self->{socket}, $output, 65536;
		substr $output, 0, $written // 0, '';
		$self->_read unless defined $written;
		IO::Select::select($socket, $socket, undef, 1) if length $output;
	}
	return;
}

# Reads what has arrived
sub _read
{
	my ($self) = @_;
	my ($read, $at) = (undef, 0);

	while ($read = sysread $self->{socket}, $self->{input}, 65536, length $self->{input}) { }
	$self->{lost} = 1 if defined $read || !($!{EAGAIN} || $!{EINTR});
	while (length($self->{input}) >= $at + 5)
	{
		my ($type, $length) = unpack 'aN', substr $self->{input}, $at, 5;
		last if length($self->{input}) <= $at + $length;
		$self->_receive($type, substr $self->{input}, $at + 5, $length - 4);
		$at += $length + 1;
	}
	substr $self->{input}, 0, $at, '';
	return;
}

sub _receive
{
	my ($self, $type, $body) = @_;

	$self->{stdout} .= $self->_row($body) if $type eq 'D';
	$self->{stdout} .= $body if $type eq 'd';
	$self->_add_message($body) if $type =~ /[EN]/;
	$self->{pid} = unpack 'N', $body if $type eq 'K';
	$self->{running}-- if $type eq 'Z';
	return;
}

# As psql -At shows it
sub _row
{
	my ($self, $body) = @_;
	my ($count, $at) = (unpack('n', $body), 2);
	my @values;

	foreach (1 .. $count)
	{
		my $length = unpack 'l>', substr $body, $at, 4;
		push @values, $length < 0 ? $self->{null} : substr $body, $at + 4, $length;
		$at += 4 + ($length < 0 ? 0 : $length);
	}
	return $count ? join('|', @values) . "\n" : '';
}

my @fields = (
	[ D => 'detail' ], [ H => 'hint' ], [ W => 'context' ], [ s => 'schema name' ], [ t => 'table name' ],
	[ c => 'column name' ], [ d => 'datatype name' ], [ n => 'constraint name' ]);

# As psql shows it where VERBOSITY is verbose
sub _add_message
{
	my ($self, $body) = @_;
	my %field = map { substr($_, 0, 1) => substr($_, 1) } split /\0/, Encode::decode('UTF-8', $body);
	my %message = (level => $field{V}, sqlstate => $field{C}, message => $field{M});

	delete $field{W} unless $field{V} =~ /ERROR|FATAL|PANIC/;
	$self->{stderr} .= "$field{V}:  $field{C}: $field{M}\n";
	foreach (grep { defined $field{ $_->[0] } } @fields)
	{
		my ($letter, $name) = @$_;
		$message{$name} = $field{$letter};
		$self->{stderr} .= uc($name) . ":  $field{$letter}\n";
	}
	push @{ $self->{messages} }, \%message;
	return;
}

# Begins a result; the server will report this often that it is ready
sub _expect
{
	my ($self, $count) = @_;
	@$self{qw(stdout stderr messages running)} = ('', '', [], $count);
	return;
}

# Waits for more of a result; returns false where that is complete
sub _wait
{
	my ($self) = @_;

	return if !$self->{running} || $self->{lost};
	IO::Select->new($self->{socket})->can_read($PostgreSQL::Test::Utils::timeout_default)
	  or die "timed out waiting for the server: $self->{stderr}\n";
	$self->_read;
	return 1;
}

# The statements of a script, each of which is a transaction of its own
sub _statements
{
	my ($sql) = @_;
	my @statements = ('');

	while ($sql =~ /\G(?:(;)|(\s+|--[^\n]*|\/\*.*?\*\/)|(\b[eE]'(?:[^'\\]++|\\.)*'|'[^']*'|"[^"]*"
			|\$\$.*?\$\$|\$([A-Za-z_]\w*)\$.*?\$\g4\$|\w+|.))/gcsx)
	{
		push @statements, '' if $1;
		$statements[-1] .= $2 // $3 // '' if defined $3 || $statements[-1] ne '';
	}
	return grep { $_ ne '' } @statements;
}

# $session->run($sql), $session->sync($account)
# Like YelpTest::run and YelpTest::sync, but continues after errors.  lost is true in the result
# if the connection was lost, which is an error as well; the process is gone then.
#
# $session->begin($sql), $session->result, $session->begin_sync($account), $session->sync_result
# The two halves of each: begin, and wait for the end.
#
# $session->run_to_error($sql)
# Runs SQL until the first error.
sub begin
{
	my ($self, $sql) = @_;
	my @statements = _statements($sql);

	$self->_expect(scalar @statements);
	$self->_send('Q', Encode::encode('UTF-8', $_) . "\0") foreach @statements;
	return;
}

sub result
{
	my ($self) = @_;

	while ($self->_wait) { }
	$self->wait_until_gone if $self->{lost} && $self->{pid};
	my ($error) = grep { $_->{level} =~ /ERROR|FATAL|PANIC/ } @{ $self->{messages} };
	$error //= { sqlstate => '08006', message => 'the session is lost' } if $self->{lost};
	return {
		stdout => Encode::decode('UTF-8', $self->{stdout}),
		stderr => $self->{stderr},
		messages => $self->{messages},
		(map { lc . 's' => $self->_texts($_) } qw(NOTICE WARNING)),
		error => $error->{message},
		(map { $_ => $error->{$_} } qw(sqlstate detail hint context)),
		lost => !!$self->{lost},
	};
}

sub _texts
{
	my ($self, $level) = @_;
	return [ map { $_->{message} } grep { $_->{level} eq $level } @{ $self->{messages} } ];
}

sub run
{
	my ($self, $sql) = @_;
	$self->begin($sql);
	return $self->result;
}

sub run_to_error
{
	my ($self, $sql) = @_;
	my $result;

	$self->_expect(0);
	foreach my $statement (_statements($sql))
	{
		$self->{running} = 1;
		$self->_send('Q', Encode::encode('UTF-8', $statement) . "\0");
		last if ($result = $self->result)->{error};
	}
	return $result // $self->result;
}

sub begin_sync { my ($self, $account) = @_; return $self->begin(YelpTest::sync_query($account)); }

sub sync_result { my ($self) = @_; return YelpTest::with_rows($self->result); }

sub sync
{
	my ($self, $account) = @_;
	$self->begin_sync($account);
	return $self->sync_result;
}

# $session->is_running
# Whether what was begun has not ended yet.
#
# $session->wait_for($pattern)
# Waits until the messages of what was begun match.
#
# $session->value($sql), $session->options(%options)
# Like YelpTest::value and YelpTest::set_server.
sub is_running
{
	my ($self) = @_;
	$self->_read if $self->{running} && !$self->{lost};
	return $self->{running} && !$self->{lost};
}

sub wait_for
{
	my ($self, $pattern) = @_;
	until ($self->{stderr} =~ $pattern)
	{
		$self->_wait or die "the result ended without $pattern: $self->{stderr}\n";
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
	my %is_set = map { $_ => 1 } split /\n/,
	  $self->value(q{SELECT option_name FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 'yelp'});
	my @actions = map {
		defined $options{$_} ? ($is_set{$_} ? 'SET' : 'ADD') . " $_ " . YelpTest::literal($options{$_}) : "DROP $_"
	} grep { $is_set{$_} || defined $options{$_} } sort keys %options;

	$self->value('ALTER SERVER yelp OPTIONS (' . join(', ', @actions) . ')') if @actions;
	return;
}

# $session->end
# Disconnects, and returns when the process is gone.
#
# $session->wait_until_gone
# Returns when it is gone, whatever ends it.
sub end
{
	my ($self) = @_;
	return if $self->{lost};
	$self->_send('X', '');
	$self->{socket}->close;
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

# $session->handles, $session->sockets, $session->threads
# The numbers of file descriptors, except those of the cluster's files; of sockets among them; of
# threads.
#
# $session->memory($name), $session->reset_peak
# A figure of /proc/PID/status in kB: VmRSS, VmHWM, RssAnon.  Resets VmHWM.
sub pid { my ($self) = @_; return $self->{pid}; }

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

sub sockets { my ($self) = @_; return scalar grep { /^socket:/ } $self->_descriptors; }

sub threads { my ($self) = @_; return scalar(my @threads = _list("/proc/$self->{pid}/task")); }

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
