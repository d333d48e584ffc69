# Which failures are retried, how often and when.
use strict;
use warnings FATAL => 'all';

use List::Util qw(max min sum);
use POSIX ();
use Test::More;

use YelpTest ':all';

my ($node, $api) = start(server => { max_deleted => '100%' }, accounts => { acme => { count => 95 } });
my $session = YelpSession->new($node);
my %quick = (
	attempts => 3, retry_delay => '1ms', retry_max_delay => '2ms',
	map { $_ => undef } qw(retry_factor concurrency timeout partial max_retry_after));

# A sync under these faults, counted at the server
sub sync_with
{
	my ($options, @faults) = @_;
	$session->options(%quick, %$options);
	$api->reset('counters');
	$api->faults(@faults);
	return $session->sync;
}

# A fault: a status, or another action, for the page at an offset
sub fault
{
	my ($offset, $action, %more) = @_;
	return { match => { offset => $offset }, action => $action, %more };
}

sub status
{
	my ($status, %headers) = @_;
	return { respond => { status => $status, headers => \%headers } };
}

# A subtest: starts a sync in which the pages at other offsets are held until one is refused
sub while_refused
{
	my ($held, $refused, $status, $options) = @_;
	$session->options(%quick, %$options);
	$api->reset('counters');
	$api->faults(fault($held, { hold => \1 }), { match => { offset => $refused, nth => 1 }, action => $status });
	$session->begin_sync('acme');
	$api->poll_until(sub { $api->counters->{by_status}{ $status->{respond}{status} } }, 'a refusal');
	$api->poll_counter('held', scalar @$held);
	$api->release;
	return $session->sync_result;
}

is(outcome(sync_with({})), 'added 95', 'first sync');

note 'what is retried: fetch_error_test.c has all statuses, and 010_answers.pl what is not';

# libcurl itself repeats a request that finds its old connection closed: use none
$api->config(connection_close => \1);
foreach my $case (
	[ 'status 500', status(500) ],
	[ 'no answer', 'close' ],
	[ 'reset before the headers', 'reset' ],
	[ 'reset in the body', { reset => { at => 300 } } ],
	[ 'JSON that is not a page', { respond => { body => '{"error":{"id":"BUSY"}}' } } ],
	[ 'a body that stops', { drip => { at => 300 } }, timeout => 400 * $YelpApi::slack . 'ms' ])
{
	my ($name, $action, %options) = @$case;
	foreach my $offset (0, 40)
	{
		my $result = sync_with(\%options, fault($offset, $action, times => 2));
		is_deeply([ outcome($result), $api->requests_at($offset), $session->value(YelpTest::last_run('requests, retries')) ],
			[ '', 3, '8|2' ], "$name, twice at $offset: the third attempt succeeds");
	}
}
foreach my $concurrency (1, 3)
{
	$session->run(q{SET statement_timeout = '60s'});
	is(outcome(sync_with({ concurrency => $concurrency }, { match => { nth => 1 }, action => status(500) })), '',
		"all $concurrency requests in flight fail, with more pages left");
	$session->run('RESET statement_timeout');
}
$api->config(connection_close => \0);
like(while_refused([ 0, 20, 60, 80 ], 40, status(400), {})->{error},
	qr/page at offset 40 of account "acme": HTTP status 400/, 'a page that is refused before the total is known');
is($api->requests_at(40), 1, '... is requested once');

note 'backoff';

# All pages fail together, three times; the time between the end of an attempt and the beginning of
# the next one is the backoff, whatever the machine adds.
$api->config(accounts => { acme => { count => 795 } });
sync_with({});
my $result = sync_with(
	{ attempts => 4, retry_delay => '80ms', retry_factor => '6', retry_max_delay => '1600ms' },
	{ match => { nth => [ 1, 2, 3 ] }, action => status(500) });
is(outcome($result), '', 'no error');
my %at;
push @{ $at{ $_->{offset} } }, $_ for $api->log;
is(keys %at, 41, 'pages, and a look at the end');
is($session->value(YelpTest::last_run('requests, retries')), '164|123', '... four times each, and nothing else');
my @gaps = map {
	my $attempt = $_;
	[ map { $_->[$attempt]{t_start} - $_->[ $attempt - 1 ]{t_end} } values %at ]
} 1 .. 3;
my ($first, $second, $third) = map { sum(@$_) / @$_ } @gaps;
note(sprintf 'mean waits of %.0f, %.0f and %.0f ms', map { $_ * 1000 } $first, $second, $third);
cmp_ok($second / $first, '>', 1.5, 'the wait grows by the factor');
cmp_ok($third / $second, '>', 1.5, '... again');
cmp_ok(max(@{ $gaps[2] }) / 1.6, '<', 1.5, '... up to retry_max_delay');
cmp_ok((max(@{ $gaps[2] }) - min(@{ $gaps[2] })) / 1.6, '>', 0.5, 'jitter spreads the attempts over the wait');
$api->config(accounts => { acme => { count => 95 } });
sync_with({});

note 'Retry-After';

sub http_date
{
	my ($time) = @_;
	return POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime $time);
}

# From the end of the refusal to the next request, with one request at a time
sub pause_after
{
	my ($status) = @_;
	my @log = $api->log;
	my ($refused) = grep { $log[$_]{status} eq $status } 0 .. $#log;
	return $log[ $refused + 1 ]{t_start} - $log[$refused]{t_end};
}

