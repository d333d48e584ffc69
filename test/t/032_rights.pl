# Whose code a sync runs, and as whom: code that others planted in the tables never runs with more rights than
# theirs, and what users plant in their own tables still works.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my ($node, $api) = YelpTest::start(tables => 0);
my $before_18 = $node->pg_version < 18;

# Roles log in themselves: after SET ROLE, RESET ROLE would be enough for a thief.
sub value
{
	my ($sql, $role) = @_;
	return YelpTest::value($node, $sql, user => $role);
}

sub sync
{
	my ($role) = @_;
	return YelpTest::sync($node, 'acme', user => $role);
}

# A sync as this role is refused before anything is fetched.
sub is_refused
{
	my ($role, $name, $error, $hint) = @_;
	my $requests = $api->counters->{requests};
	my $result = sync($role);

	is($result->{sqlstate}, '42501', "$name, as $role: refused") or diag($result->{stderr});
	like($result->{error}, $error, "$name, as $role: why");
	like($result->{hint}, $hint, "$name, as $role: what to do");
	cmp_ok(length($_ // ''), '<=', 160, "$name, as $role: not too long") foreach $result->{detail};
	is($api->counters->{requests}, $requests, "$name, as $role: before anything was asked for");
	return;
}

sub works
{
	my ($role, $name) = @_;
	my $what = $api->mutate(remove => 1, alter => 3, add => 1);
	my $result = sync($role);

	is($result->{error}, undef, "$name, as $role: works") or diag($result->{stderr});
	is(scalar(@{ $result->{rows} }), 5, "$name, as $role: all changes");
	YelpTest::table_is_listing($node, $api, 'acme', "$name, as $role: the table");
	return $result;
}

# What was run since the last call, and as whom
sub ran
{
	return value(q{WITH gone AS (DELETE FROM ran RETURNING *)
		SELECT string_agg(DISTINCT place || ' ' || who, ', ' ORDER BY place || ' ' || who) FROM gone}) || '';
}

sub nobody_gained
{
	my ($name) = @_;
	is(value(q{SELECT count(*) FROM pg_roles WHERE rolname IN ('ads', 'evil') AND (rolsuper OR rolcreaterole)}), 0,
		"$name: nobody has become a superuser");
	return;
}

# note() records as whom it runs, and tries what a thief of rights would.
sub theft
{
	my ($owner) = @_;
	return qq{
		CREATE FUNCTION note(place text) RETURNS boolean LANGUAGE plpgsql AS \$\$
		DECLARE
			attack text;
		BEGIN
			FOREACH attack IN ARRAY ARRAY['ALTER ROLE $owner SUPERUSER', 'RESET ROLE', 'SET ROLE root_role',
				'RESET SESSION AUTHORIZATION', 'SET LOCAL SESSION AUTHORIZATION DEFAULT',
				'SET search_path = nowhere'] LOOP
				BEGIN
					EXECUTE attack;
				EXCEPTION WHEN OTHERS THEN
					NULL;
				END;
			END LOOP;
			INSERT INTO public.ran VALUES (place, current_user);
			RETURN true;
		END \$\$;
		CREATE FUNCTION pure_note(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
			'BEGIN RETURN public.note(place); END';
		CREATE FUNCTION noting() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM public.note(TG_ARGV[0]);
			RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
		END \$\$;};
}

value(q{
	CREATE ROLE root_role LOGIN SUPERUSER;
	CREATE ROLE ads LOGIN;
	CREATE ROLE member LOGIN IN ROLE ads;
	CREATE ROLE clerk LOGIN;
	CREATE ROLE evil LOGIN;
	GRANT CREATE ON SCHEMA public TO ads, evil;
	CREATE TABLE ran (place text, who text);
	GRANT ALL ON ran TO PUBLIC;
	CREATE USER MAPPING FOR PUBLIC SERVER yelp OPTIONS (username 'acme', password 's3cret');
	DROP USER MAPPING FOR CURRENT_USER SERVER yelp;
	GRANT USAGE ON FOREIGN SERVER yelp TO PUBLIC});
YelpTest::set_server($node, record_changes => 'on', max_deleted => '100%');
$api->config(accounts => { acme => { count => 50 } });
my $created = sync('ads');
is($created->{error}, undef, 'a role makes the tables');
like(join("\n", @{ $created->{notices} }),
	qr/^yelp_sync: created public\.yelp_programs, public\.yelp_sync_runs, public\.yelp_program_changes$/m, 'which is told');

note 'the owner\'s code';

value(theft('ads'), 'ads');
value(q{CREATE FUNCTION show_path() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO public.ran VALUES (current_setting('search_path'), current_user); RETURN NULL; END $$;
	CREATE TRIGGER show_path AFTER INSERT ON yelp_programs EXECUTE FUNCTION show_path()}, 'ads');
foreach my $case ([ 'ads', '"$user", public' ], [ 'root_role', 'pg_catalog, pg_temp' ])
{
	works($case->[0], 'search_path');
	is(ran(), "$case->[1] ads", "search_path, as $case->[0]");
}
value('DROP FUNCTION show_path CASCADE', 'ads');
foreach my $sql (q{GRANT EXECUTE ON FUNCTION note(text) TO PUBLIC},
	q{CREATE TRIGGER mine BEFORE INSERT OR UPDATE OR DELETE ON yelp_programs FOR EACH ROW
		WHEN (note('when')) EXECUTE FUNCTION noting('row')},
	q{CREATE TRIGGER each_statement AFTER UPDATE ON yelp_programs EXECUTE FUNCTION noting('statement')},
	q{ALTER TABLE yelp_programs ADD COLUMN added boolean DEFAULT note('default')},
	q{ALTER TABLE yelp_programs ADD CHECK (note('check'))},
	q{ALTER TABLE yelp_programs ADD COLUMN generated boolean GENERATED ALWAYS AS (pure_note('generated')) STORED},
	q{CREATE INDEX mine ON yelp_programs (pure_note('index' || left(program_id, 0)))},
	q{CREATE TRIGGER mine BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION noting('history')},
	q{CREATE TRIGGER mine BEFORE INSERT ON yelp_program_changes FOR EACH ROW EXECUTE FUNCTION noting('changes')})
{
	value($sql, 'ads');
}
ran();
my @places = ('changes', 'check', 'default', 'generated', 'history', 'index', 'row', 'statement', 'when');
foreach my $role ('root_role', 'member', 'ads')
{
	works($role, 'code of the owner');
	is(ran(), join(', ', map { "$_ ads" } @places), "as $role: the owner's code runs as the owner");
	is(value('SELECT synced_by FROM yelp_sync_runs ORDER BY finished_at DESC LIMIT 1'), $role,
		"as $role: the history names who synced");
	nobody_gained("as $role");
}
is(value(q{SELECT FROM yelp_sync('acme'); SELECT current_user, current_setting('search_path')}, 'root_role'),
	qq{root_role|"\$user", public}, 'then the user and the settings are as before');
value('CALL yelp_sync_all()', 'root_role');
is(ran(), 'history ads', 'the procedure');
$api->faults({ action => { respond => { status => 401 } } });
is(YelpTest::run($node, 'CALL yelp_sync_all()', user => 'root_role')->{sqlstate}, 'HV000', 'one that fails');
is(ran(), 'history ads', 'its record');
$api->faults;

# The planner evaluates this, whoever reads the table
value(q{CREATE INDEX planned ON yelp_programs (pure_note('plan'))}, 'ads');
ran();
is(sync('root_role')->{error}, undef, 'what the planner runs');
value('SELECT count(*) FROM yelp_sync_status', 'root_role');
value('DROP INDEX planned', 'ads');
like(ran(), qr/^history ads, plan ads$/, 'is run as the owner');
nobody_gained('what the planner runs');

# A failing trigger leaves no objects
value(q{CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE $$no$$; END';
	CREATE TRIGGER fails BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION fails()}, 'ads');
is(value(q{DO $$ BEGIN PERFORM yelp_sync('acme'); EXCEPTION WHEN OTHERS THEN NULL; END $$;
	SELECT current_user, current_setting('search_path')}, 'root_role'), 'root_role|"$user", public', 'after an error as well');
value('DROP FUNCTION fails CASCADE');

# The owner needs what statements need
value('REVOKE EXECUTE ON FUNCTION yelp_sync_columns FROM PUBLIC');
is_refused('root_role', 'an owner without privileges', qr/^role "ads" lacks privileges that a sync needs$/,
	qr/^Run: GRANT EXECUTE ON FUNCTION public\.yelp_sync_columns TO ads;$/);
value('GRANT EXECUTE ON FUNCTION yelp_sync_columns TO PUBLIC');

# At the end of the transaction it would be the superuser's again
value(q{CREATE CONSTRAINT TRIGGER late AFTER INSERT ON yelp_programs DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION noting('late')}, 'ads');
is_refused('root_role', 'a deferred trigger', qr/^trigger "late" on table public\.yelp_programs is deferred$/, qr/^Sync as role "ads"\.$/);
value('ALTER TABLE yelp_programs DISABLE TRIGGER late');
works('root_role', 'a deferred trigger that is disabled');
value('ALTER TABLE yelp_programs ENABLE TRIGGER late');
works('ads', 'a deferred trigger');
like(ran(), qr/late ads/, 'a deferred trigger, as ads: it runs');
# One that its owner defers on the way
value('DROP TRIGGER late ON yelp_programs', 'ads');
value(q{CREATE CONSTRAINT TRIGGER late AFTER INSERT ON yelp_programs DEFERRABLE FOR EACH ROW EXECUTE FUNCTION noting('late');
	CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NULL; END';
	CREATE TRIGGER defer BEFORE INSERT ON yelp_programs EXECUTE FUNCTION defer()}, 'ads');
ran();
$api->mutate(add => 1);
is(sync('root_role')->{sqlstate}, '42501', 'a trigger that its owner defers');
is(ran(), '', 'has not run');
nobody_gained('a trigger that its owner defers');
is(sync('ads')->{error}, undef, 'as the owner it runs');
value(q{DROP FUNCTION defer CASCADE; DROP TRIGGER late ON yelp_programs;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON yelp_programs DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION noting('late')}, 'ads');

value('ALTER TABLE yelp_programs OWNER TO postgres; ALTER TABLE yelp_sync_runs OWNER TO postgres;
	ALTER TABLE yelp_program_changes OWNER TO postgres; ALTER FUNCTION yelp_programs_edited() OWNER TO postgres');
value(join ';', map { "ALTER FUNCTION $_ OWNER TO postgres" } 'note(text)', 'pure_note(text)', 'noting()');
works('root_role', 'a deferred trigger of another superuser');
# From PostgreSQL 18 on as the role that wrote the row, before as the one at the end
my $late = value('SHOW server_version_num') >= 180000 ? 'postgres' : 'root_role';
like(ran(), qr/late $late.*row postgres/, 'which runs as one of them at the end');
value('DROP TRIGGER late ON yelp_programs; ALTER ROLE ads NOSUPERUSER');

note 'a role with privileges on a superuser\'s tables';

is_refused('clerk', 'no privileges', qr/^role "clerk" lacks privileges that a sync needs$/,
	qr/^Run: GRANT SELECT, INSERT, UPDATE, DELETE ON public\.yelp_programs TO clerk; GRANT SELECT, INSERT ON public\.yelp_sync_runs TO clerk; GRANT INSERT ON public\.yelp_program_changes TO clerk;$/);
my $grants = 'GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO clerk; GRANT SELECT, INSERT ON yelp_sync_runs TO clerk;
	GRANT INSERT ON yelp_program_changes TO clerk';
value($grants);
works('clerk', 'privileges');
is(ran(), join(', ', map { "$_ clerk" } @places), 'a trusted owner\'s code runs as the caller');

note 'whose code is trusted';

value('DROP FUNCTION noting CASCADE; DROP FUNCTION note CASCADE; DROP FUNCTION pure_note CASCADE');
value(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER nothing BEFORE INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION nothing()});
my $nothing = qr/^function public\.nothing\(\) belongs to role/;
my $alter = qr/^Check it, then run: ALTER FUNCTION public\.nothing\(\) OWNER TO postgres;/;
value('ALTER FUNCTION nothing OWNER TO clerk');
works('clerk', 'its own');
is_refused('postgres', 'that of another', $nothing, $alter);
my $schema = value('SELECT nspowner::regrole FROM pg_namespace WHERE nspname = $$public$$');
value('ALTER SCHEMA public OWNER TO ads; ALTER FUNCTION nothing OWNER TO member');
works('clerk', 'of a role with the privileges of the schema\'s owner');
is_refused('postgres', 'of the schema\'s owner', $nothing, $alter);
value("ALTER SCHEMA public OWNER TO $schema; ALTER FUNCTION nothing OWNER TO ads");
is_refused($_, 'of a former owner of the schema', $nothing, $alter) foreach 'clerk', 'postgres';
value('DROP FUNCTION nothing CASCADE');

note 'code of others';

value(theft('evil') . q{
	CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT note($$operator$$)';
	CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
	CREATE DOMAIN evil_text AS text;
	CREATE FUNCTION harmless(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'}, 'evil');
value(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'});
my @planted = (
	[ 'a trigger', 'CREATE TRIGGER spy BEFORE INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION noting()',
		'DROP TRIGGER spy ON yelp_programs', 'function public.noting()' ],
	[ 'a condition', q{CREATE TRIGGER spy BEFORE INSERT ON yelp_programs FOR EACH ROW WHEN (note('x')) EXECUTE FUNCTION nothing()},
		'DROP TRIGGER spy ON yelp_programs', 'function public.note(pg_catalog.text)' ],
	[ 'an operator', q{CREATE TRIGGER spy BEFORE INSERT ON yelp_programs FOR EACH ROW WHEN (NEW.currency === 'x') EXECUTE FUNCTION nothing()},
		'DROP TRIGGER spy ON yelp_programs', 'function public.same(pg_catalog.text,pg_catalog.text)' ],
	[ 'a check', q{ALTER TABLE yelp_programs ADD CONSTRAINT spy CHECK (note('x')) NOT VALID},
		'ALTER TABLE yelp_programs DROP CONSTRAINT spy', 'function public.note(pg_catalog.text)' ],
	[ 'a default', q{ALTER TABLE yelp_sync_runs ADD spy boolean; ALTER TABLE yelp_sync_runs ALTER spy SET DEFAULT note('x')},
		'ALTER TABLE yelp_sync_runs DROP spy', 'function public.note(pg_catalog.text)' ],
	[ 'a domain', 'ALTER TABLE yelp_programs ADD spy evil_text', 'ALTER TABLE yelp_programs DROP spy', 'domain public.evil_text' ],
	[ 'an index', q{CREATE INDEX spy ON yelp_program_changes (harmless(action))},
		'DROP INDEX spy', 'function public.harmless(pg_catalog.text)' ],
	[ 'a rule', q{CREATE RULE spy AS ON INSERT TO yelp_program_changes DO ALSO SELECT note('x')},
		'DROP RULE spy ON yelp_program_changes', 'function public.note(pg_catalog.text)' ]);
foreach my $case (@planted)
{
	my ($name, $sql, $undo, $what) = @$case;

	value($sql);
	is_refused($_, $name, qr/^\Q$what\E belongs to role "evil"$/, qr/^Check it, then run: ALTER (FUNCTION|DOMAIN) .* OWNER TO postgres; or drop what uses it\.$/)
	  foreach 'postgres', 'clerk';
	value($undo);
}
foreach my $case ([ 'yelp_programs', 'evil' ], [ 'yelp_sync_runs', 'PUBLIC' ], [ 'yelp_program_changes', 'evil' ])
{
	my ($table, $role) = @$case;

	value("GRANT TRIGGER ON $table TO $role");
	is_refused('postgres', "TRIGGER for $role", qr/^role "\L$role\E" may create triggers on table public\.$table$/,
		qr/^Check its triggers, then run: REVOKE TRIGGER ON public\.$table FROM $role;$/);
	value("REVOKE TRIGGER ON $table FROM $role");
}
value('GRANT TRIGGER ON yelp_programs TO root_role; GRANT REFERENCES ON yelp_programs TO evil');
works('postgres', 'TRIGGER for another superuser, REFERENCES');
value('GRANT SELECT ON yelp_programs TO evil');
value('CREATE TABLE leads (username text, program_id text,
		FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON DELETE RESTRICT,
		FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON UPDATE RESTRICT);
	CREATE VIEW spy AS SELECT note(currency) FROM yelp_programs', 'evil');
value('CREATE TABLE kinds (kind text PRIMARY KEY)', 'evil');
value('ALTER TABLE yelp_programs ADD kind text REFERENCES kinds, ADD UNIQUE (kind) DEFERRABLE');
works('postgres', 'tables that reference them or are referenced, a view, a deferrable constraint');
value('ALTER TABLE yelp_programs DROP kind; DROP TABLE kinds');
value('DROP TABLE leads; CREATE TABLE leads (username text, program_id text,
	FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON DELETE CASCADE);
	CREATE TRIGGER spy AFTER DELETE ON leads EXECUTE FUNCTION noting()', 'evil');
if ($before_18)
{
	is_refused('postgres', 'a table that cascades', qr/^(function public\.noting\(\) belongs to|role "evil" may create triggers on table public\.leads)/,
		qr/OWNER TO postgres/);
	value('DROP TRIGGER spy ON leads');
	is_refused('postgres', 'a table that cascades', qr/^role "evil" may create triggers on table public\.leads$/,
		qr/^Check its triggers, then run: ALTER TABLE public\.leads OWNER TO postgres;$/);
}
else
{
	works('postgres', 'a table that cascades');
}
value('DROP TABLE leads; DROP VIEW spy');
nobody_gained('code of others');
is(ran(), '', 'none of it has run');

note 'owners';

foreach my $case ([ 'TABLE', 'yelp_sync_runs' ], [ 'TABLE', 'yelp_program_changes' ], [ 'FUNCTION', 'yelp_programs_edited()' ])
{
	my ($kind, $object) = @$case;

	value("ALTER $kind $object OWNER TO evil");
	is_refused('postgres', "another owner of $object", qr/^not all tables of yelp_sync belong to role "postgres", the owner of yelp_programs$/,
		qr/^Check what they are, then run: ALTER $kind public\.\Q$object\E OWNER TO postgres;$/);
	value("ALTER $kind $object OWNER TO postgres");
}
value('ALTER TABLE yelp_programs OWNER TO evil');
is_refused('clerk', 'a stranger\'s table', qr/^table public\.yelp_programs belongs to role "evil"$/, qr/^Sync as its owner/);
is_refused('postgres', 'a stranger\'s table', qr/^not all tables/, qr/ALTER TABLE public\.yelp_sync_runs OWNER TO evil;/);
value('ALTER TABLE yelp_programs OWNER TO postgres');

note 'partitions';

value('DROP TABLE yelp_programs; SELECT yelp_sync_create_tables(partitions => 2)');
is(sync('postgres')->{error}, undef, 'partitions');
value('ALTER TABLE yelp_programs_1 OWNER TO evil');
is_refused('postgres', 'a partition of another', qr/^not all tables/, qr/ALTER TABLE public\.yelp_programs_1 OWNER TO postgres;$/);
value('ALTER TABLE yelp_programs_1 OWNER TO postgres; GRANT TRIGGER ON yelp_programs_0 TO evil');
is_refused('postgres', 'TRIGGER on a partition', qr/^role "evil" may create triggers on table public\.yelp_programs_0$/, qr/REVOKE/);
value('REVOKE TRIGGER ON yelp_programs_0 FROM evil;
	CREATE TRIGGER spy AFTER INSERT ON yelp_programs_1 FOR EACH ROW EXECUTE FUNCTION noting()');
is_refused('postgres', 'a trigger on a partition', qr/^function public\.noting\(\) belongs to role "evil"$/, qr/ALTER FUNCTION/);
value('DROP TRIGGER spy ON yelp_programs_1; DROP TABLE yelp_programs; SELECT yelp_sync_create_tables();
	CREATE TABLE parent (LIKE yelp_programs) PARTITION BY LIST (username);
	ALTER TABLE parent ATTACH PARTITION yelp_programs DEFAULT; GRANT TRIGGER ON parent TO evil');
is_refused('postgres', 'TRIGGER on a parent', qr/^role "evil" may create triggers on table public\.parent$/, qr/REVOKE/);
value('ALTER TABLE parent DETACH PARTITION yelp_programs; DROP TABLE parent');

note 'yelp_sync_status reads no strangers\' views';

value('ALTER TABLE yelp_sync_runs RENAME TO moved; ALTER TABLE yelp_programs RENAME TO moved_programs');
value(q{CREATE VIEW yelp_programs AS SELECT 'x' AS username WHERE note('view');
	CREATE TABLE yelp_sync_runs (username text, finished_at timestamptz, status text, sqlstate text, error text);
	ALTER TABLE yelp_sync_runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY spy ON yelp_sync_runs USING (note('policy')); GRANT SELECT ON yelp_sync_runs, yelp_programs TO PUBLIC;
	INSERT INTO yelp_sync_runs VALUES ('y')}, 'evil');
ran();
is(value('SELECT username FROM yelp_sync_status', 'clerk'), 'acme', 'nor their tables, as who cannot become them');
is(ran(), '', 'nothing has run');
is(value('SELECT username FROM yelp_sync_status', 'postgres'), "acme\ny", 'who can become them reads their tables');
is(ran(), 'policy evil', 'as they');
value('DROP VIEW yelp_programs; DROP TABLE yelp_sync_runs; ALTER TABLE moved RENAME TO yelp_sync_runs;
	ALTER TABLE moved_programs RENAME TO yelp_programs');

note 'while a sync waits for the API';

value($grants);
is(sync('postgres')->{error}, undef, 'a first sync');
my $session = YelpSession->new($node);
foreach my $statement (q{SELECT yelp_sync('acme')}, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT yelp_sync('acme')}, 'CALL yelp_sync_all()')
{
	my $stored = value('SELECT md5(string_agg(p::text, $$,$$ ORDER BY program_id)) FROM yelp_programs p');

	$api->mutate(alter => 3);
	$api->faults({ match => { offset => 20 }, action => { hold => \1 } });
	$session->begin($statement);
	$api->poll_counter('held', 1);
	value('GRANT TRIGGER ON yelp_programs TO evil');
	value('CREATE TRIGGER spy BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION noting()', 'evil');
	value('REVOKE TRIGGER ON yelp_programs FROM evil');
	$api->faults;
	$api->release;
	my $result = $session->result;
	like("$result->{error} " . ($result->{detail} // ''), qr/function public\.noting\(\) belongs to role "evil"/, "$statement: a trigger is created");
	$session->run('ROLLBACK');
	is(value('SELECT md5(string_agg(p::text, $$,$$ ORDER BY program_id)) FROM yelp_programs p'), $stored, "$statement: nothing is stored");
	is(ran(), '', "$statement: it has not run");
	value('DROP TRIGGER spy ON yelp_programs');
}
# From then on, none can be, even if nothing is written
my $other = YelpSession->new($node);
is(sync('postgres')->{error}, undef, 'a sync that writes');
$session->run(q{BEGIN; SELECT yelp_sync('acme')});
$other->begin('CREATE TRIGGER spy BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION nothing()');
$node->poll_query_until('postgres', q{SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = } . $other->pid);
$session->run('COMMIT');
is($other->result->{error}, undef, 'a trigger that waits for the end of the sync');
value('DROP TRIGGER spy ON yelp_programs');
$_->end foreach $session, $other;
nobody_gained('in the end');

note 'who has no privileges waits for no lock, so nobody waits for it';

my $holder = YelpSession->new($node);
value(q{ALTER ROLE evil SET lock_timeout = '3s'; REVOKE CREATE ON SCHEMA public FROM evil, PUBLIC});
$holder->run('BEGIN; LOCK TABLE yelp_programs, yelp_sync_runs, yelp_program_changes');
is_refused('evil', 'tables that are locked', qr/^role "evil" lacks privileges that a sync needs$/, qr/^Run: GRANT/);
is(YelpTest::run($node, 'SELECT yelp_sync_create_tables()', user => 'evil')->{error}, undef, 'tables that are there');
$holder->run('COMMIT; DROP TABLE yelp_program_changes; BEGIN; SELECT yelp_sync_create_tables()');
my $may_not = qr/^role "evil" may not create public\.yelp_program_changes$/;
is_refused('evil', 'tables that are being made', $may_not, qr/run SELECT public\.yelp_sync_create_tables\(\); and grant/);
like(YelpTest::run($node, 'SELECT yelp_sync_create_tables()', user => 'evil')->{error}, $may_not, 'nor by the function');
$holder->run('COMMIT');
value($grants);
$holder->end;

note 'row-level security';

my $hint = qr/^Let the table's owner sync, .* or a role with BYPASSRLS\.$/;
foreach my $table ('yelp_programs', 'yelp_sync_runs', 'yelp_program_changes')
{
	value("ALTER TABLE $table ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON $table USING (true)");
	is_refused('clerk', "policies on $table", qr/^row-level security on table public\.$table applies to role "clerk"$/, $hint);
	works('postgres', "policies on $table");
	value('ALTER ROLE clerk BYPASSRLS');
	works('clerk', "policies on $table, and BYPASSRLS");
	value("ALTER ROLE clerk NOBYPASSRLS; ALTER TABLE $table DISABLE ROW LEVEL SECURITY");
}
value(join ';', map { "ALTER TABLE $_ OWNER TO ads" } 'yelp_programs', 'yelp_sync_runs', 'yelp_program_changes');
value('ALTER FUNCTION yelp_programs_edited() OWNER TO ads; ALTER TABLE yelp_programs ENABLE ROW LEVEL SECURITY');
works($_, 'policies') foreach 'ads', 'root_role';
value('ALTER TABLE yelp_programs FORCE ROW LEVEL SECURITY');
is_refused($_, 'forced policies', qr/^row-level security on table public\.yelp_programs applies to role "ads"$/, $hint) foreach 'ads', 'root_role';

$node->stop;
done_testing();
