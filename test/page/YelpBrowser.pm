# YelpBrowser - headless Chromium, for TAP tests
#
#   YelpTest::need(Chromium => YelpBrowser::program());
#   my $browser = YelpBrowser->start;
#   $browser->open($url, username => 'anna', password => 'correct horse');
#   $browser->evaluate(q{document.querySelector("#sync").click()});
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

# YelpBrowser::program()
# Chromium's path, or undef.
#
# YelpBrowser->start
# Starts it, with one empty tab.  It ends with the test.
sub program
{
	foreach my $name (qw(chromium-headless-shell chromium))
	{
		foreach my $directory (split /:/, $ENV{PATH})
		{
			return "$directory/$name" if -x "$directory/$name";
		}
	}
	return;
}

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

sub stop
{
	my ($self) = @_;
	$self->{process}->stop;
	return;
}

# $browser->send_only($method, %parameters)
# A command whose answer nobody waits for.
#
# $browser->call($method, %parameters)
# A command of the DevTools protocol; returns its result.
sub send_only
{
	my ($self, $method, %parameters) = @_;
	my @session = $self->{tab} ? (sessionId => $self->{tab}{session}) : ();

	$self->{commands}->print(
		$json->encode({ id => ++$self->{last_id}, method => $method, params => \%parameters, @session }), "\0");
	return $self->{last_id};
}

sub call
{
	my ($self, $method, %parameters) = @_;
	my $id = $self->send_only($method, %parameters);

	for (;;)
	{
		my $message = $self->read_message;
		$self->heed($message) if $message->{method};
		next unless ($message->{id} // 0) == $id;
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

# What happens by itself: a request that waits, a question for a password, an error
sub heed
{
	my ($self, $message) = @_;
	my ($event, $given) = ($message->{method}, $message->{params});

	if ($event eq 'Fetch.requestPaused')
	{
		$self->send_only('Fetch.continueRequest', requestId => $given->{requestId});
	}
	elsif ($event eq 'Fetch.authRequired')
	{
		$self->send_only('Fetch.continueWithAuth', requestId => $given->{requestId},
			authChallengeResponse => { response => 'ProvideCredentials', %{ $self->{login} } });
	}
	elsif ($event eq 'Runtime.exceptionThrown')
	{
		push @{ $self->{complaints} }, $json->encode($given->{exceptionDetails});
	}
	elsif ($event eq 'Log.entryAdded' && $given->{entry}{level} ne 'verbose')
	{
		push @{ $self->{complaints} }, $given->{entry}{text};
	}
	return;
}

# $browser->new_tab
# Makes a tab, which the methods below are about; returns it.
#
# $browser->use_tab($tab), $browser->close_tab
# Another one from now on; closes the present one.
#
# $browser->open($url, %login)
# Opens it, with username and password where the server asks for them.
#
# $browser->reload
#
# $browser->hide($hidden)
# As a tab behind another one.
#
# $browser->emulate($width, $scheme)
# This width of the window, and the color scheme light or dark.
#
# $browser->evaluate($expression)
# Its value; dies where it throws.
#
# $browser->poll($expression, $what)
# Until it is true; returns its value.
#
# $browser->text($selector), $browser->texts($selector)
# The text of the first element, and a list of those of all elements.
#
# $browser->click($selector), $browser->choose($selector, $value)
# Focuses and clicks; sets the value of a field as a user does, when it offers that.
#
# $browser->complaints
# What has been thrown or logged as an error or warning since the last call, as a list.
#
# $browser->screenshot($file)
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

sub open
{
	my ($self, $url, %login) = @_;

	$self->{login} = \%login;
	$self->call('Fetch.enable', handleAuthRequests => \1);
	$self->call('Page.navigate', url => $url);
	$self->poll(q{document.readyState === "complete" && location.protocol === "http:"}, $url);
	$self->call('Fetch.disable');
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

sub hide
{
	my ($self, $hidden) = @_;
	$self->evaluate("Object.defineProperty(document, 'hidden', { value: Boolean($hidden), configurable: true })");
	$self->evaluate('document.dispatchEvent(new Event("visibilitychange"))');
	return;
}

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

sub evaluate
{
	my ($self, $expression) = @_;
	my $result = $self->call('Runtime.evaluate', expression => $expression,
		returnByValue => \1, awaitPromise => \1);

	die substr($expression, 0, 1000) . ": $result->{exceptionDetails}{exception}{description}\n"
	  if $result->{exceptionDetails};
	return $result->{result}{value};
}

sub poll
{
	my ($self, $expression, $what) = @_;
	return YelpProcess::poll_until(sub { $self->evaluate($expression) }, $what // $expression);
}

sub text { my ($self, $selector) = @_; return ($self->texts($selector))[0]; }

sub texts
{
	my ($self, $selector) = @_;
	my $quoted = quote($selector);
	return @{ $self->evaluate("[...document.querySelectorAll($quoted)].map((e) => e.textContent)") };
}

sub click
{
	my ($self, $selector) = @_;
	my $quoted = quote($selector);
	$self->evaluate("(() => { const it = document.querySelector($quoted); it.focus(); it.click(); })()");
	return;
}

sub choose
{
	my ($self, $selector, $value) = @_;
	my ($quoted, $text) = map { quote($_) } $selector, $value;
	$self->poll("(() => { const field = document.querySelector($quoted); field.value = $text;
		return field.value === $text && field.dispatchEvent(new Event('change', { bubbles: true })); })()",
		"$selector to offer $value");
	return;
}

# A literal in JavaScript, which goes into JSON once more
sub quote { my ($text) = @_; return JSON::PP->new->allow_nonref->encode($text); }

sub complaints { my ($self) = @_; return splice @{ $self->{complaints} }; }

sub screenshot
{
	my ($self, $file) = @_;
	my $data = $self->call('Page.captureScreenshot', format => 'png')->{data};

	CORE::open(my $out, '>:raw', $file) or die "$file: $!";
	print $out MIME::Base64::decode_base64($data);
	close $out or die "$file: $!";
	return;
}

1;
