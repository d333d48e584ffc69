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

my ($node, $api) = YelpTest::start(tables => 0, server => { timeout => '1h', record_changes => 'on' });
$api->config(accounts => { failing => { password => 'another', count => 10 } });
YelpTest::must_run($node, 'CREATE SERVER failing FOREIGN DATA WRAPPER yelp_sync '
	  . YelpTest::options(endpoint => $api->url));
YelpPage::set_up($node, acme => 'yelp', failing => 'failing');
my $page = YelpPage->start($node);
my %login = (username => 'anna', password => 'correct horse');
my $browser = YelpBrowser->start;
my $first = $browser->{tab};

my $is_syncing = q{SELECT count(*) FROM pg_stat_activity
	WHERE usename = 'yelp_page' AND state = 'active'};
my $bar = q{document.querySelector("#bar").value};
my $focus = q{document.activeElement.id};
my $axe = $ENV{YELP_SYNC_TEST_AXE} // '';
my $lacks_axe = YelpTest::lacks('axe-core', -e $axe);

# What a tab shows over time: places of the bar, lines of status, announcements, and what has been
# shifted
my $watch = q{
	window.seen = { bar: [], status: [], announcer: [] };
	const watch = (id, value, what) => new MutationObserver(() => {
		const now = value(document.querySelector("#" + id));
		if (now !== undefined && seen[id].at(-1) !== now) seen[id].push(now);
	}).observe(document.querySelector("#" + id), what);
	watch("bar", (it) => it.position < 0 ? undefined : it.value, { attributes: true });
	watch("status", (it) => it.textContent, { childList: true });
	watch("announcer", (it) => it.textContent, { childList: true });
	window.shifted = [];
	new PerformanceObserver((list) => list.getEntries().forEach(({ sources }) => sources.forEach(
		({ node }) => shifted.push(node?.id || node?.nodeName)))).observe({ type: "layout-shift" });
};

sub open_page
{
	my $tab = $browser->new_tab;
	$browser->open($page->url, %login);
	return $tab;
}

sub wait_for_state
{
	my ($state) = @_;
	$browser->poll(qq{document.querySelector("#progress").dataset.state === "$state"}, $state);
	return;
}

# The whole text of an element, or what a pattern is found in
sub wait_for
{
	my ($selector, $wanted) = @_;
	my $test = $wanted =~ m{^/} ? "$wanted.test(text)" : 'text === ' . YelpBrowser::quote($wanted);
	$browser->poll(qq{((text) => $test)(document.querySelector("$selector")?.textContent)}, "$selector: $wanted");
	return;
}

# Starts a sync, which may be over before anybody looks, and waits for its end
sub sync
{
	my ($end) = @_;
	$browser->evaluate('document.querySelector("#progress").dataset.state = "asked"');
	$browser->click('#sync');
	wait_for_state($end);
	return;
}

# Starts a sync of which only the first pages arrive
sub held_sync
{
	my ($pages) = @_;
	$api->faults({ match => { from_offset => 20 * $pages }, action => { hold => \1 } });
	$browser->click('#sync');
	wait_for('#status', "Fetching: $pages of 96 pages");
	return;
}

sub let_go { $api->faults(); $api->release; return; }

# Tests of what must hold in each state of the page, on wide and narrow screens, light and dark.  With
# pictures in the directory YELP_SYNC_TEST_SCREENSHOTS, where that is set.
sub looks_good
{
	my ($state) = @_;
	foreach my $case ([ 1280, 'light' ], [ 1280, 'dark' ], [ 375, 'light' ], [ 375, 'dark' ])
	{
		my ($width, $scheme) = @$case;
		my $name = "$state-$width-$scheme";
		$browser->emulate($width, $scheme);
		$browser->screenshot("$ENV{YELP_SYNC_TEST_SCREENSHOTS}/$name.png") if $ENV{YELP_SYNC_TEST_SCREENSHOTS};
		is($browser->evaluate('document.documentElement.scrollWidth'), $width, "$name: nothing overflows");
	  SKIP:
		{
			skip $lacks_axe, 1 if $lacks_axe;
			$browser->evaluate(slurp_file($axe)) unless $browser->evaluate('window.axe !== undefined');
			is_deeply($browser->evaluate(q{axe.run().then(({ violations }) => violations.map(
				({ id, impact, nodes }) => [id, impact, ...nodes.map(({ target }) => String(target))]))}),
				[], "$name: axe-core has nothing to complain of");
		}
	}
	$browser->emulate(1280, 'light');
	return;
}

