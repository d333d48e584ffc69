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

sub field_bytes
{
	my ($path, $bytes) = @_;
	return { replace => { base64 => { "payment_programs.3.$path" => encode_base64($bytes, '') } } };
}

sub removed
{
	my ($path) = @_;
	return { replace => { remove => [$path] } };
}

sub cut_gzip
{
	my ($text) = @_;
	IO::Compress::Gzip::gzip(\$text => \my $zipped) or die 'gzip failed';
	return { respond => { base64 => encode_base64(substr($zipped, 0, 30), ''), headers => { 'Content-Encoding' => 'gzip' } } };
}

# ---- errors ----

# Cases: SQLSTATE, a pattern for the message, name, action, and optionally:
#   final     only one attempt is made
#   overload  attempts are not used up by pages that arrive meanwhile
#   options   of the server
#   new       no request is to use an existing connection
#   more      a pattern for detail and hint
my @not_json = ('22032', 'body is not JSON: ');
my @failed = ('08006', 'connection failed ');
my @not_page = ('HV021', '');
my @refused = ('HV000', '');
my @html = (headers => { 'Content-Type' => 'text/html' });
my $empty_page = '{"total":0,"payment_programs":[]}';
my @cases = (

	# Not JSON
	[ @not_json, 'it is empty', body('') ],
	[ @not_json, 'expected a value at byte 1\b', body('<html><body>Bad gateway</body></html>', @html),
		more => qr/status 200, content type "text\/html" and \d+ bytes that begin with "<html><body>Bad.*HINT:.*endpoint/s ],
	[ @not_json, 'truncated after 30 bytes', body('{"total":45,"payment_programs"') ],
	[ @not_json, 'more than one value at byte \d+', { replace => { suffix => ' garbage' } } ],
	[ @not_json, 'more than one value', { replace => { suffix => '{}' } } ],
	[ @not_json, 'expected a value at byte 1\b', { replace => { prefix => "\x{FEFF}" } } ],
	[ @not_json, 'raw control character at byte \d+', field_bytes('program_type', "\"C\tC\"") ],
	[ @not_json, 'NUL at byte \d+', field_bytes('program_type', "\"C\0C\"") ],
	[ @not_json, 'expected a value at byte \d+, in field "payment_programs\[3\]".*, program "%s"',
		field('program_metrics', '{"budget":NaN}') ],
	[ @not_json, 'truncated after 10 bytes', { raw => { text => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"total\":45}" } } ],

	# Not a complete response
	[ @failed, '', { close => { at => 0 } } ],
	[ @failed, '', { close => { at => 300 } }, more => qr/bytes (remaining|missing)/ ],
	[ @failed, '', { chunked_cut => { at => 300 } } ],
	# libcurl itself repeats a request that finds its old connection closed
	[ @failed, '', 'close', new => 1, overload => 1, more => qr/^DETAIL:  Empty reply from server\.  The URL was /m ],
	[ @failed, '', { raw => { text => "SSH-2.0-OpenSSH_9.2\r\n" } } ],
	[ @failed, '', { raw => { text => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}" } } ],
	[ '08006', 'could not decode the response body ', '', body($empty_page, headers => { 'Content-Encoding' => 'gzip' }) ],
	[ '08006', 'could not decode the response body ', '', cut_gzip('{"total":0}' . ' ' x 5000) ],
	[ '08006', 'timed out ', '', { drip => { every_ms => 1000 } }, overload => 1, options => { timeout => '300ms' },
		more => qr/timed out/i ],
	[ '08006', 'timed out ', '', { drip => { every_ms => 1000, headers => \1 } }, overload => 1,
		options => { timeout => '300ms' } ],

	# Too much
	[ '54000', 'body is larger than max_page_bytes ', '', { pad => { bytes => 1 << 20 } }, final => 1,
		options => { max_page_bytes => '512kB' }, more => qr/HINT:.*max_page_bytes/ ],
	[ '54000', 'body is larger than max_page_bytes ', '', { pad => { bytes => 1 << 26, encoding => 'gzip' } }, final => 1,
		overload => 1, options => { max_page_bytes => '1MB' }, more => qr/HINT:.*max_page_bytes/ ],
	[ '54000', 'response headers are larger than 256 kB ', '', 'endless_headers', final => 1, more => qr/\A(?!.*HINT)/s ],
	[ '54000', 'response headers are larger than 256 kB ', '',
		{ raw => { text => "HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" x 20_000 } }, final => 1 ],
	(map { [ '54000', 'field "total" is greater than 10000000 ', '', member('total', $_), final => 1 ] }
		'10000001', '1' . '0' x 30),

	# Not a page
	(map { [ @not_page, 'body is JSON, but not an object ', body($_) ] } 'null', '[]', '42'),
	[ @not_page, 'field "total" is missing ', removed('total') ],
	[ @not_page, 'field "total" is negative ', member('total', '-1') ],
	(map { [ @not_page, 'field "total" is not an integer ', member('total', $_) ] } 'null', '"45"', '45.5', '[45]'),
	[ @not_page, 'field "payment_programs" is missing ', removed('payment_programs') ],
	(map { [ @not_page, 'field "payment_programs" is not an array ', member('payment_programs', $_) ] } '{}', '"none"', '0'),
	[ @not_page, 'API reported an error ', body('{"error":{"id":"INTERNAL","description":"Something went wrong"}}'),
		more => qr/^DETAIL:  The API answered with HTTP status 200, "INTERNAL": Something went wrong\. /m ],
	[ @not_page, 'API reported an error ',
		member('program_status', '"ALL","errors":[{"id":"SHARD_3","description":"It did not answer"}]'),
		more => qr/"SHARD_3": It did not answer\. / ],
	[ @not_page, 'API reported an error ', member('program_status', '"ALL","error":"incomplete"'), more => qr/, "incomplete"\. / ],

	# Statuses
	(map { [ @refused, "HTTP status $_ ", status($_), final => 1, more => qr/HINT:.*Redirects/ ] } 301, 307, 308),
	[ @refused, 'HTTP status 302 ', status(302, '', Location => 'http://acme:s3cret@127.0.0.1:1/programs/v1?pw=s3cret'),
		final => 1, more => qr/, which redirects to "http:\/\/127\.0\.0\.1:1\/programs\/v1".*HINT:.*Redirects/s ],
	[ @refused, 'HTTP status 307 ', status(307, '', Location => $api->url), final => 1, more => qr/HINT:.*Redirects/ ],
	[ @refused, 'HTTP status 206 ', status(206), final => 1 ],
	(map { [ @refused, "HTTP status $_ ", status($_), final => 1,
			more => qr/The URL was http:\S+offset=\d+&.*HINT:.*endpoint/s ] } 404, 410),
	[ @refused, 'HTTP status 400 ', status(400, '{"error":{"id":"VALIDATION_ERROR","description":"limit: too large"}}'),
		final => 1, more => qr/HTTP status 400, "VALIDATION_ERROR": limit: too large\.  The URL was / ],
	[ @refused, 'HTTP status 400 ', status(400, '{"code":"BAD","message":"Bad request."}'), final => 1,
		more => qr/HTTP status 400, "BAD": Bad request\.  The URL was / ],
	[ @refused, 'HTTP status 500 ', status(500, '{"errors":[{"id":"INTERNAL","description":"Something went wrong"}]}'),
		more => qr/HTTP status 500, "INTERNAL": Something went wrong\.  The/ ],
	[ @refused, 'HTTP status 502 ', status(502, '<html>Bad gateway</html>'),
		more => qr/HTTP status 502, content type .* and 24 bytes that begin with "<html>Bad/ ],
	[ @refused, 'HTTP status 504 ', status(504, '{"error":{"code":"X-17","description":"a\nb"}}'),
		more => qr/HTTP status 504, "X-17": a b\.  The/ ]);

sub use_new_connections
{
	$api->config(connection_close => \1);
	$api->disconnect;
	connections_are($api, 0, 'new connections');
	return;
}

sub check_answer
{
	my ($offset, $sqlstate, $kind, $what, $action, %case) = @_;
	my $tries = $case{final} ? 1 : $attempts;
	# One at a time where one request is claimed: on a busy machine, a page may be requested twice
	my $options = { $case{final} ? (concurrency => 1) : (), %{ $case{options} // {} } };
	my $message = $kind . $what =~ s/%s/\Q$ids[$offset + 3]\E/r;

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
		check_answer(0, '28000', 'API rejected the credentials ', '',
			status($status, '{"error":{"id":"ACCESS_DENIED","description":"Denied."}}'), final => 1,
			options => { concurrency => 1 }, more => qr/HTTP status $status, "ACCESS_DENIED": Denied\.  The URL was .*\nHINT:  Check the username and the password of/);
	};
}
foreach my $number (0 .. $#cases)
{
	my ($sqlstate, $kind, $what, $action) = @{ $cases[$number] };
	my $name = "$sqlstate $kind$what, by " . substr $json->encode($action), 0, 60;
	foreach my $offset (0, 20)
	{
		subtest("$name: page at $offset", sub { check_answer($offset, @{ $cases[$number] }) });
	}
}

# ---- programs that cannot be stored, and fields that cannot be read ----

# A pattern for the WARNING's detail, or, where the program is stored, for problems; and the action.
# sql/columns.sql has all kinds of fields.
my @skipped = (
	[ 'field "payment_programs\[3\]" is not an object', member('payment_programs.3', 'null') ],
	[ 'field "payment_programs\[3\]\.program_id" is missing', removed('payment_programs.3.program_id') ],
	[ 'field "payment_programs\[3\]\.program_id" is not a string', field('program_id', '7') ],
	[ 'field "payment_programs\[3\]\.program_id" is longer than 256 bytes', field('program_id', '"' . 'x' x (1 << 20) . '"') ],
	# What no text or number of PostgreSQL can hold, in whatever member
	[ 'field "note" contains invalid UTF-8', field_bytes('note', "\"\xC3\x28\"") ],
	[ 'field "note" contains \\\\u0000 or an unpaired surrogate', field('note', '{"b":["a\u0000b"]}') ],
	[ 'field "program_type" contains .* an unpaired surrogate', field('program_type', '"\udc00\ud800"') ],
	# What it could hold, but nobody could read
	[ 'field "note" contains a number of more than 1000 digits', field('note', '{"a":[1e-9999]}') ],
	[ 'field "note" contains too many exponents', field('note', '[' . join(',', ('1e995') x 20) . ']') ],
	(map { [ 'program "[^"]+": nested more than 100 levels deep', field('note', '[' x $_ . ']' x $_) ] } 98, 200_000),
	[ 'program "[^"]+": contains more than 65536 values', field('note', '[0' . ',0' x 65_536 . ']') ]);
my @problems = (
	[ '{start_date}', field('start_date', '"2026-02-30"') ],
	[ '{program_metrics.budget}', field('program_metrics', '{"budget":12.5}') ],
	[ '{program_metrics.billed_clicks}', field('program_metrics', '{"billed_clicks":1e300}') ]);

# The other programs of the page are stored.
sub check_odd
{
	my ($offset, $action, $warning, $status) = @_;
	my $changed = $api->mutate(alter => 2);
	my $odd = $ids[$offset + 3];

	$api->faults({ match => { offset => $offset }, action => $action });
	my $result = $session->sync;
	is_deeply([ grep { $_ ne $odd } sort map { $_->{program_id} } grep { $_->{action} eq 'updated' } @{ $result->{rows} } ],
		[ grep { $_ ne $odd } sort keys %{ $changed->{altered} } ], 'what changed is stored');
	like(join("\n", map { "$_->{message}: " . ($_->{detail} // '') } grep { $_->{level} eq 'WARNING' } @{ $result->{messages} }),
		qr/\A$warning.*\z/, 'one WARNING');
	is($session->value(YelpTest::last_run("status, (SELECT count(*) FROM yelp_programs),
		(SELECT problems FROM yelp_programs WHERE program_id = '$odd')")), $status, 'nothing is deleted');
	is(outcome($session->sync), '', 'a repeat finds nothing') if $status =~ /synced/;
	$api->faults;
	is($session->sync->{error}, undef, 'the next sync works');
	is($session->value('SELECT count(*) FROM yelp_programs WHERE problems IS NOT NULL'), 0, '... and no problem is left');
	return;
}

foreach my $offset (0, 20)
{
	foreach my $case (@skipped)
	{
		my ($reason, $action) = @$case;
		subtest("skipped at $offset: $reason", sub {
			check_odd($offset, $action, qr/[^\n]*: 1 program was skipped\.  On the page at offset $offset, [^\n]*$reason/,
				"partial|$count|");
		});
	}
	foreach my $case (@problems)
	{
		my ($problems, $action) = @$case;
		subtest("a problem at $offset: $problems", sub {
			check_odd($offset, $action, qr/could not read all fields of 1 program of account "acme"/, "synced|$count|$problems");
		});
	}
}

# ---- unusual pages that are accepted ----

foreach my $case (
	[ 'white space around', { replace => { prefix => " \r\n\t", suffix => " \n" } } ],
	[ 'a total that occurs twice: the last one counts', member('program_status', '"ALL","total":1') ],
	[ 'errors that say nothing', member('program_status', '"ALL","errors":[],"error":null') ],
	[ 'unknown members of the page', member('program_status', '{"a":[[],{}]}') ],
	[ 'no program_status', removed('program_status') ],
	[ 'no offset and limit', { replace => { remove => [ 'offset', 'limit' ] } } ],
	[ 'a limit that is not a number', member('limit', '"forty"') ])
{
	my ($name, $action) = @$case;
	my $changed = $api->mutate(alter => 2);
	$api->faults({ match => { offset => 0 }, action => $action });
	my $result = $session->sync;
	is_deeply([ sort map { $_->{program_id} } @{ $result->{rows} } ], [ sort keys %{ $changed->{altered} } ], "$name: accepted");
}
$api->faults({ match => { offset => 0 }, action => field('program_type', '"FIRST","program_type":"SECOND"') });
$session->sync;
is($session->value("SELECT program_type, data->>'program_type' FROM yelp_programs WHERE program_id = '$ids[3]'"),
	'SECOND|SECOND', 'a field that occurs twice: the last one counts');
$api->faults;
$session->sync;
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
