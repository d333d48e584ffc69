# Faults injected one by one, at each place where there can be one: memory that runs out, calls of
# libcurl and of the system that fail, a full disk, and errors of the server.  Each ends as an error
# with a fitting SQLSTATE, or costs an attempt; the tables are unchanged, no resources are leaked, and
# the next sync of the same session works.
use strict;
use warnings FATAL => 'all';

use Errno qw(EAGAIN ECONNREFUSED EMFILE ENFILE ENOBUFS ENOMEM ENOSPC);
use PostgreSQL::Test::Cluster;
use Test::More;

use YelpInject;
use YelpTest ':all';

# Codes of libcurl: of an easy handle, a multi handle and a shared one
my ($no_memory, $unknown_option) = (27, 48);
my ($multi_no_memory, $multi_internal) = (3, 4);
my $share_no_memory = 4;
my $resolver_no_memory = -10;

my %all = (count => 1_000_000);		# all calls from the first one on fail
my %tolerated = (bytes => 64 * 1024);	# of the server's memory contexts

my $inject = YelpInject->new;
my ($node, $api) = $inject->preload(sub {
	start(install => 0,
		conf => "shared_buffers = 16MB\nmax_connections = 10\nmax_locks_per_transaction = 10\n"
		  . "max_files_per_process = 64\nfsync = off\nlog_statement = none\n"
		  . "log_min_messages = fatal\nlog_min_error_statement = panic\n");
});
my $observer = YelpSession->new($node);

# ---- accounts, and ways to sync ----

# By a name that has to be looked up, over TLS; at another endpoint; with rows that spill.  A sync of an
# account where nothing listens closes all connections.
my %accounts = (
	acme => [ 8, endpoint => $api->url ],
	named => [ 8, ca_file => $api->ca_file,
		endpoint => 'https://elsewhere.example:' . $api->port('wrong_host') . '/programs/v1' ],
	other => [ 3, endpoint => $api->https_url, ca_file => $api->ca_file ],
	big => [ 250, endpoint => $api->url, page_size => 40 ],
	nowhere => [ 1, attempts => 1, endpoint => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . '/v1' ]);
my %content;

$observer->value('CREATE EXTENSION yelp_sync; SELECT yelp_sync_create_tables()');
foreach my $account (sort keys %accounts)
{
	my ($count, %server) = @{ $accounts{$account} };
	$api->config(accounts => { $account => { count => $count } });
	$observer->value(create_server($account, page_size => 5, retry_delay => '1ms', retry_max_delay => '2ms', %server));
	next if $account eq 'nowhere';
	$observer->value("SELECT FROM yelp_sync('$account')");
	table_is_listing($account, "$account: a first sync");
	$content{$account} = state_of($account)->{content};
}

# A way has the SQL, and the SQLSTATE with which the account failed, according to a result
my %function = (
	name => 'yelp_sync()',
	sql => sub { "SELECT count(*) FROM yelp_sync('$_[0]')" },
	failure => sub { $_[0]->{sqlstate} },
	records => 0);

# The procedure continues after an account that failed, and records it if it can
my %procedure = (
	name => 'yelp_sync_all()',
	sql => sub { "CALL yelp_sync_all('$_[0]')" },
	failure => sub {
		my ($result) = @_;
		my ($warning) = grep { $_->{message} =~ /^could not sync account/ } @{ $result->{messages} };
		return ($result->{error} // '') =~ /^could not sync 1 of 1 account/ ? $warning->{sqlstate} : $result->{sqlstate};
	},
	records => 1);

# Changes that a sync undoes: something to add and to update; and to delete, which takes a second reading
my $disturb = q{
	UPDATE yelp_programs SET budget = 17 WHERE username = '%1$s'
		AND program_id = (SELECT max(program_id) FROM yelp_programs WHERE username = '%1$s');
	DELETE FROM yelp_programs WHERE username = '%1$s'
		AND program_id = (SELECT min(program_id) FROM yelp_programs WHERE username = '%1$s')};
my $disturb_more = $disturb . q{;
	INSERT INTO yelp_programs (username, program_id, data, created_at, updated_at)
	VALUES ('%1$s', 'of yesterday', '{}', now(), now()) ON CONFLICT DO NOTHING};

# After a change, an account's rows, what is in them but for the times of writing, and the number of its runs
sub state_of
{
	my ($account, $change) = @_;
	my %state;

	@state{qw(rows content runs)} = split /\|/, $observer->value(sprintf(($change // '') . q{;
		SELECT md5(string_agg(p::text, ',' ORDER BY program_id)),
			md5(string_agg(program_id || fingerprint || data::text || coalesce(budget::text, '-'), ',' ORDER BY program_id)),
			(SELECT count(*) FROM yelp_sync_runs WHERE username = '%1$s')
		FROM yelp_programs p WHERE username = '%1$s'}, $account));
	return \%state;
}

# ---- the resources of a session ----

# When no connection is kept, and no thread still looks up a name
sub held
{
	my ($session) = @_;

	$inject->arm($session, 'nothing', first => 1);
	my $result = $session->run($function{sql}->('nowhere'));
	die "nowhere: $result->{stderr}\n" unless ($result->{sqlstate} // '') eq '08001';
	poll_until(sub { $session->threads == 1 }, 'the end of threads');
	return {
		files => $session->handles,
		sockets => $session->sockets,
		blocks => $inject->blocks,
		locks => $observer->value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}),
		contexts => $session->value(q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name <> 'index info'}),
		bytes => $session->value('SELECT sum(total_bytes) FROM pg_backend_memory_contexts'),
	};
}

