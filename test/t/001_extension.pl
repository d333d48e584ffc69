# The extension's objects, schema and comments; ways to call yelp_sync(); any
# search_path; DROP EXTENSION.
use strict;
use warnings FATAL => 'all';
use utf8;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(schema => 'ads');

$api->config(
	accounts => {
		acme => { count => 45 },
		second => { password => 's3cret', count => 7 },
		third => { password => 's3cret', count => 3 },
	});

# The first value of what a query returns
sub value
{
	return YelpTest::value($node, @_);
}

sub forget
{
	$node->safe_psql('postgres', 'DELETE FROM ads.yelp_programs');
	return;
}

note 'the objects';

# Types that come with a table, and indexes and constraints, are the table's own
my $members = q{
	SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS name
	FROM pg_depend d
	WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'yelp_sync')
	AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass
		AND t.oid = d.objid AND (t.typrelid <> 0 OR t.typelem <> 0))
};
is( value(
		"SELECT name FROM ($members) AS member
		WHERE name NOT LIKE 'sequence %' AND obj_description(objid, classid::regclass::name) IS NULL"),
	'',
	'every object of the extension has a comment');
is( value(
		q{SELECT attrelid::regclass, attname FROM pg_attribute
		WHERE attrelid IN ('ads.yelp_programs'::regclass, 'ads.yelp_sync_runs'::regclass,
			'ads.yelp_program_changes'::regclass, 'ads.yelp_accounts'::regclass,
			'ads.yelp_sync_progress'::regclass, 'ads.yelp_sync_status'::regclass)
		AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL}),
	'',
	'every column has a comment');
cmp_ok(value("SELECT count(*) FROM ($members) AS member"), '>', 10,
	'these were many objects');
is( value(
		"SELECT name FROM ($members) AS member
		WHERE name NOT LIKE '%ads.%' AND name NOT LIKE 'foreign-data wrapper %'"),
	'',
	'all of them are in the schema that was asked for');
is( value(
		q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'ads.yelp_programs'::regclass
		AND NOT tgisinternal AND obj_description(oid, 'pg_trigger') IS NULL}),
	'0',
	'every trigger has a comment');
is( value(
		q{SELECT string_agg(t, ',') FROM (SELECT format_type(t, NULL) || ' ' || n
		FROM pg_proc, unnest(proallargtypes, proargnames) AS a(t, n)
		WHERE oid = 'ads.yelp_sync(text)'::regprocedure) AS arguments(t)}),
	'text username,text action,text program_id,text[] changed',
	"yelp_sync()'s arguments and columns");
is( value(
		q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) ||
			CASE WHEN attnotnull THEN ' not null' ELSE '' END ||
			CASE WHEN attcollation = '"C"'::regcollation THEN ' C' ELSE '' END, ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'ads.yelp_programs'::regclass AND attnum > 0}),
	'username text not null C, program_id text not null C, fingerprint bigint,'
	  . ' gone_at timestamp with time zone, program_type text,'
	  . ' program_status text, program_pause_status text, start_date date, end_date date,'
	  . ' yelp_business_id text, partner_business_id text, budget numeric(14,2),'
	  . ' max_bid numeric(14,2), ad_cost numeric(14,2), currency text, fee_period text,'
	  . ' is_autobid boolean, billed_impressions bigint, billed_clicks bigint,'
	  . ' active_features text[], available_features text[], problems text[], data jsonb not null,'
	  . ' created_at timestamp with time zone not null,'
	  . ' updated_at timestamp with time zone not null',
	'the columns of yelp_programs');
is( value(
		q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'ads.yelp_sync_runs'::regclass AND attnum > 0}),
	'run_id uuid, username text, server text, synced_by text, started_at timestamp with time zone,'
	  . ' finished_at timestamp with time zone, status text, program_status text, programs bigint, listed bigint, pages bigint, requests bigint,'
	  . ' retries bigint, received_bytes bigint, added bigint, updated bigint,'
	  . ' unchanged bigint, deleted bigint, missing bigint, problems bigint, failed_pages bigint,'
	  . ' fetch_time interval, merge_time interval, warnings text[], sqlstate text, error text',
	'the columns of yelp_sync_runs');
