# The extension's objects, schema and comments; ways to call yelp_sync(); any search_path;
# DROP EXTENSION.
use strict;
use warnings FATAL => 'all';
use utf8;

use Test::More;

use YelpTest ':all';

my ($node, $api) = start(
	schema => 'ads',
	accounts => { acme => { count => 45 }, second => { count => 7 }, third => { count => 3 } });
my $url = $api->url;

note 'the objects';

# Types that come with a table, and indexes and constraints, are the table's own
my $members = q{
	SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS name
	FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE d.deptype = 'e' AND extname = 'yelp_sync'
	AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass
		AND t.oid = d.objid AND (t.typrelid <> 0 OR t.typelem <> 0))};
my $columns = q{
	SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod)
		|| CASE WHEN attnotnull THEN ' not null' ELSE '' END
		|| CASE WHEN attcollation = '"C"'::regcollation THEN ' C' ELSE '' END, ', ' ORDER BY attnum)
	FROM pg_attribute WHERE attnum > 0 AND attrelid = };
foreach my $case (
	[ 'objects outside of the schema that was requested', '',
		"SELECT name FROM ($members) AS m WHERE name NOT LIKE '%ads.%' AND name NOT LIKE 'foreign-data wrapper %'" ],
	[ 'objects without a comment', '',
		"SELECT name FROM ($members) AS m WHERE obj_description(objid, classid::regclass::name) IS NULL" ],
	[ 'columns and triggers without a comment', '', q{
		SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
		WHERE relnamespace = 'ads'::regnamespace AND relkind IN ('r', 'v')
		AND attnum > 0 AND col_description(attrelid, attnum) IS NULL
		UNION ALL SELECT tgrelid, tgname FROM pg_trigger
		WHERE NOT tgisinternal AND obj_description(oid, 'pg_trigger') IS NULL} ],
	[ "yelp_sync()'s arguments and columns", 'text username,text action,text program_id,text[] changed', q{
		SELECT string_agg(format_type(t, NULL) || ' ' || n, ',') FROM pg_proc, unnest(proallargtypes, proargnames) AS a(t, n)
		WHERE oid = 'ads.yelp_sync(text)'::regprocedure} ],
	[ 'yelp_programs', 'username text not null C, program_id text not null C, fingerprint bigint,'
		  . ' gone_at timestamp with time zone, program_type text, program_status text, program_pause_status text,'
		  . ' start_date date, end_date date, yelp_business_id text, partner_business_id text, budget numeric(14,2),'
		  . ' max_bid numeric(14,2), ad_cost numeric(14,2), currency text, fee_period text, is_autobid boolean,'
		  . ' billed_impressions bigint, billed_clicks bigint, active_features text[], available_features text[],'
		  . ' problems text[], data jsonb not null, created_at timestamp with time zone not null,'
		  . ' updated_at timestamp with time zone not null', "$columns 'ads.yelp_programs'::regclass" ],
	[ 'yelp_sync_runs', 'run_id uuid not null, username text not null C, server text, synced_by text not null,'
		  . ' started_at timestamp with time zone not null, finished_at timestamp with time zone not null,'
		  . ' status text not null, program_status text, programs bigint, listed bigint, pages bigint, requests bigint,'
		  . ' retries bigint, received_bytes bigint, added bigint, updated bigint, unchanged bigint, deleted bigint,'
		  . ' missing bigint, problems bigint, failed_pages bigint, fetch_time interval, merge_time interval,'
		  . ' warnings text[], sqlstate text, error text', "$columns 'ads.yelp_sync_runs'::regclass" ],
	[ 'yelp_program_changes', 'run_id uuid not null, changed_at timestamp with time zone not null,'
		  . ' username text not null C, program_id text not null C, action text not null, changed text[], old jsonb,'
		  . ' new jsonb', "$columns 'ads.yelp_program_changes'::regclass" ],
	[ 'yelp_accounts', "acme|yelp|$url", 'SELECT username, server, endpoint FROM ads.yelp_accounts' ])
{
	my ($name, $expected, $query) = @$case;
	is(value($query), $expected, $name);
}
cmp_ok(value("SELECT count(*) FROM ($members) AS m"), '>', 10, 'the extension has many objects');

note 'ways to call yelp_sync()';

value(create_server('other', endpoint => $url, username => 'second')
	  . create_server('another', endpoint => $url, username => 'third', for => 'PUBLIC'));
