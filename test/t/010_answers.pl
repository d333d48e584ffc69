# Bad answers, as the first page and as a later one: the error for each; the tables
# are unchanged, and the session can still be used.
use strict;
use warnings FATAL => 'all';

use IO::Compress::Gzip ();
use MIME::Base64 qw(encode_base64);
use Test::More;

use YelpSession;
use YelpTest;

my $attempts = 3;
my $count = 45;
my ($node, $api) = YelpTest::start();
my $session = YelpSession->new($node);

$session->options(
	page_size => 20,
	attempts => $attempts,
	retry_delay => '1ms',
	retry_max_delay => '2ms',
	max_retry_after => '1ms');
$api->config(accounts => { acme => { count => $count } });
is($session->sync->{error}, undef, 'first sync');
my @ids = map { $_->{program_id} } $api->programs;

# Actions

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

# The same of its program number 3
sub field
{
	my ($path, $text) = @_;
	return member("payment_programs.3.$path", $text);
}

sub field_bytes
{
	my ($path, $bytes) = @_;
	return { replace => {
		base64 => { "payment_programs.3.$path" => encode_base64($bytes, '') } } };
}

sub removed
{
	my ($path) = @_;
	return { replace => { remove => [$path] } };
}

sub gzipped
{
	my ($text) = @_;
	IO::Compress::Gzip::gzip(\$text => \my $zipped) or die 'gzip failed';
	return $zipped;
}