is( value(
		q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'ads.yelp_program_changes'::regclass AND attnum > 0}),
	'run_id uuid, changed_at timestamp with time zone, username text, program_id text, action text,'
	  . ' changed text[], old jsonb, new jsonb',
	'the columns of yelp_program_changes');

note 'ways to call yelp_sync()';

my $url = $api->url;
is(value('SELECT username, server, endpoint FROM ads.yelp_accounts'),
	"acme|yelp|$url", 'yelp_accounts shows the account');
is(value(q{SELECT count(*) FROM ads.yelp_sync('acme')}), '45', 'in FROM');
YelpTest::table_is_listing($node, $api, 'acme', 'and what came is there', schema => 'ads');
forget();
my $tuple = (sort split /\n/, value(q{SELECT ads.yelp_sync('acme')}))[0];
like($tuple, qr/^\(added,[-\w]{22},\)$/, 'in the target list: rows of a composite type');
is(value(q{SELECT count(*) FROM ads.yelp_sync('acme')}), '0', 'a repeat finds nothing');
forget();
is( value(q{SELECT action, count(*) FROM (SELECT (ads.yelp_sync('acme')).*) AS s GROUP BY 1}),
	'added|45',
	'in the target list, expanded');
forget();
is(value(q{SELECT count(*) FROM ads.yelp_sync('acme') LIMIT 1}), '45', 'with LIMIT');
forget();
is( value(
		q{SELECT count(*) FROM (SELECT * FROM ads.yelp_sync('acme') LIMIT 1) AS s;
		SELECT count(*) FROM ads.yelp_programs}),
	"1\n45",
	'LIMIT cuts the rows that are shown, not what is stored');
forget();
is( value(
		q{SELECT s.action, s.ordinality FROM ads.yelp_sync('acme') WITH ORDINALITY AS s
		ORDER BY 2 DESC LIMIT 1}),
	'added|45',
	'WITH ORDINALITY');
forget();
is( value(
		q{SELECT count(*), count(p.data) FROM ads.yelp_sync('acme') AS s
		LEFT JOIN ads.yelp_programs AS p USING (program_id)}),
	'45|0',
	'the statement that syncs sees the table as it was before');

value(YelpTest::create_server('other', endpoint => $url, username => 'second')
	  . YelpTest::create_server('another', endpoint => $url, username => 'third', for => 'PUBLIC'));
forget();
is( value(
		q{SELECT a.username, count(*) FROM ads.yelp_accounts AS a, ads.yelp_sync(a.username) AS s
		GROUP BY 1 ORDER BY 1}),
	"acme|45\nsecond|7\nthird|3",
	'LATERAL over yelp_accounts');
is( value(
		q{SELECT count(*) FROM ads.yelp_accounts AS a LEFT JOIN LATERAL
			ads.yelp_sync(a.username) AS s ON true}),
	'3',
	'LEFT JOIN LATERAL: accounts without a change have a row');
forget();
is( value(q{SELECT username, (ads.yelp_sync(username)).action FROM ads.yelp_accounts
			WHERE username <> 'acme' ORDER BY 1}),
	join("\n", ('second|added') x 7, ('third|added') x 3),
	'in the target list, once for each account');

$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION sync_all() RETURNS TABLE (account text, program text)
	LANGUAGE plpgsql AS $$
	DECLARE
		a record;
		s record;
	BEGIN
		FOR a IN SELECT username FROM ads.yelp_accounts ORDER BY 1 LOOP
			FOR s IN SELECT * FROM ads.yelp_sync(a.username) LOOP
				account := a.username;
				program := s.program_id;
				RETURN NEXT;
			END LOOP;
		END LOOP;
	END $$});
forget();
is(value('SELECT account, count(DISTINCT program) FROM sync_all() GROUP BY 1 ORDER BY 1'),
	"acme|45\nsecond|7\nthird|3", 'from PL/pgSQL, in loops');
