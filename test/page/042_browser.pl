# The page in a browser.
use strict;
use warnings FATAL => 'all';
use utf8;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpBrowser;
use YelpPage;
use YelpTest;

YelpTest::need(Chromium => YelpBrowser::program());

my ($node, $api) = YelpTest::start(server => { timeout => '1h' });
$api->config(accounts => { failing => { password => 'another', count => 10 } });
YelpTest::must_run($node, 'CREATE SERVER failing FOREIGN DATA WRAPPER yelp_sync '
	  . YelpTest::options(endpoint => $api->url));
YelpPage::set_up($node, acme => 'yelp', failing => 'failing');
my $page = YelpPage->start($node);
my $browser = YelpBrowser->start;

my $is_syncing = q{SELECT count(*) FROM pg_stat_activity
	WHERE usename = 'yelp_page' AND state = 'active'};
my $bar = q{document.querySelector("#bar").value};

# With PNG files in the directory YELP_SYNC_TEST_SCREENSHOTS, where that is set
sub shoot
{
	my ($name, $selector) = @_;
	$browser->evaluate("document.querySelector('$selector').scrollIntoView()");
	$browser->screenshot("$ENV{YELP_SYNC_TEST_SCREENSHOTS}/$name.png")
	  if $ENV{YELP_SYNC_TEST_SCREENSHOTS};
	return;
}

sub wait_for_state
{
	my ($state) = @_;
	$browser->poll(qq{document.querySelector("#progress").dataset.state === "$state"}, $state);
	return;
}

sub wait_for_text
{
	my ($selector, $text) = @_;
	$browser->poll(qq{document.querySelector("$selector")?.textContent === "$text"}, "$selector: $text");
	return;
}

# Once all answers are here
sub sync
{
	my ($end) = @_;
	$browser->click('#sync');
	wait_for_state($end);
	return;
}

note 'the start';

$browser->open($page->url, username => 'anna', password => 'correct horse');
wait_for_state('idle');
is_deeply([ $browser->texts('#account option') ], [qw(acme failing)], 'the accounts');
wait_for_text('#range', 'none');
is_deeply([ grep { !/401/ } $browser->complaints ], [], 'no error in the console');

note 'a sync';

# Ten pages and the first are here, the others are not
$api->faults({ match => { from_offset => 220 }, action => { hold => \1 } });
$browser->click('#sync');
$browser->poll("$bar > 0", 'the bar to move');
is($browser->poll("$bar === 11 && $bar", 'eleven pages'), 11, 'the bar moves before the end');
is($browser->text('#status'), 'fetched 11/96 pages (11%), 220 programs', 'and says where it is');
is($browser->text('#count-programs'), '220', 'with the number of programs');
is($browser->text('#count-total_api'), '1,913', 'and how many there are');
ok($browser->evaluate('document.querySelector("#sync").disabled'), 'no second sync from here');
$api->release(39);
is($browser->poll("$bar === 52 && $bar", 'fifty pages'), 52, 'it goes on');
$api->faults();
$api->release;
wait_for_state('changes');
is($browser->evaluate($bar), 100, 'to its end');
is($browser->text("#count-$_->[0]"), $_->[1], "$_->[0]: $_->[1]")
  foreach [ added => '1,913' ], [ updated => '0' ], [ unchanged => '0' ], [ deleted => '0' ], [ programs => '1,913' ];
wait_for_text('#range', '1–25 of 1,913');
like($browser->text('#changes-summary'), qr/^1,913 changes by the sync of .*, the first 1,000 are shown$/, 'what has changed');
is(scalar($browser->texts('#runs tbody tr')), 1, 'the last syncs');
is(scalar($browser->texts('#problems li')), 0, 'no problems');

note 'the next one';

my $mutation = $api->mutate(seed => 1, remove => 2, add => 3, alter => 7);
$api->faults({ match => { from_offset => 1000 }, action => { hold => \1 } });
$browser->click('#sync');
is($browser->poll("$bar === 52 && $bar", 'fifty pages'), 52, 'the bar begins anew');
shoot('syncing', 'header');
$api->faults();
$api->release;
wait_for_state('changes');
is($browser->text("#count-$_->[0]"), $_->[1], "$_->[0]: $_->[1]")
  foreach [ added => 3 ], [ updated => 7 ], [ unchanged => '1,904' ], [ deleted => 2 ];
is_deeply(
	[ sort map { join '', $_ } $browser->texts('#changes tbody tr') ],
	[ sort((map { "deleted$_" } @{ $mutation->{removed} }), (map { "added$_" } @{ $mutation->{added} }),
		map { "updated$_" . join(', ', @{ $mutation->{altered}{$_} }) } keys %{ $mutation->{altered} }) ],
	'what has changed');
wait_for_text('#range', '1–25 of 1,914');
shoot('synced', 'header');

note 'filters and pages';

