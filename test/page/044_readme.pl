# The commands of the page's README as a new user types them, nginx with the file that it names, and
# the listener of doc/progress.md.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpNginx;
use YelpPage;
use YelpProcess;
use YelpTest;

my ($node, $api) = YelpTest::start(install => 0, conf => q{listen_addresses = 'localhost'});
my $home = PostgreSQL::Test::Utils::tempdir('home');
my $top = dirname(dirname(YelpPage::directory()));
my $database = { database => 'ads' };

# The role of the page needs its password
my $rules = $node->data_dir . '/pg_hba.conf';
my $trust = slurp_file($rules);
unlink $rules;
append_to_file($rules, "host all yelp_page all scram-sha-256\n$trust");
$node->reload;

sub blocks_of
{
	my ($file, $language) = @_;
	return map { s/^ {3}//mgr } slurp_file("$top/$file") =~ /^ *```$language\n(.*?)^ *```$/msg;
}

# Without a terminal, programs read passwords from standard input
sub type_in
{
	my ($command, $input) = @_;
	my $output;
	ok(IPC::Run::run([ qw(setsid -w bash -e -c), "cd $top; $command" ], '<', \$input, '>&', \$output),
		(split /\n/, $command)[-1]) or diag($output);
	return;
}

YelpTest::must_run($node, q{CREATE DATABASE ads; CREATE ROLE regress_ads LOGIN CREATEROLE});
YelpTest::install($node, $api, database => 'ads', tables => 0);
YelpTest::must_run($node, q{
	GRANT CREATE ON DATABASE ads TO regress_ads;
	GRANT CREATE ON SCHEMA public TO regress_ads;
	GRANT USAGE ON FOREIGN SERVER yelp TO regress_ads;
	CREATE USER MAPPING FOR regress_ads SERVER yelp OPTIONS (username 'acme', password 's3cret')}, %$database);

local %ENV = (%ENV, HOME => $home, PGHOST => $node->host, PGPORT => $node->port, PGUSER => 'regress_ads',
	PYTHONDONTWRITEBYTECODE => 1);
my ($demo, $setup, $users, $server) = blocks_of('examples/sync-page/README.md', '');
is($demo, "test/demo --page\n", 'the first command');
ok(-x "$top/test/demo", 'is one');
type_in($setup, "secret\nsecret\n");
type_in($users, "correct horse\n");
append_to_file("$home/.pgpass", "localhost:*:ads:yelp_page:secret\n");
chmod 0600, "$home/.pgpass";
my $page = YelpPage->serve([ 'bash', '-c', "cd $top; exec env " . $server =~ s/\n\z/ --port 0/r ]);
my ($grant) = blocks_of('examples/sync-page/README.md', 'sql');
YelpTest::must_run($node, $grant, %$database);

note 'a listener';

my ($trigger) = grep { /NOTIFY|pg_notify/ } blocks_of('doc/progress.md', 'sql');
my ($listener) = blocks_of('doc/progress.md', 'python');
YelpTest::must_run($node, $trigger, %$database, role => 'regress_ads');
my $heard = "$home/heard";
$ENV{PGDATABASE} = 'ads';
my $process = YelpProcess->start(sub { exec '/usr/bin/python3', '-u', '-c', $listener }, stdout => $heard);
$node->poll_query_until('ads', q{SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN' AND state = 'idle'}, 1);
is($page->sync('acme')->end->{total}, 1913, 'the page syncs');
YelpTest::poll_until(sub { -s $heard }, 'the listener');
is(slurp_file($heard), "acme: synced, 1913 added, 0 updated\n", 'the listener hears of it');

note 'behind nginx';

SKIP:
{
	my $lacks_nginx = YelpNginx->is_lacking;
	skip $lacks_nginx, 5 if $lacks_nginx;
	my $location = slurp_file(YelpPage::directory() . '/nginx.conf');
	(my $backend = $page->url) =~ s{/$}{};
	$location =~ s{http://127\.0\.0\.1:8080}{$backend} or die 'no proxy_pass';
	my $url = YelpNginx->start(undef, server => $location)->url =~ s{programs/v1$}{}r;
	my %origin = (Origin => $url =~ s{/$}{}r);

	$api->faults({ match => { from_offset => 220 }, action => { hold => \1 } });
	my $stream = $page->sync('acme', url => $url, headers => \%origin);
	is($stream->status, 200, 'the origin is the one that the browser sees');
	my $progress;
	do { $progress = $stream->next_of('progress') } until $progress->{completed} == 11;
	pass('events come through while pages are held');
	my $gone = $page->sync('acme', url => $url);
	is($gone->next_event->{type}, 'start', 'another browser joins');
	$gone->close;
	$api->faults();
	$api->release;
	is($stream->end->{total}, 0, 'up to the end, also if one goes away');
	is($page->sync('acme', url => $url, headers => { Origin => 'http://127.0.0.1' })->status, 403,
		'another origin is refused');
}

note 'mistakes';

foreach my $case (
	[ "examples/sync-page/users.py $home/no/users anna", qr/^users.py: .*No such file or directory/ ],
	[ "examples/sync-page/server.py --users $home/no/users", qr/^server.py: .*No such file or directory/ ],
	[ "psql -X -q -d ads -U postgres -f examples/sync-page/setup.sql",
		qr/ERROR:  the tables of yelp_sync belong to role "regress_ads"\nHINT:  Run setup.sql as this role\./ ])
{
	my ($command, $expected) = @$case;
	my $output;
	ok(!IPC::Run::run([ 'bash', '-c', "cd $top; $command" ], '<', \"secret\n", '>&', \$output), "not: $command");
	like($output, $expected, 'it says why');
	unlike($output, qr/Traceback/, 'without a traceback');
}
$process->stop;
$page->stop;
$node->stop;

done_testing();
