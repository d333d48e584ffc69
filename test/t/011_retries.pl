# Which failures are retried, how often and when.
use strict;
use warnings FATAL => 'all';

use POSIX ();
use Test::More;

use YelpSession;
use YelpTest;

my $count = 100;
my $size = 20;
my ($node, $api) = YelpTest::start(server => { max_deleted => '100%' });
my $session = YelpSession->new($node);
my %quick = (
	page_size => $size, attempts => 3, retry_delay => '1ms', retry_factor => undef,
	retry_max_delay => '2ms', concurrency => undef, timeout => undef, partial => undef,
	max_retry_after => undef);

$session->options(%quick);
$api->config(accounts => { acme => { count => $count } });
is($session->sync->{error}, undef, 'first sync');

# A sync under these faults, counted at the server
sub sync_with
{
	my ($options, @faults) = @_;
	$session->options(%quick, %$options);
	$api->reset('counters');
	$api->faults(@faults);
	return $session->sync;
}

sub status
{
	my ($status, %headers) = @_;
	return { respond => { status => $status, headers => \%headers } };
}

sub waits
{
	my ($status, $retry_after) = @_;
	return status($status, 'Retry-After' => $retry_after);
}

# ---- what is tried again ----

# libcurl itself repeats a request that finds its old connection closed: use none
$api->config(connection_close => \1);
foreach my $case (
	(map { [ "status $_", status($_) ] } 408, 421, 425, 500, 502, 503, 504),
	[ 'no answer', 'close' ],
	[ 'reset before the headers', 'reset' ],
	[ 'reset in the body', { reset => { at => 300 } } ],
	[ 'body cut', { close => { at => 300 } } ],
	[ 'chunked body cut', { chunked_cut => { at => 300 } } ],
	[ 'HTML', { respond => { body => '<html></html>' } } ],
	[ 'JSON that is no page', { respond => { body => '{"error":{"id":"BUSY"}}' } } ],
	[ 'a body that stops', { drip => { at => 300 } }, timeout => '400ms' ])
{
	my ($name, $action, %options) = @$case;
	foreach my $offset (0, 40)
	{
		my $result = sync_with(\%options,
			{ match => { offset => $offset }, times => 2, action => $action });
		is($result->{error}, undef, "$name, twice at $offset: the third attempt succeeds");
		is($api->requests_at($offset), 3, '... three requests');
		is($session->value(YelpTest::last_run('requests || $$,$$ || retries')), '9,2', '... and so says the history');
	}
}

foreach my $attempts (1, 2, 10)
{
	my $result = sync_with({ attempts => $attempts },
		{ match => { offset => 40 }, action => status(500) });
	is($result->{sqlstate}, 'HV000', "attempts $attempts: an error at last");
	like($result->{error}, qr/\(attempt $attempts of $attempts, /, '... that tells how often');
}

# Page 0 first, or a page may be asked for once more when the total is known
foreach my $attempts (1, 2, 10)
{
	my $result = sync_with({ attempts => $attempts },
		{ match => { offset => 0 }, action => status(500) });
	is($api->requests_at(0), $attempts, "attempts $attempts: so many requests");
}

foreach my $concurrency (1, 3)
{
	$session->run(q{SET statement_timeout = '60s'});
	my $result = sync_with({ concurrency => $concurrency },
		{ match => { nth => 1 }, action => status(500) });
	is($result->{error}, undef, "all $concurrency in flight fail, with more pages left");
	$session->run('RESET statement_timeout');
}

# ---- what is not ----

# More of them are in 010_answers
foreach my $status (405, 418, 422)
{
	my $result = sync_with({ concurrency => 1 }, { match => { offset => 0 }, action => status($status) });
	is($result->{sqlstate}, 'HV000', "status $status: an error");
	is($api->requests_at(0), 1, '... at once');
}
$api->config(connection_close => \0);

subtest 'a page that is refused before the total is known' => sub {
	$session->options(%quick);
	$api->reset('counters');
	$api->faults(
		{ match => { offset => [ 0, 20, 60, 80 ] }, action => { hold => \1 } },
		{ match => { offset => 40, nth => 1 }, action => status(400) });
	$session->begin_sync('acme');
	$api->poll_until(sub { $api->counters->{by_status}{400} }, 'a page to be refused');
	$api->poll_counter('held', 4);
	$api->release;
	my $result = $session->sync_result;
	like($result->{error}, qr/page at offset 40 of account "acme": HTTP status 400/, 'is an error once it is');
	is($api->requests_at(40), 1, 'one request');
};

# ---- backoff ----

sub mean
{
	my $sum = 0;
	$sum += $_ for @_;
	return $sum / @_;
}

# All pages fail together, three times; the time between the end of an attempt
# and the beginning of the next one is the backoff, whatever the machine adds.
subtest 'backoff' => sub {
	$api->config(accounts => { acme => { count => 800 } });
	sync_with({});
	my $result = sync_with(
		{ attempts => 4, retry_delay => '40ms', retry_factor => '6', retry_max_delay => '800ms' },
		{ match => { nth => [ 1, 2, 3 ] }, action => status(500) });
	is($result->{error}, undef, 'no error');
	my %at;
	push @{ $at{ $_->{offset} } }, $_ for $api->log;
	is(keys %at, 42, 'pages, and two looks at the end');
	my @gaps = map {
		my $attempt = $_;
		[ map { $_->[$attempt]{t_start} - $_->[ $attempt - 1 ]{t_end} } values %at ]
	} 1 .. 3;
	my ($first, $second, $third) = map { mean(@$_) } @gaps;
	my ($least, $most) = (sort { $a <=> $b } @{ $gaps[2] })[ 0, -1 ];

	note(sprintf 'mean waits of %.0f, %.0f and %.0f ms', map { $_ * 1000 } $first, $second, $third);
	cmp_ok($second / $first, '>', 1.5, 'the wait grows by the factor');
	cmp_ok($third / $second, '>', 1.5, '... again');
	cmp_ok($most / 0.8, '<', 1.5, '... up to retry_max_delay');
	cmp_ok(($most - $least) / 0.8, '>', 0.5, 'jitter spreads the attempts over the wait');
	$api->config(accounts => { acme => { count => $count } });
	sync_with({});
};

# ---- Retry-After ----

sub http_date
{
	my ($time) = @_;
	return POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime $time);
}