note 'the start';

$browser->open($page->url, %login);
wait_for_state('idle');
is_deeply([ $browser->texts('#account option') ], [qw(acme failing)], 'the accounts');
wait_for('#range', 'none');
is_deeply([ grep { !/401/ } $browser->complaints ], [], 'no error in the console');
looks_good('idle');

note 'a sync';

$browser->emulate(375, 'light');
$browser->evaluate($watch);
held_sync(11);
is($browser->evaluate($focus), 'sync', 'the focus stays on the button');
is($browser->text('#count-programs'), '220', 'the number of programs');
is($browser->text('#count-total_api'), '1,913', 'and how many there are');
like($browser->text('#who'), qr/^Started by anna at \d{4}-\d\d-\d\d \d\d:\d\d$/, 'who has started it');
my $reached = $browser->evaluate($bar);
cmp_ok($reached, '>', 0, 'the bar moves before the end');
is_deeply($browser->evaluate('shifted'), [], 'and nothing else does');

my $second = open_page();
wait_for('#status', 'Fetching: 11 of 96 pages');
is($browser->evaluate($bar), $reached, 'a second tab shows the same');
$browser->reload;
wait_for('#status', 'Fetching: 11 of 96 pages');
is($browser->evaluate($bar), $reached, 'and the same again after a reload');
$browser->choose('#account', 'failing');
wait_for('#status', 'No sync of failing is running.');
is($browser->text('#count-programs'), '–', 'another account has its own state');
$browser->choose('#account', 'acme');
wait_for('#status', 'Fetching: 11 of 96 pages');
$browser->hide(1);
let_go();
$browser->use_tab($first);
wait_for_state('changes');
$browser->use_tab($second);
is($browser->text('#status'), 'Fetching: 11 of 96 pages', 'a tab that nobody sees is left alone');
$browser->hide(0);
foreach my $tab ($second, $first)
{
	$browser->use_tab($tab);
	wait_for_state('changes');
	is($browser->evaluate($bar), 100, 'each tab shows the end');
	is($browser->text('#status'), 'Done: 1,913 added.', 'in words');
	is($browser->text("#count-$_->[0]"), $_->[1], "$_->[0]: $_->[1]")
	  foreach [ added => '1,913' ], [ updated => '0' ], [ deleted => '0' ], [ programs => '1,913' ];
	wait_for('#range', '1–25 of 1,913');
	wait_for('#changes-summary', '/^1,913 changes by the sync of .*, the first 1,000 are shown$/');
	is_deeply([ map { scalar($browser->texts($_)) } '#runs tbody tr', '#problems li' ], [ 1, 0 ], 'one sync, no problem');
}

note 'the next one reads the listing twice';

