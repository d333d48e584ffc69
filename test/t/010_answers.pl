# Bad responses, as the first page and as a later one: the error for each; the tables are unchanged,
# and the session can still be used.
use strict;
use warnings FATAL => 'all';

use IO::Compress::Gzip ();
use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use Test::More;

use YelpTest ':all';

my $attempts = 3;
my $count = 45;
my $json = JSON::PP->new->canonical->ascii->allow_nonref;
my ($node, $api) = start(
	accounts => { acme => { count => $count } },
	server => { attempts => $attempts, retry_delay => '1ms', retry_max_delay => '2ms', max_retry_after => '1ms' });
my $session = YelpSession->new($node);
my $pid = $session->value('SELECT pg_backend_pid()');
is(outcome($session->sync), "added $count", 'first sync');
my @ids = map { $_->{program_id} } $api->programs;

# ---- actions ----

sub body
{
	my ($body, %more) = @_;
	return { respond => { body => $body, %more } };
}

sub status
{
	my ($status, $body, %headers) = @_;
	return body($body // '', status => $status, headers => \%headers);
}

# The right page with a member that is replaced by this text
sub member
{
	my ($path, $text) = @_;
	return { replace => { text => { $path => $text } } };
}

# The same for a member of its program number 3
sub field
{
	my ($path, $text) = @_;
	return member("payment_programs.3.$path", $text);
}

sub cut_gzip
{
	my ($text) = @_;
	IO::Compress::Gzip::gzip(\$text => \my $zipped) or die 'gzip failed';
	return { respond => { base64 => encode_base64(substr($zipped, 0, 30), ''), headers => { 'Content-Encoding' => 'gzip' } } };
}

# ---- errors ----

# Cases: SQLSTATE, a pattern for the message, action, and optionally:
#   final     only one attempt is made
#   overload  attempts are not used up by pages that arrive meanwhile
#   options   of the server
#   new       no request is to use an existing connection
#   more      a pattern for detail and hint
# program_page_test.c has every page that is none, and fetch_error_test.c every status.
my @failed = ('08006', 'connection failed ');
my @undecoded = ('08006', 'could not decode the response body ');
my @large_headers = ('54000', 'response headers are larger than 256 kB ');
my @large_body = ('54000', 'body is larger than max_page_bytes ');
my $empty_page = '{"total":0,"payment_programs":[]}';
my @cases = (

	# Not JSON
	[ '22032', 'body is not JSON: expected a value at byte 1\b',
		body('<html><body>Bad gateway</body></html>', headers => { 'Content-Type' => 'text/html' }),
		more => qr/status 200, content type "text\/html" and \d+ bytes that begin with "<html><body>Bad.*HINT:.*endpoint/s ],
	[ '22032', 'body is not JSON: expected a value at byte \d+, in field "payment_programs\[3\]".*, program "%s"',
		field('program_metrics', '{"budget":NaN}') ],
	[ '22032', 'body is not JSON: truncated after 10 bytes',
		{ raw => { text => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"total\":45}" } } ],

	# Not a complete response
	[ @failed, { close => { at => 0 } } ],
	[ @failed, { close => { at => 300 } }, more => qr/bytes (remaining|missing)/ ],
	[ @failed, { chunked_cut => { at => 300 } } ],
	# libcurl itself repeats a request that finds its old connection closed
	[ @failed, 'close', new => 1, overload => 1, more => qr/^DETAIL:  Empty reply from server\.  The URL was /m ],
	[ @failed, { raw => { text => "SSH-2.0-OpenSSH_9.2\r\n" } } ],
	[ @failed, { raw => { text => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}" } } ],
	[ @undecoded, body($empty_page, headers => { 'Content-Encoding' => 'gzip' }) ],
	[ @undecoded, cut_gzip('{"total":0}' . ' ' x 5000) ],
	[ '08006', 'timed out ', { drip => { every_ms => 1000, headers => \1 } }, overload => 1,
		options => { timeout => '300ms' } ],

	# A body that cannot be read hides neither its status nor its headers
	(map {
		[ '08006', 'response has an unsupported Content-Encoding',
			body('x', headers => { 'Content-Encoding' => $_ }), final => 1 ]
	} 'gzip, gzip', 'deflate, gzip, gzip', 'utf-8', 'br'),
	(map {
		my ($body, %headers) = @$_;
		my @small = (options => { max_page_bytes => '512kB' });
		([ 'HV000', 'HTTP status 404 ', status(404, $body, %headers), final => 1, @small ],
			[ 'HV000', 'HTTP status 500 ', status(500, $body, %headers), @small ],
			[ '53400', 'API asked to wait 3600 s', status(429, $body, %headers, 'Retry-After' => '3600'),
				final => 1, @small ])
	} [ "\x0b\x02busy", 'Content-Encoding' => 'br' ], [ '(', 'Content-Encoding' => 'zstd' ],
		[ 'busy', 'Content-Encoding' => 'gzip' ], [ 'x' x 600_000 ]),

	# Too much
	[ @large_body, { pad => { bytes => 1 << 20 } }, final => 1,
		options => { max_page_bytes => '512kB' }, more => qr/HINT:.*max_page_bytes/ ],
	[ @large_body, { pad => { bytes => 1 << 26, encoding => 'gzip' } }, final => 1,
		overload => 1, options => { max_page_bytes => '1MB' }, more => qr/HINT:.*max_page_bytes/ ],
	[ @large_headers, 'endless_headers', final => 1, more => qr/\A(?!.*HINT)/s ],
	[ @large_headers, { raw => { text => "HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" x 20_000 } }, final => 1 ],
	[ '54000', 'field "total" is greater than 10000000 ', member('total', '1' . '0' x 30), final => 1 ],

	# Not a page
	[ 'HV021', 'field "total" is missing ', { replace => { remove => ['total'] } } ],
	[ 'HV021', 'API reported an error ',
		member('program_status', '"ALL","errors":[{"id":"SHARD_3","description":"It did not answer"}]'),
		more => qr/^DETAIL:  The API answered with HTTP status 200, "SHARD_3": It did not answer\. /m ],

	# Statuses
	[ 'HV000', 'HTTP status 302 ', status(302, '', Location => 'http://acme:s3cret@127.0.0.1:1/programs/v1?pw=s3cret'),
		final => 1, more => qr/, which redirects to "http:\/\/127\.0\.0\.1:1\/programs\/v1".*HINT:.*Redirects/s ],
	[ 'HV000', 'HTTP status 307 ', status(307, '', Location => $api->url), final => 1, more => qr/HINT:.*Redirects/ ],
	[ 'HV000', 'HTTP status 206 ', status(206), final => 1 ],
	[ 'HV000', 'HTTP status 404 ', status(404), final => 1,
		more => qr/The URL was http:\S+offset=\d+&.*HINT:.*endpoint/s ],
	[ 'HV000', 'HTTP status 400 ', status(400, '{"error":{"id":"VALIDATION_ERROR","description":"limit: too large"}}'),
		final => 1, more => qr/HTTP status 400, "VALIDATION_ERROR": limit: too large\.  The URL was / ],
	[ 'HV000', 'HTTP status 502 ', status(502, '<html>Bad gateway</html>'),
		more => qr/HTTP status 502, content type .* and 24 bytes that begin with "<html>Bad/ ]);

sub use_new_connections
{
	$api->config(connection_close => \1);
	$api->disconnect;
	connections_are($api, 0, 'new connections');
	return;
}

sub check_answer
{
	my ($offset, $sqlstate, $pattern, $action, %case) = @_;
	my $tries = $case{final} ? 1 : $attempts;
	# One at a time where one request is claimed: on a busy machine, a page may be requested twice
	my $options = { $case{final} ? (concurrency => 1) : (), %{ $case{options} // {} } };
	my $message = $pattern =~ s/%s/\Q$ids[$offset + 3]\E/r;

	# The first page is to come first: a later one that is refused before the total is known may
	# be requested twice
	$session->run('UPDATE yelp_sync_runs SET listed = 1');
	$session->options(%$options) if %$options;
	my $before = $session->value(YelpTest::content_query());
	my $changed = $api->mutate(alter => 2);
	$api->reset('counters');
	use_new_connections() if $case{new};
	$api->faults({ match => { offset => $offset }, action => $action });

	my $failed = $session->sync;
	like(failure($failed), qr/^$sqlstate: could not fetch the page at offset $offset of account "acme": $message/, 'the error');
	like($failed->{error}, qr/ \(attempt $tries of $attempts, stage receive\)$/, 'the attempt and the stage');
	like(failure($failed), $case{more}, 'its detail and hint') if $case{more};
	my $requests = $api->requests_at($offset);
	ok($requests >= $tries && $requests <= $tries + ($case{overload} ? 3 : 0), "$tries requests") or diag($requests);
	is($session->value(YelpTest::content_query()), $before, 'the tables are unchanged');

	$api->faults;
	$api->config(connection_close => \0);
	$session->options(map { $_ => undef } keys %$options);
	is_deeply([ sort map { $_->{program_id} } @{ $session->sync->{rows} } ], [ sort keys %{ $changed->{altered} } ],
		'the next sync of this session works');
	return;
}

# Before anything else has been answered
foreach my $status (401, 403)
{
	subtest "status $status" => sub {
		check_answer(0, '28000', 'API rejected the credentials ',
			status($status, '{"error":{"id":"ACCESS_DENIED","description":"Denied."}}'), final => 1,
			options => { concurrency => 1 }, more => qr/HTTP status $status, "ACCESS_DENIED": Denied\.  The URL was .*\nHINT:  Check the username and the password of/);
	};
}
foreach my $case (@cases)
{
	my ($sqlstate, $message, $action) = @$case;
	foreach my $offset (0, 20)
	{
		subtest("$sqlstate $message, by " . substr($json->encode($action), 0, 60) . ": page at $offset",
			sub { check_answer($offset, @$case) });
	}
}

# ---- programs that cannot be stored, and fields that cannot be read ----

# The status of the run, the program's problems if it is stored, a pattern for the WARNING, and the action.
# program_page_test.c has every reason to skip one, and sql/columns.sql all kinds of fields.
my $unread = 'could not read all fields of 1 program of account "acme"';
foreach my $case (
	[ 'partial', '', 'field "payment_programs\[3\]" is not an object', member('payment_programs.3', 'null') ],
	[ 'partial', '', 'field "payment_programs\[3\]\.program_id" is longer than 256 bytes',
		field('program_id', '"' . 'x' x (1 << 20) . '"') ],
	[ 'partial', '', 'field "note" contains \\\\u0000 or an unpaired surrogate',
		field('note', '{"b":["a\u0000b"]}') ],
	[ 'partial', '', 'program "[^"]+": nested more than 100 levels deep',
		field('note', '[' x 200_000 . ']' x 200_000) ],
	[ 'synced', '{start_date}', $unread, field('start_date', '"2026-02-30"') ],
	[ 'synced', '{program_metrics.billed_clicks}', $unread, field('program_metrics', '{"billed_clicks":1e300}') ])
{
	my ($status, $problems, $pattern, $action) = @$case;
	foreach my $offset (0, 20)
	{
		subtest "$pattern $problems: page at $offset" => sub {
			my $changed = $api->mutate(alter => 2);
			my $odd = $ids[$offset + 3];
			my $skipped = $status eq 'synced' ? ''
			  : "[^\\n]*: 1 program was skipped\\.  On the page at offset $offset, [^\\n]*";

			$api->faults({ match => { offset => $offset }, action => $action });
			my $result = $session->sync;
			my @updated = map { $_->{program_id} } grep { $_->{action} eq 'updated' } @{ $result->{rows} };
			my @warnings = grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };
			is_deeply([ grep { $_ ne $odd } sort @updated ], [ grep { $_ ne $odd } sort keys %{ $changed->{altered} } ], 'what changed on the page is stored');
			like(join("\n", map { "$_->{message}: " . ($_->{detail} // '') } @warnings), qr/\A$skipped$pattern.*\z/, 'one WARNING');
			is($session->value(YelpTest::last_run("status, (SELECT count(*) FROM yelp_programs),
				(SELECT problems FROM yelp_programs WHERE program_id = '$odd')")),
				"$status|$count|$problems", 'nothing is deleted');
			is(outcome($session->sync), '', 'a repeat finds nothing') if $status eq 'synced';
			$api->faults;
			is($session->sync->{error}, undef, 'the next sync works');
			is($session->value('SELECT count(*) FROM yelp_programs WHERE problems IS NOT NULL'), 0,
				'... and no problem is left');
		};
	}
}
table_is_listing('acme', 'the table in the end');
is($session->value('SELECT pg_backend_pid()'), $pid, 'all of this in one session');

# What is skipped is counted once, whatever is requested to see the end
$api->set_programs('acme', '{"program_id":"one"}', '{}', '{"program_id":7}', '{"program_id":"two"}');
foreach my $time (1 .. 3)
{
	my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $session->sync->{messages} };
	like($warning->{detail}, qr/^2 programs were skipped\./, "two programs are skipped, sync $time");
}

$session->end;
done_testing();
