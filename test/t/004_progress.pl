# The progress of a sync, in each form; settings; the log.
use strict;
use warnings FATAL => 'all';
use utf8;

use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use YelpTest ':all';

my ($node, $api) = start();
my $json = JSON::PP->new;
my $seconds = qr/\d+\.\d\d/;

# The messages of a sync, each parsed
sub events
{
	my ($sync) = @_;
	return map { $json->decode($_->{message}) } @{ $sync->{messages} };
}

# Lets pages arrive one after the other, in so many milliseconds each
sub spread_pages
{
	my ($ms) = @_;
	$api->faults(map { { match => { page => $_ }, action => { delay_ms => $ms * $_ } } } 1 .. 95);
	return;
}

note 'text';

my $sync = sync('acme');
my @notices = map { s/$seconds s/S s/gr =~ s/\(\d+ programs/(N programs/r =~ s/\d+ retries/N retries/r } @{ $sync->{notices} };
my @progress = grep { /pages \(/ } @notices;
is_deeply([ grep { !/pages \(/ } @notices ], [
		'yelp_sync: start: account "acme" on server "yelp"',
		'yelp_sync: 1913 programs in 96 pages of 20',
		'yelp_sync: fetched 1913 programs in S s (N programs/s), N retries',
		'yelp_sync: 0 stored: 1913 new, 0 common, 0 gone',
		'yelp_sync: complete: +1913 added, ~0 updated, =0 unchanged, -0 deleted in S s'
	], 'text: the notices');
is_deeply([ grep { !/^yelp_sync: fetched \d+\/96 pages \(\d+%\), \d+ programs$/ } @progress ], [], 'text: progress');
is_deeply([ grep { join(' ', sort keys %$_) ne 'level message sqlstate' || "$_->{level} $_->{sqlstate}" ne 'NOTICE 00000' }
		@{ $sync->{messages} } ], [], 'text: all are NOTICEs without context, detail or hint');

note 'as it happens';

# Pages are released one by one
$api->mutate(seed => 1, add => 2);
$api->faults({ action => { hold => \1 } });
my $session = YelpSession->new($node);
$session->begin_sync('acme');
$session->wait_for(qr/NOTICE:  00000: yelp_sync: start: account "acme"/);
$api->poll_counter('held', 96);
pass('the start is reported before any page has arrived');
$api->release(1);
$session->wait_for(qr/1915 programs in 96 pages of 20/);
$api->poll_until(sub { $api->counters->{held} >= 95 }, 'the other pages to be held');
pass('the total is reported before another page has arrived');

# Slowly enough for a line to be due at each step: a tenth of a second
foreach my $step (1 .. 5)
{
	my $done = 1 + 10 * $step;
	$api->release(10);
	$session->wait_for(qr/fetched $done\/96 pages/);
}
pass('each step of ten pages is reported while the others are held');
$api->faults();
$api->release;
@progress = grep { /pages \(/ } @{ $session->sync_result->{notices} };
my @numbers = map { [/fetched (\d+)\/96 pages \((\d+)%\), (\d+) programs/] } @progress;
is_deeply([ grep { $_->[1] != int($_->[0] * 100 / 96) || $_->[2] > 20 * $_->[0] || $_->[2] < 20 * $_->[0] - 20 } @numbers ],
	[], 'percentages and programs fit the pages');
is_deeply([ map { $_->[1] } @numbers ], [ sort { $a <=> $b } map { $_->[1] } @numbers ], 'progress only grows');

note 'how often';

spread_pages(15);
my $begun = Time::HiRes::time();
$sync = sync('acme');
my $elapsed = Time::HiRes::time() - $begun;
my $lines = grep { /pages \(/ } @{ $sync->{notices} };
cmp_ok($lines, '>=', 5, 'lines while pages arrive');
cmp_ok($lines, '<=', 10 * $elapsed + 1, 'about ten a second at most');

$api->faults({ match => { offset => 40 }, action => { hold => \1 } });
$begun = Time::HiRes::time();
$session->begin_sync('acme');
$session->wait_for(qr/(?:fetched 95\/96 pages.*){2}/s);
$elapsed = Time::HiRes::time() - $begun;
ok($elapsed > 4 && $elapsed < 15, 'a line every five seconds while nothing arrives') or diag($elapsed);
$api->faults();
$api->release;
$session->result;

note 'json';

$api->mutate(seed => 2, remove => 4, add => 3, alter => 10);
spread_pages(10);
$api->config(latency_ms => 150);
$sync = sync('acme', 'yelp_sync.progress' => 'json');
$api->config(latency_ms => 0);
$api->faults();
like($sync->{notices}[-1],
	qr/^\{"type":"complete","account":"acme","status":"synced","added":3,"updated":10,"unchanged":1901,"deleted":4,"total_synced":1914,"timing":\{"total":$seconds,"api":$seconds,"merge":$seconds\},"message":"complete: [^"]*"\}$/,
	'json: compact, members in the documented order');
my @events = events($sync);
my $timing = delete $events[-1]{timing};
$events[-1]{message} =~ s/ in $seconds s$//;
@progress = grep { $_->{type} eq 'progress' } @events;
is_deeply([ grep { $_->{type} ne 'progress' } @events ], [
		{ type => 'start', account => 'acme', message => 'start: account "acme" on server "yelp"' },
		{ type => 'info', account => 'acme', total_api => 1914, pages => 96, page_size => 20,
			message => '1914 programs in 96 pages of 20' },
		{ type => 'info', account => 'acme', message => 'reading the listing once more: programs seem to be gone' },
		{ type => 'info', account => 'acme', total_db => 1915, new => 3, common => 1911, gone => 4,
			message => '1915 stored: 3 new, 1911 common, 4 gone' },
		{ type => 'complete', account => 'acme', status => 'synced', added => 3, updated => 10, unchanged => 1901,
			deleted => 4, total_synced => 1914,
			message => 'complete: +3 added, ~10 updated, =1901 unchanged, -4 deleted' }
	], 'json: the events');
ok($timing->{api} > 0.9 && $timing->{total} >= $timing->{api}
	  && $timing->{total} + 0.02 >= $timing->{api} + $timing->{merge}, 'json: times in seconds that add up') or diag(explain($timing));
cmp_ok(scalar(@progress), '>=', 3, 'json: progress');
is_deeply([ grep {
			my $reading = $_->{reading} > 1 ? "reading $_->{reading}: " : '';
			join(' ', sort keys %$_) ne 'account completed message percentage programs reading retries total type'
			  || $_->{completed} == 0
			  || $_->{percentage} != int(100 * $_->{completed} / $_->{total})
			  || $_->{message} ne "${reading}fetched $_->{completed}/$_->{total} pages ($_->{percentage}%), $_->{programs} programs"
		} @progress ], [], 'json: members of progress');
is_deeply([ sort keys %{ { map { $_->{reading} => 1 } @progress } } ], [ 1, 2 ], 'json: progress of both readings');
is($progress[-1]{percentage}, 100, 'json: progress ends at 100');

note 'warnings';

$api->faults({ match => { offset => 60 }, action => { respond => { status => 400, json => {
	error => { id => 'VALIDATION_ERROR', description => 'a "quoted" text: é' } } } } });
set_server(partial => 'on');
my ($warning) = grep { $_->{level} eq 'WARNING' } @{ sync('acme')->{messages} };
like(join("\n", @$warning{qw(sqlstate message detail hint)}),
	qr/^HV000\ncould not fetch the page at offset 60 of account "acme".*\n.*VALIDATION_ERROR.*\n./, 'text: a warning');
$sync = sync('acme', 'yelp_sync.progress' => 'json');
my ($event) = grep { $_->{type} eq 'warning' } events($sync);
like($event->{message}, qr/^could not fetch the page at offset 60/, 'json: a warning');
is((events($sync))[-1]{status}, 'partial', 'json: the status of a partial sync');
is_deeply([ map { $_->{level} } @{ sync('acme', 'yelp_sync.progress' => 'off')->{messages} } ], ['WARNING'],
	'off: only warnings');
$api->faults();
set_server(partial => undef);

# A hint with a command: it can be run as it stands, whether the option is set or not
foreach my $case ([ undef, 1000 ], [ '1%', 50 ])
{
	my ($max_deleted, $removed) = @$case;
	set_server(max_deleted => $max_deleted);
	$api->mutate(seed => 9, remove => $removed);
	($warning) = grep { $_->{level} eq 'WARNING' } @{ sync('acme')->{messages} };
	like($warning->{message}, qr/^$removed of \d+ programs of account "acme" are no longer listed/, 'too many are gone');
	my ($command) = $warning->{hint} =~ /run: (ALTER SERVER yelp OPTIONS \(.*\);)/;
	value($command);
	is(outcome(sync('acme')), "deleted $removed", "$command allows it");
}
set_server(max_deleted => undef);

my $odd = qq(0il7Tv&R\$#6\\ "q" é🥞);
value(create_server('"odd ""server"" \\"', endpoint => $api->url, username => $odd));
$api->config(accounts => { $odd => { count => 2 } });
is((events(sync($odd, 'yelp_sync.progress' => 'json')))[0]{message}, qq(start: account "$odd" on server "odd "server" \\"),
	'json: odd names');
is( value('SELECT count(*) FROM generate_series(1, 40), LATERAL (SELECT count(*) FROM yelp_sync(' . literal($odd) . q{)
		WHERE generate_series IS NOT NULL) AS s;
		SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'yelp_sync%'},
		'yelp_sync.progress' => 'json'), "40\n0", 'hundreds of messages leave no memory behind');

note 'settings: sql/errors.sql has wrong values';

is_deeply(sync('acme', $_->[0], $_->[1])->{messages}, [], "$_->[0] = $_->[1]: no messages")
  foreach [ 'yelp_sync.progress', 'off' ], [ 'client_min_messages', 'warning' ];
is(value(q{LOAD 'yelp_sync'; SHOW yelp_sync.progress; SHOW yelp_sync.log_syncs}), "text\non", 'the defaults');

note 'the log';

my $line = qr/LOG:  yelp_sync: account "acme" on server "yelp": complete: \+0 added, ~0 updated, =\d+ unchanged, -0 deleted in $seconds s\n/;
foreach my $case (
	[ 'one line for a sync', 1, q{SELECT yelp_sync('acme')} ],
	[ 'none with log_syncs = off', 0, q{SET yelp_sync.log_syncs = off; SELECT yelp_sync('acme')} ],
	[ 'one for each sync that completes, even if it is rolled back', 2,
		q{BEGIN; SELECT yelp_sync('acme'); SAVEPOINT s; SELECT yelp_sync('acme'); ROLLBACK TO s; COMMIT} ])
{
	my ($name, $expected, $sql) = @$case;
	my $offset = -s $node->logfile;
	my $result = run($sql, client_min_messages => 'log');
	is(scalar(() = slurp_file($node->logfile, $offset) =~ /$line/g), $expected, $name);
	is_deeply([ grep { $_->{message} =~ /on server "yelp": complete/ } @{ $result->{messages} } ], [],
		'... for the server only');
}

$session->end;
done_testing();