sub count
{
	my ($condition) = @_;
	my $count = YelpTest::must_run($node,
		"SELECT to_char(count(*), 'FM9,999') FROM sync_page.programs WHERE $condition")->{stdout};
	chomp $count;
	return $count;
}
my ($paused, $logos) = (count(q{state = 'PAUSED'}), count(q{state = 'PAUSED' AND program_type = 'LOGO'}));
$browser->choose('[name=state]', 'PAUSED');
wait_for_text('#range', "1–25 of $paused");
is_deeply([ grep { $_ ne 'PAUSED' } $browser->texts('#programs td:nth-child(3)') ], [], 'by state');
shoot('programs', '#filters');
$browser->click('#forth');
wait_for_text('#range', "26–50 of $paused");
$browser->choose('[name=type]', 'LOGO');
wait_for_text('#range', "1–$logos of $logos");
pass('by type, from the first page');
my ($business) = $browser->texts('#programs td:nth-child(6)');
$browser->choose('[name=business]', $business);
wait_for_text('#range', '1–1 of 1');
is($browser->text('#programs td:nth-child(6)'), $business, 'by business');
$browser->choose("[name=$_]", '') foreach qw(state type business);
wait_for_text('#range', '1–25 of 1,914');

note 'an account that fails';

$browser->choose('#account', 'failing');
wait_for_text('#range', 'none');
is($browser->text('#changes-summary'), 'Nothing is known yet.', 'nothing is shown of another account');
sync('error');
is(scalar($browser->texts('#problems li.error')), 1, 'one error');
my $error = $browser->text('#problems li.error');
like($error, qr/account "failing": API rejected the credentials.*ACCESS_DENIED.*Check the username.*SQLSTATE 28000/,
	'with all there is to say');
is($browser->text('#status'), 'The sync failed.', 'it failed');
shoot('failed', 'header');
$browser->choose('#account', 'acme');
wait_for_text('#range', '1–25 of 1,914');

note 'texts that look like HTML';

my $html = '<img src=x onerror="window.hacked=1"><b>bold</b>';
my @programs = $api->programs;
$api->mutate(edit => [ [ 0, { program_id => '<i>0</i>', program_type => $html, 'businesses.0.yelp_business_id' => $html } ] ]);
$api->faults({ match => { offset => 60 }, action => { respond => { status => 400, json => {
	error => { id => 'X', description => $html } } } } });
YelpTest::set_server($node, partial => 'on');
sync('changes');
$api->faults();
YelpTest::set_server($node, partial => undef);
like($browser->text('#problems li.warning'), qr/\Q$html\E/, 'in a warning');
like($browser->text('#count-added'), qr/^1$/, 'one program is new');
like($browser->text('#changes'), qr/added<i>0<\/i>/, 'in its id');
$browser->choose('[name=type]', $html);
wait_for_text('#range', '1–1 of 1');
is($browser->text('#programs td:nth-child(2)'), $html, 'in its type');
is($browser->text('#programs td:nth-child(6)'), $html, 'in its business');
is($browser->evaluate('document.querySelectorAll("img, b, i").length'), 0, 'they are text');
ok(!$browser->evaluate('window.hacked'), 'and run nothing');
shoot('warning', 'header');
is_deeply([ $browser->complaints ], [], 'no error in the console');
like($browser->evaluate(q{(() => { try { document.body.innerHTML = "<b>"; return "done"; } catch (e) { return String(e); } })()}),
	qr/TrustedHTML/, 'the policy forbids HTML from texts altogether');
$browser->choose('[name=type]', '');

note 'what ends a sync';

my $stored = YelpTest::must_run($node, 'SELECT count(*) FROM yelp_sync_runs')->{stdout};
$api->faults({ match => { from_offset => 220 }, action => { hold => \1 } });
$browser->click('#sync');
$browser->poll("$bar > 0 && $bar < 100", 'the bar to move');
$browser->click('#cancel');
wait_for_state('cancelled');
ok($node->poll_query_until('postgres', $is_syncing, 0), 'the button cancels');
is(scalar($browser->texts('#problems li')), 0, 'which is no error');
$browser->complaints;

$browser->click('#sync');
$browser->poll("$bar > 0 && $bar < 100", 'the bar to move');
$browser->close_tab;
ok($node->poll_query_until('postgres', $is_syncing, 0), 'a closed tab cancels');
$api->poll_until(sub { $api->counters->{held} == 0 }, 'the requests to end');
is(YelpTest::must_run($node, 'SELECT count(*) FROM yelp_sync_runs')->{stdout}, $stored, 'nothing was synced');

$browser->new_tab;
$browser->open($page->url, username => 'anna', password => 'correct horse');
$browser->poll('document.querySelector("#changes-summary").textContent !== ""', 'the changes');
like($browser->text('#changes-summary'), qr/^1 change by the sync of \d{4}-\d\d-\d\d \d\d:\d\d$/, 'another tab shows the last changes');
$browser->click('#sync');
$browser->poll("$bar > 0 && $bar < 100", 'the bar to move');
$page->stop;
wait_for_state('error');
is($browser->text('#problems li strong'), 'the connection to the server was lost', 'a server that ends is an error');
$browser->stop;

done_testing();
