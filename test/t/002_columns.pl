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

sub database
{
	my ($encoding) = @_;
	my $database = lc $encoding =~ s/\W/_/gr;
	$node->safe_psql('postgres',
		"CREATE DATABASE $database ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	YelpTest::install($node, $api, database => $database);
	return $database;
}

my @latin = (program('ascii', '"program_type":"CPC"'),
	program('latin', '"program_type":"café","note":"\u00fcber \u00e9"'));
my @japanese = (program('ascii'), program('kanji', '"program_type":"寿司","note":"\u5bff\u53f8"'));
my @foreign = (program('ascii'), program('greek', '"program_type":"Ελληνικά"'));
my @escaped = (program('ascii'), program('escape', '"note":"\u20ac\ud83e\udd5e"'));

foreach my $case (
	[ 'LATIN1', 'texts that it has', \@latin ],
	[ 'LATIN1', 'a text that it lacks', \@foreign, 'greek' ],
	[ 'LATIN1', 'an escape that it lacks', \@escaped, 'escape' ],
	[ 'EUC_JP', 'texts that it has', \@japanese ],
	[ 'EUC_JP', 'an escape that it lacks', \@escaped, 'escape' ],
	[ 'SQL_ASCII', 'ASCII', [ program('ascii', '"program_type":"CPC"') ] ],
	[ 'WIN1252', 'texts that it has', \@latin ],
	[ 'WIN1252', 'a text that it lacks', \@japanese, 'kanji' ])
{
	my ($encoding, $name, $texts, $culprit) = @$case;
	my $database = lc $encoding;

	database($encoding)
	  if $node->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = '$database'") eq '0';
	$node->safe_psql($database, 'DELETE FROM yelp_programs');
	$api->set_programs('acme', @$texts);
	$sync = YelpTest::sync($node, 'acme', database => $database);
	if ($culprit)
	{
		is($sync->{sqlstate}, undef, "$encoding, $name: no error") or diag($sync->{stderr});
		my ($warning) = grep { $_->{level} eq 'WARNING' } @{ $sync->{messages} };
		like($warning->{detail}, qr/program "$culprit" contains a character that has no equivalent in encoding $encoding/,
			"$encoding, $name: a WARNING names the program");
		is($node->safe_psql($database, 'SELECT string_agg(program_id, $$ $$) FROM yelp_programs'),
			'ascii', "$encoding, $name: the others are stored");
		is($node->safe_psql($database, YelpTest::last_run('status')),
			'partial', "$encoding, $name: which is not all");
	}
	else
	{
		is($sync->{sqlstate} // '', '', "$encoding, $name: no error") or diag($sync->{stderr});
		YelpTest::table_is_listing($node, $api, 'acme', "$encoding, $name: the table",
			database => $database);
		is(scalar(@{ YelpTest::sync($node, 'acme', database => $database)->{rows} }),
			0, "$encoding, $name: a repeat finds nothing");
	}
}

# SQL_ASCII has no idea of characters: bytes go in as they are
$api->set_programs('acme', program('utf8', '"program_type":"café 寿司"'));
$sync = YelpTest::sync($node, 'acme', database => 'sql_ascii');
is($sync->{sqlstate} // '', '', 'SQL_ASCII: UTF-8') or diag($sync->{stderr});
is( $node->safe_psql('sql_ascii',
		q{SELECT convert_to(program_type, 'SQL_ASCII') FROM yelp_programs WHERE program_id = 'utf8'}),
	'\x' . unpack('H*', Encode::encode('UTF-8', 'café 寿司')),
	'SQL_ASCII: its bytes are stored');
$api->set_programs('acme', program('a寿', '"start_date":"demain"'));
foreach my $case ([ 'UTF8', qr/"a寿"/ ], [ 'EUC_JP', qr/"a\?{3}"/ ], [ 'SQL_ASCII', qr/"a/ ])
{
	my ($encoding, $shown) = @$case;
	$node->safe_psql('sql_ascii', 'DELETE FROM yelp_programs');
	$sync = YelpTest::run($node, q{SELECT count(*) FROM yelp_sync('acme')},
		database => 'sql_ascii', client_encoding => $encoding);
	is($sync->{sqlstate}, undef, "SQL_ASCII, client $encoding: no error");
	like($sync->{stderr}, $shown, "SQL_ASCII, client $encoding: the ID as far as it can be shown");
}
$api->set_programs('acme', @escaped);
$sync = YelpTest::sync($node, 'acme', database => 'sql_ascii');
is($sync->{sqlstate}, undef, 'SQL_ASCII: an escape beyond ASCII stops nothing');
like($sync->{stderr}, qr/program "escape" contains a character that has no equivalent in encoding SQL_ASCII/,
	'SQL_ASCII: the program is named');

# Ids in another spelling than the server's: two programs, and the same ones again
$api->set_programs('acme', program('abc'), program('x\u00e9y'), program('xéz'));
$node->safe_psql('latin1', 'DELETE FROM yelp_programs');
foreach my $rows (3, 0, 0)
{
	$sync = YelpTest::sync($node, 'acme', database => 'latin1');
	is(scalar(@{ $sync->{rows} }), $rows, "LATIN1, ids beyond ASCII: $rows rows") or diag($sync->{stderr});
}
is($node->safe_psql('latin1', 'SELECT count(*) FROM yelp_programs'), 3, 'LATIN1: all are stored');
$api->set_programs('acme', program('abc'), program('x\u00c3\u00a9y'));
foreach my $rows (3, 0)
{
	$sync = YelpTest::sync($node, 'acme', database => 'latin1');
	is(scalar(@{ $sync->{rows} }), $rows, "LATIN1, an id that looks like UTF-8: $rows rows")
	  or diag($sync->{stderr});
}

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

# Usernames and passwords go to the API in UTF-8, whatever the database's encoding
$api->config(accounts => { 'café' => { password => 'pä$$wörd', count => 5, style => 'cheap' } });
YelpTest::must_run($node,
	q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp
	OPTIONS (SET username 'café', SET password 'pä$$wörd')},
	database => 'latin1');
$sync = YelpTest::sync($node, 'café', database => 'latin1');
is($sync->{sqlstate} // '', '', 'LATIN1: a username beyond ASCII') or diag($sync->{stderr});
is(scalar(@{ $sync->{rows} }), 5, 'LATIN1: and its programs');

# An error of the API's with text that the encoding lacks
$api->faults({ action => { respond => { status => 400,
	json => { error => { id => 'VALIDATION_ERROR', description => 'Ελληνικά' } } } } });
$sync = YelpTest::sync($node, 'café', database => 'latin1');    # should fail
is($sync->{sqlstate}, 'HV000', "LATIN1: the API's own error, in Greek");
like($sync->{detail}, qr/VALIDATION_ERROR/, 'LATIN1: with its id');
$api->faults;

# The conversion of the password leaves no snapshot behind
my $session = YelpSession->new($node);
$session->run('\c latin1');
$api->faults({ action => { hold => \1 } });
$session->begin('CALL yelp_sync_all()');
$api->poll_counter('held', 1);
is($node->safe_psql('postgres', q{SELECT backend_xmin IS NULL FROM pg_stat_activity
	WHERE datname = 'latin1' AND query LIKE 'CALL yelp_sync_all%'}), 't', 'LATIN1: no snapshot while it waits');
$api->faults;
$api->release;
is($session->result->{error}, undef, 'LATIN1: yelp_sync_all()');
$session->end;

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
