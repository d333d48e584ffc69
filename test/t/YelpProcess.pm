# YelpProcess - programs in the background, which end with the test, and waiting for something
#
#   my $process = YelpProcess->start(sub { exec 'nginx', '-c', $file });
#   YelpProcess::poll_until(sub { $process->check($log); -s $file }, 'nginx to listen');
#   $process->stop;

package YelpProcess;

use strict;
use warnings FATAL => 'all';

use File::Spec ();
use POSIX ();
use PostgreSQL::Test::Utils ();
use Time::HiRes ();

my $poll_interval_s = 0.01;

# Those that run, by process id, for END
my %running;

# YelpProcess->start($code, stdout => $file, stderr => $file)
# Calls $code, which may exec a program, in a child process.  Its output goes to these files, or
# nowhere, because the output of the test must end with the test.  stdout can be an open file.
sub start
{
	my ($class, $code, %output) = @_;
	my $pid = fork() // die "could not fork: $!\n";

	if ($pid)
	{
		return $running{$pid} = bless { pid => $pid }, $class;
	}
	%running = ();
	delete @SIG{qw(__DIE__ __WARN__)};
	my $stdout = $output{stdout} // File::Spec->devnull;
	open(STDIN, '<', File::Spec->devnull) or POSIX::_exit(127);
	(ref $stdout ? open(STDOUT, '>&', $stdout) : open(STDOUT, '>', $stdout)) or POSIX::_exit(127);
	(defined $output{stderr} ? open(STDERR, '>', $output{stderr}) : open(STDERR, '>&', \*STDOUT))
	  or POSIX::_exit(127);
	eval { $code->() };
	POSIX::_exit(127);
}

# $process->check($log)
# Dies if it has ended, with the content of the file $log.
#
# $process->stop($signal)
# Sends the signal (TERM), and returns when it has ended.
sub pid { my ($self) = @_; return $self->{pid}; }

sub check
{
	my ($self, $log) = @_;
	die "process $self->{pid} ended: " . PostgreSQL::Test::Utils::slurp_file($log) . "\n"
	  if waitpid($self->{pid}, POSIX::WNOHANG) != 0;
	return;
}

sub stop
{
	my ($self, $signal) = @_;
	return unless delete $running{ $self->{pid} };
	local $?;
	kill $signal // 'TERM', $self->{pid};
	waitpid($self->{pid}, 0);
	return;
}

END
{
	$_->stop for values %running;
}

# YelpProcess::poll_until(sub { ... }, $what)
# Calls the sub until it returns something true, which is returned; dies after PostgreSQL's usual
# timeout.
sub poll_until
{
	my ($condition, $what) = @_;
	my $deadline = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;

	while (Time::HiRes::time() < $deadline)
	{
		my $result = $condition->();
		return $result if $result;
		Time::HiRes::sleep($poll_interval_s);
	}
	die 'timed out waiting for ' . ($what // 'a condition') . "\n";
}

1;