my $mutation = $api->mutate(seed => 1, remove => 2, add => 3, alter => 7);
$browser->evaluate('for (const list of Object.values(seen)) list.length = 0');
sync('changes');
# The state may still be that of the sync before, drawn again
wait_for('#announcer', 'Done: 3 added, 7 updated, 2 deleted.');
my $seen = $browser->evaluate('seen');
ok((grep { /^Fetching once more, to be sure: / } @{ $seen->{status} }), 'the second reading has its words');
is_deeply($seen->{bar}, [ sort { $a <=> $b } @{ $seen->{bar} } ], 'the bar never goes back');
cmp_ok(scalar(@{ $seen->{announcer} }), '<=', 6, 'few announcements') or diag(explain $seen->{announcer});
is($seen->{announcer}[-1], 'Done: 3 added, 7 updated, 2 deleted.', 'the last one is the end');
is($browser->text('#count-unchanged'), '1,904', 'the rest is unchanged');
wait_for('#range', '1–25 of 1,914');
my %changed = %{ $browser->evaluate(q{Object.fromEntries([...document.querySelectorAll("#changes tbody tr")].map(
	(row) => [row.querySelector(".change > span").textContent,
		[row.querySelector(".pill").textContent, row.querySelector("ul").textContent]]))}) };
is_deeply([ map { $changed{$_}[0] } @{ $mutation->{removed} }, @{ $mutation->{added} }, sort keys %{ $mutation->{altered} } ],
	[ ('deleted') x 2, ('added') x 3, ('updated') x 7 ], 'what has changed');
my ($program) = grep { $mutation->{altered}{$_}[0] eq 'budget' } sort keys %{ $mutation->{altered} };
my $budgets = YelpTest::value($node, q{SELECT (old->>'budget')::numeric::float8 || ' → ' || (new->>'budget')::numeric::float8
	FROM yelp_program_changes WHERE changed = '{budget}'});