sub no_more_is_held
{
	my ($session, $before, $name, @what) = @_;
	my $after = held($session);
	my @more = map { "$_: $after->{$_}, not $before->{$_}" }
	  grep { $after->{$_} > $before->{$_} + ($tolerated{$_} // 0) } @what ? @what : sort keys %$before;

	is_deeply(\@more, [], "$name: no resources are leaked");
	$session->end;
	return;
}

# A session that has synced before, and what it holds
sub start_session
{
	my ($way, @accounts) = @_;
	my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');

	foreach my $account (@accounts, @accounts)
	{
		state_of($account, $disturb_more);
		$session->run($way->{sql}->($account));
	}
	return ($session, held($session));
}

# ---- one fault ----

# A sync during a fault, of an account in a state; returns the state after it, and what is wrong about
# its end.  %fault: states, a pattern of the SQLSTATEs that fit; seen, a hash that counts them; over, what
# to do before the tables are examined.
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
		push @wrong, 'the history has changed' if !$way->{records} && $after->{runs} != $before->{runs};
	}
	return ($after, map { ($end // 'passed') . ": $_" } @wrong);
}

# What is wrong about the next sync of the same session, of this account or of another one
sub run_next
{
	my ($session, $way, $account) = @_;
	my $result = $session->run($way->{sql}->($account));

	return "the next sync: $result->{sqlstate}: $result->{error}" if $result->{error};
	return state_of($account)->{content} ne $content{$account} ? 'the next sync: the table is not the listing' : ();
}

# ---- each call, one after the other ----

# Each call of this name fails in turn, until a sync passes without a fault.  %fault: as YelpInject takes
# it, and states; next: the account of the next sync, by default the same; fresh: a new session each;
# at_least: so many calls are expected; disturb: the change before each; session: what the session sets,
# and reset; arm: a sub that makes fault number so-and-so happen in another way, until a sync passes.
sub sweep
{
	my ($way, $account, $call, %fault) = @_;
	my $name = "$way->{name}, $account, $call" . ($fault{count} ? ' and all after it' : '');
	my $next = $fault{next} // $account;
	my ($session, $held) = start_session($way, $account, $next eq $account ? () : $next);
	my (%seen, $before, @ends, @wrong);
	my $number = 0;

	$session->run($way->{sql}->($next));
	$session->value($fault{session}) if $fault{session};
	while (@wrong < 5 && ($fault{fresh} || !$session->{lost}))
	{
		$session = YelpSession->new($node, 'yelp_sync.progress' => 'off') if $fault{fresh};
		# What a failed sync has left is there for this one
		$before = state_of($account, $fault{disturb} // $disturb)
		  if $next eq $account || !$before || $before->{content} eq $content{$account};
		$number++;
		$fault{arm} ? $fault{arm}->($number)
		  : $inject->arm($session, $call, %fault{ grep { exists $fault{$_} } qw(count code) }, first => $number);
		($before, @ends) = run_fault($session, $way, $account, $before, %fault, seen => \%seen);
		$inject->disarm;
		push @wrong, map { "number $number: $_" } @ends;
		last if $fault{arm} ? $seen{passed} : $inject->failed == 0;
		push @wrong, map { "number $number: $_" } run_next($session, $way, $next) unless $session->{lost};
		$session->end if $fault{fresh};
	}
	is_deeply(\@wrong, [], "$name: each fault ends as it should");
	cmp_ok($number, '>', $fault{at_least} // 1, "$name: there were some");
	note("$name: " . join ', ', map { "$_: $seen{$_}" } sort keys %seen);
	$session->value($fault{reset}) if $fault{reset};
	$fault{fresh} || $session->{lost} ? $session->end : no_more_is_held($session, $held, $name);
	return;
}

# Account, call, SQLSTATEs, and options of sweep().  The next account of "named" is one with another
# endpoint: no connection is kept.
my %more = (at_least => 10, disturb => $disturb_more);
my @calls = (
	[ acme => "libcurl's memory", '53200', at_least => 100 ],
	[ named => "libcurl's memory", '53200', at_least => 100 ],
	[ acme => "extension's memory", '53200', %all ],
	[ named => "extension's memory", '53200', at_least => 3 ],
	[ acme => "server's memory", '53200', %more ],
	[ named => 'curl_global_init', '53200', code => $no_memory, fresh => 1 ],
	(map { [ named => $_, '53200' ] } qw(curl_multi_init curl_share_init curl_easy_init)),
	[ named => 'curl_share_setopt', '53200', code => $share_no_memory ],
	[ acme => 'curl_easy_setopt', '53200', code => $no_memory, at_least => 20 ],
	[ named => 'curl_easy_setopt', 'HV000', code => $unknown_option, at_least => 20 ],
	[ acme => 'curl_easy_getinfo', 'XX000|HV000', code => $unknown_option ],
	(map {
		([ named => $_, '53200', code => $multi_no_memory ], [ acme => $_, 'XX000', code => $multi_internal ])
	} qw(curl_multi_setopt curl_multi_add_handle curl_multi_socket_action curl_multi_timeout)),
	[ acme => 'curl_multi_remove_handle', 'XX000', code => $multi_internal ],
	# What the server says of epoll has no SQLSTATE of its own
	[ named => 'pthread_create', '08001|53200', code => EAGAIN ],
	[ named => 'getaddrinfo', '08001|53200', code => $resolver_no_memory ],
	(map { [ named => 'socket', '53000', code => $_ ] } EMFILE, ENFILE),
	[ named => 'socket', '53000', code => EMFILE, %all ],
	[ named => 'socket', '08001', code => ENOBUFS ],
	[ named => 'connect', '08001', code => ECONNREFUSED ],
	[ named => 'epoll_create1', '53000|XX000', code => EMFILE ],
	[ named => 'epoll_ctl', '53200|XX000', code => ENOMEM ],
	[ named => 'timer_create', '53000', code => EAGAIN, fresh => 1 ]);

# What is different for a procedure: its transactions.  If all memory of the server is used up, even an
# error cannot be copied.
my @in_transactions = (
	[ acme => "libcurl's memory", '53200', at_least => 100 ],
	[ acme => "extension's memory", '53200' ],
	[ acme => "server's memory", '53200', %more ],
	[ acme => "server's memory", '53200', %more, %all ],
	[ named => 'socket', '53000', code => EMFILE, %all ]);

# Rows that are written to a full disk
my $empty = q{DELETE FROM yelp_programs WHERE username = '%1$s'};
my @disk = (big => 'write', '53100', code => ENOSPC, at_least => 6, disturb => $empty,
	session => q{SET work_mem = '64kB'}, reset => 'RESET work_mem');

# ---- errors of the server ----

my $holder;						# of locks that the sync wants

sub hold
{
	my ($sql) = @_;
	$holder = YelpSession->new($node);
	$holder->value($sql);
	return;
}

sub trigger
{
	my ($when, $body) = @_;
	return qq{CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
		\$\$BEGIN $body RETURN coalesce(NEW, OLD); END\$\$;
		CREATE TRIGGER fault $when ON yelp_programs FOR EACH ROW EXECUTE FUNCTION fault()};
}

# A trigger and a holder of locks that wait for each other in the end
my $await = q{WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 281 AND %s granted) LOOP
		PERFORM pg_sleep(0.005);
	END LOOP;};
my $cross_wait = 'DO $$ BEGIN ' . sprintf($await, '') . ' PERFORM pg_advisory_xact_lock(281); END $$';
my $deadlock = trigger('BEFORE UPDATE', 'PERFORM pg_advisory_xact_lock(281);' . sprintf($await, 'NOT')
	  . 'PERFORM pg_advisory_xact_lock(282);');

# The name, the SQLSTATE, what another session does (before), what the session that syncs sets, what
# the other session does then, and what takes it back (reset, after).  "block": in a transaction block, in
# which the procedure cannot be called.  "account" (acme) has the change "disturb" before.
my @errors = (
	(map { {
		name => "a trigger that raises, $_", state => 'P0099', after => 1,
		before => trigger($_, q{RAISE 'not this one' USING ERRCODE = 'P0099';}),
	} } 'BEFORE INSERT', 'AFTER INSERT', 'BEFORE UPDATE', 'BEFORE DELETE', 'AFTER DELETE'),
	(map { my $sql = $_; {
		name => "lock_timeout, $sql", state => '55P03', before => sub { hold($sql) },
		session => q{SET lock_timeout = '20ms'}, reset => 'RESET lock_timeout',
	} } q{BEGIN; SELECT FROM yelp_programs WHERE username = 'acme' FOR UPDATE},
		'BEGIN; LOCK yelp_sync_runs IN SHARE ROW EXCLUSIVE MODE'),
	{
		name => 'a deadlock', state => '40P01', after => 1,
		before => sub {
			$observer->value($deadlock);
			hold(q{SET deadlock_timeout = '1h'; BEGIN; SELECT FROM pg_advisory_xact_lock(282)});
			$holder->begin($cross_wait);
		},
		session => q{SET deadlock_timeout = '20ms'}, reset => 'RESET deadlock_timeout',
	},
	{
		name => 'temp_file_limit', state => '53400', account => 'big', disturb => $empty,
		session => q{SET work_mem = '64kB'; SET temp_file_limit = '128kB'},
		reset => 'RESET work_mem; RESET temp_file_limit',
	},
	{
		name => 'a serialization failure', state => '40001', block => 1,
		session => 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yelp_programs',
		then => q{UPDATE yelp_programs SET budget = 18 WHERE username = 'acme' AND budget = 17},
		reset => 'ROLLBACK',
	});

sub test_errors
{
	my ($way) = @_;
	my ($session, $held) = start_session($way, qw(acme big));

	foreach my $error (grep { !$_->{block} || !$way->{records} } @errors)
	{
		my $account = $error->{account} // 'acme';
		my %seen;

		state_of($account, $error->{disturb} // $disturb_more);
		ref $error->{before} ? $error->{before}->() : $observer->value($error->{before}) if $error->{before};
		$session->value($error->{session}) if $error->{session};
		$observer->value($error->{then}) if $error->{then};
		my (undef, @wrong) = run_fault($session, $way, $account, state_of($account),
			states => $error->{state}, seen => \%seen);
		$holder->result if $holder && $error->{after};
		$holder->end if $holder;
		undef $holder;
		$session->value($error->{reset}) if $error->{reset};
		$observer->value('DROP FUNCTION fault CASCADE') if $error->{after};
		is_deeply([ \%seen, @wrong, run_next($session, $way, $account) ], [ { $error->{state} => 1 } ],
			"$way->{name}, $error->{name}");
	}
	# Except memory: PL/pgSQL keeps its functions
	no_more_is_held($session, $held, "$way->{name}, errors of the server", qw(files sockets blocks locks));
	return;
}

# ---- no room for locks ----

# Takes locks until there is no room for another one, then releases some
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

sub test_locks
{
	my ($way) = @_;
	my $many_indexes = 20;			# more locks than PostgreSQL keeps elsewhere for each process

	$observer->value(join ';', $take_locks,
		map { "CREATE INDEX mine$_ ON yelp_programs ((billed_clicks + $_))" } 1 .. $many_indexes);
	hold('SET client_min_messages = error');
	sweep($way, 'acme', 'no room for locks', states => '53200', disturb => $disturb_more, at_least => 2,
		arm => sub { $holder->value('SELECT take_locks(' . ($_[0] - 1) . ')') },
		over => sub { $holder->value('SELECT pg_advisory_unlock_all()') });
	$holder->end;
	undef $holder;
	$observer->value(join ';', 'DROP FUNCTION take_locks', map { "DROP INDEX mine$_" } 1 .. $many_indexes);
	return;
}

foreach my $case (
	(map { [ \%function, $_ ] } @calls, \@disk),
	(map { [ \%procedure, $_ ] } @in_transactions, \@disk))
{
	my ($way, $call) = @$case;
	my ($account, $function, $states, %fault) = @$call;
	sweep($way, $account, $function, states => $states, $account eq 'named' ? (next => 'other') : (), %fault);
}
foreach my $way (\%function, \%procedure)
{
	test_errors($way);
	test_locks($way);
}

table_is_listing($_, "$_: in the end") foreach qw(acme named other big);
$observer->end;
connections_are($api, 0, 'no connection outlives the sessions');
done_testing();
