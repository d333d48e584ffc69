# A sync ends at once in every phase: by pg_cancel_backend(), statement_timeout,
# pg_terminate_backend() and the postmaster's death.  No resources are
# leaked, and the session can still be used.
#
# Whether a phase has been reached is observed from outside; each phase lasts until
# something ends it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpFlood;
use YelpSession;
use YelpTest;

# getaddrinfo() that does not return for one name while a file is there
my $stalled_name = 'stalled.test';
my $stall_file = PostgreSQL::Test::Utils::tempdir() . '/stall';

sub build_resolver
{
	my $library = PostgreSQL::Test::Utils::tempdir() . '/resolver.so';
	my $source = "$library.c";
	append_to_file($source, <<"C");
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service,
				const struct addrinfo *hints, struct addrinfo **result)
{
	int	(*original) (const char *, const char *, const struct addrinfo *,
					 struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	if (node == NULL || strcmp(node, "$stalled_name") != 0)
		return original(node, service, hints, result);
	while (access("$stall_file", F_OK) == 0)
		usleep(5000);
	return EAI_AGAIN;
}
C
	system_or_bail('cc', '-shared', '-fPIC', '-o', $library, $source, '-ldl');
	return $library;
}

append_to_file($stall_file, '');
$ENV{LD_PRELOAD} = build_resolver();
my ($node, $api) = YelpTest::start(conf => "shared_buffers = 16MB\n");
delete $ENV{LD_PRELOAD};

my $observer = YelpSession->new($node);
my $holder;						# of locks that a merge waits for
my $accounts = 0;

# ---- phases ----

sub lock_wait
{
	my ($session) = @_;
	return $observer->value(q{SELECT count(*) FROM pg_stat_activity
		WHERE wait_event_type = 'Lock' AND pid = } . $session->pid);
}