is($changed{$program}[1] =~ s/,//gr, "budget: $budgets", 'from which value to which');
looks_good('done');

note 'a cancel';

held_sync(50);
looks_good('syncing');
$browser->use_tab($second);
wait_for('#status', 'Fetching: 50 of 96 pages');
$browser->click('#cancel');
foreach my $tab ($second, $first)
{
	$browser->use_tab($tab);
	wait_for('#status', 'Cancelled by anna. Nothing was changed.');
	is(scalar($browser->texts('#problems li')), 0, 'a cancel is no error');
}
let_go();
$browser->use_tab($second);
is($browser->evaluate($focus), 'cancel', 'the focus stays on the button');
ok($node->poll_query_until('postgres', $is_syncing, 0), 'the button cancels');
$browser->close_tab;
$browser->use_tab($first);

note 'filters and pages';

sub number_of
{
	my ($condition) = @_;
	return YelpTest::value($node, "SELECT to_char(count(*), 'FM9,999') FROM sync_page.programs WHERE $condition");
}
my ($paused, $logos) = (number_of(q{state = 'PAUSED'}), number_of(q{state = 'PAUSED' AND program_type = 'LOGO'}));
$browser->choose('[name=state]', 'PAUSED');
wait_for('#range', "1–25 of $paused");
is_deeply([ grep { $_ ne 'PAUSED' } $browser->texts('#programs td:nth-child(3)') ], [], 'by state');
$browser->evaluate('document.querySelector("#programs-title").scrollIntoView()');
looks_good('programs');
$browser->click('#back');
$browser->click('#forth');
wait_for('#range', "26–50 of $paused");
$browser->choose('[name=type]', 'LOGO');
wait_for('#range', "1–$logos of $logos");
pass('by type, from the first page');
my ($business) = $browser->texts('#programs td:nth-child(6)');
$browser->choose('[name=business]', $business);
wait_for('#range', '1–1 of 1');
is($browser->text('#programs td:nth-child(6)'), $business, 'by business');

note 'an account that fails';

$browser->choose('#account', 'failing');
wait_for('#range', 'none');
wait_for('#changes-summary', 'Nothing is known yet.');
wait_for_state('idle');
sync('error');
is($browser->text('#status'), 'The sync failed. Nothing was changed.', 'it failed');
my @error = $browser->texts('#problems li.error > *');
like($error[0], qr/^Could not fetch the page .* of account "failing": API rejected the credentials.*\.$/, 'the message is a sentence');
like("@error", qr/ACCESS_DENIED.*Check the username.*SQLSTATE 28000$/, 'with all there is to say');
unlike("@error", qr/ERROR:|LINE \d|CONTEXT/, 'and no line of psql');
$browser->poll('document.querySelectorAll("#runs .pill.failed").length === 1', 'the failed sync among the last ones');
like($browser->text('#runs td.wide'), qr/API rejected the credentials/, 'with its error');
looks_good('failed');
$browser->reload;
wait_for_state('error');
like($browser->text('#problems li.error'), qr/API rejected the credentials/, 'a reload shows the same');
$browser->choose('#account', 'acme');
wait_for('#range', '1–25 of 1,914');
is(scalar($browser->texts('#problems li')), 0, 'and another account has its own');

note 'texts that look like HTML';

my $html = '<img src=x onerror="window.hacked=1"><b>bold</b>';
$api->mutate(edit => [ [ 0, { program_id => '<i>0</i>', program_type => $html, 'businesses.0.yelp_business_id' => $html } ] ]);
$api->faults({ match => { offset => 60 }, action => { respond => { status => 400, json => {
	error => { id => 'X', description => $html } } } } });
YelpTest::set_server($node, partial => 'on');
sync('partial');
is($browser->text('#status'), 'Done, with warnings: 1 added.', 'a partial sync');
$api->faults();
YelpTest::set_server($node, partial => undef);
like($browser->text('#problems li.warning'), qr/\Q$html\E/, 'in a warning');
wait_for('#count-added', '1');
wait_for('#changes', '/added<i>0<\\/i>/');
$browser->choose('[name=type]', $html);
wait_for('#range', '1–1 of 1');
is($browser->text('#programs td:nth-child(2)'), $html, 'in its type');
is($browser->text('#programs td:nth-child(6)'), $html, 'in its business');
is($browser->evaluate('document.querySelectorAll("img, b, i").length'), 0, 'they are text');
ok(!$browser->evaluate('window.hacked'), 'and run nothing');
looks_good('partial');
is_deeply([ $browser->complaints ], [], 'no error in the console');
like($browser->evaluate(q{(() => { try { document.body.innerHTML = "<b>"; return "done"; } catch (e) { return String(e); } })()}),
	qr/TrustedHTML/, 'the policy forbids HTML from texts altogether');
$browser->choose('[name=type]', '');

note 'what ends a sync';

held_sync(11);
my $runs = YelpTest::value($node, 'SELECT count(*) FROM yelp_sync_runs');
$browser->close_tab;
let_go();
ok($node->poll_query_until('postgres', 'SELECT count(*) FROM yelp_sync_runs', $runs + 1), 'a closed tab ends no sync');
open_page();
wait_for_state('changes');
wait_for('#changes-summary', '/by the sync of/');

note 'a server that is lost and comes back';

my ($port) = $page->url =~ /:(\d+)/;
held_sync(11);
$page->signal('STOP');
wait_for('#status', 'Connection lost, reconnecting …');
$page->signal('CONT');
wait_for('#status', 'Fetching: 11 of 96 pages');
pass('one that is silent, too');
$page->stop('KILL');
wait_for('#status', 'Connection lost, reconnecting …');
looks_good('lost');
ok($node->poll_query_until('postgres', $is_syncing, 0), 'its sync ends');
let_go();
YelpTest::value($node, q{SELECT count(*) FROM yelp_sync('acme')}, role => 'regress_ads');
$page = YelpPage->start($node, arguments => [ '--port', $port ]);
wait_for_state('idle');
like($browser->text('#problems li.warning'), qr/^The server was restarted, which ended the sync\./, 'so it says');
wait_for('#status', '/^Last sync: synced at /');
$browser->click('#sync');
wait_for_state('changes');
$page->stop;
wait_for_state('lost');
is(slurp_file($page->messages), '', 'a server that is stopped has no complaint');
$browser->stop;

done_testing();
