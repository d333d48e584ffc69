# Sockets count as the server's open files: if few are available, fewer requests
# are in flight; kept connections are closed when the files are needed.

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpProcess;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(
	server => { concurrency => 1000, page_size => 10 },
	conf => "shared_buffers = 16MB\n");

sub sync_works
{
	my ($session, $name) = @_;
	my $result = $session->sync('acme');
	is($result->{error}, undef, $name) or diag($result->{stderr});
	YelpTest::table_is_listing($node, $api, 'acme', "$name: what the API lists");
	return;
}

# ---- as many as asked for ----

# 192 pages (a third of max_files_per_process may be sockets).  None is answered
# before all have come.
my $session = YelpSession->new($node);
my $own = $session->sockets + 2;	# libcurl has a pair to wake itself
sync_works($session, 'a first sync');
$api->reset('counters');
$api->faults({ action => { hold => \1 } });
$session->begin_sync('acme');
$api->poll_counter('held', 193);
$api->release;
$api->faults;
is($session->sync_result->{error}, undef, 'all pages at once');
is($api->counters->{max_in_flight}, 193, 'as many requests are in flight as there are pages, and a look at the end');

# ---- what is kept ----

my $kept = $session->sockets;
$api->reset('counters');
is($session->sync('acme')->{error}, undef, "repeat sync $_") foreach 1 .. 20;
is($api->counters->{connections}, 0, 'twenty more syncs need no other connection');
is($session->sockets, $kept, 'and hold no more');

# Less than half of what the server lets each process have: others' files find room
$node->safe_psql('postgres',
	'CREATE TABLE big (n int) PARTITION BY HASH (n);'
	  . join '', map { "CREATE TABLE big$_ PARTITION OF big FOR VALUES WITH (MODULUS 500, REMAINDER $_);" } 0 .. 499);
$node->safe_psql('postgres', 'INSERT INTO big SELECT generate_series(1, 5000)');
is($session->value('SELECT count(*) FROM big'), 5000, 'as many tables as ever can be read');
is($session->sync('acme')->{error}, undef, 'and the next sync works');

# What the API has closed meanwhile is noticed
$api->disconnect('close');
YelpTest::connections_are($api, 0, 'the API closes all');
sync_works($session, 'a sync after that');
$api->disconnect('reset');
YelpTest::connections_are($api, 0, 'the API resets all');
sync_works($session, 'a sync after that, too');

# ---- another endpoint ----

my $other = YelpApi->start;
$other->config(accounts => { other => { count => 95 } });
$node->safe_psql('postgres', YelpTest::create_server('other', endpoint => $other->url));
foreach my $round (1 .. 3)
{
	is($session->sync('other')->{error}, undef, "round $round: another endpoint");
	YelpTest::connections_are($api, 0, "round $round: connections to the first one are not kept");
	cmp_ok($session->sockets, '<=', $own + 6, "round $round: no more sockets than its requests");
	is($session->sync('acme')->{error}, undef, "round $round: the first endpoint again");
	$other->poll_until(sub { $other->counters->{open_connections} == 0 }, 'connections to end');
	pass("round $round: connections to the other one are not kept");
}
YelpTest::table_is_listing($node, $other, 'other', 'the other account');

$session->end;
YelpTest::connections_are($api, 0, 'nothing outlives the session');

# ---- few files ----

# The least that the setting takes, and that is enough to start with
sub start_with_few_files
{
	foreach my $files (25, 40, 64, 100)
	{
		$node->append_conf('postgresql.conf', "max_files_per_process = $files");
		return $files if $node->start(fail_ok => 1);
	}
	die "the server does not start\n";
}

$node->stop;
my $files = start_with_few_files();
note("max_files_per_process = $files");
$session = YelpSession->new($node);
$api->reset('counters');
$api->config(latency_ms => 20);
sync_works($session, "a sync with $files files");
my $in_flight = $api->counters->{max_in_flight};
cmp_ok($in_flight, '<', $files, 'fewer requests are in flight');
cmp_ok($in_flight, '>', 1, 'but more than one');
cmp_ok($session->sockets, '<=', $own + $files, 'and no more sockets open');

$api->mutate(alter => 200, remove => 100, add => 50);
sync_works($session, 'one with changes');
is($session->value('SELECT count(*) FROM big'), 5000, 'tables can be read');
sync_works($session, 'and one after that');
$api->config(latency_ms => 0);
sync_works($session, 'one without latency');

# Rows that spill to files
$session->value("SET work_mem = '64kB'");
sync_works($session, 'one that spills');

# ---- connections that fail ----