foreach my $case (
	[ 'in the target list', 'added|t|t', q{SELECT DISTINCT (s).action, (s).program_id ~ '^[-\w]{22}$', (s).changed IS NULL
		FROM (SELECT ads.yelp_sync('acme') AS s OFFSET 0) AS s} ],
	[ 'LIMIT affects the rows that are shown, not what is stored', "1\n45",
		q{SELECT count(*) FROM (SELECT * FROM ads.yelp_sync('acme') LIMIT 1) AS s;
		SELECT count(*) FROM ads.yelp_programs} ],
	[ 'the statement that syncs sees the table as it was before', '45|0', q{SELECT count(*), count(p.data)
		FROM ads.yelp_sync('acme') LEFT JOIN ads.yelp_programs AS p USING (program_id)} ],
	[ 'LEFT JOIN LATERAL: accounts without a change have a row', "55\n3",
		(q{SELECT count(*) FROM ads.yelp_accounts AS a LEFT JOIN LATERAL ads.yelp_sync(a.username) AS s ON true;}) x 2 ],
	[ 'in the target list, once for each account', "second|7\nthird|3", q{SELECT username, count(*)
		FROM (SELECT username, (ads.yelp_sync(username)).action FROM ads.yelp_accounts WHERE username <> 'acme') AS s
		GROUP BY 1 ORDER BY 1} ],
	[ 'from PL/pgSQL, after an error that was caught', '45', q{DO $$ BEGIN PERFORM ads.yelp_sync('no such account');
		EXCEPTION WHEN undefined_object THEN PERFORM ads.yelp_sync('acme'); END $$;
		SELECT count(*) FROM ads.yelp_programs WHERE username = 'acme'} ],
	[ 'as a prepared statement, with a generic plan in the end', join("\n", 45, 7, (0) x 6, 3),
		q{PREPARE sync(text) AS SELECT count(*) FROM ads.yelp_sync($1); EXECUTE sync('acme'); EXECUTE sync('second');}
		  . q{EXECUTE sync('acme');} x 6 . q{EXECUTE sync('third')} ],
	[ 'through a cursor that is not read to its end', "added\nadded\nadded\n3",
		q{BEGIN; DECLARE c SCROLL CURSOR FOR SELECT action FROM ads.yelp_sync('third');
		FETCH 2 FROM c; FETCH FIRST FROM c; CLOSE c; COMMIT;
		SELECT count(*) FROM ads.yelp_programs WHERE username = 'third'} ],
	[ 'CREATE TABLE AS', 'added|45|0', q{CREATE TEMPORARY TABLE changes AS SELECT * FROM ads.yelp_sync('acme');
		SELECT action, count(*), count(changed) FROM changes GROUP BY 1} ],
	[ 'once, where a join reads it three times', '9',
		q{SELECT count(*) FROM ads.yelp_sync('third') AS a, generate_series(1, 3)} ],
	[ 'SERIALIZABLE, as a replica', '7', q{SET session_replication_role = replica;
		SET default_transaction_isolation = serializable; SELECT count(*) FROM ads.yelp_sync('second')} ])
{
	my ($name, $expected, @query) = @$case;
	value('DELETE FROM ads.yelp_programs');
	is(value("@query"), $expected, $name);
}
table_is_listing('second', 'all rows are stored', schema => 'ads');

note 'any search_path';

# Shadows of everything that yelp_sync() could look up, each of which raises RE666
value(<<'END');
	CREATE SCHEMA hostile;
	CREATE FUNCTION hostile.betray() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'a hostile object was used' USING ERRCODE = 'RE666'; END $$;
	DO $do$
	DECLARE
		o record;
	BEGIN
		-- every operator of comparison, arithmetic and JSON
		FOR o IN
			SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result
			FROM pg_operator
			WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b' AND oprresult <> 0
			AND oprleft IN ('text'::regtype, 'int4'::regtype, 'int8'::regtype, 'bool'::regtype,
				'jsonb'::regtype, 'numeric'::regtype, 'date'::regtype, 'anyarray'::regtype,
				'timestamptz'::regtype, 'name'::regtype, 'oid'::regtype)
			AND oprright NOT IN ('cstring'::regtype)
		LOOP
			BEGIN
				EXECUTE format('CREATE FUNCTION hostile.o(a %s, b %s) RETURNS %s LANGUAGE plpgsql AS
					$$ BEGIN PERFORM hostile.betray(); RETURN NULL; END $$', o.l, o.r, o.result);
			EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN
				CONTINUE WHEN SQLSTATE = '42P13';
			END;
			EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.o, LEFTARG = %s, RIGHTARG = %s)',
				o.oprname, o.l, o.r);
		END LOOP;
		-- functions that are likely to be called
		FOR o IN
			SELECT proname, pg_get_function_arguments(oid) AS arguments, prorettype::regtype AS result
			FROM pg_proc
			WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND proargmodes IS NULL AND NOT proretset
			AND proname IN ('now', 'clock_timestamp', 'array_remove', 'cardinality', 'jsonb_typeof',
				'lower', 'round', 'text', 'date', 'numeric', 'int8', 'length',
				'jsonb_in', 'hashtext', 'hash_bytes_extended', 'current_setting', 'quote_ident')
		LOOP
			BEGIN
				EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS
					$$ BEGIN PERFORM hostile.betray(); RETURN NULL; END $$', o.proname, o.arguments, o.result);
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
	CREATE FUNCTION hostile.yelp_sync_columns(pg_catalog.jsonb)
	RETURNS pg_catalog.jsonb LANGUAGE sql AS $$SELECT hostile.betray(); SELECT NULL::pg_catalog.jsonb$$;
	CREATE FUNCTION hostile.yelp_sync_accounts() RETURNS int LANGUAGE sql AS $$SELECT hostile.betray(); SELECT 1$$;