# Cases: name, SQLSTATE, a pattern for the message, action, and optionally:
#   retried   all attempts are made
#   program   the message must name program number 3
#   options   of the server
#   overload   attempts are not used up by pages that arrive meanwhile
#   new_connections   no request is to use one that is there already
#   detail, hint   patterns; a hint of undef: there must be none
my @cases = (

	# No JSON: broken on its way, perhaps
	[ 'empty body', '22032', qr/body is not JSON: it is empty/, body(''), retried => 1 ],
	[ 'HTML', '22032', qr/body is not JSON: expected a value at byte 1\b/,
		body('<html><body>Bad gateway</body></html>', headers => { 'Content-Type' => 'text/html' }),
		retried => 1 ],
	[ 'JSON that breaks off', '22032', qr/body is not JSON: truncated after 30 bytes/,
		body('{"total":45,"payment_programs"'), retried => 1 ],
	[ 'trailing garbage', '22032', qr/body is not JSON: more than one value at byte \d+/,
		{ replace => { suffix => ' garbage' } }, retried => 1 ],
	[ 'two pages in one', '22032', qr/body is not JSON: more than one value/,
		{ replace => { suffix => '{}' } }, retried => 1 ],
	[ 'byte order mark', '22032', qr/body is not JSON: expected a value at byte 1\b/,
		{ replace => { prefix => "\x{FEFF}" } }, retried => 1 ],
	[ 'raw control character', '22032', qr/body is not JSON: raw control character at byte \d+/,
		field_bytes('program_type', "\"C\tC\""), retried => 1 ],
	[ 'raw NUL', '22032', qr/body is not JSON: NUL at byte \d+/,
		field_bytes('program_type', "\"C\0C\""), retried => 1 ],
	[ 'NaN', '22032', qr/body is not JSON: expected a value at byte \d+, in field "payment_programs\[3\]"/,
		field('program_metrics', '{"budget":NaN}'), retried => 1, program => 1 ],

	# No whole answer
	[ 'body cut at its beginning', '08006', qr/: connection failed /, { close => { at => 0 } },
		retried => 1 ],
	[ 'body cut in its middle', '08006', qr/: connection failed /, { close => { at => 300 } },
		retried => 1, detail => qr/bytes (remaining|missing)/ ],
	[ 'chunked body cut', '08006', qr/: connection failed /, { chunked_cut => { at => 300 } },
		retried => 1 ],
	# libcurl itself repeats a request that finds its old connection closed: so use none
	[ 'no answer', '08006', qr/: connection failed /, 'close', retried => 1,
		detail => qr/^Empty reply from server\.  The URL was /, new_connections => 1, overload => 1 ],
	[ 'no HTTP', '08006', qr/: connection failed /, { raw => { text => "SSH-2.0-OpenSSH_9.2\r\n" } },
		retried => 1 ],
	[ 'bad chunks', '08006', qr/: connection failed /,
		{ raw => { text => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}" } },
		retried => 1 ],
	[ 'no gzip', '08006', qr/: could not decode the response body /,
		body('{"total":0,"payment_programs":[]}', headers => { 'Content-Encoding' => 'gzip' }),
		retried => 1 ],
	[ 'gzip that breaks off', '08006', qr/: could not decode the response body /,
		{ respond => { base64 => encode_base64(substr(gzipped('{"total":0}' . ' ' x 5000), 0, 30), ''),
			headers => { 'Content-Encoding' => 'gzip' } } },
		retried => 1 ],
	[ 'more than Content-Length tells', '22032', qr/body is not JSON: truncated after 10 bytes/,
		{ raw => { text => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"total\":45}" } },
		retried => 1 ],
	[ 'a byte a second', '08006', qr/: timed out \(attempt \d of \d, stage receive\)/,
		{ drip => { every_ms => 1000 } }, retried => 1, overload => 1,
		options => { timeout => '300ms' }, detail => qr/timed out/i ],
	[ 'headers, a byte a second', '08006', qr/: timed out \(attempt \d of \d, stage receive\)/,
		{ drip => { every_ms => 1000, headers => \1 } }, retried => 1, overload => 1,
		options => { timeout => '300ms' } ],

	# Too much
	[ 'body over max_page_bytes', '54000', qr/: body is larger than max_page_bytes /,
		{ pad => { bytes => 1 << 20 } }, options => { max_page_bytes => '512kB' },
		hint => qr/max_page_bytes/ ],
	[ 'gzip bomb', '54000', qr/: body is larger than max_page_bytes /,
		{ pad => { bytes => 1 << 26, encoding => 'gzip' } }, overload => 1,
		options => { max_page_bytes => '1MB' }, hint => qr/max_page_bytes/ ],
	[ 'endless headers', '54000', qr/: response headers are larger than 256 kB /, 'endless_headers',
		hint => undef ],
	[ 'endless interim answers', '54000', qr/: response headers are larger than 256 kB /,
		{ raw => { text => "HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" x 20_000 } }, hint => undef ],
	[ 'huge total', '54000', qr/field "total" is greater than 10000000 /, member('total', '10000001') ],
	[ 'total beyond bigint', '54000', qr/field "total" is greater than 10000000 /,
		member('total', '1' . '0' x 30) ],

	# No page
	(map { [ "body $_", 'HV021', qr/: body is JSON, but not an object /, body($_), retried => 1 ] }
		'null', '[]', '"text"', '42', 'true'),
	[ 'total missing', 'HV021', qr/: field "total" is missing /, removed('total'), retried => 1 ],
	[ 'negative total', 'HV021', qr/: field "total" is negative /, member('total', '-1'), retried => 1 ],
	(map { [ "total $_", 'HV021', qr/: field "total" is not an integer /, member('total', $_), retried => 1 ] }
		'null', '"45"', '45.5', '[45]', '{}', 'true'),
	[ 'programs missing', 'HV021', qr/: field "payment_programs" is missing /,
		removed('payment_programs'), retried => 1 ],
	(map { [ "programs $_", 'HV021', qr/: field "payment_programs" is not an array /,
			member('payment_programs', $_), retried => 1 ] }
		'{}', '"none"', '0'),
	[ 'an error with status 200', 'HV021', qr/: API reported an error /,
		body('{"error":{"id":"INTERNAL","description":"Something went wrong"}}'), retried => 1,
		detail => qr/^The API answered with HTTP status 200, "INTERNAL": Something went wrong\. / ],
	[ 'errors beside a list', 'HV021', qr/: API reported an error /,
		member('program_status', '"ALL","errors":[{"id":"SHARD_3","description":"It did not answer"}]'),
		retried => 1, detail => qr/^The API answered with HTTP status 200, "SHARD_3": It did not answer\. / ],
	[ 'an error beside a list', 'HV021', qr/: API reported an error /,
		member('program_status', '"ALL","error":"incomplete"'),
		retried => 1, detail => qr/^The API answered with HTTP status 200, "incomplete"\. / ],
	[ 'a login page', '22032', qr/: body is not JSON: /,
		body('<html><title>Log in</title></html>', headers => { 'Content-Type' => 'text/html' }),
		retried => 1, hint => qr/endpoint/, detail =>
		  qr/status 200, content type "text\/html" and \d+ bytes that begin with "<html><title>Log in/ ],

	# Statuses
	(map { [ "status $_", 'HV000', qr/: HTTP status $_ /, status($_), hint => qr/Redirects/ ] }
		301, 302, 303, 307, 308),
	[ 'redirect elsewhere', 'HV000', qr/: HTTP status 302 /,
		status(302, '', Location => 'http://acme:s3cret@127.0.0.1:1/programs/v1?pw=s3cret'), hint => qr/Redirects/,
		detail => qr/, which redirects to "http:\/\/127\.0\.0\.1:1\/programs\/v1"/ ],
	[ 'redirect to itself', 'HV000', qr/: HTTP status 307 /,
		status(307, '', Location => $api->url), hint => qr/Redirects/ ],
	(map { [ "status $_", 'HV000', qr/: HTTP status $_ /, status($_) ] } 206),
	(map { [ "status $_", 'HV000', qr/: HTTP status $_ /, status($_), hint => qr/endpoint/,
			detail => qr/The URL was http:\S+offset=\d+&/ ] } 404, 410),
	[ 'status 400', 'HV000', qr/: HTTP status 400 /,
		status(400, '{"error":{"id":"VALIDATION_ERROR","description":"limit: too large"}}'),
		detail => qr/HTTP status 400, "VALIDATION_ERROR": limit: too large\.  The URL was / ],
	[ 'an error by a gateway', 'HV000', qr/: HTTP status 400 /,
		status(400, '{"code":"BAD","message":"Bad request."}'),
		detail => qr/HTTP status 400, "BAD": Bad request\.  The URL was / ],
	[ 'status 500', 'HV000', qr/: HTTP status 500 /,
		status(500, '{"errors":[{"id":"INTERNAL","description":"Something went wrong"}]}'),
		retried => 1, detail => qr/HTTP status 500, "INTERNAL": Something went wrong\.  The/ ],
	[ 'status 502 with HTML', 'HV000', qr/: HTTP status 502 /,
		status(502, '<html>Bad gateway</html>'), retried => 1,
		detail => qr/HTTP status 502, content type .* and 24 bytes that begin with "<html>Bad/ ],
	[ 'error with a code', 'HV000', qr/: HTTP status 504 /,
		status(504, '{"error":{"code":"X-17","description":"a\nb"}}'), retried => 1,
		detail => qr/HTTP status 504, "X-17": a b\.  The/ ],
);

# Programs that cannot be stored: name, the WARNING's reason, action
my @skipped = (
	[ 'program null', qr/field "payment_programs\[3\]" is not an object/, member('payment_programs.3', 'null') ],
	[ 'id missing', qr/field "payment_programs\[3\]\.program_id" is missing/,
		removed('payment_programs.3.program_id') ],
	[ 'id 7', qr/field "payment_programs\[3\]\.program_id" is not a string/, field('program_id', '7') ],
	[ 'id of a megabyte', qr/field "payment_programs\[3\]\.program_id" is longer than 256 bytes/,
		field('program_id', '"' . 'x' x (1 << 20) . '"') ],

	# What no text or number of PostgreSQL's can hold, in whatever member
	[ 'invalid UTF-8', qr/field "note" contains invalid UTF-8/,
		field_bytes('note', "\"\xC3\x28\"") ],
	[ 'NUL escape', qr/field "note" contains \\u0000 or an unpaired surrogate/,
		field('note', '{"b":["a\u0000b"]}') ],
	[ 'surrogates turned around', qr/field "program_type" contains .* an unpaired surrogate/,
		field('program_type', '"\udc00\ud800"') ],

	# What it could hold, but nobody could read
	[ 'number of 10,000 digits', qr/field "note" contains a number of more than 1000 digits/,
		field('note', '{"a":[1e-9999]}') ],
	[ 'numbers of 999 digits each', qr/field "note" contains too many exponents/,
		field('note', '[' . join(',', ('1e995') x 20) . ']') ],
	[ 'nesting 101 deep', qr/program "[^"]+": nested more than 100 levels deep/,
		field('note', '[' x 98 . ']' x 98) ],
	[ 'nesting 200,000 deep', qr/program "[^"]+": nested more than 100 levels deep/,
		field('note', '[' x 200_000 . ']' x 200_000) ],
	[ '65,536 values', qr/program "[^"]+": contains more than 65536 values/,
		field('note', '[0' . ',0' x 65_536 . ']') ],
);

