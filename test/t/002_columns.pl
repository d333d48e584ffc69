# From the API's JSON to the columns: each value, in every encoding.
use strict;
use warnings FATAL => 'all';
use utf8;

use Encode ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(server => { max_deleted => '100%' });
my $json = JSON::PP->new->canonical;
my $sync;

# The lines that a query returns, as strings of characters
sub values_of
{
	my ($sql, %options) = @_;
	return YelpTest::must_run($node, $sql, %options)->{stdout} =~ s/\n\z//r;
}

# One program with these members beside its id
sub program
{
	my ($id, $members) = @_;
	return qq({"program_id":"$id") . ($members ? ",$members" : '') . '}';
}

sub metrics
{
	my ($id, $members) = @_;
	return program($id, qq("program_metrics":{$members}));
}

note 'realistic programs: 1,913 in 96 pages';

$sync = YelpTest::sync($node, 'acme');
is($sync->{sqlstate} // '', '', 'no error');
is(scalar(grep { $_->{action} eq 'added' && !defined $_->{changed} } @{ $sync->{rows} }),
	1913, 'all are added');
is(scalar(@{ $sync->{rows} }), 1913, 'and no other row');
is_deeply(
	[ sort map { $_->{program_id} } @{ $sync->{rows} } ],
	[ sort map { $_->{program_id} } @{ $json->decode($api->programs_json('acme')) } ],
	"the rows name the listing's programs");
YelpTest::table_is_listing($node, $api, 'acme', 'every column of every row is right');
is($api->counters->{requests}, 96, 'each page was asked for once');

# What the comparison stands on: the listing has what it is to prove
is( values_of(
		q{SELECT count(*) FILTER (WHERE budget IS NULL) > 100, count(*) FILTER (WHERE budget > 0) > 100,
		count(*) FILTER (WHERE max_bid IS NULL AND budget IS NOT NULL) > 100,
		count(*) FILTER (WHERE end_date = '9999-12-31') > 100, count(*) FILTER (WHERE end_date IS NULL) > 10,
		count(*) FILTER (WHERE start_date IS NULL) > 10,
		count(*) FILTER (WHERE jsonb_array_length(data->'businesses') > 1) > 10,
		count(*) FILTER (WHERE jsonb_array_length(data->'businesses') = 0
			AND yelp_business_id IS NULL) > 10,
		count(*) FILTER (WHERE partner_business_id LIKE 'Łódź-%') > 10,
		count(*) FILTER (WHERE active_features IS NULL) > 10,
		count(*) FILTER (WHERE active_features = '{}') > 10,
		count(*) FILTER (WHERE data->>'note' = 'crêpes & 🥞') > 10,
		count(DISTINCT program_type) >= 10, count(*) FILTER (WHERE is_autobid) > 10,
		count(*) FILTER (WHERE NOT is_autobid) > 10,
		count(*) FILTER (WHERE program_pause_status IS NULL) > 10,
		bool_and(data->>'program_id' = program_id)
		FROM yelp_programs}),
	join('|', ('t') x 17),
	'these were programs of all kinds');
like($api->programs_json('acme'), qr/\\ud83e\\udd5e/, 'with surrogate pairs, escaped');
like($api->programs_json('acme'), qr/\xf0\x9f\xa5\x9e/, 'and the same in UTF-8');

note 'values at the edges';

my @edges = (
	[ 'nothing at all', program('nothing'), {} ],
	[ 'null everywhere', program('nulls', join(',', map { "\"$_\":null" } qw(program_type
				program_status program_pause_status start_date end_date program_metrics
				businesses active_features available_features))), {} ],
	[ 'null metrics', metrics('null_metrics', join(',', map { "\"$_\":null" } qw(budget max_bid ad_cost
				currency fee_period is_autobid billed_impressions billed_clicks))), {} ],
	[ 'empty objects and lists', program('empty',
			q("program_metrics":{},"businesses":[],"active_features":[],"available_features":[])),
		{ active_features => '{}', available_features => '{}' } ],
	[ 'an empty business', program('empty_business', q("businesses":[{}])), {} ],
	[ 'the first of businesses', program('businesses',
			q("businesses":[{"partner_business_id":"p1"},{"yelp_business_id":"y2","partner_business_id":"p2"}])),
		{ partner_business_id => 'p1' } ],
	[ 'one cent', metrics('cent', '"budget":1,"max_bid":0,"ad_cost":99'),
		{ budget => '0.01', max_bid => '0.00', ad_cost => '0.99' } ],
	[ 'the most and the least money', metrics('money',
			'"budget":99999999999999,"max_bid":-99999999999999,"ad_cost":-7'),
		{ budget => '999999999999.99', max_bid => '-999999999999.99', ad_cost => '-0.07' } ],
	[ 'the largest counts', metrics('counts', '"billed_impressions":9223372036854775807,"billed_clicks":0'),
		{ billed_impressions => '9223372036854775807', billed_clicks => '0' } ],
	[ 'true and false', metrics('true', '"is_autobid":true'), { is_autobid => 't' } ],
	[ 'false', metrics('false', '"is_autobid":false'), { is_autobid => 'f' } ],
	[ 'days', program('days', '"start_date":"2024-02-29","end_date":"9999-12-31"'),
		{ start_date => '2024-02-29', end_date => '9999-12-31' } ],
	[ 'features of the future', program('features',
			q("active_features":["A,B","\"q\"","","NULL","{}","ÜBER"])),
		{ active_features => q({"A,B","\"q\"","","NULL","{}",ÜBER}) } ],
	[ 'escapes', program('escapes',
			q("program_type":"\u0041\"\\\\\/\b\f\n\r\t","program_status":"\u00e9\u20AC\ud83e\udd5e")),
		{ program_type => "A\"\\/\b\f\n\r\t", program_status => 'é€🥞' } ],
	[ 'texts of other alphabets', program('texts',
			q("program_type":"寿司","program_status":"Ελληνικά","program_pause_status":"e\u0301 🥞")),
		{ program_type => '寿司', program_status => 'Ελληνικά', program_pause_status => "e\x{301} 🥞" } ],
	[ 'a key that is escaped', program('key', q("program_ty\u0070e":"CPC")), { program_type => 'CPC' } ],
	[ 'a key twice: the last one wins', program('twice', q("program_type":"BP","program_type":"CPC")),
		{ program_type => 'CPC' } ],
	[ 'what only looks like a column', program('looks',
			q("x":{"program_type":"no","program_id":"no"},"budget":5,"yelp_business_id":"no","username":"no")), {} ],
	[ 'deep unknown fields', program('deep', '"deep":' . ('[' x 50) . '{"a":1.10}' . (']' x 50)), {} ],
	[ 'an odd id', program(q(o'dd \\\\ \" id é)), {}, q(o'dd \ " id é) ],
	[ 'spaces', " {\n\t\"program_id\" : \"spaces\" , \"program_type\" :\r\n \"CPC\" } ",
		{ program_type => 'CPC' }, 'spaces' ],
);
my @typed = qw(program_type program_status program_pause_status start_date end_date
  yelp_business_id partner_business_id budget max_bid ad_cost currency fee_period is_autobid
  billed_impressions billed_clicks active_features available_features);

# The stand-in takes the texts as characters and serves them in UTF-8
$api->config(accounts => { acme => { count => 1 } });
$api->set_programs('acme', map { $_->[1] } @edges);
$sync = YelpTest::sync($node, 'acme');
is($sync->{sqlstate} // '', '', 'the edges: no error') or diag($sync->{stderr});
YelpTest::table_is_listing($node, $api, 'acme', 'the edges: the table');
foreach my $edge (@edges)
{
	my ($name, $text, $expected, $id) = @$edge;
	my $row = values_of(
		'SELECT row_to_json(r) FROM (SELECT ' . join(', ', map { "$_\::text" } @typed)
		. ' FROM yelp_programs WHERE program_id = '
		. YelpTest::literal($id // $json->decode($text)->{program_id}) . ') AS r');
	my $got = $row ? $json->decode($row) : { row => 'none' };
	delete @$got{ grep { !defined $got->{$_} } keys %$got };
	my %wanted = map {
		$_ => $expected->{$_} eq 't' ? 'true' : $expected->{$_} eq 'f' ? 'false' : $expected->{$_}
	} keys %$expected;
	is_deeply($got, \%wanted, $name);
}
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 0, 'the edges: a repeat finds nothing');

note 'values that no column can hold';

# A field that cannot be read is a problem, and its column NULL
foreach my $bad (
	[ 'a text for a number', metrics('bad', '"budget":"12"'), 'program_metrics.budget' ],
	[ 'half a cent', metrics('bad', '"budget":12.5'), 'program_metrics.budget' ],
	[ 'money beyond numeric(14,2)', metrics('bad', '"budget":100000000000000'), 'program_metrics.budget' ],
	[ 'an impossible day', program('bad', '"start_date":"2023-02-29"'), 'start_date' ],
	[ 'no day', program('bad', '"start_date":"","end_date":""'), 'start_date,end_date' ],
	[ 'infinity for a day', program('bad', '"start_date":"infinity"'), 'start_date' ],
	[ 'a day as a number', program('bad', '"start_date":20240101'), 'start_date' ],
	[ 'a count beyond bigint', metrics('bad', '"billed_clicks":9223372036854775808'),
		'program_metrics.billed_clicks' ],
	[ 'a text for a boolean', metrics('bad', '"is_autobid":"yes"'), 'program_metrics.is_autobid' ],
	[ 'a number for a text', program('bad', '"program_type":5'), 'program_type' ],
	[ 'a list for an object', program('bad', '"program_metrics":[]'), 'program_metrics' ],
	[ 'an object for a list', program('bad', '"businesses":{}'), 'businesses' ],
	[ 'a text for a business', program('bad', '"businesses":["x"]'), 'businesses' ],
	[ 'a number for a business id', program('bad', '"businesses":[{"yelp_business_id":1}]'),
		'businesses[0].yelp_business_id' ],
	[ 'a number in a list of texts', program('bad', '"active_features":["a",1]'), 'active_features' ],
	[ 'numbers that are whole', metrics('bad', '"budget":100.0,"max_bid":1e2,"billed_clicks":5.0'), '' ])
{
	my ($name, $text, $problems) = @$bad;

	$api->set_programs('acme', (map { program("good$_") } 1 .. 20), $text);
	my $result = YelpTest::sync($node, 'acme');
	is($result->{error}, undef, "$name: no error");
	is(values_of(q{SELECT array_to_string(problems, ',') FROM yelp_programs WHERE program_id = 'bad'}),
		$problems, "$name: the problems");
	is(values_of(q{SELECT count(*) FROM yelp_programs}), 21, "$name: all others are stored");
}
is(values_of(q{SELECT budget, max_bid, billed_clicks FROM yelp_programs WHERE program_id = 'bad'}),
	'1.00|1.00|5', 'whole numbers are read by their value');

# What cannot be stored is skipped
foreach my $bad (
	[ 'NUL in a text', program('bad', '"program_type":"a\u0000b"') ],
	[ 'NUL in an unknown field', program('bad', '"unknown":"a\u0000b"') ],
	[ 'half a surrogate pair', program('bad', '"program_type":"\ud83e"') ],
	[ 'a monstrous exponent', metrics('bad', '"budget":1e400000') ],
	[ 'no id', '{"program_type":"CPC"}' ],
	[ 'null for an id', '{"program_id":null}' ],
	[ 'an empty id', '{"program_id":""}' ],
	[ 'no object at all', '["bad"]' ])
{
	my ($name, $text) = @$bad;

	$api->set_programs('acme', (map { program("good$_") } 1 .. 20), $text);
	my $result = YelpTest::sync($node, 'acme');
	is($result->{error}, undef, "$name: no error");
	like($result->{stderr}, qr/1 program was skipped\.  On the page at offset 20, /, "$name: a WARNING");
	is(values_of(q{SELECT count(*) FROM yelp_programs}), 21, "$name: nothing is deleted");
}

note 'odd names';

my @names = (
	[ '0il7Tv&R$#6\\', 's3cret' ],
	[ q(it's "quoted"), q(pass'"word\\) ],
	[ 'naïve — Łódź 寿司 🥞', 'pä$$wörd: 寿司 🥞' ],
	[ 'in spaces', ' ' ],
	[ '%20+&=?#/', '::' ],
	[ '$1; DROP TABLE yelp_programs', '%s%n' ],
);
foreach my $number (0 .. $#names)
{
	my ($username, $password) = @{ $names[$number] };
	my $name = Encode::encode('UTF-8', $username);
	my $url = $api->url;

	$api->config(accounts => { $username => { password => $password, count => 25 } });
	YelpTest::must_run($node,
		YelpTest::create_server("yelp$number", endpoint => $url, username => $username, password => $password));
	$sync = YelpTest::sync($node, $username);
	is($sync->{sqlstate} // '', '', "$name: no error") or diag($sync->{stderr});
	is(scalar(@{ $sync->{rows} }), 25, "$name: its programs");
	YelpTest::table_is_listing($node, $api, $username, "$name: its table");
	my ($start) = @{ $sync->{notices} };
	is($start, qq(yelp_sync: start: account "$username" on server "yelp$number"),
		"$name: as the notice has it");
	$sync = YelpTest::sync($node, $username, 'yelp_sync.progress' => 'json');
	is($json->decode($sync->{notices}[0])->{message},
		qq(start: account "$username" on server "yelp$number"), "$name: in JSON");
	$sync = YelpTest::sync($node, $username);
	is(scalar(@{ $sync->{rows} }), 0, "$name: a repeat finds nothing");
}

note 'other encodings';

foreach my $encoding (qw(LATIN1 SQL_ASCII))
{
	my $database = lc $encoding;
	$node->safe_psql('postgres',
		"CREATE DATABASE $database ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	my $refused = YelpTest::run($node, 'CREATE EXTENSION yelp_sync', database => $database);    # should fail
	is($refused->{sqlstate}, '0A000', "$encoding: no extension");
	is($refused->{error}, 'yelp_sync needs a database whose encoding is UTF8', "$encoding: says why");
	is($refused->{detail}, "The encoding of this database is $encoding.", "$encoding: and which it is");
	like($refused->{hint}, qr/ENCODING 'UTF8'/, "$encoding: and what to do");
}
$node->safe_psql('postgres', 'CREATE DATABASE changed');
YelpTest::install($node, $api, database => 'changed');
$node->safe_psql('postgres', q{UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1') WHERE datname = 'changed'});
is(YelpTest::sync($node, 'acme', database => 'changed')->{sqlstate}, '0A000', 'nor a sync');    # should fail

# A username and a password beyond ASCII go to the API in UTF-8
$api->config(accounts => { 'café' => { password => 'pä$$wörd', count => 5, style => 'cheap' } });
YelpTest::must_run($node, YelpTest::create_server('utf8', endpoint => $api->url, username => 'café', password => 'pä$$wörd'));
is(scalar(@{ YelpTest::sync($node, 'café')->{rows} }), 5, 'a username and a password beyond ASCII');

note 'functions for queries';

is($node->safe_psql('postgres', q{
	SELECT string_agg(yelp_program_state(s, p, today + b, today + e), ' ' ORDER BY n)
	FROM (VALUES (1, 'ACTIVE', 'NOT_PAUSED', -1, 0), (2, 'ACTIVE', 'PAUSED', -1, 1),
			(3, 'ACTIVE', NULL, 1, NULL), (4, 'INACTIVE', NULL, -2, -1), (5, 'INACTIVE', NULL, NULL, NULL),
			(6, NULL, NULL, NULL, NULL), (7, 'ACTIVE', NULL, 0, NULL)) AS v(n, s, p, b, e),
		CAST(now() AT TIME ZONE 'America/Los_Angeles' AS date) AS today}),
	'CURRENT PAUSED FUTURE PAST INACTIVE INACTIVE CURRENT', 'yelp_program_state()');
is($node->safe_psql('postgres', q{SELECT coalesce(yelp_business_id, '-') || coalesce(partner_business_id, '-')
	FROM yelp_program_businesses('{"businesses":[{"yelp_business_id":"b"},{"yelp_business_id":"a","partner_business_id":"p"}]}')}),
	"b-\nap", 'yelp_program_businesses()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (VALUES ('{}'), ('{"businesses":null}'), ('{"businesses":7}'), ('[]')) AS v(d),
	yelp_program_businesses(d::jsonb)}), '0', '... of documents without any');

note "characters that the client's encoding lacks";

$api->config(accounts => { acme => {} });
foreach my $progress (qw(text json off))
{
	my $odd = program('программа', '"start_date":"завтра"');
	my @settings = (client_encoding => 'LATIN1', 'yelp_sync.progress' => $progress);
	$api->set_programs('acme', $odd, program('abc'));
	$node->safe_psql('postgres', 'DELETE FROM yelp_programs');
	$sync = YelpTest::run($node, q{SELECT count(*) FROM yelp_sync('acme')}, @settings);
	is($sync->{sqlstate}, undef, "progress $progress: a program that the client cannot be shown");
	is($sync->{stdout}, "2\n", "progress $progress: is stored");
	like($sync->{stderr}, qr/program .{0,2}"\?{9}.{0,2}": /, "progress $progress: and shown as far as it can be");
	$node->safe_psql('postgres', 'DELETE FROM yelp_programs');
	$sync = YelpTest::run($node, q{CALL yelp_sync_all(ARRAY['acme'])}, @settings);
	is($sync->{sqlstate}, undef, "progress $progress: yelp_sync_all()");
	$api->faults({ action => { respond => { status => 400, json => { error => { description => 'Ελληνικά' } } } } });
	$sync = YelpTest::run($node, q{SELECT yelp_sync('acme')}, @settings);    # should fail
	is($sync->{sqlstate}, 'HV000', "progress $progress: the API's error");
	like($sync->{detail}, qr/\?{8}/, "progress $progress: is shown as far as it can be");
	$sync = YelpTest::run($node, q{CALL yelp_sync_all(ARRAY['acme'])}, @settings);    # should fail
	is($sync->{error}, 'could not sync 1 of 1 account', "progress $progress: its error");
	$api->faults;
}
like($node->safe_psql('postgres', q{SELECT warnings::text FROM yelp_sync_runs WHERE warnings IS NOT NULL ORDER BY run_id DESC LIMIT 1}),
	qr/could not read all fields of 1 program/, 'the warning is on record');

done_testing();