# From the end of the refusal to the next request: all in one connection
sub pause_after
{
	my ($status) = @_;
	my @log = $api->log;
	my ($refused) = grep { $log[$_]{status} eq $status } 0 .. $#log;
	return $log[ $refused + 1 ]{t_start} - $log[$refused]{t_end};
}

foreach my $case (
	[ 'seconds', '1', 1 ],
	[ 'a fraction of a second', '0.5', 0.5 ],
	[ 'a date', sub { http_date(time + 2) }, 1 ])
{
	my ($name, $value, $seconds) = @$case;
	foreach my $status (429, 503)
	{
		my $header = ref $value ? $value->() : $value;
		my $result = sync_with({ concurrency => 1 },
			{ match => { offset => 40 }, times => 1, action => waits($status, $header) });
		is($result->{error}, undef, "$status, Retry-After in $name: no error");
		cmp_ok(pause_after($status) / $seconds, '>', 0.98, '... nothing is sent before');
	}
}

subtest 'a 429 holds back all requests' => sub {
	$session->options(%quick, concurrency => 3);
	$api->reset('counters');
	$api->faults(
		{ match => { offset => 20, nth => 1 }, action => waits(429, '1') },
		{ match => { offset => [ 0, 40 ] }, action => { hold => \1 } });
	$session->begin_sync('acme');
	$api->poll_until(sub { $api->counters->{by_status}{429} }, 'a 429');
	$api->poll_counter('held', 2);
	$api->release;
	my $result = $session->sync_result;
	my @log = $api->log;
	my ($refused) = grep { $_->{status} eq '429' } @log;

	is($result->{error}, undef, 'no error');
	is(@log, 8, 'each page once, one twice, and two looks at the end');
	is((grep { $_->{t_start} - $refused->{t_end} < 0.98 } @log[ 3 .. 7 ]), 0,
		'... none of them before its time, although others had succeeded');
};

foreach my $value ('0', '-5', 'NaN', 'inf', '1e9', '0x10', 'soon', '', '5 apples', '1,5',
	'Mon, 32 Jan 2035 00:00:00 GMT', http_date(time - 3600), http_date(0))
{
	foreach my $status (429, 503)
	{
		my $result = sync_with({},
			{ match => { offset => 40 }, times => 1, action => waits($status, $value) });
		is($result->{error}, undef, "$status, Retry-After \"$value\": ignored");
		is($api->requests_at(40), 2, '... and tried again');
	}
}

# When a limit is reset, in place of a Retry-After
foreach my $case (
	[ 429, 1, 'RateLimit-Reset' => '1' ],
	[ 429, 1, 'X-RateLimit-Reset' => sub { '' . (time + 2) } ],
	[ 429, 1, 'X-RateLimit-Reset' => sub { (time + 2) . '000' } ],
	[ 429, 0, 'X-RateLimit-Reset' => sub { '' . (time - 2) } ],
	[ 429, 0, 'X-RateLimit-Reset' => sub { '' . (time + 3600) } ],
	[ 429, 0, 'RateLimit-Reset' => 'soon' ],
	[ 503, 0, 'RateLimit-Reset' => '1' ])
{
	my ($status, $seconds, $name, $value) = @$case;
	$value = $value->() if ref $value;
	my $result = sync_with({ concurrency => 1 },
		{ match => { offset => 40 }, times => 1, action => status($status, $name => $value) });
	is($result->{error}, undef, "$status, $name $value: no error");
	cmp_ok(pause_after($status), $seconds ? '>' : '<', 0.98, $seconds ? '... waits for it' : '... is ignored');
}