# Statuses, a header, and the least or, if it is ignored, no pause in seconds.  fetch_error_test.c has
# all kinds of values.
my @both = (429, 503);
foreach my $case (
	[ \@both, 1, 'Retry-After' => '1' ],
	[ \@both, 1, 'Retry-After' => sub { http_date(time + 2) } ],
	[ \@both, 0, 'Retry-After' => 'soon' ],
	[ [429], 1, 'X-RateLimit-Reset' => sub { '' . (time + 2) } ],
	[ [503], 0, 'RateLimit-Reset' => '1' ])
{
	my ($statuses, $seconds, $header, $given) = @$case;
	foreach my $status (@$statuses)
	{
		my $value = ref $given ? $given->() : $given;
		is(outcome(sync_with({ concurrency => 1 }, fault(40, status($status, $header => $value), times => 1))), '',
			"$status, $header \"$value\": no error");
		cmp_ok(pause_after($status), $seconds ? '>' : '<', ($seconds || 1) * 0.98,
			$seconds ? '... nothing is sent before that time' : '... is ignored');
	}
}

$result = while_refused([ 0, 40 ], 20, status(429, 'Retry-After' => '1'), { concurrency => 3 });
my @log = $api->log;
my ($refused) = grep { $_->{status} eq '429' } @log;
is(outcome($result), '', 'a Retry-After while other requests are in flight: no error');
is(scalar(@log), 7, '... each page once, one twice, and a look at the end');
is((grep { $_->{t_start} - $refused->{t_end} < 0.98 } @log[ 3 .. 6 ]), 0,
	'... all requests are held back, although others have succeeded');

foreach my $case ([ '121', '120s', qr/121(?:000 m)? ?s\b/ ], [ http_date(time + 7200), '1h', qr/\d/ ])
{
	my ($value, $most, $wait) = @$case;
	foreach my $status (@both)
	{
		like(failure(sync_with({ max_retry_after => $most }, fault(40, status($status, 'Retry-After' => $value)))),
			qr/^53400: .*page at offset 40 .*API asked to wait $wait.*max_retry_after/, "$status, Retry-After $value over $most");
		is($api->requests_at(40), 1, '... is an error at once');
	}
}

note 'credentials';

foreach my $status (401, 403)
{
	is(sync_with({ concurrency => 1 }, fault(0, status($status, 'Retry-After' => '3600')))->{sqlstate}, '28000',
		"$status with a Retry-After: wrong credentials");
	is_deeply([ outcome(sync_with({ concurrency => 1 }, fault(40, status($status), times => 2))), $api->requests_at(40) ],
		[ '', 3 ], "$status after pages have arrived: is retried");
}
$api->config(accounts => { acme => { password => 'new' } });
like(failure(sync_with({})), qr/^28000: .*: API rejected the credentials \(attempt 1 of 3, /, 'a wrong password: an error at once');
cmp_ok($api->counters->{requests}, '<=', 6, '... after at most one request for each page and a look at the end');
$api->config(accounts => { acme => { password => 's3cret' } });

note '429';

is_deeply([ outcome(sync_with({ attempts => 2, retry_max_delay => undef }, fault(60, status(429), times => 5))), $api->requests_at(60) ],
	[ '', 6 ], '429s use up no attempt while pages keep arriving');
$result = sync_with({ concurrency => 1, attempts => 4, partial => 'on', max_retry_after => '0' }, { action => status(429) });
like(failure($result), qr/^53400: .*page at offset 0 .*: API rate limit exceeded \(attempt 4 of 4, .*HINT:.*concurrency/s,
	'nothing but 429s');
is($api->counters->{requests}, 4, '... is an error after so many attempts');
is(sync_with({ max_retry_after => '0' }, { action => status(429) })->{sqlstate}, '53400', 'nothing but 429s, many at once');
cmp_ok($api->counters->{requests}, '<=', 6 + 2 + 1, '... the window shrinks');
foreach my $case ([ 429, '53400' ], [ 503, 'HV000' ])
{
	my ($status, $sqlstate) = @$case;
	$result = sync_with({ max_retry_after => '2s' }, fault(40, status($status)));
	@log = grep { $_->{status} eq $status } $api->log;
	is($result->{sqlstate}, $sqlstate, "$status permanently, after pages have arrived: an error in the end");
	cmp_ok(($log[-1]{t_end} - $log[0]{t_end}) / 2, '>', 0.98, '... after max_retry_after');
	cmp_ok(scalar(@log), '<', 60, '... with few requests, however short the delays are');
}
like(failure(sync_with({ max_retry_after => '0' }, fault(60, status(429)))), qr/^53400: .*page at offset 60 /,
	'one page that is always refused: the error names it');

note 'many: 031_soak.pl has failures of all kinds, at random';

$api->reset;
$api->mutate(alter => 50);
is(sync_with({}, { match => { from_offset => 1000, nth => 1 }, action => status(500) })->{error}, undef, 'many pages that fail once');
cmp_ok($session->value(YelpTest::last_run('retries')), '>=', 46, '... each of them is retried');
table_is_listing('acme', '... all programs are stored');

$session->end;
done_testing();
