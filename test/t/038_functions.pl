# Every public function of the extension, with all kinds of arguments: NULL, empty, scalars instead of
# objects, very long and odd ones.  The server survives, and errors say what is wrong.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

# What these do to tables and to the network is tested elsewhere
my %elsewhere = map { $_ => 1 } qw(yelp_sync yelp_sync_all yelp_sync_validator yelp_sync_create_tables
  yelp_sync_make_tables yelp_sync_running yelp_sync_accounts yelp_sync_account_status);
my $long = "repeat('x', 1000000)";
my $metrics = '{"budget": %s, "is_autobid": %1$s, "billed_clicks": %1$s, "currency": %1$s}';
my %values = (
	jsonb => [
		'NULL', (map { "'$_'" } 'null', '1', 'true', '""', '[]', '{}', '[[]]', '[{}]', '[1, "a", null]', '{"a": 1}'),
		(map { my $value = $_; ("'{\"start_date\": $value, \"active_features\": $value, \"businesses\": $value,"
				. " \"program_type\": $value, \"program_metrics\": $value}'",
			"'{\"businesses\": [$value, 1], \"program_metrics\": " . sprintf($metrics, $value) . "}'") }
		  'null', '1', '-1e30', '1e400', '0.5', 'true', '""', '"2024-01-01"', '"xxxxxxxxxx"', '"9999-99-99"', '[]', '[null]',
		  '["a", 1]', '{}', '[[1]]', '"\u00fc"'),
		"to_jsonb($long)", "jsonb_build_object('program_type', $long)",
		'(SELECT jsonb_agg(i) FROM generate_series(1, 100000) i)',
		"jsonb_build_object('active_features', (SELECT jsonb_agg(i::text) FROM generate_series(1, 100000) i))" ],
	text => [ 'NULL', "''", "'x'", "'PAUSED'", "'{}'", "'{\"a\": '", "E'\\\\u0000'", $long, "repeat('[', 100000)",
		"repeat('[', 1000000) || repeat(']', 1000000)" ],
	'text[]' => [ 'NULL', "'{}'", "'{NULL}'", "'{data,budget,x}'", "'{{a,b},{c,d}}'", "'{businesses}'", "'[5:6]={a,b}'",
		"ARRAY[$long]" ],
	bigint => [ 'NULL', '0', '-9223372036854775808' ],
	date => [ 'NULL', "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'9999-12-31'", 'current_date' ],
	'timestamp with time zone' => [ 'NULL', "'infinity'", "'-infinity'", "'4713-01-01 BC'", 'now()' ],
	yelp_sync_values => [ 'NULL', "yelp_sync_columns('{}')",
		q{yelp_sync_columns('{"program_type": "CPC", "program_metrics": {"budget": 5}, "start_date": 1}')} ]);

my ($node, $api) = start();
value('CREATE ROLE anybody LOGIN');
my $session = connect_session();
srand($ENV{YELP_SYNC_TEST_SEED} // 38);

sub connect_session
{
	my $new = YelpSession->new($node);
	$new->run('SET ROLE anybody; SET extra_float_digits = 0');
	return $new;
}

# All combinations of the arguments' values, or, where these are many, one argument at a time
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
		@calls = map {
			my $varied = $_;
			map {
				my $value = $_;
				([ map { $_ == $varied ? $value : $values{ $types[$_] }[ $_ % 2 ? 0 : -1 ] } 0 .. $#types ],
					[ map { $_ == $varied ? $value : $values{ $types[$_] }[ rand @{ $values{ $types[$_] } } ] } 0 .. $#types ])
			} @{ $values{ $types[$varied] } }
		} 0 .. $#types;
	}
	return map {
		my $call = $_;
		"$name(" . join(', ', map { "($call->[$_])::$types[$_]" } 0 .. $#types) . ')'
	} @calls;
}

my $tried = 0;
foreach (split /\n/, value(q{
	SELECT p.proname || '|' || coalesce((SELECT string_agg(format_type(t, NULL), '|' ORDER BY n)
		FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, n)), '')
	FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'yelp_sync'
	WHERE has_function_privilege('anybody', p.oid, 'EXECUTE') ORDER BY 1}))
{
	my ($name, @types) = split /\|/;
	next if delete $elsewhere{$name};
	my @calls = calls($name, @types);
	my @wrong;

	foreach my $call (@calls)
	{
		my $result = $session->run("SELECT count(x) FROM (SELECT $call OFFSET 0) AS f(x)");
		push @wrong, failure($result) . ': ' . substr $call, 0, 200 if $result->{lost} || ($result->{sqlstate} // '') =~ /^XX/;
		last if $result->{lost};
	}
	is_deeply([ splice @wrong, 0, 3 ], [], "$name: " . @calls . ' calls');
	$tried++;
	next unless $session->{lost};
	$node->poll_query_until('postgres', 'SELECT true');
	$session = connect_session();
}
is(join(' ', sort keys %elsewhere), '', 'those that are left out are functions of the extension');
cmp_ok($tried, '>', 4, 'the others were tried');
$session->end;

# The extension's owner can alter the type that they return
foreach my $change ('ADD ATTRIBUTE more text', 'DROP ATTRIBUTE more', 'DROP ATTRIBUTE budget', 'ADD ATTRIBUTE budget numeric(14,2)')
{
	is(failure(run("ALTER TYPE yelp_sync_values $change; SELECT yelp_sync_columns('{}')")) =~ s/\n.*//sr,    # should fail
		'42804: type yelp_sync_values has been altered', $change);
	unlike(sync('acme')->{sqlstate} // '', qr/^(XX...)?$/, "$change: a sync fails");    # should fail
}
is(value('SELECT count(*) FROM yelp_programs'), 0, 'nothing is stored');

done_testing();
