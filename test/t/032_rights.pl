# Whose code a sync runs, and as whom: code that others planted in the tables never runs with more
# privileges than theirs, and what users add to their own tables works.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my ($node, $api) = start(tables => 0, accounts => { acme => { count => 50 } });

# Roles log in themselves: after SET ROLE, RESET ROLE would be enough for an attacker
sub as
{
	my ($role, $sql) = @_;
	return value($sql, user => $role);
}

# A sync as this role is refused before anything is fetched
sub is_refused
{
	my ($role, $name, $error, $hint) = @_;
	my $requests = $api->counters->{requests};
	my $result = sync('acme', user => $role);

	like("$result->{sqlstate}: $result->{error}", qr/^42501: $error/, "$name, as $role: refused");
	like($result->{hint}, $hint, "$name, as $role: what to do");
	cmp_ok(length($result->{detail} // ''), '<=', 160, "$name, as $role: not too long");
	is($api->counters->{requests}, $requests, "$name, as $role: before any request");
	return;
}

sub works
{
	my ($role, $name) = @_;
	$api->mutate(remove => 1, alter => 3, add => 1);
	is(outcome(sync('acme', user => $role)), 'added 1, deleted 1, updated 3', "$name, as $role: works");
	table_is_listing('acme', "$name, as $role: the table");
	return;
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

# note() records as whom it runs, and tries what an attacker would
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

my @tables = qw(yelp_programs yelp_sync_runs yelp_program_changes);
my $lacks = qr/role "\w+" lacks privileges that a sync needs$/;
my $grants = 'GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO clerk; GRANT SELECT, INSERT ON yelp_sync_runs TO clerk;
	GRANT INSERT ON yelp_program_changes TO clerk';
my $settings = 'SELECT current_user, current_setting(\'search_path\')';

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
set_server(record_changes => 'on', max_deleted => '100%');
my $created = sync('acme', user => 'ads');
is(outcome($created), 'added 50', 'a role creates the tables');
like(join("\n", @{ $created->{notices} }),
	qr/^yelp_sync: created public\.yelp_programs, public\.yelp_sync_runs, public\.yelp_program_changes$/m, '... with a notice');

note 'the code of the owner';

as('ads', theft('ads') . q{CREATE FUNCTION show_path() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO public.ran VALUES (current_setting('search_path'), current_user); RETURN NULL; END $$;
	CREATE TRIGGER show_path AFTER INSERT ON yelp_programs EXECUTE FUNCTION show_path()});
foreach my $case ([ 'ads', '"$user", public' ], [ 'root_role', 'pg_catalog, pg_temp' ])
{
	works($case->[0], 'search_path');
	is(ran(), "$case->[1] ads", "search_path, as $case->[0]");
}
# Each in a session of its own, because note() may alter the session
as('ads', $_) foreach split /;\n/, q{DROP FUNCTION show_path CASCADE;
	GRANT EXECUTE ON FUNCTION note(text) TO PUBLIC;
	CREATE TRIGGER mine BEFORE INSERT OR UPDATE OR DELETE ON yelp_programs FOR EACH ROW
		WHEN (note('when')) EXECUTE FUNCTION noting('row');
	CREATE TRIGGER each_statement AFTER UPDATE ON yelp_programs EXECUTE FUNCTION noting('statement');
	ALTER TABLE yelp_programs ADD COLUMN added boolean DEFAULT note('default');
	ALTER TABLE yelp_programs ADD CHECK (note('check'));
	ALTER TABLE yelp_programs ADD COLUMN generated boolean GENERATED ALWAYS AS (pure_note('generated')) STORED;
	CREATE INDEX mine ON yelp_programs (pure_note('index' || left(program_id, 0)));
	CREATE TRIGGER mine BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION noting('history');
	CREATE TRIGGER mine BEFORE INSERT ON yelp_program_changes FOR EACH ROW EXECUTE FUNCTION noting('changes')};
ran();
my @places = qw(changes check default generated history index row statement when);
foreach my $role ('root_role', 'member', 'ads')
{
	works($role, 'code of the owner');
	is(ran(), join(', ', map { "$_ ads" } @places), "as $role: it runs as the owner");
	is(history('synced_by'), $role, "as $role: the history names who synced");
	nobody_gained("as $role");
}
is(as('root_role', "SELECT FROM yelp_sync('acme'); $settings"), qq{root_role|"\$user", public},
	'then the user and the settings are as before');
as('root_role', 'CALL yelp_sync_all()');
is(ran(), 'history ads', 'the procedure');
$api->faults({ action => { respond => { status => 401 } } });
is(run('CALL yelp_sync_all()', user => 'root_role')->{sqlstate}, 'HV000', 'a procedure that fails');
is(ran(), 'history ads', '... its record');
$api->faults;

# The planner evaluates this, whoever reads the table
as('ads', q{CREATE INDEX planned ON yelp_programs (pure_note('plan'))});
ran();
is(sync('acme', user => 'root_role')->{error}, undef, 'code that the planner runs');
as('root_role', 'SELECT count(*) FROM yelp_sync_status');
as('ads', 'DROP INDEX planned');
is(ran(), 'history ads, plan ads', '... is run as the owner');
nobody_gained('code that the planner runs');

as('ads', q{CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE $$no$$; END';
	CREATE TRIGGER fails BEFORE INSERT ON yelp_sync_runs FOR EACH ROW EXECUTE FUNCTION fails()});
is(as('root_role', qq{DO \$\$ BEGIN PERFORM yelp_sync('acme'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$; $settings}),
	'root_role|"$user", public', 'the user and the settings are as before after an error');
value('DROP FUNCTION fails CASCADE; REVOKE EXECUTE ON FUNCTION yelp_sync_columns FROM PUBLIC');
is_refused('root_role', 'an owner without privileges', qr/role "ads" lacks privileges that a sync needs$/,
	qr/^Run: GRANT EXECUTE ON FUNCTION public\.yelp_sync_columns TO ads;$/);
value('GRANT EXECUTE ON FUNCTION yelp_sync_columns TO PUBLIC');

note 'deferred triggers, which would run as the superuser at the end of the transaction';

my $late = q{CREATE CONSTRAINT TRIGGER late AFTER INSERT ON yelp_programs DEFERRABLE %s FOR EACH ROW EXECUTE FUNCTION noting('late')};
as('ads', sprintf $late, 'INITIALLY DEFERRED');
is_refused('root_role', 'a deferred trigger', qr/trigger "late" on table public\.yelp_programs is deferred$/, qr/^Sync as role "ads"\.$/);
value('ALTER TABLE yelp_programs DISABLE TRIGGER late');
works('root_role', 'a deferred trigger that is disabled');
value('ALTER TABLE yelp_programs ENABLE TRIGGER late');
works('ads', 'a deferred trigger');
like(ran(), qr/late ads/, 'a deferred trigger, as ads: it runs');
as('ads', 'DROP TRIGGER late ON yelp_programs;' . sprintf($late, '') . q{;
	CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NULL; END';
	CREATE TRIGGER defer BEFORE INSERT ON yelp_programs EXECUTE FUNCTION defer()});
ran();
$api->mutate(add => 1);
is(sync('acme', user => 'root_role')->{sqlstate}, '42501', 'a trigger that its owner defers meanwhile');
is(ran(), '', '... has not run');
nobody_gained('a trigger that its owner defers meanwhile');
is(sync('acme', user => 'ads')->{error}, undef, '... runs as the owner');
as('ads', 'DROP FUNCTION defer CASCADE; DROP TRIGGER late ON yelp_programs;' . sprintf $late, 'INITIALLY DEFERRED');
value(join ';', (map { "ALTER TABLE $_ OWNER TO postgres" } @tables),
	map { "ALTER FUNCTION $_ OWNER TO postgres" } 'yelp_programs_edited()', 'note(text)', 'pure_note(text)', 'noting()');
works('root_role', 'a deferred trigger of another superuser');
# From PostgreSQL 18 on as the role that wrote the row, before as the one at the end
my $runs_as = $node->pg_version >= 18 ? 'postgres' : 'root_role';
like(ran(), qr/late $runs_as.*row postgres/, '... which runs as one of them at the end');
value('DROP TRIGGER late ON yelp_programs; ALTER ROLE ads NOSUPERUSER');

note 'a role with privileges on the tables of a superuser';

is_refused('clerk', 'no privileges', $lacks,
	qr/^Run: GRANT SELECT, INSERT, UPDATE, DELETE ON public\.yelp_programs TO clerk; GRANT SELECT, INSERT ON public\.yelp_sync_runs TO clerk; GRANT INSERT ON public\.yelp_program_changes TO clerk;$/);
value($grants);
works('clerk', 'privileges');
is(ran(), join(', ', map { "$_ clerk" } @places), 'the code of a trusted owner runs as the caller');

note 'whose code is trusted';

value('DROP FUNCTION noting CASCADE; DROP FUNCTION note CASCADE; DROP FUNCTION pure_note CASCADE');
value(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER nothing BEFORE INSERT ON yelp_programs FOR EACH ROW EXECUTE FUNCTION nothing();
	ALTER FUNCTION nothing OWNER TO clerk});
my @nothing = (qr/function public\.nothing\(\) belongs to role/, qr/^Check it, then run: ALTER FUNCTION public\.nothing\(\) OWNER TO postgres;/);
works('clerk', 'its own');
is_refused('postgres', 'of another role', @nothing);
my $schema_owner = value(q{SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'public'});
value('ALTER SCHEMA public OWNER TO ads; ALTER FUNCTION nothing OWNER TO member');
works('clerk', 'of a role with the privileges of the schema\'s owner');
is_refused('postgres', 'of the schema\'s owner', @nothing);
value("ALTER SCHEMA public OWNER TO $schema_owner; ALTER FUNCTION nothing OWNER TO ads");
is_refused($_, 'of a former owner of the schema', @nothing) foreach 'clerk', 'postgres';
value('DROP FUNCTION nothing CASCADE');

note 'the code of others';

as('evil', theft('evil') . q{
	CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT note($$operator$$)';
	CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
	CREATE DOMAIN evil_text AS text;
	CREATE TYPE evil_kind AS ENUM ('synced', 'partial');
	CREATE FUNCTION kind_of(text) RETURNS evil_kind LANGUAGE sql AS 'SELECT note($$cast$$); SELECT $$synced$$::evil_kind';
	CREATE CAST (text AS evil_kind) WITH FUNCTION kind_of AS ASSIGNMENT;
	CREATE FUNCTION harmless(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'});
value(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'});
my $trigger = 'CREATE TRIGGER spy BEFORE INSERT ON yelp_programs FOR EACH ROW';
my $note = 'function public.note(pg_catalog.text)';
foreach my $case (
	[ 'a trigger', "$trigger EXECUTE FUNCTION noting()", 'DROP TRIGGER spy ON yelp_programs', 'function public.noting()' ],
	[ 'a condition', "$trigger WHEN (note('x')) EXECUTE FUNCTION nothing()", 'DROP TRIGGER spy ON yelp_programs', $note ],
	[ 'an operator', "$trigger WHEN (NEW.currency === 'x') EXECUTE FUNCTION nothing()",
		'DROP TRIGGER spy ON yelp_programs', 'function public.same(pg_catalog.text,pg_catalog.text)' ],
	[ 'a check', q{ALTER TABLE yelp_programs ADD CONSTRAINT spy CHECK (note('x')) NOT VALID},
		'ALTER TABLE yelp_programs DROP CONSTRAINT spy', $note ],
	[ 'a default', q{ALTER TABLE yelp_sync_runs ADD spy boolean; ALTER TABLE yelp_sync_runs ALTER spy SET DEFAULT note('x')},
		'ALTER TABLE yelp_sync_runs DROP spy', $note ],
	[ 'a domain', 'ALTER TABLE yelp_programs ADD spy evil_text', 'ALTER TABLE yelp_programs DROP spy', 'type public.evil_text' ],
	[ 'a type with a cast', q{ALTER TABLE yelp_sync_runs ALTER status TYPE evil_kind USING 'synced'},
		'ALTER TABLE yelp_sync_runs ALTER status TYPE text', 'type public.evil_kind' ],
	[ 'an index', q{CREATE INDEX spy ON yelp_program_changes (harmless(action))},
		'DROP INDEX spy', 'function public.harmless(pg_catalog.text)' ],
	[ 'statistics', q{CREATE STATISTICS spy ON budget, (pure_note('statistics') = is_autobid) FROM yelp_programs},
		'DROP STATISTICS spy', 'function public.pure_note(pg_catalog.text)' ],
	[ 'a rule', q{CREATE RULE spy AS ON INSERT TO yelp_program_changes DO ALSO SELECT note('x')},
		'DROP RULE spy ON yelp_program_changes', $note ])
{
	my ($name, $sql, $undo, $what) = @$case;

	value($sql);
	is_refused($_, $name, qr/\Q$what\E belongs to role "evil"$/, qr/^Check it, then run: ALTER (FUNCTION|TYPE) .* OWNER TO postgres; or drop what uses it\.$/)
	  foreach 'postgres', 'clerk';
	value($undo);
}
foreach my $case ([ 'yelp_programs', 'evil' ], [ 'yelp_sync_runs', 'PUBLIC' ], [ 'yelp_program_changes', 'evil' ])
{
	my ($table, $role) = @$case;

	value("GRANT TRIGGER ON $table TO $role");
	is_refused('postgres', "TRIGGER for $role", qr/role "\L$role\E" may create triggers on table public\.$table$/,
		qr/^Check its triggers, then run: REVOKE TRIGGER ON public\.$table FROM $role;$/);
	value("REVOKE TRIGGER ON $table FROM $role");
}
value('GRANT TRIGGER ON yelp_programs TO root_role; GRANT REFERENCES ON yelp_programs TO evil');
works('postgres', 'TRIGGER for another superuser, REFERENCES');
value('GRANT SELECT ON yelp_programs TO evil');
my $leads = 'CREATE TABLE leads (username text, program_id text, FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON DELETE';
as('evil', "$leads RESTRICT, FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON UPDATE RESTRICT);
	CREATE VIEW spy AS SELECT note(currency) FROM yelp_programs; CREATE TABLE kinds (kind text PRIMARY KEY)");
value('ALTER TABLE yelp_programs ADD kind text REFERENCES kinds, ADD UNIQUE (kind) DEFERRABLE');
works('postgres', 'tables that reference them or are referenced, a view, a deferrable constraint');
value('ALTER TABLE yelp_programs DROP kind; DROP TABLE kinds');
as('evil', "DROP TABLE leads; $leads CASCADE); CREATE TRIGGER spy AFTER DELETE ON leads EXECUTE FUNCTION noting()");
if ($node->pg_version < 18)
{
	my $may = qr/role "evil" may create triggers on table public\.leads/;
	is_refused('postgres', 'a table that cascades', qr/(function public\.noting\(\) belongs to|$may)/, qr/OWNER TO postgres/);
	value('DROP TRIGGER spy ON leads');
	is_refused('postgres', 'a table that cascades', $may, qr/^Check its triggers, then run: ALTER TABLE public\.leads OWNER TO postgres;$/);
	value("DROP TABLE leads; $leads CASCADE) PARTITION BY LIST (username); CREATE TABLE evils PARTITION OF leads DEFAULT;
		ALTER TABLE evils OWNER TO evil");
	is_refused('postgres', 'a partition of a table that cascades', qr/role "evil" may create triggers on table public\.evils$/,
		qr/^Check its triggers, then run: ALTER TABLE public\.evils OWNER TO postgres;$/);
}
else
{
	works('postgres', 'a table that cascades');
}
value('DROP TABLE leads; DROP VIEW spy');
as('evil', q{CREATE FUNCTION yelp_sync_picked(yelp_sync_values, jsonb, text, text[]) RETURNS jsonb LANGUAGE sql
	AS 'SELECT note($$picked$$); SELECT NULL::jsonb'});
works('postgres', 'a function with the name of ours');
as('evil', 'DROP FUNCTION yelp_sync_picked(yelp_sync_values, jsonb, text, text[])');
nobody_gained('the code of others');
is(ran(), '', 'none of it has run');

note 'owners and partitions';

foreach my $case ([ 'TABLE', 'yelp_sync_runs' ], [ 'TABLE', 'yelp_program_changes' ], [ 'FUNCTION', 'yelp_programs_edited()' ])
{
	my ($kind, $object) = @$case;

	value("ALTER $kind $object OWNER TO evil");
	is_refused('postgres', "another owner of $object", qr/not all tables of yelp_sync belong to role "postgres", the owner of yelp_programs$/,
		qr/^Check what they are, then run: ALTER $kind public\.\Q$object\E OWNER TO postgres;$/);
	value("ALTER $kind $object OWNER TO postgres");
}
value('ALTER TABLE yelp_programs OWNER TO evil');
is_refused('clerk', 'a stranger\'s table', qr/table public\.yelp_programs belongs to role "evil"$/, qr/^Sync as its owner/);
is_refused('postgres', 'a stranger\'s table', qr/not all tables/, qr/ALTER TABLE public\.yelp_sync_runs OWNER TO evil;/);
value('ALTER TABLE yelp_programs OWNER TO postgres; DROP TABLE yelp_programs; SELECT yelp_sync_create_tables(partitions => 2)');
is(sync('acme', user => 'postgres')->{error}, undef, 'partitions');
foreach my $case (
	[ 'a partition of another role', 'ALTER TABLE yelp_programs_1 OWNER TO evil', 'ALTER TABLE yelp_programs_1 OWNER TO postgres',
		qr/not all tables/, qr/ALTER TABLE public\.yelp_programs_1 OWNER TO postgres;$/ ],
	[ 'TRIGGER on a partition', 'GRANT TRIGGER ON yelp_programs_0 TO evil', 'REVOKE TRIGGER ON yelp_programs_0 FROM evil',
		qr/role "evil" may create triggers on table public\.yelp_programs_0$/, qr/REVOKE/ ],
	[ 'a trigger on a partition', 'CREATE TRIGGER spy AFTER INSERT ON yelp_programs_1 FOR EACH ROW EXECUTE FUNCTION noting()',
		'DROP TRIGGER spy ON yelp_programs_1; DROP TABLE yelp_programs; SELECT yelp_sync_create_tables()',
		qr/function public\.noting\(\) belongs to role "evil"$/, qr/ALTER FUNCTION/ ],
	[ 'TRIGGER on a parent', 'CREATE TABLE parent (LIKE yelp_programs) PARTITION BY LIST (username);
			ALTER TABLE parent ATTACH PARTITION yelp_programs DEFAULT; GRANT TRIGGER ON parent TO evil',
		'ALTER TABLE parent DETACH PARTITION yelp_programs; DROP TABLE parent',
		qr/role "evil" may create triggers on table public\.parent$/, qr/REVOKE/ ],
	[ 'a table of another role that inherits', q{CREATE TABLE child () INHERITS (yelp_sync_runs); ALTER TABLE child OWNER TO evil;
			SET ROLE evil; CREATE INDEX ON child (pure_note('plan')); DELETE FROM ran; RESET ROLE},
		'DROP TABLE child', qr/not all tables/, qr/ALTER TABLE public\.child OWNER TO postgres;$/ ],
	[ 'TRIGGER on a parent of the history', 'CREATE TABLE parent (LIKE yelp_sync_runs) PARTITION BY LIST (username);
			ALTER TABLE parent ATTACH PARTITION yelp_sync_runs DEFAULT; GRANT TRIGGER ON parent TO evil',
		'ALTER TABLE parent DETACH PARTITION yelp_sync_runs; DROP TABLE parent',
		qr/role "evil" may create triggers on table public\.parent$/, qr/REVOKE/ ],
	[ 'the key of a parent', q{CREATE TABLE parent (LIKE yelp_programs) PARTITION BY LIST (pure_note(username));
			ALTER TABLE yelp_programs DROP CONSTRAINT yelp_programs_pkey;
			ALTER TABLE parent ATTACH PARTITION yelp_programs FOR VALUES IN (true); DELETE FROM ran},
		'ALTER TABLE parent DETACH PARTITION yelp_programs; DROP TABLE parent;
			ALTER TABLE yelp_programs ADD PRIMARY KEY (username, program_id)',
		qr/function public\.pure_note\(pg_catalog\.text\) belongs to role "evil"$/, qr/ALTER FUNCTION/ ])
{
	my ($name, $sql, $undo, @refused) = @$case;
	value($sql);
	is_refused('postgres', $name, @refused);
	is(ran(), '', "$name: it has not run");
	value($undo);
}
value(q{CREATE TABLE parent (LIKE yelp_programs INCLUDING INDEXES) PARTITION BY LIST (username);
	ALTER TABLE parent ATTACH PARTITION yelp_programs DEFAULT;
	CREATE TABLE evils PARTITION OF parent FOR VALUES IN ('evil');
	ALTER TABLE evils ADD CHECK (note('sibling')); ALTER TABLE evils OWNER TO evil});
is(sync('acme', user => 'postgres')->{error}, undef, 'a first sync');
works('postgres', 'code in another partition of a parent');
value('ALTER TABLE parent DETACH PARTITION yelp_programs; DROP TABLE parent');

note 'yelp_sync_status runs no code of others, and reads no views of theirs';

value('ALTER TABLE yelp_programs RENAME TO plain; SELECT yelp_sync_create_tables(partitions => 2); ALTER TABLE yelp_programs_1 OWNER TO evil');
as('evil', q{CREATE INDEX spy ON yelp_programs_1 (pure_note('plan'))});
ran();
my $status = run('SELECT * FROM yelp_sync_status');
like(failure($status), qr/^42501: not all tables .*\n.*\nHINT:  .*ALTER TABLE public\.yelp_programs_1 OWNER TO postgres;/, 'a partition of another role');
value('ALTER TABLE yelp_programs_1 OWNER TO postgres');
$status = run('SELECT * FROM yelp_sync_status');
like(failure($status), qr/^42501: function public\.pure_note\(.*\n.*\nHINT:  .*ALTER FUNCTION/, 'an index');
value('DROP TABLE yelp_programs; ALTER TABLE plain RENAME TO yelp_programs; GRANT TRIGGER ON yelp_programs TO evil');
is(ran(), '', '... and none has run');
is(value('SELECT username FROM yelp_sync_status'), 'acme', 'who may create triggers does not matter');
value('REVOKE TRIGGER ON yelp_programs FROM evil');

value('ALTER TABLE yelp_sync_runs RENAME TO moved; ALTER TABLE yelp_programs RENAME TO moved_programs');
as('evil', q{CREATE VIEW yelp_programs AS SELECT 'x' AS username WHERE note('view');
	CREATE TABLE yelp_sync_runs (username text, finished_at timestamptz, status text, sqlstate text, error text);
	ALTER TABLE yelp_sync_runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY spy ON yelp_sync_runs USING (note('policy')); GRANT SELECT ON yelp_sync_runs, yelp_programs TO PUBLIC;
	INSERT INTO yelp_sync_runs VALUES ('y')});
ran();
is(as('clerk', 'SELECT username FROM yelp_sync_status'), 'acme', 'nor their tables, for a role that cannot become them');
is(ran(), '', '... and nothing has run');
is(as('postgres', 'SELECT username FROM yelp_sync_status'), "acme\ny", 'a role that can become them reads their tables');
is(ran(), 'policy evil', '... as they');
value('DROP VIEW yelp_programs; DROP TABLE yelp_sync_runs; ALTER TABLE moved RENAME TO yelp_sync_runs;
	ALTER TABLE moved_programs RENAME TO yelp_programs');

note 'while a sync waits for the API';

value($grants);
is(sync('acme', user => 'postgres')->{error}, undef, 'a first sync');
my $session = YelpSession->new($node);
my $content = q{SELECT md5(string_agg(p::text, ',' ORDER BY program_id)) FROM yelp_programs p};
foreach my $statement (q{SELECT yelp_sync('acme')}, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT yelp_sync('acme')}, 'CALL yelp_sync_all()')
{
	my $stored = value($content);

	$api->mutate(alter => 3);
	like(failure(while_held($session, $statement, sub {
				value('GRANT TRIGGER ON yelp_programs TO evil');
				as('evil', 'CREATE TRIGGER spy BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION noting()');
				value('REVOKE TRIGGER ON yelp_programs FROM evil');
			}, offset => 20)), qr/function public\.noting\(\) belongs to role "evil"/, "$statement: a trigger is created");
	$session->run('ROLLBACK');
	is(value($content), $stored, "$statement: nothing is stored");
	is(ran(), '', "$statement: it has not run");
	value('DROP TRIGGER spy ON yelp_programs');
}
# From the merge on, none can be created, even if nothing is written
my $other = YelpSession->new($node);
is(sync('acme', user => 'postgres')->{error}, undef, 'a sync that writes');
$session->run(q{BEGIN; SELECT yelp_sync('acme')});
$other->begin('CREATE TRIGGER spy BEFORE UPDATE ON yelp_programs FOR EACH ROW EXECUTE FUNCTION nothing()');
wait_for_lock($other);
$session->run('COMMIT');
is($other->result->{error}, undef, 'creating a trigger waits for the end of the sync');
value('DROP TRIGGER spy ON yelp_programs');
nobody_gained('in the end');

note 'a role without privileges waits for no lock, so nobody waits for it';

value(q{ALTER ROLE evil SET lock_timeout = '3s'; REVOKE CREATE ON SCHEMA public FROM evil, PUBLIC});
$session->run('BEGIN; LOCK TABLE yelp_programs, yelp_sync_runs, yelp_program_changes');
is_refused('evil', 'tables that are locked', $lacks, qr/^Run: GRANT/);
is(run('SELECT yelp_sync_create_tables()', user => 'evil')->{error}, undef, 'tables that exist');
$session->run('COMMIT; DROP TABLE yelp_program_changes; BEGIN; SELECT yelp_sync_create_tables()');
my $may_not = qr/role "evil" may not create public\.yelp_program_changes$/;
is_refused('evil', 'tables that are being created', $may_not, qr/run SELECT public\.yelp_sync_create_tables\(\); and grant/);
like(run('SELECT yelp_sync_create_tables()', user => 'evil')->{error}, $may_not, '... nor by the function');
$session->run('COMMIT');
value($grants);
$_->end foreach $session, $other;

note 'row-level security';

my $hint = qr/^Let the table's owner sync, .* or a role with BYPASSRLS\.$/;
foreach my $table (@tables)
{
	value("ALTER TABLE $table ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON $table USING (true)");
	is_refused('clerk', "policies on $table", qr/row-level security on table public\.$table applies to role "clerk"$/, $hint);
	works('postgres', "policies on $table");
	value('ALTER ROLE clerk BYPASSRLS');
	works('clerk', "policies on $table, and BYPASSRLS");
	value("ALTER ROLE clerk NOBYPASSRLS; ALTER TABLE $table DISABLE ROW LEVEL SECURITY");
}
value(join ';', (map { "ALTER TABLE $_ OWNER TO ads" } @tables), 'ALTER FUNCTION yelp_programs_edited() OWNER TO ads',
	'ALTER TABLE yelp_programs ENABLE ROW LEVEL SECURITY');
works($_, 'policies') foreach 'ads', 'root_role';
value('ALTER TABLE yelp_programs FORCE ROW LEVEL SECURITY');
is_refused($_, 'forced policies', qr/row-level security on table public\.yelp_programs applies to role "ads"$/, $hint) foreach 'ads', 'root_role';

done_testing();
