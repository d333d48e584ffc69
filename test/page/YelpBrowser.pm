# YelpBrowser - headless Chromium, for TAP tests
#
#   YelpTest::need(Chromium => YelpBrowser::program());
#   my $browser = YelpBrowser->start;
#   $browser->open($url, username => 'anna', password => 'correct horse');
#   $browser->click('#sync');
#   $browser->poll(q{document.querySelector("#bar").value > 0}, 'the bar to move');

package YelpBrowser;

use strict;
use warnings FATAL => 'all';

use IO::Handle ();
use IO::Select;
use JSON::PP ();
use MIME::Base64 ();
use POSIX ();

use PostgreSQL::Test::Utils ();

use YelpProcess;

my $json = JSON::PP->new->utf8->allow_nonref;

# Where Chromium reads and writes with --remote-debugging-pipe
my ($command_fd, $answer_fd) = (3, 4);

# Nothing leads out of this machine
my @options = (
	'--remote-debugging-pipe', '--headless', '--no-sandbox', '--disable-gpu',
	'--disable-dev-shm-usage', '--no-first-run', '--no-proxy-server', '--hide-scrollbars',
	'--disable-background-networking', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
	'--lang=en-US', '--window-size=1280,900');

# Chromium's path, or undef
sub program
{
	my @paths = map { my $name = $_; map { "$_/$name" } split /:/, $ENV{PATH} } qw(chromium-headless-shell chromium);
	return (grep { -x } @paths)[0];
}

# Starts it, with one empty tab.  It ends with the test.
sub start
{
	my ($class) = @_;
	my $self = bless { last_id => 0, unread => '', complaints => [] }, $class;
	my @command = (program(), @options,
		'--user-data-dir=' . PostgreSQL::Test::Utils::tempdir('browser'));

	pipe(my $commands, $self->{commands}) or die "could not make a pipe: $!";
	pipe($self->{answers}, my $answers) or die "could not make a pipe: $!";
	$self->{process} = YelpProcess->start(sub {
		# By way of numbers that neither pipe can have
		POSIX::dup2(fileno $commands, 100 + $command_fd);
		POSIX::dup2(fileno $answers, 100 + $answer_fd);
		POSIX::dup2(100 + $_, $_) foreach $command_fd, $answer_fd;
		exec @command;
	});
	$self->{commands}->autoflush(1);
	$self->new_tab;
	return $self;
}

sub stop { my ($self) = @_; $self->{process}->stop; return; }

