# From the API's JSON to the columns, and names and texts in every encoding.  sql/columns.sql
# has all kinds of values.
use strict;
use warnings FATAL => 'all';
use utf8;

use Encode ();
use Test::More;

use YelpTest ':all';

my ($node, $api) = start(server => { max_deleted => '100%' });

# One program with these members beside its ID
sub program
{
	my ($id, $members) = @_;
	return qq({"program_id":"$id") . ($members ? ",$members" : '') . '}';
}

note 'realistic programs: 1,913 in 96 pages';

my $sync = sync('acme');
is(outcome($sync), 'added 1913', 'all are added');
table_is_listing('acme', 'every column of every row is right');
is(value('SELECT count(*) FROM yelp_programs WHERE program_id IN ('
		. join(', ', map { literal($_->{program_id}) } @{ $sync->{rows} }) . ')'), 1913, 'the rows name the programs');

# The listing has what the comparison is to prove
is( value(q{SELECT string_agg(what || ' ' || has, ', ') FROM yelp_programs p, LATERAL (VALUES
		('no budget', budget IS NULL), ('no bid', max_bid IS NULL AND budget > 0), ('no end', end_date IS NULL),
		('end 9999', end_date = '9999-12-31'), ('businesses', jsonb_array_length(data->'businesses') > 1),
		('no business', data->'businesses' = '[]' AND yelp_business_id IS NULL),
		('Polish', partner_business_id LIKE 'Łódź-%'), ('no features', active_features IS NULL),
		('features', active_features = '{}'), ('emoji', data->>'note' = 'crêpes & 🥞')) AS v(what, has)
		GROUP BY what, has HAVING has AND count(*) <= 10}),
	'', 'these are programs of all kinds');
like($api->programs_json('acme'), qr/\\ud83e\\udd5e.*\xf0\x9f\xa5\x9e/s, 'with escaped surrogate pairs, and the same in UTF-8');

note 'unusual texts';

my @typed = qw(program_type program_status program_pause_status active_features);
my @edges = (
	[ 'nothing at all', 'nothing', program('nothing'), '' ],
	[ 'features of the future', 'features', program('features', q("active_features":["A,B","\"q\"","","NULL","{}","ÜBER"])),
		q(active_features {"A,B","\"q\"","","NULL","{}",ÜBER}) ],
	[ 'escapes', 'escapes', program('escapes',
			q("program_type":"\u0041\"\\\\\/\b\f\n\r\t","program_status":"\u00e9\u20AC\ud83e\udd5e")),
		"program_type A\"\\/\b\f\n\r\t program_status é€🥞" ],
	[ 'other alphabets', 'texts', program('texts',
			q("program_type":"寿司","program_status":"Ελληνικά","program_pause_status":"e\u0301 🥞")),
		"program_type 寿司 program_status Ελληνικά program_pause_status e\x{301} 🥞" ],
	[ 'deep unknown fields', 'deep', program('deep', '"deep":' . ('[' x 50) . '{"a":1.10}' . (']' x 50)), '' ],
	[ 'an odd ID', q(o'dd \ " id é), program(q(o'dd \\\\ \" id é)), '' ],
	[ 'spaces', 'spaces', " {\n\t\"program_id\" : \"spaces\" , \"program_type\" :\r\n \"CPC\" } ", 'program_type CPC' ]);

$api->config(accounts => { acme => { count => 1 } });
$api->set_programs('acme', map { $_->[2] } @edges);
like(outcome(sync('acme')), qr/^added 7, deleted 1/, 'unusual texts: all programs are stored');
table_is_listing('acme', 'unusual texts: the table');
foreach my $edge (@edges)
{
	my ($name, $id, undef, $expected) = @$edge;
	is(value('SELECT concat_ws($$ $$, ' . join(', ', map { "'$_ ' || $_\::text" } @typed)
			. ') FROM yelp_programs WHERE program_id = ' . literal($id)), $expected, $name);
}
is(outcome(sync('acme')), '', 'unusual texts: a repeat finds nothing');
is( value('SELECT fingerprint = hashtextextended(' . literal($edges[0][2])
		. q{, hashtextextended(program_id, 0) + 3) FROM yelp_programs WHERE program_id = 'nothing'}),
	't', 'the fingerprint is the hash of the text and the ID, the same in every cluster');

note 'usernames and passwords';

my %names = (
	'0il7Tv&R$#6\\' => 's3cret', q(it's "quoted") => q(pass'"word\\), 'naïve — Łódź 寿司 🥞' => 'pä$$wörd: 寿司 🥞',
	'in spaces' => ' ', '%20+&=?#/' => '::', '$1; DROP TABLE yelp_programs' => '%s%n');
my $number = 0;
foreach my $username (sort keys %names)
{
	my $name = Encode::encode('UTF-8', $username);
	my $server = 'server' . ++$number;

	$api->config(accounts => { $username => { password => $names{$username}, count => 25 } });
	value(create_server($server, endpoint => $api->url, username => $username, password => $names{$username}));
	$sync = sync($username);
	is(outcome($sync), 'added 25', "$name: its programs");
	table_is_listing($username, "$name: its table");
	is($sync->{notices}[0], qq(yelp_sync: start: account "$username" on server "$server"), "$name: in the notice");
	is(outcome(sync($username)), '', "$name: a repeat finds nothing");
}

note 'encodings';

foreach my $encoding (qw(LATIN1 SQL_ASCII))
{
	value("CREATE DATABASE $encoding ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	is(failure(run('CREATE EXTENSION yelp_sync', database => lc $encoding)) =~ s/\nHINT:  .*ENCODING 'UTF8'.*//sr,    # should fail
		"0A000: yelp_sync needs a database whose encoding is UTF8\nDETAIL:  The encoding of this database is $encoding.",
		"$encoding: no extension");
}
value('CREATE DATABASE changed');
install($node, $api, database => 'changed');
value(q{UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1') WHERE datname = 'changed'});
is(sync('acme', database => 'changed')->{sqlstate}, '0A000', 'nor a sync');    # should fail

# Characters that the client's encoding lacks
my $odd = program('программа', '"start_date":"завтра"');
$api->config(accounts => { acme => {} });
$api->set_programs('acme', $odd);
like(sync('acme', client_encoding => 'SQL_ASCII')->{stderr}, qr/программа/, 'a client without an encoding sees texts as they are');
foreach my $progress (qw(text json off))
{
	my @settings = (client_encoding => 'LATIN1', 'yelp_sync.progress' => $progress);

	value('DELETE FROM yelp_programs');
	$sync = run(q{SELECT count(*) FROM yelp_sync('acme')}, @settings);
	is($sync->{stdout}, "1\n", "progress $progress: a program that the client cannot be shown is stored");
	like($sync->{stderr}, qr/program .{0,2}"\?{9}.{0,2}": /, '... and shown as far as possible');
	$api->faults({ action => { respond => { status => 400, json => { error => { description => 'Ελληνικά' } } } } });
	like(failure(run(q{SELECT yelp_sync('acme')}, @settings)), qr/^HV000: .*\nDETAIL:  .*\?{8}/, '... as the error of the API');
	is(run(q{CALL yelp_sync_all('acme')}, @settings)->{error}, 'could not sync 1 of 1 account', '... by the procedure');
	$api->faults;
}

note 'functions for queries';

is( value(q{
	SELECT string_agg(yelp_program_state(s, p, today + b, today + e), ' ' ORDER BY n)
	FROM (VALUES (1, 'ACTIVE', 'NOT_PAUSED', -1, 0), (2, 'ACTIVE', 'PAUSED', -1, 1),
			(3, 'ACTIVE', NULL, 1, NULL), (4, 'INACTIVE', NULL, -2, -1), (5, 'INACTIVE', NULL, NULL, NULL),
			(6, NULL, NULL, NULL, NULL), (7, 'ACTIVE', NULL, 0, NULL)) AS v(n, s, p, b, e),
		CAST(now() AT TIME ZONE 'America/Los_Angeles' AS date) AS today}),
	'CURRENT PAUSED FUTURE PAST INACTIVE INACTIVE CURRENT', 'yelp_program_state()');
is( value(q{SELECT d, coalesce(yelp_business_id, '-'), coalesce(partner_business_id, '-')
	FROM (VALUES (1, '{"businesses":[{"yelp_business_id":"b"},{"yelp_business_id":"a","partner_business_id":"p"}]}'),
			(2, '{}'), (3, '{"businesses":null}'), (4, '{"businesses":7}'), (5, '[]')) AS v(d, j),
		yelp_program_businesses(j::jsonb)}),
	"1|b|-\n1|a|p", 'yelp_program_businesses()');

done_testing();
