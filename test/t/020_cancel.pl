# A sync ends at once in every phase: by pg_cancel_backend(), statement_timeout,
# pg_terminate_backend() and the postmaster's death.  No resources are leaked, and the session can
# still be used.
#
# Whether a phase has been reached is observed from outside; each phase lasts until something ends it.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use YelpFlood;
use YelpInject;
use YelpTest ':all';

my $stall = PostgreSQL::Test::Utils::tempdir() . '/stall';
append_to_file($stall, '');
my ($node, $api) = YelpInject->new->preload(sub { start(conf => "shared_buffers = 16MB\n") }, stall => $stall);

my $observer = YelpSession->new($node);
my $holder;						# of locks that a merge waits for
my $accounts = 0;

# ---- phases ----

sub by_status
{
	my ($status) = @_;
	my $counters = $api->counters;
	return ($counters->{by_status}{$status} // 0) > 0 && $counters->{in_flight} == 0;
}

# Each phase: options of its server, preparations (before, again), whether a session has reached
# it, whether its peer has noticed its end (over), and how many connections a session keeps whose
# fetch is over: as many as its server allows.
my %patient = (connect_timeout => '1h', timeout => '1h');
my @phases = (
	{
		name => 'name look-up',
		server => { endpoint => 'https://stalled.test/programs/v1', %patient },
		again => sub { append_to_file($stall, '') },
		reached => sub { $_[0]->threads > 1 },
		over => sub { unlink $stall; $_[0]{lost} || $_[0]->threads == 1 },
	},
	{
		name => 'connecting',
		server => { endpoint => $api->url('swallow'), %patient },
		reached => sub { $api->counters->{swallow_connecting} > 0 },
		over => sub { $api->counters->{swallow_connecting} == 0 },
	},
	{
		name => 'TLS handshake',
		server => { endpoint => $api->url('silent'), %patient },
		reached => sub { $api->counters->{silent_open} > 0 },
		over => sub { $api->counters->{silent_open} == 0 },
	},
	{
		name => 'waiting for later pages',
		faults => [ { match => { from_offset => 40 }, action => { hold => \1 } } ],
		reached => sub { $api->counters->{held} >= 3 },
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
		faults => [ { action => { respond => { status => 429, headers => { 'Retry-After' => '3600' } } } } ],
		reached => sub { by_status(429) },
	},
	{
		name => 'a merge that waits for a row',
		server => { concurrency => 3 },
		connections => 3,
		before => sub {
			my ($account) = @_;
			$api->mutate(account => $account, alter => 3, remove => 2, add => 1);
			$holder = YelpSession->new($node);
			$holder->value("BEGIN; SELECT FROM yelp_programs WHERE username = '$account' FOR UPDATE");
		},
		reached => sub {
			my ($session) = @_;
			return $observer->value(q{SELECT count(*) FROM pg_stat_activity
				WHERE wait_event_type = 'Lock' AND pid = } . $session->pid);
		},
	});

# A peer that keeps libcurl, or what it calls, from returning
foreach my $what (qw(tickets ack window goaway connect))
{
	my $flood = YelpFlood->start($api, $what);
	push @phases,
	  {
		name => "a flood: $what",
		server => { $flood->options, attempts => 1, timeout => '1h' },
		again => sub { $flood->{seen}{floods} = $flood->{seen}{closed} = $flood->count('floods') },
		reached => sub { $flood->count('floods') > $flood->{seen}{floods} },
		over => sub { $flood->count('closed') > $flood->{seen}{closed} },
	  };
}

# An account of its own, synced once (by a session that keeps no connection) where its phase needs
# no other endpoint; returns its name.
sub make_account
{
	my ($phase) = @_;
	my $account = 'account' . ++$accounts;
	my %server = (endpoint => $api->url, %{ $phase->{server} // {} });

	$api->config(accounts => { $account => { count => 95 } });
	$observer->value(create_server($account, %server));
	value("SELECT FROM yelp_sync('$account')") if $server{endpoint} eq $api->url;
	return $account;
}

# Begins a sync that stays in the phase.  A timeout, where it has one, may come before the phase:
# then false is returned.
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

sub leave
{
	my ($phase, $session) = @_;

	$api->faults;
	$holder->end if $holder;
	undef $holder;
	$api->poll_until(sub { $phase->{over}->($session) }, 'the end of the phase') if $phase->{over};
	return;
}

# ---- what ends a sync ----

# Ends the session's statement, whose process id is given; whether the session ends, and its SQLSTATE
# and message
my %ways = (
	pg_cancel_backend => [ sub { $observer->value("SELECT pg_cancel_backend($_[0])") }, 0,
		'57014', 'canceling statement due to user request' ],
	statement_timeout => [ undef, 0, '57014', 'canceling statement due to statement timeout' ],
	pg_terminate_backend => [ sub { $observer->value("SELECT pg_terminate_backend($_[0])") }, 1,
		'57P01', 'terminating connection due to administrator command' ],
	'postmaster death' => [ sub { kill_postmaster($node) }, 1 ]);

# A session whose sync is in the phase; with a statement_timeout, that is about to end it
sub begin_phase
{
	my ($phase, $account, $has_timeout) = @_;
	my $timeout = $has_timeout ? 200 : 0;

	# Where the timeout came before the phase, a longer one, and another session: a sync that ends
	# while it fetches keeps no connection
	while (1)
	{
		my $session = YelpSession->new($node);
		$session->sync($account) if $phase->{connections};
		my %before = (
			content => $observer->value(YelpTest::content_query()),
			sockets => $session->sockets + ($phase->{connections} // 0),
			threads => $session->threads);
		$session->value("SET statement_timeout = $timeout");
		return ($session, %before) if enter($session, $phase, $account);
		die "$phase->{name} was not reached\n" unless $has_timeout;
		$session->result;
		leave({ %$phase, over => undef }, $session);
		$session->end;
		$timeout *= 3;
	}
}

sub test_way
{
	my ($phase, $account, $way) = @_;
	my ($end, $is_end, $sqlstate, $error) = @{ $ways{$way} };
	my $name = "$phase->{name}: $way";
	my ($session, %before) = begin_phase($phase, $account, $way eq 'statement_timeout');

	$end->($session->pid) if $end;
	my $result = $session->result;
	is_deeply([ @$result{qw(sqlstate error)} ], [ $sqlstate, $error ], "$name: the error") if defined $sqlstate;
	is($result->{lost}, !!$is_end, "$name: whether the session ended");
	ok(eval { $api->poll_until(sub { $api->counters->{open_connections} <= ($is_end ? 0 : $phase->{connections} // 0) }, 'connections') },
		"$name: connections at the API's end");
	$_->wait_until_gone foreach $sqlstate ? () : ($observer, $holder // ());
	undef $holder unless $sqlstate;
	leave($phase, $session);
	start_again($node) unless $sqlstate;
	$observer = YelpSession->new($node) unless $sqlstate;
	is($observer->value(YelpTest::content_query()), $before{content}, "$name: the tables are unchanged");
	return if $is_end;

	cmp_ok($session->sockets, '<=', $before{sockets}, "$name: no socket is left");
	is($session->threads, $before{threads}, "$name: no thread is left");
	is($session->run(q{RESET statement_timeout; SELECT count(*) >= 0 FROM yelp_sync('acme')})->{stdout}, "t\n",
		"$name: the session syncs");
	$session->end;
	return;
}

foreach my $phase (@phases)
{
	my $account = make_account($phase);
	test_way($phase, $account, $_) foreach 'pg_cancel_backend', 'statement_timeout', 'pg_terminate_backend', 'postmaster death';
	next unless $phase->{name} =~ /flood/;

	my $session = YelpSession->new($node);
	$observer->value("ALTER SERVER $account OPTIONS (SET timeout '1s')");
	enter($session, $phase, $account);
	like($session->result->{error}, qr/timed out|proxy rejected/, "$phase->{name}: timeout");
	leave($phase, $session);
	$session->end;
}

note 'other floods';

# Codings between which a header looks like a status line
my $session = YelpSession->new($node, statement_timeout => '20s');
my $flood = YelpFlood->start($api, 'codings');
$session->value(create_server('codings', $flood->options, attempts => 1));
like($session->sync('codings')->{error}, qr/unsupported Content-Encoding/,
	'codings that one header hides from another');
$flood->poll('closed');

# libcurl reads from a connection that it closes
$flood = YelpFlood->start($api, 'idle_tickets');
$session->value(create_server('idle', $flood->options, attempts => 1, concurrency => 1, http_version => '1.1'));
$session->sync('idle');
$flood->idle;
$flood->poll('floods');
is($session->sync('acme')->{error}, undef,
	'a flood over a kept connection does not delay a sync of another server');
$flood->poll('closed');

SKIP:
{
	skip 'transaction_timeout came with PostgreSQL 17', 2 if $node->pg_version < 17;
	$api->faults({ action => { hold => \1 } });
	$session->run(q{SET transaction_timeout = '500ms'});
	my $result = $session->sync;
	is_deeply([ @$result{qw(sqlstate lost)} ], [ '25P04', !!1 ],
		'transaction_timeout ends a sync that waits, and its session');
	connections_are($api, 0, '... and its connections');
}
$session->end;

$observer->end;
done_testing();
