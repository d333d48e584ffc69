# Sockets count as open files of the server: if few are available, fewer requests are in flight; kept
# connections are closed when files are needed.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpRelay;
use YelpTest ':all';

my ($node, $api) = start(
	server => { concurrency => 1000, page_size => 10 },
	conf => "shared_buffers = 16MB\n");
my $session = YelpSession->new($node);
my $own = $session->sockets + 2;	# libcurl has a pair to wake itself

sub sync_works
{
	my ($name) = @_;
	is($session->sync('acme')->{error}, undef, $name);
	table_is_listing('acme', "$name: the table");
	return;
}

note 'as many as requested';

# 192 pages: a third of max_files_per_process may be sockets.  None is answered before all have arrived.
sync_works('a first sync');
$api->faults({ action => { hold => \1 } });
$session->begin_sync('acme');
$api->poll_counter('held', 193);
pass('as many requests are in flight as there are pages, and a look at the end');
$api->release;
$api->faults;
is($session->sync_result->{error}, undef, 'all pages at once');

note 'what is kept';

# On a busy machine, a page may be requested twice, over another connection: again
my $kept;
foreach (1 .. 5)
{
	$kept = $session->sockets;
	$api->reset('counters');
	is_deeply([ map { $session->sync('acme')->{error} } 1 .. 20 ], [ (undef) x 20 ], 'twenty repeats');
	last if $api->counters->{connections} == 0;
}
is_deeply([ $api->counters->{connections}, $session->sockets ], [ 0, $kept ], '... need no other connection');

# Less than half of what the server allows each process: files of others find room
value('CREATE TABLE big (n int) PARTITION BY HASH (n);'
	  . join('', map { "CREATE TABLE big$_ PARTITION OF big FOR VALUES WITH (MODULUS 500, REMAINDER $_);" } 0 .. 499)
	  . 'INSERT INTO big SELECT generate_series(1, 5000)');
is($session->value('SELECT count(*) FROM big'), 5000, 'many tables can be read');
sync_works('a sync after that');

# An idle session closes connections that the API has closed
my $from_api = sprintf ':%04X', $api->port('http');
my $close_wait = sub {
	return grep { (split)[2] =~ /$from_api$/ && (split)[3] eq '08' } split /\n/, slurp_file('/proc/net/tcp');
};
cmp_ok($api->disconnect('close'), '>', 0, 'the API closes the connections');
$api->poll_until($close_wait, 'CLOSE_WAIT');
$api->poll_until(sub { !$close_wait->() }, 'the other end to be closed');
sync_works('they do not stay in CLOSE_WAIT');
$api->faults({ action => { respond => { status => 404 } } });
is($session->run(q{BEGIN; SELECT yelp_sync('acme')})->{sqlstate}, 'HV000',
	'a sync that fails in a transaction block');
connections_are($api, 0, '... has closed its connections before ROLLBACK');
$session->run('ROLLBACK');
$api->faults;

my $other = YelpApi->start;
$other->config(accounts => { other => { count => 95 } });
value(create_server('other', endpoint => $other->url));
foreach my $round (1 .. 3)
{
	is($session->sync('other')->{error}, undef, "round $round: another endpoint");
	connections_are($api, 0, "round $round: connections to the first one are not kept");
	cmp_ok($session->sockets, '<=', $own + 6, "round $round: no more sockets than its requests");
	is($session->sync('acme')->{error}, undef, "round $round: the first endpoint again");
	connections_are($other, 0, "round $round: connections to the other one are not kept");
}
$session->end;
connections_are($api, 0, 'no connection outlives the session');

note 'few files';

# The lowest setting with which the server starts
$node->stop;
my $files;
foreach my $number (25, 40, 64, 100)
{
	$files = $number;
	$node->append_conf('postgresql.conf', "max_files_per_process = $files");
	last if $node->start(fail_ok => 1);
}
note("max_files_per_process = $files");
$session = YelpSession->new($node);
$api->reset('counters');
$api->config(latency_ms => 20);
sync_works("a sync with $files files");
my $in_flight = $api->counters->{max_in_flight};
ok($in_flight < $files && $in_flight > 1, 'fewer requests are in flight, but more than one') or diag($in_flight);
cmp_ok($session->sockets, '<=', $own + $files, 'no more sockets are open');
$api->mutate(alter => 200, remove => 100, add => 50);
sync_works('a sync with changes');
is($session->value('SELECT count(*) FROM big'), 5000, 'tables can be read');
$api->config(latency_ms => 0);
sync_works('a sync without latency');
$session->value("SET work_mem = '64kB'");
sync_works('a sync that spills');

note 'a connection that fails: 021_leaks.pl has many';

# A server whose backlog is full, so that the first attempt times out.  It has room when the second
# attempt has begun.
sub connecting_from
{
	my ($port) = @_;
	my $to = sprintf(':%04X', $port);
	return map { (split)[1] } grep { (split)[2] =~ /$to$/ && (split)[3] eq '02' }
	  split /\n/, slurp_file('/proc/net/tcp');
}

my $full = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1, ReuseAddr => 1) or die "listen: $!\n";
my $port = $full->sockport;
my @fillers = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Blocking => 0) } 1 .. 4;
my %filling = map { $_ => 1 } connecting_from($port);
my %tried;
$api->config(accounts => { late => { count => 5 } });
value(create_server('late', endpoint => "http://127.0.0.1:$port/programs/v1", attempts => 10, timeout => '1h',
	connect_timeout => '1500ms', retry_delay => '200ms'));
$session->begin_sync('late');
poll_until(
	sub { $tried{$_} = 1 foreach grep { !$filling{$_} } connecting_from($port); keys %tried > 1 },
	'a second attempt');
close($_) foreach @fillers, $full;
my $relay = YelpRelay->start(sub { YelpRelay::connect_to('127.0.0.1', $api->port('http')) },
	LocalPort => $port, ReuseAddr => 1);
is(outcome($session->sync_result), 'added 5', 'the second attempt connects');
$relay->stop;

note 'sixteen sessions with few files each';

my %sessions = map { ("few$_" => YelpSession->new($node)) } 1 .. 16;
$api->config(accounts => { map { ("few$_" => { count => 200 + 2 * $_ }) } 1 .. 16 });
value(join '', map { create_server($_, endpoint => $api->url, concurrency => 1000, page_size => 2) } keys %sessions);
$sessions{$_}->begin_sync($_) foreach sort keys %sessions;
is_deeply([ map { $sessions{$_}->sync_result->{error} } sort keys %sessions ], [ (undef) x 16 ], 'all work');
table_is_listing($_) foreach sort keys %sessions;
$_->end foreach values %sessions, $session;
connections_are($api, 0, 'no connection outlives the sessions');

done_testing();
