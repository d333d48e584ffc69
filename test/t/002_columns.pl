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
is($api->counters->{requests}, 97, 'each page was asked for once, and the end was looked at');

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

note 'texts at the edges: sql/columns.sql has all other values';

my @edges = (
	[ 'nothing at all', program('nothing'), {} ],
	[ 'features of the future', program('features',
			q("active_features":["A,B","\"q\"","","NULL","{}","ÜBER"])),
		{ active_features => q({"A,B","\"q\"","","NULL","{}",ÜBER}) } ],
	[ 'escapes', program('escapes',
			q("program_type":"\u0041\"\\\\\/\b\f\n\r\t","program_status":"\u00e9\u20AC\ud83e\udd5e")),
		{ program_type => "A\"\\/\b\f\n\r\t", program_status => 'é€🥞' } ],
	[ 'texts of other alphabets', program('texts',
			q("program_type":"寿司","program_status":"Ελληνικά","program_pause_status":"e\u0301 🥞")),
		{ program_type => '寿司', program_status => 'Ελληνικά', program_pause_status => "e\x{301} 🥞" } ],
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
	is_deeply($got, $expected, $name);
}
$sync = YelpTest::sync($node, 'acme');
is(scalar(@{ $sync->{rows} }), 0, 'the edges: a repeat finds nothing');

is( values_of(q{SELECT fingerprint = hashtextextended(} . YelpTest::literal($edges[0][1]) . q{,
		hashtextextended(program_id, 0) + 3) FROM yelp_programs WHERE program_id = 'nothing'}),
	't', 'the fingerprint is the hash of the text and the id, the same in every cluster');

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
$api->set_programs('acme', program('программа', '"start_date":"завтра"'));
$sync = YelpTest::sync($node, 'acme', client_encoding => 'SQL_ASCII');
is($sync->{sqlstate}, undef, 'a client without an encoding');
like($sync->{stderr}, qr/программа/, 'is shown all as it is');
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
like($node->safe_psql('postgres', q{SELECT warnings::text FROM yelp_sync_runs WHERE warnings IS NOT NULL ORDER BY finished_at DESC LIMIT 1}),
	qr/could not read all fields of 1 program/, 'the warning is on record');

done_testing();
