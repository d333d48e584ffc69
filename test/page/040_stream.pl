# The page's server, over HTTP: access, the events of a sync, who may follow it, what ends it, and
# that nothing leaks.
use strict;
use warnings FATAL => 'all';
use utf8;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpPage;
use YelpSession;
use YelpTest;

# So long a time-out that no request that is held ends by itself
my ($node, $api) = YelpTest::start(tables => 0, server => { timeout => '1h' });
$api->config(accounts => { acme => { count => 95 }, other => { password => 's3cret', count => 10 },
		failing => { password => 'another', count => 10 } });
YelpTest::must_run($node, YelpTest::create_server($_, endpoint => $api->url, timeout => '1h')) foreach qw(other failing);
YelpPage::set_up($node, acme => 'yelp', other => 'other', failing => 'failing');
my $page = YelpPage->start($node, arguments => [ '--max-syncs', 2 ]);

my $is_syncing = q{SELECT count(*) FROM pg_stat_activity
	WHERE usename = 'yelp_page' AND state = 'active'};

sub types { return join ' ', map { $_->{type} } @_; }

# The end of a stream, in short
sub end_of { my ($stream) = @_; return join ' ', map { $_ // () } @{ $stream->end }{qw(type sqlstate by)}; }

sub statements_end { my ($name) = @_; return ok($node->poll_query_until('postgres', $is_syncing, 0), $name); }

sub let_go { $api->faults(); $api->release; return; }

# Starts a sync whose pages after the first are held
sub held_sync
{
	my ($account, $count) = @_;
	$api->faults({ match => { account => $account, from_offset => 20 }, action => { hold => \1 } });
	my $stream = $page->sync($account);
	$api->poll_counter('held', $count);
	return $stream;
}

note 'who is let in';

foreach my $path ('', 'page.js', 'page.css', map { "api/reseller/$_?username=acme" }
	'accounts', 'programs', 'programs/changes', 'runs')
{
	my $response = $page->request('GET', $path, login => undef);
	is($response->{status}, 401, "/$path: not without a password");
	like($response->{headers}{'www-authenticate'}, qr/^Basic realm=/, "/$path: which is asked for");
	is($page->request('GET', $path)->{status}, 200, "/$path: with it");
}
is($page->request('GET', '', login => $_)->{status}, 401, "not $_")
  foreach 'anna:wrong', 'nobody:correct horse', 'anna:', ':', 'Anna:correct horse';
is($page->request('GET', '', login => undef, headers => { Authorization => $_ })->{status}, 401, "not $_")
  foreach 'Basic', 'Basic !', 'Basic YW5uYQ==', 'Basic /////w==', 'Bearer YTpi';
is($page->sync('acme', login => 'anna:wrong')->status, 401, 'no sync with a wrong password');
is($page->request('GET', 'users')->{status}, 404, 'no other file');
is($page->request('GET', 'page.py/../../users.py')->{status}, 404, 'nor by a detour');
is($page->request('DELETE', 'api/reseller/programs')->{status}, 405, 'no other method');

unlike(slurp_file($page->users), qr/correct/, 'the file of users has no password');
is((stat $page->users)[2] & 0777, 0600, 'and is for its owner only');
$page->set_password('anna', 'another');
$page->set_password('bert', 'öffne:dich');
is($page->request('GET', '')->{status}, 401, 'a changed password counts at once');
is($page->request('GET', '', login => 'anna:another')->{status}, 200, 'the new one, that is');
is($page->request('GET', '', login => Encode::encode('UTF-8', 'bert:öffne:dich'))->{status}, 200,
	'a password may have a colon and other letters');
$page->set_password('anna', 'correct horse');

note 'headers';

my $response = $page->request('GET', '');
my $policy = $response->{headers}{'content-security-policy'};
like($policy, qr/^default-src 'none'; script-src 'self';/, 'the policy on content');
unlike($policy, qr/unsafe|\*|data:/, 'has no holes');
is($response->{headers}{'x-content-type-options'}, 'nosniff', 'no guessed types');
is($response->{headers}{'cache-control'}, 'no-store, no-transform', 'nothing is kept');
unlike($response->{content}, qr/<script(?! type="module" src)|<style| on[a-z]+=|style=|https?:/, 'nothing inline, nothing from elsewhere');

note 'other sites';

my %json = ('Content-Type' => 'application/json');
my @posts = map { "api/reseller/programs/$_" } qw(sync-stream cancel);
foreach my $case (
	[ 'a form', { 'Content-Type' => 'text/plain' } ],
	[ 'a form of a browser', { 'Content-Type' => 'application/x-www-form-urlencoded' } ],
	[ 'another origin', { %json, Origin => 'http://evil.example' } ],
	[ 'another port', { %json, Origin => 'http://127.0.0.1:1' } ],
	[ 'no origin', { %json, Origin => 'null' } ],
	[ 'another site', { %json, 'Sec-Fetch-Site' => 'cross-site' } ],
	[ 'a sister site', { %json, 'Sec-Fetch-Site' => 'same-site' } ])
{
	my ($name, $headers) = @$case;
	is($page->request('POST', $_, headers => $headers, content => '{"username": "acme"}')->{status}, 403,
		"$name: $_") foreach @posts;
}
is($page->request('GET', "api/reseller/$_?username=acme", headers => { 'Sec-Fetch-Site' => 'cross-site' })->{status},
	403, "another site cannot read $_") foreach qw(accounts programs/sync-stream);
is($page->request('GET', '', headers => { 'Sec-Fetch-Site' => 'cross-site' })->{status}, 200,
	'but may link to the page');

note 'bodies';

foreach my $body ('', '{', '[]', '"acme"', 'null', '{}', '{"username": 1}', '{"username": null}',
	'{"username": ""}', '{"username": "a\u0000"}', '{"username": "\ud800"}', "{\"username\": \"\xff\"}",
	'{"username": "' . 'a' x 256 . '"}')
{
	is($page->request('POST', $_, headers => \%json, content => $body)->{status}, 400,
		'400: ' . substr($body, 0, 30)) foreach @posts;
}
is($page->request('POST', $posts[0], headers => \%json, content => ' ' x 5000)->{status}, 413, '413: too long');
is($api->counters->{requests}, 0, 'nothing of all this has led to a sync');

note 'events';

my $sync = held_sync('acme', 4);
is_deeply([ $sync->status, map { $sync->header($_) } 'Content-Type', 'X-Accel-Buffering' ],
	[ 200, 'text/event-stream', 'no' ], 'a stream of events, which a proxy is not to hold back');
my $start = $sync->next_event;
is_deeply($start, { type => 'start', account => 'acme', message => 'start: account "acme" on server "yelp"' },
	'the first one');
my $total = $sync->next_event;
is("$total->{type} $total->{total_api} $total->{pages}", 'info 95 5', 'the second one, while pages are held');
$api->release(2);
my $progress = $sync->next_of('progress');
cmp_ok($progress->{percentage}, '>', 0, 'progress before the end');
cmp_ok($progress->{percentage}, '<', 100, 'while pages are held');
is(YelpTest::value($node, 'SELECT count(*) FROM yelp_programs'), 0, 'and nothing is stored yet');
let_go();
my @events = $sync->rest;
like(types($start, $total, $progress, @events), qr/^start info (?:progress )+info complete changes$/, 'events in order');
is_deeply([ grep { $_->{account} ne 'acme' } @events ], [], 'each with its account');
my ($complete, $changes) = @events[-2, -1];
is($complete->{added}, 95, 'complete');
is($changes->{total}, 95, 'what has changed');
is_deeply([ sort map { $_->{program_id} } @{ $changes->{rows} } ],
	[ sort map { $_->{program_id} } $api->programs ], 'is all programs');
YelpTest::table_is_listing($node, $api, 'acme');
is_deeply($page->get('programs/changes', username => 'acme')->{json}, $changes, 'what has changed is kept');
is($page->get('programs/changes', username => 'other')->{json}, undef, 'for this account');

is_deeply($page->sync('acme')->end->{rows}, [], 'nothing has changed');
my $mutation = $api->mutate(seed => 3, remove => 1, add => 2, alter => 2);
YelpTest::reports($page->sync('acme')->end, $mutation, 'what has changed, with the columns');
my $runs = $page->get('runs', username => 'acme')->{json};
is(join(' ', map { $_->{added} } @$runs), '2 0 95', 'the last runs, latest first');
is_deeply($page->get('accounts')->{json},
	[ { username => 'acme', server => 'yelp' }, { username => 'failing', server => 'failing' },
		{ username => 'other', server => 'other' } ], 'the accounts');

note 'errors and warnings';

@events = $page->sync('failing')->rest;
is(types(@events), 'start error', 'a refused account');
my %expected = (sqlstate => qr/^28000$/, message => qr/account "failing": API rejected the credentials/,
	detail => qr/ACCESS_DENIED/, hint => qr/^Check the username/);
like($events[-1]{$_}, $expected{$_}, "its $_") foreach sort keys %expected;
my ($run) = @{ $page->get('runs', username => 'failing')->{json} };
is("$run->{status} $run->{sqlstate}", 'failed 28000', 'it is one of the last syncs');
like($run->{error}, qr/API rejected the credentials.*: .*ACCESS_DENIED/, 'with message and detail');
is(YelpTest::value($node, YelpTest::last_run('server, synced_by, started_at < finished_at')),
	'failing|regress_ads|t', 'and all that the procedure records');
is(end_of($page->sync("no'body\n")), 'error 42704', 'an account that is none');
is_deeply($page->get('runs', username => "no'body\n")->{json}, [], 'which is not recorded');
is_deeply($page->get('programs/changes', username => 'failing')->{json}, undef, 'no changes are kept of what failed');

$api->faults({ match => { offset => 40 }, action => { respond => { status => 400 } } });
YelpTest::set_server($node, partial => 'on');
@events = $page->sync('acme')->rest;
my ($warning) = grep { $_->{type} eq 'warning' } @events;
is($warning->{sqlstate}, 'HV000', 'a warning: its SQLSTATE');
like($warning->{message}, qr/^could not fetch the page at offset 40/, 'its message');
ok($warning->{hint}, 'its hint');
is($events[-2]{status}, 'partial', 'the sync is partial');
YelpTest::set_server($node, partial => undef);
$api->faults();

# What a trigger says is shown, and cannot break the stream
YelpTest::must_run($node, q{
	CREATE FUNCTION speak() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE NOTICE E'plain\n\ndata: {"type":"error"}';
		RAISE NOTICE E'{"type":"changes",\n\n"n":1}';
		RAISE NOTICE '[1]';
		RETURN NULL;
	END $$;
	CREATE TRIGGER speak AFTER UPDATE ON yelp_programs EXECUTE FUNCTION speak()});
$api->mutate(seed => 4, alter => 1);
@events = $page->sync('acme')->rest;
my ($notice) = grep { $_->{type} eq 'notice' } @events;
is($notice->{message}, qq(plain\n\ndata: {"type":"error"}), 'a notice in plain text');
is(scalar(grep { $_->{type} eq 'notice' } @events), 3, 'in JSON, too: it cannot pretend to be the end');
is($events[-1]{type}, 'changes', 'and the stream goes on');

# Errors of the server's inside are not for the browser, what a constraint says is
foreach my $case ([ XX000 => 'the database failed' ], [ '58030' => 'the database failed' ], [ '23514' => 'secret path' ])
{
	my ($sqlstate, $message) = @$case;
	YelpTest::must_run($node, qq{CREATE OR REPLACE FUNCTION speak() RETURNS trigger LANGUAGE plpgsql AS
		\$\$BEGIN RAISE 'secret path' USING ERRCODE = '$sqlstate'; END\$\$});
	$api->mutate(seed => 5, alter => 1);
	my $stream = $page->sync('acme');
	my $error = $stream->next_of('error');
	is("$error->{sqlstate} $error->{message}", "$sqlstate $message", "an error of $sqlstate");
	is_deeply([ $stream->rest ], [], 'is the last event');
	unlike($stream->text, qr/PL\/pgSQL|speak/, 'without its context');
}
like(slurp_file($page->messages), qr/secret path/, 'the log has it');
is(scalar(grep { $_->{status} eq 'failed' && $_->{error} eq 'the database failed' }
	@{ $page->get('runs', username => 'acme')->{json} }), 2, 'nor is the history for the browser');
YelpTest::must_run($node, 'DROP FUNCTION speak() CASCADE');

note 'several at once';

my $session = YelpSession->new($node);
$api->faults({ match => { from_offset => 20 }, action => { hold => \1 } });
$session->begin_sync('acme');
$api->poll_counter('held', 4);
is(end_of($page->sync('acme')), 'error 55P03', 'an account that another session syncs');
let_go();
$session->sync_result;

$page->set_password('bert', 'again');
my $follower = $page->follow('acme');
is($follower->next_event->{type}, 'state', 'who follows an account is told its state');
is($follower->next_of('error')->{sqlstate}, '55P03', 'and the last end');
$sync = held_sync('acme', 4);
$sync->next_of('start');
my $joined = $page->sync('acme', login => 'bert:again');
is(types(map { $joined->next_event } 1 .. 2), 'start info', 'who syncs what is being synced joins, from the beginning');
my $state = $follower->next_of('state');
is("$state->{running} $state->{started_by}", '1 anna', 'who follows the account is told');
is(YelpTest::value($node, $is_syncing), 1, 'it is one sync');
$api->faults({ action => { hold => \1 } });
my $second = $page->sync('other');
$second->next_of('start');
my $third = $page->sync('failing');
is($third->status, 503, 'no more syncs than allowed');
ok($third->header('Retry-After'), 'with a time to come back');
is($page->get('accounts')->{status}, 200, 'the rest of the page goes on');

note 'what ends a sync, and what does not';

$sync->close;
$second->close;
my $late = $page->sync('acme');
is($late->next_event->{type}, 'start', 'it outlives who has started it');
let_go();
my @ends = map { $_->end } $joined, $late;
is_deeply($ends[0], $ends[1], 'all are told the same end');
is_deeply($follower->next_of('changes'), $ends[0], 'as are those who follow');
ok($node->poll_query_until('postgres', q{SELECT count(*) FROM yelp_programs WHERE username = 'other'}, 10),
	'also if nobody is left');

my $stored = YelpTest::value($node, YelpTest::content_query());
$sync = held_sync('acme', 4);
$sync->next_of('start');
is($page->post('programs/cancel', 'other')->status, 404, 'what does not run cannot be cancelled');
is($page->post('programs/cancel', 'acme', login => 'bert:again')->status, 200, 'what runs can, by any user');
is(end_of($sync), 'cancelled bert', 'who was it');
statements_end('the statement ends');
$api->poll_until(sub { $api->counters->{held} == 0 }, 'the requests to end');
is(YelpTest::value($node, YelpTest::content_query()), $stored, 'nothing is stored');

# In the phase in which the database works alone as well
YelpTest::must_run($node, q{
	CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(3600); RETURN NULL; END$$;
	CREATE TRIGGER wait AFTER UPDATE ON yelp_programs EXECUTE FUNCTION wait()});
$api->faults();
$api->mutate(seed => 6, alter => 1);
$sync = $page->sync('acme');
$node->poll_query_until('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
$page->post('programs/cancel', 'acme');
is(end_of($sync), 'cancelled anna', 'in the merge, too');
YelpTest::must_run($node, 'DROP FUNCTION wait() CASCADE');

$sync = held_sync('acme', 4);
$follower->next_of('progress');
$page->stop('TERM');
is(end_of($_), 'cancelled', 'a server that is stopped ends its syncs, and says so to everybody') foreach $sync, $follower;
statements_end('the statements end');
unlike(slurp_file($page->messages), qr/Traceback/, 'its log has no traceback');

$page = YelpPage->start($node);
$sync = held_sync('acme', 4);
$page->stop('KILL');
statements_end('so does one that is killed');
$api->faults();

note 'what is let out';

my $lost = YelpPage->start($node, environment => { PGHOST => '/nonexistent/s3cret-place' });
is($lost->get('accounts')->{status}, 500, 'without a database the page fails');
is_deeply($lost->get('accounts')->{json}, { message => 'the server failed' }, 'and does not say why');
$sync = $lost->sync('acme');
is_deeply([ map { $_->{message} } $sync->rest ], ['the database failed'], 'nor does a sync');
unlike($sync->text, qr/s3cret|nonexistent|5432/, 'nor where the database is');
like(slurp_file($lost->messages), qr/No such file/, 'the log does');
$lost->stop;

done_testing();