is( value(
		q{DO $$ BEGIN PERFORM ads.yelp_sync('no such account');
		EXCEPTION WHEN undefined_object THEN PERFORM ads.yelp_sync('acme'); END $$;
		SELECT count(*) FROM ads.yelp_programs WHERE username = 'acme'}),
	'45',
	'from PL/pgSQL, after an error that was caught');
forget();
is( value(
		q{PREPARE sync(text) AS SELECT count(*) FROM ads.yelp_sync($1);
		EXECUTE sync('acme'); EXECUTE sync('second'); EXECUTE sync('acme'); EXECUTE sync('acme');
		EXECUTE sync('third'); EXECUTE sync('third'); EXECUTE sync('acme')}),
	"45\n7\n0\n0\n3\n0\n0",
	'as a prepared statement, with a generic plan in the end');
forget();
is( value(
		q{BEGIN; DECLARE c CURSOR FOR SELECT action FROM ads.yelp_sync('third');
		FETCH 2 FROM c; CLOSE c; COMMIT;
		SELECT count(*) FROM ads.yelp_programs WHERE username = 'third'}),
	"added\nadded\n3",
	'through a cursor');
forget();
is( value(
		q{BEGIN; SELECT count(*) FROM ads.yelp_sync('acme'); SELECT count(*) FROM ads.yelp_sync('acme');
		SAVEPOINT a; SELECT count(*) FROM ads.yelp_sync('second'); ROLLBACK TO a;
		SELECT count(*) FROM ads.yelp_programs; ROLLBACK; SELECT count(*) FROM ads.yelp_programs}),
	"45\n0\n7\n45\n0",
	'in a transaction, twice, and rolled back with a savepoint and as a whole');
is( value(
		q{CREATE TEMPORARY TABLE changes AS SELECT * FROM ads.yelp_sync('acme');
		SELECT action, count(*), count(changed) FROM changes GROUP BY 1}),
	'added|45|0',
	'CREATE TABLE AS');
forget();
is( value(
		q{WITH s AS (SELECT * FROM ads.yelp_sync('third')) SELECT count(*) FROM s AS a, s AS b}),
	'9',
	'in a CTE that is read twice, once');
forget();
is( value(
		q{SELECT count(*) FROM ads.yelp_sync('third') AS a, generate_series(1, 3)}),
	'9',
	'once, where a join reads it three times');
is( value(
		q{SET session_replication_role = replica; SET default_transaction_isolation = serializable;
		SELECT count(*) FROM ads.yelp_sync('second')}),
	'7',
	'SERIALIZABLE');

my $null = YelpTest::run($node, 'SELECT * FROM ads.yelp_sync(NULL)');    # should fail
is($null->{sqlstate}, '22004', 'NULL is an error');
my $read_only = YelpTest::run($node,    # should fail
	q{SELECT * FROM ads.yelp_sync('acme')}, default_transaction_read_only => 'on');
is($read_only->{sqlstate}, '25006', 'an error in a read-only transaction');

note 'any search_path';

