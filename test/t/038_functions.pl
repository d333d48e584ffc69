# Every public function of the extension, with all kinds of arguments: NULL, empty, scalars instead of
# objects, very long and odd ones.  The server survives, and errors say what is wrong.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

# Those that do what they do to tables and to the network have tests of their own
my @elsewhere = qw(yelp_sync yelp_sync_all yelp_sync_validator yelp_sync_create_tables yelp_sync_make_tables
	yelp_sync_running yelp_sync_accounts yelp_sync_account_status);
my $long = "repeat('x', 1000000)";
my $metrics = '{"budget": %s, "is_autobid": %1$s, "billed_clicks": %1$s, "currency": %1$s}';
my @json = ('NULL', (map { "'$_'" } 'null', '1', 'true', '""', '[]', '{}', '[[]]', '[{}]', '[1, "a", null]', '{"a": 1}'),
	(map { my $value = $_; ("'{\"start_date\": $value, \"active_features\": $value, \"businesses\": $value,"
			. " \"program_type\": $value, \"program_metrics\": $value}'",
		"'{\"businesses\": [$value, 1], \"program_metrics\": " . sprintf($metrics, $value) . "}'") }
	  'null', '1', '-1e30', '1e400', '0.5', 'true', '""', '"2024-01-01"', '"xxxxxxxxxx"', '"9999-99-99"', '[]', '[null]', '["a", 1]',
	  '{}', '[[1]]', '"\u00fc"'),
	"to_jsonb($long)", "jsonb_build_object('program_type', $long)", "(SELECT jsonb_agg(i) FROM generate_series(1, 100000) i)",
	"jsonb_build_object('active_features', (SELECT jsonb_agg(i::text) FROM generate_series(1, 100000) i))");
my @row = ('NULL', "yelp_sync_columns('{}')",
	q{yelp_sync_columns('{"program_type": "CPC", "program_metrics": {"budget": 5}, "start_date": 1}')});
my %values = (
	jsonb => \@json,
	text => [ 'NULL', "''", "'x'", "'PAUSED'", "'{}'", "'{\"a\": '", "E'\\\\u0000'", $long, "repeat('[', 100000)", "repeat('[', 1000000) || repeat(']', 1000000)" ],
	'text[]' => [ 'NULL', "'{}'", "'{NULL}'", "'{data,budget,x}'", "'{{a,b},{c,d}}'", "'{businesses}'", "'[5:6]={a,b}'", "ARRAY[$long]" ],
	bigint => [ 'NULL', '0', '-9223372036854775808' ],
	date => [ 'NULL', "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'9999-12-31'", 'current_date' ],
	'timestamp with time zone' => [ 'NULL', "'infinity'", "'-infinity'", "'4713-01-01 BC'", 'now()' ],
	yelp_sync_values => \@row);

my ($node, $api) = YelpTest::start();
$node->safe_psql('postgres', 'CREATE ROLE anybody LOGIN');
my $session = connect_session();

sub connect_session
{
	my $new = YelpSession->new($node);
	$new->run('SET ROLE anybody; SET extra_float_digits = 0');
	return $new;
}

# All combinations of the arguments' values, or where these are many one argument at a time
sub calls
{
	my ($name, @types) = @_;
	my @calls = ([]);
	my $all = 1;

	$all *= @{ $values{$_} } foreach @types;
	if ($all <= 500)
	{
		foreach my $type (@types)
		{
			@calls = map { my $call = $_; map { [ @$call, $_ ] } @{ $values{$type} } } @calls;
		}
	}
	else
	{
		@calls = ();
		foreach my $varied (0 .. $#types)
		{
			foreach my $value (@{ $values{ $types[$varied] } })
			{
				push @calls, [ map { $_ == $varied ? $value : $values{ $types[$_] }[$_ % 2 ? 0 : -1] } 0 .. $#types ],
				  [ map { $_ == $varied ? $value : $values{ $types[$_] }[ int(rand(@{ $values{ $types[$_] } })) ] } 0 .. $#types ];
			}
		}
	}
	return map {
		my $call = $_;
		"$name(" . join(', ', map { "($call->[$_])::$types[$_]" } 0 .. $#types) . ')'
	} @calls;
}

my @functions = split /\n/, $node->safe_psql('postgres', q{
	SELECT p.proname || '|' || coalesce((SELECT string_agg(format_type(t, NULL), '|' ORDER BY n)
		FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, n)), '')
	FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'yelp_sync'
	WHERE has_function_privilege('anybody', p.oid, 'EXECUTE') ORDER BY 1});
my %elsewhere = map { $_ => 1 } @elsewhere;
my $tried = 0;

srand($ENV{YELP_SYNC_TEST_SEED} // 38);
foreach (@functions)
{
	my ($name, @types) = split /\|/;
	next if delete $elsewhere{$name};
	my @wrong;
	my $calls = 0;

	foreach my $call (calls($name, @types))
	{
		my $result = $session->run("SELECT count(x) FROM (SELECT $call OFFSET 0) AS f(x)");
		$calls++;
		if ($result->{lost})
		{
			push @wrong, 'the session is lost: ' . substr $call, 0, 200;
			last;
		}
		push @wrong, "$result->{sqlstate} $result->{error}: " . substr $call, 0, 200
		  if $result->{error} && $result->{sqlstate} =~ /^XX/;
	}
	is("@wrong[0 .. ($#wrong > 2 ? 2 : $#wrong)]", '', "$name: $calls calls");
	$tried++;
	if (@wrong && $wrong[-1] =~ /lost/)
	{
		$node->poll_query_until('postgres', 'SELECT true');
		$session = connect_session();
	}
}
is(join(' ', sort keys %elsewhere), '', 'those that are left out are functions of the extension');
cmp_ok($tried, '>', 4, 'the others were tried');

$session->end;

# The extension's owner can alter the type that they return
foreach my $change ('ADD ATTRIBUTE more text', 'DROP ATTRIBUTE more', 'DROP ATTRIBUTE budget',
	'ADD ATTRIBUTE budget numeric(14,2)')
{
	my $result = YelpTest::run($node, "ALTER TYPE yelp_sync_values $change;
		SELECT yelp_sync_columns('{}')");    # should fail
	my $sync = YelpTest::sync($node, 'acme');    # should fail

	is($result->{sqlstate}, '42804', $change);
	is($result->{error}, 'type yelp_sync_values has been altered', "$change: what is wrong");
	unlike($sync->{sqlstate} // '', qr/^(XX...)?$/, "$change: a sync fails");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM yelp_programs'), '0', 'and stores nothing');

$node->stop;
done_testing();
