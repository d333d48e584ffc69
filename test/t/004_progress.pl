# The progress of a sync, in each form, and what it must not contain.
use strict;
use warnings FATAL => 'all';
use utf8;

use JSON::PP ();
use MIME::Base64 ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use YelpApi;
use YelpSession;
use YelpTest;

my $password = 'xyzzy-plugh-42';
my ($node, $api) = YelpTest::start(
	password => $password,
	conf => q{
		log_min_messages = debug5
		log_statement = all
		log_min_duration_statement = 0
		log_error_verbosity = verbose
		track_activity_query_size = 16384
	});
my $json = JSON::PP->new;
my $seconds = qr/\d+\.\d\d/;

$api->config(accounts => { acme => { password => $password } });

# The messages of a sync, each parsed
sub events
{
	my ($sync) = @_;
	return map { $json->decode($_->{message}) } @{ $sync->{messages} };
}

note 'text';

my $sync = YelpTest::sync($node, 'acme');
my @notices = @{ $sync->{notices} };
is(shift @notices, 'yelp_sync: start: account "acme" on server "yelp"', 'text: the start');
is(shift @notices, 'yelp_sync: 1913 programs in 96 pages of 20', 'text: the total');
like(
	pop @notices,
	qr/^yelp_sync: complete: \+1913 added, ~0 updated, =0 unchanged, -0 deleted in $seconds s$/,
	'text: the end');
is(pop @notices, 'yelp_sync: 0 stored: 1913 new, 0 common, 0 gone',
	'text: what is stored');
like(pop @notices, qr/^yelp_sync: fetched 1913 programs in $seconds s \(\d+ programs\/s\), 0 retries$/,
	'text: the fetch');
is(join("\n", grep { !/^yelp_sync: fetched \d+\/96 pages \(\d+%\), \d+ programs$/ } @notices),
	'', 'text: between them, progress only');
is(scalar(grep { $_->{level} ne 'NOTICE' || $_->{sqlstate} ne '00000' } @{ $sync->{messages} }),
	0, 'text: all are NOTICEs');
is(scalar(grep { $_->{context} || $_->{detail} || $_->{hint} } @{ $sync->{messages} }),
	0, 'text: without context, detail or hint');

$api->mutate(seed => 1, remove => 5, add => 7, alter => 12);
@notices = @{ YelpTest::sync($node, 'acme')->{notices} };
ok(grep({ $_ eq 'yelp_sync: reading the listing once more: programs seem to be gone' } @notices),
	'text: before a deletion the listing is read again');
is($notices[1], 'yelp_sync: 1915 programs in 96 pages of 20', 'text: the total of a repeat');
is($notices[-2], 'yelp_sync: 1913 stored: 7 new, 1908 common, 5 gone',
	'text: a repeat, compared');
like($notices[-1], qr/^yelp_sync: complete: \+7 added, ~12 updated, =1896 unchanged, -5 deleted in $seconds s$/,
	'text: the end of a repeat');

note 'as it happens';

# Pages are let go one by one
$api->faults({ action => { hold => \1 } });
my $session = YelpSession->new($node);
$session->begin_sync('acme');
$session->wait_for(qr/NOTICE:  00000: yelp_sync: start: account "acme"/);
$api->poll_counter('held', 96);
pass('text: the start is told before any page has come');
$api->release(1);
$session->wait_for(qr/1915 programs in 96 pages of 20/);
$api->poll_until(sub { $api->counters->{held} >= 95 }, 'the other pages to be held');
pass('text: the total is told before any other page has come');