# Shadows of what yelp_sync() could look up, each of which gives itself away
my $hostile = <<'END';
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.betray() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'a hostile object was used' USING ERRCODE = 'RE666'; END $$;
	DO $do$
	DECLARE
		o record;
		columns text;
	BEGIN
		-- every operator of comparison, arithmetic and JSON
		FOR o IN
			SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r,
				oprresult::regtype AS result, oid::regoperator::text AS was
			FROM pg_operator
			WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b' AND oprresult <> 0
			AND oprleft IN ('text'::regtype, 'int4'::regtype, 'int8'::regtype, 'bool'::regtype,
				'jsonb'::regtype, 'numeric'::regtype, 'date'::regtype, 'anyarray'::regtype,
				'timestamptz'::regtype, 'name'::regtype, 'oid'::regtype)
			AND oprright NOT IN ('cstring'::regtype)
		LOOP
			columns := format('a %s, b %s', o.l, o.r);
			BEGIN
				EXECUTE format('CREATE FUNCTION hostile.o(%s) RETURNS %s LANGUAGE plpgsql AS
					$$ BEGIN PERFORM hostile.betray(); RETURN NULL; END $$', columns, o.result);
			EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN
				CONTINUE WHEN SQLSTATE = '42P13';
			END;
			EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.o, LEFTARG = %s, RIGHTARG = %s)',
				o.oprname, o.l, o.r);
		END LOOP;
		-- every function by the name of one that is likely to be called
		FOR o IN
			SELECT proname, pg_get_function_arguments(oid) AS arguments, prorettype::regtype AS result
			FROM pg_proc
			WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND proargmodes IS NULL
			AND NOT proretset
			AND proname IN ('now', 'clock_timestamp', 'array_remove', 'cardinality', 'jsonb_typeof',
				'lower', 'round', 'text', 'date', 'numeric', 'int8', 'coalesce', 'length', 'max',
				'jsonb_in', 'hashtext', 'hash_bytes_extended', 'current_setting', 'quote_ident')
		LOOP
			BEGIN
				EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS
					$$ BEGIN PERFORM hostile.betray(); RETURN NULL; END $$',
					o.proname, o.arguments, o.result);
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		END LOOP;
	END $do$;
	CREATE AGGREGATE hostile.count(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '1000000');
	CREATE AGGREGATE hostile.count("any") (SFUNC = int8inc_any, STYPE = int8, INITCOND = '1000000');
	CREATE DOMAIN hostile.text AS pg_catalog.text CHECK (hostile.betray() IS NULL AND false);
	CREATE DOMAIN hostile.jsonb AS pg_catalog.jsonb CHECK (hostile.betray() IS NULL AND false);
	CREATE DOMAIN hostile.int8 AS pg_catalog.int8 CHECK (hostile.betray() IS NULL AND false);
	CREATE TABLE hostile.yelp_programs (betrayed text);
	CREATE TABLE hostile.yelp_sync_runs (betrayed text);
	CREATE TABLE hostile.yelp_accounts (betrayed text);
	CREATE TABLE hostile.fetched (betrayed text);
	CREATE TABLE hostile.difference (betrayed text);
	CREATE TABLE hostile.added (betrayed text);
	CREATE FUNCTION hostile.yelp_sync_columns(pg_catalog.jsonb)
	RETURNS pg_catalog.jsonb LANGUAGE sql AS $$SELECT hostile.betray(); SELECT NULL::pg_catalog.jsonb$$;
	CREATE FUNCTION hostile.yelp_sync_accounts() RETURNS int LANGUAGE sql AS $$SELECT hostile.betray(); SELECT 1$$;
END
$node->safe_psql('postgres', $hostile);
my $trap = YelpTest::run($node, 'SELECT 1 + 1', search_path => 'hostile');
is($trap->{stdout}, "2\n", 'pg_catalog goes first where a search_path does not name it');
foreach my $use ('1 = 1', '1::bigint = 1', q{'a'::pg_catalog.text <> 'b'}, 'now()', 'CASE 0 WHEN 0 THEN 1 END')
{
	$trap = YelpTest::run($node, "SET search_path = hostile, pg_catalog; SELECT $use");    # should fail
	is($trap->{sqlstate}, 'RE666', "the hostile schema is hostile to: $use");
}

