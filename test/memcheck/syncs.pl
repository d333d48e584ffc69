# Under valgrind: a session of many syncs loses no more memory than one of a few,
# and none uses memory incorrectly.  A round has one sync of each kind: first,
# unchanged, with changes, with deletions, and failing in different places.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my $rounds = 5;
my $logs = PostgreSQL::Test::Utils::tempdir('valgrind');
my $node = PostgreSQL::Test::Cluster->new('main');
my $api = YelpApi->start;
my $seed = 0;

YelpTest::init($node);
$node->append_conf('postgresql.conf', "autovacuum = off\nlog_min_messages = error\n");
{
	local $ENV{YELP_SYNC_VALGRIND} = $logs;
	$node->start;
}
YelpTest::install($node, $api, server => { attempts => 1, max_deleted => '100%' });
$api->config(accounts => { acme => { count => 300 } });
YelpTest::must_run($node,
	'ALTER SERVER yelp OPTIONS (SET endpoint ' . YelpTest::literal($api->https_url)
	  . ', ADD ca_file ' . YelpTest::literal($api->ca_file) . ')');

# The results of a round: counts of rows, and SQLSTATEs
sub round_of_syncs
{
	my ($session) = @_;
	my $count = q{SELECT count(*) FROM yelp_sync('acme')};
	my @results;

	$session->value('TRUNCATE yelp_programs');
	push @results, $session->value($count);
	push @results, $session->value($count);
	$api->mutate(seed => ++$seed, alter => 5, add => 2);
	push @results, $session->value($count);
	$api->mutate(seed => ++$seed, remove => 2);
	push @results, $session->value($count);
	$api->faults({ match => { offset => 40 }, action => 'reset' });
	push @results, $session->run($count)->{sqlstate};
	$api->faults({ match => { offset => 60 }, action => { respond => { status => 401 } } });
	push @results, $session->run($count)->{sqlstate};
	$api->faults({ match => { offset => 80 }, action => { hold => \1 } });
	push @results, $session->run("SET statement_timeout = '2s'; $count")->{sqlstate};
	$session->value('SET statement_timeout = 0');
	$api->faults;
	return join ' ', @results;
}

# The bytes lost by a session with this number of rounds, and valgrind's log of it
sub figures
{
	my ($count) = @_;
	my $session = YelpSession->new($node, 'yelp_sync.progress' => 'off');
	my $name = "$logs/" . $session->pid . '.log';

	foreach my $round (1 .. $count)
	{
		is(round_of_syncs($session), '300 0 7 2 08006 HV000 57014', "round $round of $count");
	}
	$session->end;
	my $log = slurp_file($name);
	my %bytes = map {
		my ($kind) = $log =~ /$_: ([\d,]+) bytes/;
		($_ => ($kind // '0') =~ tr/,//dr)
	} 'definitely lost', 'indirectly lost', 'still reachable';
	my @errors = $log =~ /^==\d+== ((?:Invalid|Conditional|Use of|Source and|Syscall|Mismatched).*)$/mg;

	is("@errors", '', "$count rounds: memory is used as it should be") or diag($log);
	note("$count rounds: ", join ', ', map { "$_ $bytes{$_} bytes" } sort keys %bytes);
	return (\%bytes, $log);
}

my ($few) = figures(1);
my ($many, $log) = figures(1 + $rounds);

is($many->{'definitely lost'}, $few->{'definitely lost'},
	"no more bytes are lost after $rounds rounds more") or diag($log);
my $ours = join '|', 'yelp_sync\.so', map { s{^src/}{}r =~ s/\./\\./r . ':\d' } glob 'src/*.c';
unlike($log, qr/$ours/, 'and none of the extension or below it');
note('still reachable: ', $many->{'still reachable'} - $few->{'still reachable'},
	" bytes more after $rounds rounds more");
$node->stop;
done_testing();