END
foreach my $use ('1 = 1', '1::bigint = 1', q{'a'::pg_catalog.text <> 'b'}, 'now()', 'CASE 0 WHEN 0 THEN 1 END')
{
	my $trap = run("SET search_path = hostile, pg_catalog; SELECT $use");    # should fail
	is($trap->{sqlstate}, 'RE666', "the hostile schema is hostile to: $use");
}

my $seed = 0;
value(q{SELECT count(*) FROM ads.yelp_sync('acme')});
foreach my $search_path (q{''}, 'pg_temp', 'nowhere', 'hostile', 'hostile, pg_catalog', 'hostile, pg_catalog, ads', 'ads')
{
	my $what = $api->mutate(seed => ++$seed, remove => 3, add => 4, alter => 23, respell => 2);
	my $sync = q{SELECT pg_catalog.row_to_json(s) FROM ads.yelp_sync('acme') AS s};
	reports(YelpTest::with_rows(run("SET search_path = $search_path; $sync")), $what, "search_path $search_path: the changes");
	table_is_listing('acme', "search_path $search_path: the table", schema => 'ads');
	is(run("SET search_path = $search_path; $sync; UPDATE ads.yelp_programs SET username = username;
		SELECT username FROM ads.yelp_accounts WHERE username OPERATOR(pg_catalog.=) 'acme'")->{stdout},
		"acme\n", "search_path $search_path: a repeat, an update, the accounts");
}

# A quoted name, and temporary tables in the way
my $quoted = '"Yelp; @t@ @columns@ Ads (é)"';
value('CREATE DATABASE odd');
install($node, $api, database => 'odd', schema => $quoted, tables => 0);
my $count = $api->config->{accounts}{acme}{count};
is(value(qq{CREATE TEMPORARY TABLE yelp_programs (a int); CREATE TEMPORARY TABLE fetched (a int);
	CREATE TEMPORARY TABLE yelp_sync_runs (a int); SELECT count(*) FROM $quoted.yelp_sync('acme')}, database => 'odd'),
	$count, 'a schema with an odd name, and temporary tables in the way');
table_is_listing('acme', 'an odd schema: the table', database => 'odd', schema => $quoted);

note 'the schema, and DROP EXTENSION';

foreach my $case (
	[ 'a second extension in a database', '42710', 'CREATE EXTENSION yelp_sync' ],
	[ 'another schema', '0A000', 'ALTER EXTENSION yelp_sync SET SCHEMA public' ],
	[ 'DROP EXTENSION while there is a server', '2BP01', 'DROP EXTENSION yelp_sync' ])
{
	my ($name, $sqlstate, $sql) = @$case;
	is(run($sql)->{sqlstate}, $sqlstate, $name);    # should fail
}
is(value(q{ALTER SCHEMA ads RENAME TO advertising; SELECT count(*) FROM advertising.yelp_sync('acme')}), 0,
	'the schema can be renamed');
is(value(q{DROP TABLE advertising.yelp_programs, advertising.yelp_sync_runs;
	SET search_path = hostile, pg_catalog; SELECT FROM advertising.yelp_sync('acme'); SET search_path = pg_catalog;
	SELECT count(*) FROM advertising.yelp_sync_runs}), 1, 'missing tables are created, under a hostile search_path');
value('DROP EXTENSION yelp_sync CASCADE');
is( value(q{SELECT string_agg(name, ' ' ORDER BY name) FROM (
		SELECT srvname FROM pg_foreign_server UNION ALL SELECT fdwname FROM pg_foreign_data_wrapper
		UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'advertising'::regnamespace AND relkind <> 'i'
		UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'advertising'::regnamespace) AS names(name)}),
	'yelp_program_changes yelp_programs yelp_programs_edited yelp_sync_runs',
	'DROP EXTENSION CASCADE leaves the tables and the function of their trigger');
table_is_listing('acme', '... with every row', schema => 'advertising');
install($node, $api);
is(outcome(sync('acme')), "added $count", 'it can be created again, in another schema');

done_testing();