foreach my $case (
	[ '3600', '2min', 3600 ],
	[ '121', '120s', 121 ],
	[ '1', '0', 1 ],
	[ '99999999999999999999999999', '24h', undef ],
	[ http_date(time + 7200), '1h', undef ])
{
	my ($value, $most, $seconds) = @$case;
	foreach my $status (429, 503)
	{
		my $result = sync_with({ max_retry_after => $most },
			{ match => { offset => 40 }, action => waits($status, $value) });
		is($result->{sqlstate}, '53400', "$status, Retry-After $value over $most: an error");
		like($result->{error}, qr/page at offset 40 .*API asked to wait .*max_retry_after/,
			'... that states it');
		like($result->{error}, qr/wait ${seconds}(000 m)? ?s\b/, '... with the time')
		  if defined $seconds;
		is($api->requests_at(40), 1, '... at once');
	}
}

foreach my $status (401, 403)
{
	my $result = sync_with({ concurrency => 1 },
		{ match => { offset => 0 }, action => waits($status, '3600') });
	is($result->{sqlstate}, '28000', "$status with a Retry-After: wrong credentials all the same");

	$result = sync_with({ concurrency => 1 },
		{ match => { offset => 40 }, times => 2, action => status($status) });
	is($result->{error}, undef, "$status after pages came: tried again");
	is($api->requests_at(40), 3, '... twice');
}

subtest 'the wrong password' => sub {
	$api->config(accounts => { acme => { password => 'new' } });
	my $result = sync_with({});
	is($result->{sqlstate}, '28000', 'an error');
	like($result->{error}, qr/: API rejected the credentials \(attempt 1 of 3, /, 'at once');
	is($api->counters->{requests}, 7, 'after one request for each page and two looks at the end');
	$api->config(accounts => { acme => { password => 's3cret' } });
};

# ---- 429 ----

subtest '429s use up no attempt while pages keep arriving' => sub {
	my $result = sync_with({ attempts => 2, retry_max_delay => undef },
		{ match => { offset => 60 }, times => 5, action => status(429) });
	is($result->{error}, undef, 'no error');
	is($api->requests_at(60), 6, 'a page is refused more often than there are attempts');
};

foreach my $partial ('off', 'on')
{
	my $result = sync_with({ concurrency => 1, attempts => 4, partial => $partial, max_retry_after => '0' },
		{ action => status(429) });
	is($result->{sqlstate}, '53400', "nothing but 429s, partial $partial: an error");
	like($result->{error}, qr/page at offset 0 .*: API rate limit exceeded \(attempt 4 of 4, /,
		'... that says so');
	like($result->{hint}, qr/concurrency/, '... with a hint');
	is($api->counters->{requests}, 4, '... after so many attempts');
}

subtest 'nothing but 429s for many requests at once' => sub {
	my $result = sync_with({ max_retry_after => '0' }, { action => status(429) });
	is($result->{sqlstate}, '53400', 'an error');
	cmp_ok($api->counters->{requests}, '<=', 6 + 2 + 1, 'the window shrinks');
};

foreach my $case ([ 429, '53400', 40 ], [ 503, 'HV000', 40 ])
{
	my ($status, $sqlstate, $offset) = @$case;
	my $result = sync_with({ max_retry_after => '2s' },
		{ match => { offset => $offset }, action => status($status) });
	my @log = grep { $_->{status} eq $status } $api->log;
	is($result->{sqlstate}, $sqlstate, "$status for ever once pages have come: an error at last");
	cmp_ok(($log[-1]{t_end} - $log[0]{t_end}) / 2, '>', 0.98, '... after max_retry_after');
	cmp_ok(scalar(@log), '<', 60, '... which takes few requests, however short the delays are');
}

subtest 'one page that is always refused' => sub {
	my $result = sync_with({ max_retry_after => '0' }, { match => { offset => 60 }, action => status(429) });
	is($result->{sqlstate}, '53400', 'an error at last');
	like($result->{error}, qr/page at offset 60 /, '... that names it');
};

# ---- all together ----

subtest 'deep pages that fail once' => sub {
	$api->reset;
	$api->mutate(alter => 50);
	my $result = sync_with({}, { match => { from_offset => 1000, nth => 1 }, action => status(500) });
	is($result->{error}, undef, 'no error');
	# The look at the end as well, unless another one has shown it meanwhile
	my $retries = $session->value(YelpTest::last_run('retries'));
	ok($retries == 46 || $retries == 47, 'each of them is tried again') or diag($retries);
	YelpTest::table_is_listing($node, $api, 'acme', 'all programs are stored');
};

$api->config(accounts => { acme => { count => 400 } });
foreach my $seed (1 .. 3)
{
	$api->mutate(remove => 20, add => 20, alter => 50, seed => $seed);
	my @faults = map {
		{ match => { probability => 0.06, seed => $seed * 100 + $_->[0] }, action => $_->[1] }
	  }[ 1, status(500) ], [ 2, status(429) ], [ 3, { reset => { at => 500 } } ],
	  [ 4, 'close' ], [ 5, { chunked_cut => {} } ], [ 6, { respond => { body => 'oops' } } ],
	  [ 7, { delay_ms => 20 } ];
	my $result = sync_with({ attempts => 10, concurrency => $seed * 8 }, @faults);
	is($result->{error}, undef, "a third of all answers bad, $seed: no error");
	YelpTest::table_is_listing($node, $api, 'acme', '... and the table is right');
}

$session->end;
done_testing();
