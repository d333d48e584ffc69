# Faults injected one by one, at each place where there can be one: memory that
# runs out, calls of libcurl and of the system that fail, a full disk, and errors
# of the server's own.  Each ends as an error with a fitting SQLSTATE, or costs an
# attempt; the tables are unchanged, no resources are leaked, and the next sync of
# the same session works.

use strict;
use warnings FATAL => 'all';

use Errno qw(EAGAIN ECONNREFUSED EMFILE ENFILE ENOBUFS ENOMEM ENOSPC);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpInject;
use YelpTest;

# Codes of libcurl's: of an easy handle, a multi handle and a shared one
my ($no_memory, $unknown_option) = (27, 48);
my ($multi_no_memory, $multi_internal) = (3, 4);
my $share_no_memory = 4;
my $resolver_no_memory = -10;

my $every = 1_000_000;			# times that a call fails: all from there on
my $tolerated_bytes = 64 * 1024;	# of the server's memory contexts

my $inject = YelpInject->new;
my ($node, $api) = $inject->preload(sub {
	YelpTest::start(
		server => { page_size => 5, retry_delay => '1ms', retry_max_delay => '2ms' },
		conf => "shared_buffers = 16MB\nmax_connections = 10\nmax_locks_per_transaction = 10\n"
		  . "max_files_per_process = 64\nfsync = off\nlog_statement = none\n"
		  . "log_min_messages = fatal\nlog_min_error_statement = panic\n");
});
my $observer = YelpSession->new($node);

# ---- accounts ----

sub add_account
{
	my ($account, $count, %server) = @_;
	$api->config(accounts => { $account => { count => $count } });
	$observer->value(YelpTest::create_server($account, endpoint => $api->url, page_size => 5,
			retry_delay => '1ms', retry_max_delay => '2ms', %server));
	return;
}

# By a name that has to be looked up, over TLS
add_account('named', 8, ca_file => $api->ca_file,
	endpoint => 'https://elsewhere.example:' . $api->port('wrong_host') . '/programs/v1');
add_account('other', 3, endpoint => $api->https_url, ca_file => $api->ca_file);
add_account('big', 250, page_size => 40);
# Nothing listens there: a sync that fails this way closes all connections
add_account('nowhere', 1, attempts => 1,
	endpoint => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . '/v1');
$api->config(accounts => { acme => { count => 8 } });

# ---- ways to sync, and what a sync changes ----

# A way has the SQL, and says of a result with which SQLSTATE the account failed
my %function = (
	name => 'yelp_sync()',
	sql => sub { my ($account) = @_; return "SELECT count(*) FROM yelp_sync('$account')" },
	failure => sub { my ($result) = @_; return $result->{sqlstate} },
	records => 0);

# It goes on after an account that failed, and records it where that can be done
my %procedure = (
	name => 'yelp_sync_all()',
	sql => sub { my ($account) = @_; return "CALL yelp_sync_all(ARRAY['$account'])" },
	failure => sub {
		my ($result) = @_;
		my ($warning) = grep { $_->{message} =~ /^could not sync account/ } @{ $result->{messages} };
		return ($result->{error} // '') =~ /^could not sync 1 of 1 account/
		  ? $warning->{sqlstate} : $result->{sqlstate};
	},
	records => 1);

# Something to add and something to update; and to delete, which needs a second reading
my $disturb = q{
	UPDATE yelp_programs SET budget = 17
	WHERE username = '%1$s' AND program_id =
		(SELECT max(program_id) FROM yelp_programs WHERE username = '%1$s');
	DELETE FROM yelp_programs
	WHERE username = '%1$s' AND program_id =
		(SELECT min(program_id) FROM yelp_programs WHERE username = '%1$s')};
my $disturb_more = $disturb . q{;
	INSERT INTO yelp_programs (username, program_id, data, created_at, updated_at)
	VALUES ('%1$s', 'of yesterday', '{}', now(), now()) ON CONFLICT DO NOTHING};

# The rows of an account as they are, what is in them but for the times of writing, and how many rows
# the history has of it
my $state = q{
	SELECT md5(string_agg(p::text, ',' ORDER BY program_id)),
		md5(string_agg(program_id || fingerprint || data::text || coalesce(budget::text, '-'), ','
			ORDER BY program_id)),
		(SELECT count(*) FROM yelp_sync_runs WHERE username = '%1$s')
	FROM yelp_programs p WHERE username = '%1$s'};

sub state_of
{
	my ($account, $change) = @_;
	my %state;

	@state{qw(rows content runs)} =
	  split /\|/, $observer->value(sprintf(defined $change ? "$change;$state" : $state, $account));
	return \%state;
}

my %content;
foreach my $account (qw(acme named other big))
{
	$observer->value("SELECT FROM yelp_sync('$account')");
	YelpTest::table_is_listing($node, $api, $account, "$account: a first sync");
	$content{$account} = state_of($account)->{content};
}

# ---- the resources of a session ----

# With no connection kept, and no thread that still looks up a name
sub held
{
	my ($session) = @_;

	$inject->arm($session, 'nothing', first => 1);
	my $result = $session->run($function{sql}->('nowhere'));
	die "nowhere: $result->{stderr}\n" unless ($result->{sqlstate} // '') eq '08001';
	YelpTest::poll_until(sub { $session->threads == 1 }, 'the end of threads');
	return {
		files => $session->handles,
		sockets => $session->sockets,
		blocks => $inject->blocks,
		locks => $observer->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}),
		contexts => $session->value(
			q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name <> 'index info'}),
		bytes => $session->value('SELECT sum(total_bytes) FROM pg_backend_memory_contexts'),
	};
}