# Fields that cannot be read: name, what problems tells, action; sql/columns.sql has all of them
my @problems = (
	[ 'start_date of February 30', qr/^start_date$/, field('start_date', '"2026-02-30"') ],
	[ 'budget of half a cent', qr/^program_metrics\.budget$/, field('program_metrics', '{"budget":12.5}') ],
	[ 'clicks of 1e300', qr/^program_metrics\.billed_clicks$/,
		field('program_metrics', '{"billed_clicks":1e300}') ],
);

# What is stored, with each row's place and version
my $state = q{SELECT md5(string_agg(p.ctid || p.xmin::text || p::text, ';' ORDER BY program_id))
	FROM yelp_programs p
	UNION ALL SELECT md5(string_agg(r::text, ';' ORDER BY finished_at)) FROM yelp_sync_runs r};

# The first page is to come first: a later one that is refused before any page
# told the total may be asked for twice.
my $expect_one_page = 'UPDATE yelp_sync_runs SET listed = 1';

sub use_new_connections
{
	$api->config(connection_close => \1);
	$api->disconnect;
	$api->poll_until(sub { $api->counters->{open_connections} == 0 }, 'connections to close');
	return;
}

sub check_hint
{
	my ($result, $hint) = @_;
	return is($result->{hint}, undef, 'there is no hint') unless defined $hint;
	return like($result->{hint}, $hint, 'the hint');
}