# What libcurl closes before it is connected is given back as well: with so few
# files the next sync would find none.
sub add_server
{
	my ($name, %server) = @_;
	$api->config(accounts => { $name => { count => 5 } });
	$node->safe_psql('postgres', YelpTest::create_server($name, attempts => 1, timeout => '1h', %server));
	return;
}

my $free_port = PostgreSQL::Test::Cluster::get_free_port();
add_server('refused', endpoint => "http://127.0.0.1:$free_port/v1");
add_server('refused_twice', endpoint => "https://localhost:$free_port/v1");
add_server('timed_out', endpoint => $api->url('swallow'), connect_timeout => '5ms');
add_server('cancelled', endpoint => $api->url('swallow'), connect_timeout => '1h');
add_server('untrusted', endpoint => $api->url('untrusted'), ca_file => $api->ca_file);
my %state = (refused => '08001', refused_twice => '08001', timed_out => '08001',
	cancelled => '57014', untrusted => '08001');

sub most_in_flight
{
	my ($name) = @_;
	$api->config(latency_ms => 20);
	$api->reset('counters');
	is($session->sync('acme')->{error}, undef, $name);
	$api->config(latency_ms => 0);
	return $api->counters->{max_in_flight};
}

# One that fails may cost the next sync a connection, as it starts from nothing
$session->run(q{SELECT FROM yelp_sync('refused')});
$in_flight = most_in_flight('a sync after one that could not connect');
foreach my $account (sort keys %state)
{
	my $timeout = $account eq 'cancelled' ? 5 : 0;
	my $script = "SET statement_timeout = $timeout;"
	  . "SELECT FROM yelp_sync('$account');" x 200 . 'RESET statement_timeout';
	my @states = map { $_->{sqlstate} }
	  grep { $_->{level} eq 'ERROR' } @{ $session->run($script)->{messages} };
	is(scalar(grep { $_ eq $state{$account} } @states), 200, "$account: 200 times");
	is(most_in_flight("$account: then a sync works"),
		$in_flight, "$account: with as many in flight as before");
}

# A server whose backlog is full, so that the first attempt times out.  It has
# room when the second one has begun.
sub connecting_from
{
	my ($port) = @_;
	my $to = sprintf(':%04X', $port);
	return map { (split)[1] } grep { (split)[2] =~ /$to$/ && (split)[3] eq '02' }
	  split /\n/, slurp_file('/proc/net/tcp');
}

sub answer
{
	my ($listener) = @_;
	my $page = '{"payment_programs":[],"total":0,"offset":0,"limit":20}';

	while (my $connection = $listener->accept)
	{
		my $request = '';
		while ($request !~ /\r\n\r\n/ && sysread($connection, my $more, 4096)) { $request .= $more }
		next if $request eq '';

		# The client comes to wait for it
		select(undef, undef, undef, 0.1);
		print $connection "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
		  . 'Content-Length: ' . length($page) . "\r\n\r\n$page";
		close($connection);
	}
	return;
}

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "listen: $!\n";
my $port = $listener->sockport;
my @fillers = map {
	IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Blocking => 0)
} 1 .. 4;
my %filling = map { $_ => 1 } connecting_from($port);
add_server('late', endpoint => "http://127.0.0.1:$port/v1", attempts => 6,
	connect_timeout => '1500ms', retry_delay => '1ms');
$session->begin_sync('late');
my %tried;
$api->poll_until(
	sub { $tried{$_} = 1 foreach grep { !$filling{$_} } connecting_from($port); keys %tried > 1 },
	'a second attempt');
close($_) foreach @fillers;
my $server = YelpProcess->start(sub { answer($listener) });
is($session->sync_result->{error}, undef, 'a connection that stands at the second attempt');
$server->stop;
close($listener);

# Sixteen sessions with as few each
my @sessions = map { YelpSession->new($node) } 1 .. 16;
my %pages = map { ("few$_" => 200 + 2 * $_) } 1 .. 16;
$api->config(accounts => { map { $_ => { count => $pages{$_} } } keys %pages });
my @accounts = sort keys %pages;
$node->safe_psql('postgres', join '',
	map { YelpTest::create_server($_, endpoint => $api->url, concurrency => 1000, page_size => 2) } @accounts);
$sessions[$_]->begin_sync($accounts[$_]) foreach 0 .. $#sessions;
is($sessions[$_]->sync_result->{error}, undef, "$accounts[$_]: works with few files")
  foreach 0 .. $#sessions;
YelpTest::table_is_listing($node, $api, $_, "$_: what the API lists") foreach @accounts;
$_->end foreach @sessions;
$session->end;
YelpTest::connections_are($api, 0, 'nothing outlives the sessions');

$node->stop;
done_testing();