sub by_status
{
	my ($status) = @_;
	my $counters = $api->counters;
	return ($counters->{by_status}{$status} // 0) > 0 && $counters->{in_flight} == 0;
}

sub hold_lock
{
	my ($sql) = @_;
	$holder = YelpSession->new($node);
	$holder->value("BEGIN; $sql");
	return;
}

# Each has the options of its server, what is set up, how it is seen that a
# session has reached it, what the stand-in counts of it afterwards, and how many
# connections a session keeps whose fetch is over: all that its server lets it have.
my @phases = (
	{
		name => 'name look-up',
		server => { endpoint => "https://$stalled_name/programs/v1", connect_timeout => '1h',
			timeout => '1h' },
		reached => sub { $_[0]->threads > 1 },
		over => sub { unlink $stall_file; $_[0]->threads == 1 },
		again => sub { append_to_file($stall_file, '') },
	},
	{
		name => 'connecting',
		server => { endpoint => $api->url('swallow'), connect_timeout => '1h', timeout => '1h' },
		reached => sub { $api->counters->{swallow_connecting} > 0 },
		over => sub { $api->counters->{swallow_connecting} == 0 },
	},
	{
		name => 'TLS handshake',
		server => { endpoint => $api->url('silent'), connect_timeout => '1h', timeout => '1h' },
		reached => sub { $api->counters->{silent_open} > 0 },
		over => sub { $api->counters->{silent_open} == 0 },
	},
	{
		name => 'waiting for the first page',
		faults => [ { action => { hold => \1 } } ],
		reached => sub { $api->counters->{held} > 0 },
	},
	{
		name => 'waiting for later pages',
		faults => [ { match => { from_offset => 40 }, action => { hold => \1 } } ],
		reached => sub { $api->counters->{held} >= 3 },
	},
	{
		name => 'a body that stopped',
		faults => [ { action => { stall => {} } } ],
		reached => sub { $api->counters->{held} > 0 },
	},
	{
		name => 'a body that drips',
		server => { timeout => '1h' },
		faults => [ { action => { drip => { at => 2000, every_ms => 20 } } } ],
		reached => sub { ($api->faults_used)[0] > 0 },
	},
	{
		name => 'backoff',
		server => { attempts => 10, retry_delay => '1h', retry_max_delay => '1h' },
		faults => [ { action => { respond => { status => 503 } } } ],
		reached => sub { by_status(503) },
	},
	{
		name => 'held back by Retry-After',
		server => { max_retry_after => '2h' },
		faults => [ {
			action => { respond => { status => 429, headers => { 'Retry-After' => '3600' } } }
		} ],
		reached => sub { by_status(429) },
	},
	{
		name => 'a merge that waits for a row',
		server => { concurrency => 3 },
		connections => 3,
		before => sub {
			my ($account) = @_;
			$api->mutate(account => $account, alter => 3, remove => 2, add => 1);
			hold_lock("SELECT FROM yelp_programs WHERE username = '$account' FOR UPDATE");
		},
		reached => \&lock_wait,
	},
	{
		name => 'a merge with a trigger that waits',
		server => { concurrency => 3 },
		connections => 3,
		before => sub {
			my ($account) = @_;
			$api->mutate(account => $account, add => 1);
			hold_lock('SELECT pg_advisory_lock(20)');
		},
		reached => \&lock_wait,
	});

# A peer that keeps libcurl, or what it calls, from returning
foreach my $what (qw(tickets ack window goaway connect))
{
	my $flood = YelpFlood->start($api, $what);
	push @phases,
	  {
		name => "a flood: $what",
		server => { $flood->options, timeout => '1h' },
		again => sub { $flood->{seen}{floods} = $flood->{seen}{closed} = $flood->count('floods') },
		reached => sub { $flood->count('floods') > $flood->{seen}{floods} },
		over => sub { $flood->count('closed') > $flood->{seen}{closed} },
	  };
}

# Tells accounts of other phases apart from the one that the trigger is for
$observer->value(q{
	CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_advisory_xact_lock_shared(20); RETURN NEW; END$$;
	CREATE TRIGGER wait BEFORE INSERT ON yelp_programs FOR EACH ROW
		EXECUTE FUNCTION wait_for_lock();
});

# An account of its own, synced once (by a session that keeps no connection)
# where its phase does not need another endpoint; returns its name.
sub make_account
{
	my ($phase) = @_;
	my $account = 'account' . ++$accounts;
	my %server = (endpoint => $api->url, %{ $phase->{server} // {} });

	$api->config(accounts => { $account => { password => 's3cret', count => 95 } });
	$observer->value(YelpTest::create_server($account, %server));
	$node->safe_psql('postgres', "SELECT FROM yelp_sync('$account')")
	  if $server{endpoint} eq $api->url;
	return $account;
}

sub stored
{
	return $observer->value(YelpTest::content_query());
}

# Begins a sync that stays in the phase.  A time-out, where it has one, may come
# before the phase: then false is returned.
sub enter
{
	my ($session, $phase, $account) = @_;
	my $reached;

	$phase->{again}->() if $phase->{again};
	$phase->{before}->($account) if $phase->{before};
	$api->faults(@{ $phase->{faults} // [] });
	$api->reset('counters');
	$session->begin("SELECT FROM yelp_sync('$account')");
	$api->poll_until(
		sub { ($reached = $phase->{reached}->($session)) || !$session->is_running },
		"the phase: $phase->{name}");
	return $reached;
}

# No more than before is open, at either end.
sub leave
{
	my ($phase, $session) = @_;

	$api->faults;
	if ($holder)
	{
		$holder->end;
		undef $holder;
	}
	$api->poll_until(sub { $phase->{over}->($session) }, 'the end of the phase')
	  if $phase->{over};
	return;
}

# A session, and what it may hold later: one whose fetch is over keeps at most as
# many connections for the next sync as it may have requests in flight.  There are
# fewer where a page behind the end of the listing was no longer waited for.
sub start_session
{
	my ($phase, $account) = @_;
	my $session = YelpSession->new($node);

	$session->sync($account) if $phase->{connections};
	return ($session, {
		sockets => $session->sockets + ($phase->{connections} // 0),
		threads => $session->threads,
	});
}

# ---- what ends a sync ----

# The stand-in may take a moment to notice.
sub no_more_connections
{
	my ($phase, $name) = @_;
	my $kept = $phase->{connections} // 0;

	ok(eval { $api->poll_until(sub { $api->counters->{open_connections} <= $kept }, 'connections') },
		"$name: connections at the API's end");
	return;
}

sub test_goes_on
{
	my ($name, $phase, $session, $held) = @_;

	no_more_connections($phase, $name);
	leave($phase, $session);
	cmp_ok($session->sockets, '<=', $held->{sockets}, "$name: no socket is left");
	is($session->threads, $held->{threads}, "$name: no thread is left");
	my $result = $session->run(q{SELECT count(*) >= 0 FROM yelp_sync('acme')});
	is($result->{stdout}, "t\n", "$name: the session syncs") or diag($result->{stderr});
	return;
}

sub test_cancel
{
	my ($phase, $account) = @_;
	my ($session, $held) = start_session($phase, $account);
	my $before = stored();
	my $name = "$phase->{name}: pg_cancel_backend";

	ok(enter($session, $phase, $account), "$name: reached");
	$observer->value('SELECT pg_cancel_backend(' . $session->pid . ')');
	my $result = $session->result;
	is($result->{sqlstate}, '57014', "$name: SQLSTATE");
	is($result->{error}, 'canceling statement due to user request', "$name: message");
	is(stored(), $before, "$name: the tables are as before");
	test_goes_on($name, $phase, $session, $held);
	$session->end;
	return;
}

sub test_timeout
{
	my ($phase, $account) = @_;
	my $name = "$phase->{name}: statement_timeout";
	my $timeout = 200;
	my ($session, $held, $before, $result);

	# A longer one, where it came before the phase, and another session: a sync that
	# ends while it fetches keeps no connection.
	while (1)
	{
		($session, $held) = start_session($phase, $account);
		$before = stored();
		$session->value("SET statement_timeout = $timeout");
		my $reached = enter($session, $phase, $account);
		$result = $session->result;
		last if $reached;
		leave($phase, $session);
		$session->end;
		$timeout *= 3;
	}
	is($result->{sqlstate}, '57014', "$name: SQLSTATE");
	is($result->{error}, 'canceling statement due to statement timeout', "$name: message");
	is(stored(), $before, "$name: the tables are as before");
	$session->value('RESET statement_timeout');
	test_goes_on($name, $phase, $session, $held);
	$session->end;
	return;
}

sub test_terminate
{
	my ($phase, $account) = @_;
	my ($session) = start_session($phase, $account);
	my $before = stored();
	my $name = "$phase->{name}: pg_terminate_backend";

	ok(enter($session, $phase, $account), "$name: reached");
	$observer->value('SELECT pg_terminate_backend(' . $session->pid . ')');
	my $result = $session->result;
	is($result->{sqlstate}, '57P01', "$name: SQLSTATE");
	ok($result->{lost}, "$name: the session ended");
	$session->wait_until_gone;
	YelpTest::connections_are($api, 0, "$name: connections at the API's end");
	is(stored(), $before, "$name: the tables are as before");
	delete local $phase->{over} if $phase->{name} eq 'name look-up';
	leave($phase, $session);
	return;
}

sub test_postmaster_death
{
	my ($phase, $account) = @_;
	my ($session) = start_session($phase, $account);
	my $before = stored();
	my $name = "$phase->{name}: postmaster death";

	ok(enter($session, $phase, $account), "$name: reached");
	YelpTest::kill_postmaster($node);
	my $result = $session->result;
	ok($result->{lost}, "$name: the session ended");
	$session->wait_until_gone;
	YelpTest::connections_are($api, 0, "$name: connections at the API's end");
	delete local $phase->{over} if $phase->{name} eq 'name look-up';
	$observer->wait_until_gone;
	$holder->wait_until_gone if $holder;
	undef $holder;
	leave($phase, $session);
	YelpTest::start_again($node);
	$observer = YelpSession->new($node);
	is(stored(), $before, "$name: the tables are as before");
	return;
}

foreach my $phase (@phases)
{
	my $account = make_account($phase);

	test_cancel($phase, $account);
	test_timeout($phase, $account);
	test_terminate($phase, $account);
	test_postmaster_death($phase, $account);
}

$observer->end;
$node->stop;
done_testing();