my $seed = 0;
YelpTest::run($node, q{SELECT ads.yelp_sync('acme')});
foreach my $path (
	[ 'an empty search_path', q{''} ],
	[ 'only pg_temp', 'pg_temp' ],
	[ 'a schema that is not there', 'nowhere' ],
	[ 'a hostile schema', 'hostile' ],
	[ 'a hostile schema before pg_catalog', 'hostile, pg_catalog' ],
	[ 'a hostile schema before pg_catalog and ours', 'hostile, pg_catalog, ads' ],
	[ 'ours', 'ads' ])
{
	my ($name, $search_path) = @$path;
	my $what = $api->mutate(seed => ++$seed, remove => 3, add => 4, alter => 23, respell => 2);
	my $result = YelpTest::run($node,
		qq{SET search_path = $search_path; SELECT * FROM ads.yelp_sync('acme')});
	my %got = (added => 0, updated => 0, deleted => 0);

	diag($result->{stderr}) if $result->{error};
	$got{$_}++ foreach map { /^(\w+)/ } split /\n/, $result->{stdout};
	is_deeply(
		\%got,
		{ added => 4, updated => scalar(grep { $_ } values %{ $what->{altered} }), deleted => 3 },
		"$name: the changes");
	YelpTest::table_is_listing($node, $api, 'acme', "$name: the table", schema => 'ads');
	$result = YelpTest::run($node,
		qq{SET search_path = $search_path; SELECT action FROM ads.yelp_sync('acme');
		UPDATE ads.yelp_programs SET username = username;
		SELECT username FROM ads.yelp_accounts});
	is($result->{sqlstate} // '', '', "$name: the repeat, an update, the accounts");
	is(scalar(grep { /added|updated|deleted/ } split /\n/, $result->{stdout}),
		0, "$name: the repeat finds nothing");
}

# A quoted name, and temporary tables in the way
my $quoted = '"Yelp; Ads (é)"';
$node->safe_psql('postgres', 'CREATE DATABASE odd');
YelpTest::install($node, $api, database => 'odd', schema => $quoted, tables => 0);
my $result = YelpTest::run($node,
	qq{CREATE TEMPORARY TABLE yelp_programs (a int); CREATE TEMPORARY TABLE fetched (a int);
	CREATE TEMPORARY TABLE yelp_sync_runs (a int);
	SELECT count(*) FROM $quoted.yelp_sync('acme')},
	database => 'odd');
is($result->{sqlstate} // '', '', 'an odd schema, with temporary tables in the way');
YelpTest::table_is_listing($node, $api, 'acme', 'all came', database => 'odd', schema => $quoted);

note 'a name that another schema has';

my $taken = YelpTest::run($node, 'CREATE EXTENSION yelp_sync');    # should fail
is($taken->{sqlstate}, '42710', 'once in a database');
my $moved = YelpTest::run($node, 'ALTER EXTENSION yelp_sync SET SCHEMA public');    # should fail
is($moved->{sqlstate}, '0A000', 'the schema is for ever');
$moved = YelpTest::run($node, 'ALTER SCHEMA ads RENAME TO advertising;'
	  . q{SELECT count(*) FROM advertising.yelp_sync('acme')});
is($moved->{stdout}, "0\n", 'the schema can be renamed');
$moved = YelpTest::run($node, q{DROP TABLE advertising.yelp_programs, advertising.yelp_sync_runs;
	SET search_path = hostile, pg_catalog;
	SELECT FROM advertising.yelp_sync('acme');
	SET search_path = pg_catalog;
	SELECT count(*) FROM advertising.yelp_sync_runs});
is($moved->{stdout} =~ s/^\n+//r, "1\n", 'tables that are missing are made there, under a hostile search_path')
  or diag($moved->{stderr});
YelpTest::table_is_listing($node, $api, 'acme', 'and filled', schema => 'advertising');

note 'the end';

my $drop = YelpTest::run($node, 'DROP EXTENSION yelp_sync');    # should fail
is($drop->{sqlstate}, '2BP01', 'a server of the wrapper is in the way of DROP EXTENSION');
$drop = YelpTest::run($node, 'DROP EXTENSION yelp_sync CASCADE');
is($drop->{sqlstate} // '', '', 'DROP EXTENSION CASCADE');
is( value(
		q{SELECT (SELECT count(*) FROM pg_foreign_data_wrapper)
			+ (SELECT count(*) FROM pg_foreign_server);
		SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
		WHERE relnamespace = 'advertising'::regnamespace AND relkind <> 'i';
		SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc
		WHERE pronamespace = 'advertising'::regnamespace}),
	"0\nyelp_program_changes yelp_programs yelp_sync_runs\nyelp_programs_edited",
	'and nothing is left but the tables');
YelpTest::table_is_listing($node, $api, 'acme', 'which have every row', schema => 'advertising');
YelpTest::install($node, $api);
YelpTest::run($node, q{SELECT yelp_sync('acme')});
YelpTest::table_is_listing($node, $api, 'acme', 'it can be created again, in another schema');

done_testing();