# Slowly enough for progress to be due at each step: a tenth of a second
my $told = 0;
foreach my $step (1 .. 5)
{
	$api->release(10);
	my $done = 1 + 10 * $step;
	$session->wait_for(qr/fetched $done\/96 pages/);
	$told++;
}
is($told, 5, 'text: each step of ten pages is told while the others are held');
$api->faults();
$api->release;
my $result = $session->result;
my @lines = grep { /pages \(/ } @{ $result->{notices} };
cmp_ok(scalar(@lines), '>=', 5, 'text: progress lines');
my (@percent, @wrong);
foreach my $line (@lines)
{
	my ($pages, $percent, $programs) = $line =~ /fetched (\d+)\/96 pages \((\d+)%\), (\d+) programs/;
	push @wrong, $line
	  unless $percent == int($pages * 100 / 96) && $programs <= 20 * $pages && $programs >= 20 * $pages - 20;
	push @percent, $percent;
}
is_deeply(\@wrong, [], 'text: percentages and programs fit the pages');
is_deeply(\@percent, [ sort { $a <=> $b } @percent ], 'text: it only grows');

note 'how often';

# A hundred answers within a second and a half: not a hundred lines
$api->faults(map { { match => { page => $_ }, action => { delay_ms => 15 * $_ } } } 1 .. 95);
my $begun = Time::HiRes::time();
$sync = YelpTest::sync($node, 'acme');
my $elapsed = Time::HiRes::time() - $begun;
my $lines = grep { /pages \(/ } @{ $sync->{notices} };
cmp_ok($lines, '>=', 5, 'lines while pages arrive');
cmp_ok($lines, '<=', 10 * $elapsed + 1, 'about ten a second at most');

# Nothing comes: a line every five seconds all the same
$api->faults({ match => { offset => 40 }, action => { hold => \1 } });
$begun = Time::HiRes::time();
$session->begin_sync('acme');
$session->wait_for(qr/(?:fetched 95\/96 pages.*){2}/s);
$elapsed = Time::HiRes::time() - $begun;
cmp_ok($elapsed, '<', 15, 'a line at least every five seconds while nothing comes');
cmp_ok($elapsed, '>', 4, 'and not more of them');
$api->faults();
$api->release;
$session->result;

note 'json';

$api->mutate(seed => 2, remove => 4, add => 3, alter => 10);
$api->faults(map { { match => { page => $_ }, action => { delay_ms => 10 * $_ } } } 1 .. 95);
$sync = YelpTest::sync($node, 'acme', 'yelp_sync.progress' => 'json');
$api->faults();
my @events = events($sync);
is_deeply(shift @events,
	{ type => 'start', account => 'acme', message => 'start: account "acme" on server "yelp"' }, 'json: the start');
is_deeply(
	shift @events,
	{
		type => 'info', account => 'acme', total_api => 1914, pages => 96, page_size => 20,
		message => '1914 programs in 96 pages of 20'
	},
	'json: the total');
my $complete = pop @events;
my $timing = delete $complete->{timing};
like(delete $complete->{message},
	qr/^complete: \+3 added, ~10 updated, =1901 unchanged, -4 deleted in $seconds s$/, 'json: the end, as text');
is_deeply(
	$complete,
	{
		type => 'complete', account => 'acme', status => 'synced', added => 3, updated => 10, unchanged => 1901,
		deleted => 4, total_synced => 1914
	},
	'json: the end');
is_deeply([ sort keys %$timing ], [qw(api merge total)], 'json: its timing');
cmp_ok($timing->{api}, '>', 0.9, 'json: the time of the fetch in seconds');
cmp_ok($timing->{total}, '>=', $timing->{api}, 'json: the time in all');
cmp_ok($timing->{total} + 0.02, '>=', $timing->{api} + $timing->{merge}, 'json: the times fit');
is_deeply(
	pop @events,
	{
		type => 'info', account => 'acme', total_db => 1915, new => 3, common => 1911, gone => 4,
		message => '1915 stored: 3 new, 1911 common, 4 gone'
	},
	'json: what is stored');
my @again = grep { $_->{type} eq 'info' } @events;
is_deeply(
	\@again,
	[ { type => 'info', account => 'acme', message => 'reading the listing once more: programs seem to be gone' } ],
	'json: before a deletion the listing is read again');
@events = grep { $_->{type} ne 'info' } @events;
cmp_ok(scalar(@events), '>=', 3, 'json: progress');
is_deeply([ grep { $_->{total} == 0 } @events ], [], 'json: progress: never without a total once that is known');
my @wrong_events = grep {
	join(' ', sort keys %$_) ne 'account completed message percentage programs reading retries total type'
	  || $_->{type} ne 'progress'
	  || $_->{percentage} != int(100 * $_->{completed} / ($_->{total} || 1))
	  || $_->{message} ne ($_->{reading} > 1 ? "reading $_->{reading}: " : '') . "fetched $_->{completed}/$_->{total} pages ($_->{percentage}%), $_->{programs} programs"
} @events;
is_deeply(\@wrong_events, [], 'json: progress: members and percentage');
is_deeply([ sort { $a <=> $b } keys %{ { map { $_->{reading} => 1 } @events } } ], [ 1, 2 ],
	'json: progress: of both readings');
is($events[-1]{percentage}, 100, 'json: progress ends at 100');
is(scalar(grep { $_->{message} !~ /^\{.*\}$/ } @{ $sync->{messages} }), 0, 'json: one object on one line each');
is(scalar(grep { $_->{message} =~ /[{,] *"[a-z_]+" :|: / && $_->{message} !~ /"message"/ } @{ $sync->{messages} }),
	0, 'json: compact');
my ($raw) = grep { /"complete"/ } @{ $sync->{notices} };
like($raw, qr/^\{"type":"complete","account":"acme","status":"synced","added":3,"updated":10,"unchanged":1901,"deleted":4,"total_synced":1914,"timing":\{"total":$seconds,"api":$seconds,"merge":$seconds\},"message":"complete: [^"]*"\}$/,
	'json: members in the documented order');

note 'warnings';

$api->faults({ match => { offset => 60 }, action => { respond => { status => 400, json => {
	error => { id => 'VALIDATION_ERROR', description => 'a "quoted" text: é' } } } } });
YelpTest::set_server($node, partial => 'on');
$sync = YelpTest::sync($node, 'acme');
my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $sync->{messages} };
like($warning->{message}, qr/^could not fetch the page at offset 60 of account "acme"/, 'text: a warning');
is($warning->{sqlstate}, 'HV000', 'text: its SQLSTATE');
ok($warning->{hint}, 'text: its hint');
like($warning->{detail} // '', qr/VALIDATION_ERROR/, 'text: its detail has what the API says');
$sync = YelpTest::sync($node, 'acme', 'yelp_sync.progress' => 'json');
($warning) = grep { $_->{level} eq 'WARNING' } @{ $sync->{messages} };
is($json->decode($warning->{message})->{type}, 'warning', 'json: a warning is JSON');
like($json->decode($warning->{message})->{message}, qr/^could not fetch the page at offset 60/, 'json: its text');
is((events($sync))[-1]{status}, 'partial', 'json: the status of what is partial');
$sync = YelpTest::sync($node, 'acme', 'yelp_sync.progress' => 'off');
is_deeply([ map { $_->{level} } @{ $sync->{messages} } ], ['WARNING'], 'off: only the warning is told');
$api->faults();
YelpTest::set_server($node, partial => undef);

# A hint with a command: it can be run as it stands, whether the option is set or not
foreach my $case ([ undef, 1000 ], [ '1%', 50 ])
{
	my ($max_deleted, $removed) = @$case;
	YelpTest::set_server($node, max_deleted => $max_deleted);
	$api->mutate(seed => 9, remove => $removed);
	($warning) = grep { $_->{level} eq 'WARNING' } @{ YelpTest::sync($node, 'acme')->{messages} };
	like($warning->{message}, qr/^$removed of \d+ programs of account "acme" are no longer listed/, 'too many are gone');
	my ($command) = $warning->{hint} =~ /run: (ALTER SERVER yelp OPTIONS \(.*\);)/;
	YelpTest::must_run($node, $command);
	is_deeply(YelpTest::actions(YelpTest::sync($node, 'acme')), { deleted => $removed }, "$command allows it");
}
YelpTest::set_server($node, max_deleted => undef);

# Odd names, in JSON
my $odd = qq(0il7Tv&R\$#6\\ "q" é🥞);
YelpTest::must_run($node, YelpTest::create_server('"odd ""server"" \\"',
		endpoint => $api->url, username => $odd, password => $password));
$api->config(accounts => { $odd => { password => $password, count => 2 } });
my ($start) = events(YelpTest::sync($node, $odd, 'yelp_sync.progress' => 'json'));
is($start->{message}, qq(start: account "$odd" on server "odd "server" \\"), 'json: odd names');

# The memory that messages take
$api->config(accounts => { small => { count => 1 } });
YelpTest::must_run($node, YelpTest::create_server('small', endpoint => $api->url, username => 'small', password => 's3cret'));
is( YelpTest::value($node, q{SELECT count(*) FROM generate_series(1, 40), LATERAL (SELECT count(*) FROM yelp_sync('small')
		WHERE generate_series IS NOT NULL) AS s;
		SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'yelp_sync%'},
		'yelp_sync.progress' => 'json'), "40\n0", 'hundreds of messages leave no memory behind');

note 'settings';

$sync = YelpTest::sync($node, 'acme', 'yelp_sync.progress' => 'off');
is_deeply($sync->{messages}, [], 'off: nothing is told');
$sync = YelpTest::sync($node, 'acme', 'client_min_messages' => 'warning');
is_deeply($sync->{messages}, [], 'client_min_messages is heeded');
my $wrong = YelpTest::run($node, q{LOAD 'yelp_sync'; SET yelp_sync.progress = 'xml'});    # should fail
is($wrong->{sqlstate}, '22023', 'a wrong value');
like($wrong->{hint}, qr/text, json/, 'is answered with the valid ones');
$wrong = YelpTest::run($node, q{SELECT yelp_sync('acme'); SET yelp_sync.nonsense = 1});    # should fail
is($wrong->{sqlstate}, '42602', 'an unknown setting');
is(YelpTest::must_run($node, q{LOAD 'yelp_sync'; SHOW yelp_sync.progress; SHOW yelp_sync.log_syncs})->{stdout},
	"text\non\n", 'the defaults');

# Where the module is not loaded yet a value waits for it
is(YelpTest::must_run($node, q{SET yelp_sync.progress = 'off'; SELECT yelp_sync('acme')})->{stderr},
	'', 'a setting before the first use');
YelpTest::must_run($node, q{CREATE ROLE regress_plain});
$wrong = YelpTest::run($node, q{LOAD 'yelp_sync'; SET ROLE regress_plain; SET yelp_sync.log_syncs = off});    # should fail
is($wrong->{sqlstate}, '42501', 'log_syncs is for superusers');

note 'the log';

my $offset = -s $node->logfile;
$sync = YelpTest::sync($node, 'acme');
is($sync->{sqlstate} // '', '', 'no error');
my $line = qr/LOG:  00000: yelp_sync: account "acme" on server "yelp": complete: \+0 added, ~0 updated, =\d+ unchanged, -0 deleted in $seconds s\n/;
ok($node->log_contains($line, $offset), 'one LOG line for the sync');
my @logged = slurp_file($node->logfile, $offset) =~ /$line/g;
is(scalar(@logged), 1, 'one only');
$offset = -s $node->logfile;
YelpTest::sync($node, 'acme', 'yelp_sync.log_syncs' => 'off');
ok(!$node->log_contains(qr/LOG:  00000: yelp_sync: account/, $offset), 'none with log_syncs = off');
$offset = -s $node->logfile;
YelpTest::sync($node, 'acme', 'client_min_messages' => 'log');
ok($node->log_contains($line, $offset), 'the LOG line');
is(scalar(grep { /on server "yelp": complete/ }
		map { $_->{message} } @{ YelpTest::sync($node, 'acme', client_min_messages => 'log')->{messages} }),
	0, 'is for the server only');

# One for each sync that completes, even if its transaction is rolled back
$offset = -s $node->logfile;
YelpTest::run($node, q{BEGIN; SELECT yelp_sync('acme'); SAVEPOINT s; SELECT yelp_sync('acme'); ROLLBACK TO s; COMMIT});
is(scalar(() = slurp_file($node->logfile, $offset) =~ /$line/g), 2, 'two syncs: two lines');

note 'secrets';

# In each way to fail, too
my $basic = MIME::Base64::encode_base64("acme:$password", '');
my $token = qr/\Q$password\E|\Q$basic\E/;
my $log = slurp_file($node->logfile);
my ($first) = $log =~ /(CREATE USER MAPPING[^\n]*)/;
like($first, qr/\Q$password\E/, 'log_statement logs what a user types');
my $syncs = '';
$api->config(accounts => { acme => { password => $password, count => 1 } });

foreach my $case (
	[ 'a good sync', {} ],
	[ 'a refusal', { respond => { status => 403, json => { error => { id => 'X', description => 'Y' } } } } ],
	[ 'an error of the server', { respond => { status => 500 } } ],
	[ 'garbage', { respond => { status => 200, body => '{"total":' } } ],
	[ 'a closed connection', 'close' ],
	[ 'a reset connection', 'reset' ],
	[ 'a redirect', { respond => { status => 302, headers => { Location => '/x' } } } ],
	[ 'a redirect to another host', { respond => { status => 302,
		headers => { Location => 'https://api.example/x' } } } ],
	[ 'a redirect that quotes secrets', { respond => { status => 301,
		headers => { Location => "https://acme:$password\@api.example/x" } } } ],
	[ 'nobody listens', undef, 'http://127.0.0.1:1/programs' ],
	[ 'a certificate that is not trusted', undef, $api->url('untrusted') ])
{
	my ($name, $action, $endpoint) = @$case;
	YelpTest::set_server($node, retry_delay => '1ms', max_retry_after => '1ms');
	YelpTest::set_server($node, endpoint => $endpoint // $api->url);
	$api->faults($action && (!ref $action || %$action) ? { action => $action } : ());
	$offset = -s $node->logfile;
	$sync = YelpTest::sync($node, 'acme', client_min_messages => 'debug5');
	$syncs .= $sync->{stderr};
	is(join("\n", grep { $_ =~ $token } split /\n/, slurp_file($node->logfile, $offset)),
		'', "$name: no secret in the log at debug5");
	is(join("\n", grep { $_ =~ $token } split /\n/, $sync->{stderr}),
		'', "$name: no secret in what the client sees");
	is($sync->{error} ? 1 : 0, $name eq 'a good sync' ? 0 : 1, "$name: ends as it should");
}
cmp_ok(length($syncs), '>', 5000, 'at debug5 there was much to see');
YelpTest::set_server($node, endpoint => $api->url);
$api->faults();

# While it runs
$api->faults({ action => { hold => \1 } });
$session->begin_sync('acme');
$api->poll_counter('held', 1);
my $activity = YelpTest::must_run($node, 'SELECT a FROM pg_stat_activity AS a')->{stdout};
like($activity, qr/yelp_sync\('acme'\)/, 'pg_stat_activity shows the sync');
unlike($activity, $token, 'and no secret');
my $pid = $session->pid;
if ($^O eq 'linux')
{
	unlike(slurp_file("/proc/$pid/cmdline"), $token, 'nor does ps');
}
else
{
	unlike(`ps -o args= -p $pid`, $token, 'nor does ps');
}
is(YelpTest::must_run($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid")->{stdout},
	"Extension\n", 'it waits as an extension');
$api->faults();
$api->release;
$session->end;
unlike(YelpTest::must_run($node, 'TABLE yelp_accounts; SELECT * FROM yelp_sync_runs')->{stdout}, $token,
	'no secret in the tables');

done_testing();