sub no_more_is_held
{
	my ($session, $before, $name, @what) = @_;
	my $after = held($session);
	my %tolerated = (bytes => $tolerated_bytes);
	my @more = map { "$_: $after->{$_}, not $before->{$_}" }
	  grep { $after->{$_} > $before->{$_} + ($tolerated{$_} // 0) } @what ? @what : sort keys %$before;

	is_deeply(\@more, [], "$name: nothing is left");
	return;
}

# A session that has synced before
sub start_session
{
	my ($way, @accounts) = @_;
	my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');

	foreach my $account (@accounts, @accounts)
	{
		state_of($account, $disturb_more);
		$session->run($way->{sql}->($account));
	}
	return $session;
}

# ---- one fault ----

# A sync with what was ordered, of an account in a state; returns the state after it, and what is
# wrong about its end.  %fault: states, a pattern of the SQLSTATEs that are fitting; seen, a hash that
# counts them; over, what to do before the tables are looked at.
sub run_fault
{
	my ($session, $way, $account, $before, %fault) = @_;
	my $result = $session->run($way->{sql}->($account));
	$fault{over}->() if $fault{over};
	my $end = $way->{failure}->($result);
	my $after = state_of($account);
	my @wrong;

	$fault{seen}{ $end // 'passed' }++;
	if (!defined $end)
	{
		push @wrong, 'the table is not the listing' if $after->{content} ne $content{$account};
		push @wrong, 'no history' if $after->{runs} != $before->{runs} + 1
		  && !grep { /^could not record / } @{ $result->{warnings} };
	}
	else
	{
		push @wrong, "the session ended: $result->{stderr}" if $result->{lost};
		push @wrong, "an error: $result->{error}" if $end !~ /^(?:$fault{states})$/;
		push @wrong, 'the table has changed' if $after->{rows} ne $before->{rows};
		push @wrong, 'the history has changed'
		  if !$way->{records} && $after->{runs} != $before->{runs};
	}
	return ($after, map { ($end // 'passed') . ": $_" } @wrong);
}

# The next sync of the same session, of this account or of another one
sub run_next
{
	my ($session, $way, $account) = @_;
	my $result = $session->run($way->{sql}->($account));

	return "the next sync: $result->{sqlstate}: $result->{error}" if $result->{error};
	return state_of($account)->{content} ne $content{$account}
	  ? 'the next sync: the table is not the listing' : ();
}

sub summary
{
	my (%seen) = @_;
	return join ', ', map { "$_: $seen{$_}" } sort keys %seen;
}

# ---- each call, one after the other ----

# Each call of this name fails in turn, until a sync passes without.  %fault: what YelpInject takes,
# and states; next: the account of the next sync, by default the same; fresh: a new session each.
sub sweep
{
	my ($way, $account, $call, %fault) = @_;
	my $name = "$way->{name}, $account, $call" . ($fault{count} ? ' and all after it' : '');
	my $next = $fault{next} // $account;
	my $session = start_session($way, $account, $next eq $account ? () : $next);
	my $held = held($session);
	my (%seen, $before, @ends, @wrong);
	my $number = 0;

	$session->run($way->{sql}->($next));
	while (@wrong < 5 && ($fault{fresh} || !$session->{lost}))
	{
		$session = YelpSession->new($node, 'yelp_sync.progress' => 'off') if $fault{fresh};
		# What a failed sync has left is there for this one
		$before = state_of($account, $fault{disturb} // $disturb)
		  if $next eq $account || !$before || $before->{content} eq $content{$account};
		$inject->arm($session, $call, %fault{ grep { exists $fault{$_} } qw(count code) },
			first => ++$number);
		($before, @ends) = run_fault($session, $way, $account, $before, %fault, seen => \%seen);
		$inject->disarm;
		push @wrong, map { "number $number: $_" } @ends;
		last if $inject->failed == 0;
		push @wrong, map { "number $number: $_" } run_next($session, $way, $next)
		  unless $session->{lost};
		$session->end if $fault{fresh};
	}
	is_deeply(\@wrong, [], "$name: each ends as it should");
	cmp_ok($number, '>', $fault{at_least} // 1, "$name: there were some");
	note("$name: " . summary(%seen));
	no_more_is_held($session, $held, $name) unless $fault{fresh} || $session->{lost};
	$session->end;
	return;
}

sub test_calls
{
	my ($way) = @_;
	my @kept = ($way, 'acme');
	my @new = ($way, 'named');
	my %other = (next => 'other');	# another endpoint: no connection is kept for the next one

	# Memory
	sweep(@kept, "libcurl's memory", states => '53200', at_least => 100);
	sweep(@new, "libcurl's memory", states => '53200', at_least => 100, %other);
	sweep(@kept, "extension's memory", states => '53200', count => $every);
	sweep(@new, "extension's memory", states => '53200', at_least => 3, %other);
	sweep(@kept, "server's memory", states => '53200', at_least => 10, disturb => $disturb_more);

	# libcurl
	sweep(@new, 'curl_global_init', states => '53200', code => $no_memory, fresh => 1, %other);
	foreach my $handle (qw(curl_multi_init curl_share_init curl_easy_init))
	{
		sweep(@new, $handle, states => '53200', %other);
	}
	sweep(@new, 'curl_share_setopt', states => '53200', code => $share_no_memory, %other);
	sweep(@kept, 'curl_easy_setopt', states => '53200', code => $no_memory, at_least => 20);
	sweep(@new, 'curl_easy_setopt', states => 'HV000', code => $unknown_option, at_least => 20,
		%other);
	sweep(@kept, 'curl_easy_getinfo', states => 'XX000|HV000', code => $unknown_option);
	foreach my $function (qw(curl_multi_setopt curl_multi_add_handle curl_multi_socket_action
		curl_multi_timeout))
	{
		sweep(@new, $function, states => '53200', code => $multi_no_memory, %other);
		sweep(@kept, $function, states => 'XX000', code => $multi_internal);
	}
	sweep(@kept, 'curl_multi_remove_handle', states => 'XX000', code => $multi_internal);

	# The system.  What the server says of epoll has no SQLSTATE of its own.
	sweep(@new, 'pthread_create', states => '08001|53200', code => EAGAIN, %other);
	sweep(@new, 'getaddrinfo', states => '08001|53200', code => $resolver_no_memory, %other);
	sweep(@new, 'socket', states => '53000', code => $_, %other) foreach EMFILE, ENFILE;
	sweep(@new, 'socket', states => '53000', code => EMFILE, count => $every, %other);
	sweep(@new, 'socket', states => '08001', code => ENOBUFS, %other);
	sweep(@new, 'connect', states => '08001', code => ECONNREFUSED, %other);
	sweep(@new, 'epoll_create1', states => '53000|XX000', code => EMFILE, %other);
	sweep(@new, 'epoll_ctl', states => '53200|XX000', code => ENOMEM, %other);
	sweep(@new, 'timer_create', states => '53000', code => EAGAIN, fresh => 1, %other);
	return;
}

# What is different for a procedure: transactions of its own
sub test_transactions
{
	my ($way) = @_;
	my @kept = ($way, 'acme');

	sweep(@kept, "libcurl's memory", states => '53200', at_least => 100);
	sweep(@kept, "extension's memory", states => '53200');
	sweep(@kept, "server's memory", states => '53200', at_least => 10, disturb => $disturb_more);
	# Even an error cannot be copied then
	sweep(@kept, "server's memory", states => '53200', at_least => 10, disturb => $disturb_more,
		count => $every);
	sweep($way, 'named', 'socket', states => '53000', code => EMFILE, count => $every, next => 'other');
	return;
}

# ---- a full disk ----

# Rows that spill: those that were fetched, and those of the merge
my $empty = q{DELETE FROM yelp_programs WHERE username = '%1$s'};

sub test_disk
{
	my ($way) = @_;
	my $name = "$way->{name}, a full disk";
	my $session = start_session($way, 'big');
	my $held = held($session);
	my $before = state_of('big', $empty);
	my (%seen, @ends, @wrong);
	my $number = 0;

	$session->value(q{SET work_mem = '64kB'});
	while (@wrong < 5)
	{
		$inject->arm($session, 'write', first => ++$number, code => ENOSPC);
		($before, @ends) =
		  run_fault($session, $way, 'big', $before, states => '53100', seen => \%seen);
		push @wrong, map { "write $number: $_" } @ends;
		last if $inject->failed == 0;
	}
	$inject->disarm;
	is_deeply(\@wrong, [], "$name: each write ends as it should");
	cmp_ok($seen{53100}, '>', 5, "$name: there were some");
	is($seen{passed}, 1, "$name: the next sync passes");
	note("$name: " . summary(%seen));

	$session->value(q{SET temp_file_limit = '128kB'});
	(undef, @wrong) = run_fault($session, $way, 'big', state_of('big', $empty), states => '53400',
		seen => \%seen);
	$session->value('RESET temp_file_limit');
	is_deeply(\@wrong, [], "$name: temp_file_limit ends it as it should");
	is($seen{53400}, 1, "$name: temp_file_limit was reached");
	is_deeply([ run_next($session, $way, 'big') ], [], "$name: the next sync works");
	$session->value('RESET work_mem');
	no_more_is_held($session, $held, $name);
	$session->end;
	return;
}

# ---- errors of the server's ----

my $holder;						# of locks that the sync comes to want

sub hold
{
	my ($sql) = @_;
	$holder = YelpSession->new($node);
	$holder->value($sql);
	return;
}

# A holder that waits for what a trigger has taken, which waits for the holder then
my $cross_wait = q{
	DO $$
	BEGIN
		WHILE NOT EXISTS (SELECT FROM pg_locks
			WHERE locktype = 'advisory' AND objid = 281 AND granted)
		LOOP
			PERFORM pg_sleep(0.005);
		END LOOP;
		PERFORM pg_advisory_xact_lock(281);
	END $$};
my $deadlock = q{
	CREATE FUNCTION await_holder() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock(281);
		WHILE NOT EXISTS (SELECT FROM pg_locks
			WHERE locktype = 'advisory' AND objid = 281 AND NOT granted)
		LOOP
			PERFORM pg_sleep(0.005);
		END LOOP;
		PERFORM pg_advisory_xact_lock(282);
		RETURN NEW;
	END $$;
	CREATE TRIGGER await_holder BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION await_holder()};

sub trigger
{
	my ($when, $body) = @_;
	return qq{CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
		\$\$BEGIN $body RETURN coalesce(NEW, OLD); END\$\$;
		CREATE TRIGGER fault $when EXECUTE FUNCTION fault()};
}
my $drop_trigger = 'DROP FUNCTION fault CASCADE';

# What is set up and taken back by another session (before, then, after) and by the one that syncs
# (session, reset).  Those with "block" leave it in a transaction block, where the procedure cannot be
# called.
my @errors = (
	(map {
		{
			name => "a trigger that raises, $_", state => 'P0099',
			before => trigger("$_ ON yelp_programs FOR EACH ROW", q{RAISE 'not this one' USING ERRCODE = 'P0099';}),
			after => $drop_trigger,
		}
	} 'BEFORE INSERT', 'AFTER INSERT', 'BEFORE UPDATE', 'BEFORE DELETE', 'AFTER DELETE'),
	{
		name => 'lock_timeout', state => '55P03',
		before => sub { hold(q{BEGIN; SELECT FROM yelp_programs WHERE username = 'acme' FOR UPDATE}) },
		session => q{SET lock_timeout = '20ms'}, reset => 'RESET lock_timeout',
	},
	{
		name => 'lock_timeout at the history', state => '55P03',
		before => sub { hold('BEGIN; LOCK yelp_sync_runs IN SHARE ROW EXCLUSIVE MODE') },
		session => q{SET lock_timeout = '20ms'}, reset => 'RESET lock_timeout',
	},
	{
		name => 'a deadlock', state => '40P01',
		before => sub {
			$observer->value($deadlock);
			hold(q{SET deadlock_timeout = '1h'; BEGIN; SELECT FROM pg_advisory_xact_lock(282)});
			$holder->begin($cross_wait);
		},
		holder_waits => 1,
		session => q{SET deadlock_timeout = '20ms'}, reset => 'RESET deadlock_timeout',
		after => 'DROP FUNCTION await_holder CASCADE',
	},
	{
		name => 'a serialization failure', state => '40001', block => 1,
		session => 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yelp_programs',
		then => q{UPDATE yelp_programs SET budget = 18 WHERE username = 'acme' AND budget = 17},
		reset => 'ROLLBACK',
	});

sub test_error
{
	my ($session, $way, $error) = @_;
	my $name = "$way->{name}, $error->{name}";
	my %seen;

	state_of('acme', $disturb_more);
	ref $error->{before} ? $error->{before}->() : $observer->value($error->{before})
	  if $error->{before};
	$session->value($error->{session}) if $error->{session};
	$observer->value($error->{then}) if $error->{then};
	my (undef, @wrong) = run_fault($session, $way, 'acme', state_of('acme'), states => $error->{state},
		seen => \%seen);
	is_deeply(\@wrong, [], "$name: ends as it should");
	is($seen{ $error->{state} }, 1, "$name: by its SQLSTATE") or diag(summary(%seen));
	if ($holder)
	{
		$holder->result if $error->{holder_waits};
		$holder->end;
		undef $holder;
	}
	$session->value($error->{reset}) if $error->{reset};
	$observer->value($error->{after}) if $error->{after};
	is_deeply([ run_next($session, $way, 'acme') ], [], "$name: the next sync works");
	return;
}

sub test_errors
{
	my ($way) = @_;
	my $session = start_session($way, 'acme');
	my $held = held($session);

	test_error($session, $way, $_) foreach grep { !$_->{block} || !$way->{records} } @errors;
	# But what PL/pgSQL knows of each function
	no_more_is_held($session, $held, "$way->{name}, errors of the server's", qw(files sockets blocks locks));
	$session->end;
	return;
}

# ---- no room for locks ----

# Takes locks until there is no room for another one, then gives some back
my $take_locks = q{
	CREATE FUNCTION take_locks(but integer) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		taken integer = 0;
	BEGIN
		BEGIN
			LOOP
				PERFORM pg_advisory_lock(taken);
				taken = taken + 1;
			END LOOP;
		EXCEPTION WHEN out_of_memory THEN
			FOR i IN 1 .. but LOOP
				PERFORM pg_advisory_unlock(taken - i);
			END LOOP;
		END;
	END $$};

# More locks than PostgreSQL keeps elsewhere for each process
my $many_indexes = 20;

sub test_locks
{
	my ($way) = @_;
	my $name = "$way->{name}, no room for locks";
	my (%seen, @ends, @wrong);
	my $room = 0;

	$observer->value(join ';', $take_locks,
		map { "CREATE INDEX mine$_ ON yelp_programs ((billed_clicks + $_))" } 1 .. $many_indexes);
	my $session = start_session($way, 'acme');
	my $held = held($session);
	my $before = state_of('acme', $disturb_more);
	hold('SET client_min_messages = error');
	while (!$seen{passed} && @wrong < 5)
	{
		$holder->value('SELECT take_locks(' . $room++ . ')');
		($before, @ends) = run_fault($session, $way, 'acme', $before, states => '53200', seen => \%seen,
			over => sub { $holder->value('SELECT pg_advisory_unlock_all()') });
		push @wrong, map { "room for $room: $_" } @ends;
	}
	$holder->end;
	undef $holder;
	is_deeply(\@wrong, [], "$name: each number of them ends as it should");
	cmp_ok($seen{53200}, '>', 1, "$name: there were too few");
	is($seen{passed}, 1, "$name: there were enough");
	note("$name: " . summary(%seen));
	is_deeply([ run_next($session, $way, 'acme') ], [], "$name: the next sync works");
	no_more_is_held($session, $held, $name);
	$session->end;
	$observer->value(join ';', 'DROP FUNCTION take_locks',
		map { "DROP INDEX mine$_" } 1 .. $many_indexes);
	return;
}

test_calls(\%function);
test_transactions(\%procedure);
foreach my $way (\%function, \%procedure)
{
	test_disk($way);
	test_errors($way);
	test_locks($way);
}

YelpTest::table_is_listing($node, $api, $_, "$_: in the end") foreach qw(acme named other big);
$observer->end;
YelpTest::connections_are($api, 0, 'no connection outlives the sessions');
$node->stop;
done_testing();