sub check_answer
{
	my ($offset, $sqlstate, $message, $action, %more) = @_;
	my $tries = $more{retried} ? $attempts : 1;
	my $options = $more{options} // {};

	$session->run($expect_one_page);
	$session->options(%$options) if %$options;
	my $before = $session->value($state);
	my $changed = $api->mutate(alter => 2);
	$api->reset('counters');
	use_new_connections() if $more{new_connections};
	$api->faults({ match => { offset => $offset }, action => $action });

	my $failed = $session->sync;
	is($failed->{sqlstate}, $sqlstate, 'the SQLSTATE');
	like($failed->{error}, qr/^could not fetch the page at offset $offset of account "acme": /,
		'the page and the account');
	like($failed->{error}, $message, 'the message');
	like($failed->{error}, qr/ \(attempt $tries of $attempts, stage receive\)$/,
		'the attempt and the stage');
	like($failed->{error}, qr/, program "\Q$ids[$offset + 3]\E" \(/, 'the program')
	  if $more{program};
	like($failed->{detail}, $more{detail}, 'the detail') if $more{detail};
	check_hint($failed, $more{hint}) if exists $more{hint};
	my $most = $tries + ($more{overload} ? 3 : 0);
	my $requests = $api->requests_at($offset);
	ok($requests >= $tries && $requests <= $most, "$tries requests") or diag($requests);
	is($session->value($state), $before, 'the tables are as before');

	$api->faults;
	$api->config(connection_close => \0);
	$session->options(map { $_ => undef } keys %$options);
	my $next = $session->sync;
	is($next->{error}, undef, 'the next sync in this session works');
	is_deeply([ sort map { $_->{program_id} } @{ $next->{rows} } ],
		[ sort keys %{ $changed->{altered} } ], '... and brings what had changed');
	return;
}

# Before anything else has been answered
foreach my $status (401, 403)
{
	subtest "status $status" => sub {
		check_answer(0, '28000', qr/API rejected the credentials /,
			status($status, '{"error":{"id":"ACCESS_DENIED","description":"Denied."}}'),
			options => { concurrency => 1 },
			detail => qr/HTTP status $status, "ACCESS_DENIED": Denied\.  The URL was /,
			hint => qr/^Check the username and the password of the user mapping\.$/);
	};
}

my $pid = $session->value('SELECT pg_backend_pid()');
foreach my $case (@cases)
{
	my ($name, @how) = @$case;
	subtest("$name: first page", sub { check_answer(0, @how) });
	subtest("$name: later page", sub { check_answer(20, @how) });
}

# One odd program stops nothing else: what is on its page is stored.
sub sync_with
{
	my ($offset, $action) = @_;
	my $changed = $api->mutate(alter => 2);
	my $odd = $ids[$offset + 3];

	$api->faults({ match => { offset => $offset }, action => $action });
	my $result = $session->sync;
	is($result->{error}, undef, 'no error');
	is_deeply([ grep { $_ ne $odd } sort map { $_->{program_id} }
			grep { $_->{action} eq 'updated' } @{ $result->{rows} } ],
		[ grep { $_ ne $odd } sort keys %{ $changed->{altered} } ], 'what changed is stored');
	return $result;
}

sub check_skipped
{
	my ($offset, $reason, $action) = @_;
	my $result = sync_with($offset, $action);
	my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $result->{messages} };

	like($warning->{detail}, qr/^1 program was skipped\.  On the page at offset $offset, /,
		'a WARNING tells where');
	like($warning->{detail}, $reason, '... and why');
	is($session->value('SELECT count(*) FROM yelp_programs'), $count, 'nothing is deleted');
	is($session->value(YelpTest::last_run('status')),
		'partial', 'the sync is partial');
	$api->faults;
	is($session->sync->{error}, undef, 'the next sync works');
	return;
}