# The result of a command of the DevTools protocol.  What else Chromium tells by then is an error or
# a warning, or does not matter.
sub call
{
	my ($self, $method, %parameters) = @_;
	my @session = $self->{tab} ? (sessionId => $self->{tab}{session}) : ();

	$self->{commands}->print(
		$json->encode({ id => ++$self->{last_id}, method => $method, params => \%parameters, @session }), "\0");
	for (;;)
	{
		my $message = $self->read_message;
		my ($event, $given) = @$message{qw(method params)};
		if ($event)
		{
			push @{ $self->{complaints} }, $json->encode($given->{exceptionDetails}) if $event eq 'Runtime.exceptionThrown';
			push @{ $self->{complaints} }, $given->{entry}{text}
			  if $event eq 'Log.entryAdded' && $given->{entry}{level} ne 'verbose';
		}
		next unless ($message->{id} // 0) == $self->{last_id};
		die "$method: $message->{error}{message}\n" if $message->{error};
		return $message->{result};
	}
}

sub read_message
{
	my ($self) = @_;
	my $end;

	while (($end = index $self->{unread}, "\0") < 0)
	{
		IO::Select->new($self->{answers})->can_read($PostgreSQL::Test::Utils::timeout_default)
		  or die "timed out waiting for Chromium\n";
		sysread($self->{answers}, $self->{unread}, 65536, length $self->{unread})
		  or die "Chromium ended\n";
	}
	my $message = substr $self->{unread}, 0, $end + 1, '';
	return $json->decode(substr $message, 0, $end);
}

# What has been thrown or logged as an error or warning since the last call
sub complaints { my ($self) = @_; return splice @{ $self->{complaints} }; }

# Makes a tab, which the other methods are about from now on
sub new_tab
{
	my ($self) = @_;

	$self->use_tab(undef);
	my $target = $self->call('Target.createTarget', url => 'about:blank')->{targetId};
	my $session = $self->call('Target.attachToTarget', targetId => $target, flatten => \1)->{sessionId};
	$self->use_tab({ target => $target, session => $session });
	$self->call("$_.enable") foreach qw(Page Runtime Log);
	return $self->{tab};
}

sub use_tab { my ($self, $tab) = @_; $self->{tab} = $tab; return; }

sub close_tab
{
	my ($self) = @_;
	my $target = $self->{tab}{target};
	$self->use_tab(undef);
	$self->call('Target.closeTarget', targetId => $target);
	return;
}

# $browser->open($url, username => ..., password => ...), which Chromium keeps for this server
sub open
{
	my ($self, $url, %login) = @_;
	my ($username, $password) = map { s/ /%20/gr } @login{qw(username password)};

	foreach my $address ($url =~ s{//}{//$username:$password@}r, $url)
	{
		$self->call('Page.navigate', url => $address);
		$self->poll(q{document.readyState === "complete" && location.protocol === "http:"}, $url);
	}
	return;
}

sub reload
{
	my ($self) = @_;
	$self->evaluate('window.isOld = true');
	$self->call('Page.reload');
	$self->poll('document.readyState === "complete" && !window.isOld', 'the page again');
	return;
}

# Whether the tab is behind another one
sub hide
{
	my ($self, $hidden) = @_;
	$self->evaluate("Object.defineProperty(document, 'hidden', { value: Boolean($hidden), configurable: true });
		document.dispatchEvent(new Event('visibilitychange'))");
	return;
}

# The width of the window, and its color scheme: light or dark
sub emulate
{
	my ($self, $width, $scheme) = @_;
	$self->call('Emulation.setDeviceMetricsOverride',
		width => $width, height => 900, deviceScaleFactor => 1, mobile => \0);
	$self->call('Emulation.setEmulatedMedia',
		features => [ { name => 'prefers-color-scheme', value => $scheme } ]);
	$self->evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
	return;
}

# The value of an expression, which may be a promise; dies where it throws.
sub evaluate
{
	my ($self, $expression) = @_;
	my $result = $self->call('Runtime.evaluate', expression => $expression,
		returnByValue => \1, awaitPromise => \1);

	die substr($expression, 0, 1000) . ": $result->{exceptionDetails}{exception}{description}\n"
	  if $result->{exceptionDetails};
	return $result->{result}{value};
}

# Until the expression is true; returns its value.
sub poll
{
	my ($self, $expression, $what) = @_;
	return YelpProcess::poll_until(sub { $self->evaluate($expression) }, $what // $expression);
}

# A literal in JavaScript, which goes into JSON once more
sub quote { my ($text) = @_; return JSON::PP->new->allow_nonref->encode($text); }

# The texts of all elements, or of the first one
sub texts
{
	my ($self, $selector) = @_;
	my $quoted = quote($selector);
	return @{ $self->evaluate("[...document.querySelectorAll($quoted)].map((e) => e.textContent)") };
}

sub text { my ($self, $selector) = @_; return ($self->texts($selector))[0]; }

sub click
{
	my ($self, $selector) = @_;
	my $quoted = quote($selector);
	$self->evaluate("(() => { const it = document.querySelector($quoted); it.focus(); it.click(); })()");
	return;
}

# Sets the value of a field as a user does, when it offers that.
sub choose
{
	my ($self, $selector, $value) = @_;
	my ($quoted, $text) = map { quote($_) } $selector, $value;
	$self->poll("(() => { const field = document.querySelector($quoted); field.value = $text;
		return field.value === $text && field.dispatchEvent(new Event('change', { bubbles: true })); })()",
		"$selector to offer $value");
	return;
}

sub screenshot
{
	my ($self, $file) = @_;
	my $data = $self->call('Page.captureScreenshot', format => 'png')->{data};
	unlink $file;
	PostgreSQL::Test::Utils::append_to_file($file, MIME::Base64::decode_base64($data));
	return;
}

1;