sub check_problem
{
	my ($offset, $field, $action) = @_;
	my $result = sync_with($offset, $action);

	is(scalar @{ $result->{warnings} }, 1, 'one WARNING');
	like($result->{warnings}[0], qr/^could not read all fields of 1 program of account "acme"/,
		'... that sums up');
	like($session->value("SELECT array_to_string(problems, ',') FROM yelp_programs
			WHERE program_id = '$ids[$offset + 3]'"), $field, 'the column problems');
	is(@{ $session->sync->{rows} }, 0, 'a repeat finds nothing new');
	$api->faults;
	is($session->sync->{error}, undef, 'the next sync works');
	is($session->value('SELECT count(*) FROM yelp_programs WHERE problems IS NOT NULL'), 0,
		'... and there is no problem left');
	return;
}

foreach my $offset (0, 20)
{
	foreach my $case (@skipped)
	{
		my ($name, @how) = @$case;
		subtest("$name: skipped at $offset", sub { check_skipped($offset, @how) });
	}
	foreach my $case (@problems)
	{
		my ($name, @how) = @$case;
		subtest("$name: a problem at $offset", sub { check_problem($offset, @how) });
	}
}

is($session->value('SELECT pg_backend_pid()'), $pid, 'all of it in one session');

# Odd answers that are none the worse for it

sub check_accepted
{
	my ($name, $action) = @_;
	my $changed = $api->mutate(alter => 2);
	$api->faults({ match => { offset => 0 }, action => $action });
	my $result = $session->sync;
	is($result->{error}, undef, "$name: accepted");
	is(@{ $result->{rows} }, keys %{ $changed->{altered} }, '... and brings what had changed');
	$api->faults;
	return;
}

check_accepted('white space around', { replace => { prefix => " \r\n\t", suffix => " \n" } });
check_accepted('a total that comes twice: the last counts',
	member('program_status', '"ALL","total":1'));
check_accepted('errors that say nothing', member('program_status', '"ALL","errors":[],"error":null'));
check_accepted('unknown members of the page', member('program_status', '{"a":[[],{}]}'));
check_accepted('no program_status', removed('program_status'));
check_accepted('no offset and limit', { replace => { remove => [ 'offset', 'limit' ] } });
check_accepted('a limit that is none', member('limit', '"forty"'));

# Members that come twice: the last one counts, as in jsonb
$api->faults({ match => { offset => 0 },
	action => field('program_type', '"FIRST","program_type":"SECOND"') });
is($session->sync->{error}, undef, 'a field that comes twice: accepted');
is( $session->value("SELECT program_type, data->>'program_type' FROM yelp_programs
		WHERE program_id = '$ids[3]'"),
	'SECOND|SECOND', '... and the last one counts');
$api->faults;
is($session->sync->{error}, undef, 'and back');
YelpTest::table_is_listing($node, $api, 'acme', 'at the end the table holds what is listed');

# What is skipped is counted once, whatever is asked for to see the end
$api->set_programs('acme', '{"program_id":"one"}', '{}', '{"program_id":7}', '{"program_id":"two"}');
foreach my $time (1 .. 3)
{
	my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $session->sync->{messages} };
	like($warning->{detail}, qr/^2 programs were skipped\./, "two programs are skipped, time $time");
}

$session->end;
done_testing();
