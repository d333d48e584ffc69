# Row-level security: what its policies hide or forbid is told, and not left out in silence.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my $programs = 50;
my ($node, $api) = YelpTest::start();
my $cannot = 'row-level security policies on table "%s" do not allow role "syncer" to %s';
my $partial = qr/could not write/;

sub value
{
	return YelpTest::value($node, @_);
}

sub sync
{
	return YelpTest::sync($node, 'acme', role => 'syncer');
}

# These policies of yelp_programs, and no others
sub policies
{
	my (@policies) = @_;
	my @old = split /\n/,
	  value(q{SELECT policyname FROM pg_policies WHERE tablename = 'yelp_programs'});

	value(join '; ', map { "DROP POLICY $_ ON yelp_programs" } @old) if @old;
	value("CREATE POLICY p$_ ON yelp_programs $policies[$_]") foreach 0 .. $#policies;
	return;
}

# Nothing is asked for, and nothing changes.
sub is_refused
{
	my ($name, $message) = @_;
	my $requests = $api->counters->{requests};
	my $result = sync();

	is($result->{sqlstate}, '42501', "$name: refused");
	is($result->{error}, $message, "$name: why");
	like($result->{hint}, qr/^Create a policy .* or let the table's owner sync/, "$name: what to do");
	is($api->counters->{requests}, $requests, "$name: before anything was asked for");
	return;
}

sub works
{
	my ($name) = @_;
	my $what = $api->mutate(remove => 2, alter => 5, add => 3);
	my $result = sync();

	is($result->{error}, undef, "$name: works");
	is(scalar(@{ $result->{rows} }), 10, "$name: all changes");
	is(value(YelpTest::last_run('status')), 'synced', "$name: synced");
	YelpTest::table_is_listing($node, $api, 'acme', "$name: the table");
	return;
}

# Some of the changes could not be made, which is said.
sub keeps
{
	my ($name, $kept, %change) = @_;
	$api->mutate(%change);
	my $result = sync();

	is($result->{error}, undef, "$name: no error");
	is_deeply([ grep { $_ =~ $partial } @{ $result->{warnings} } ],
		["could not write $kept programs of account \"acme\""], "$name: a warning");
	is(scalar(@{ $result->{rows} }), 0, "$name: nothing is reported as changed");
	is(value(YelpTest::last_run('status, updated, deleted')),
		'partial|0|0', "$name: the run");
	return;
}

$api->config(accounts => { acme => { count => $programs } });
YelpTest::sync($node, 'acme');
value(q{
	INSERT INTO yelp_programs (username, program_id, data) VALUES ('other', 'not ours', '{}');
	CREATE ROLE syncer LOGIN;
	CREATE ROLE team;
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO syncer;
	GRANT SELECT, INSERT ON yelp_sync_runs TO syncer;
	GRANT USAGE ON FOREIGN SERVER yelp TO syncer;
	CREATE USER MAPPING FOR syncer SERVER yelp OPTIONS (username 'acme', password 's3cret');
	ALTER TABLE yelp_programs ENABLE ROW LEVEL SECURITY});

note 'no policy for a command';

my ($read, $insert, $update, $delete) = (
	'FOR SELECT TO syncer USING (true)', 'FOR INSERT TO syncer WITH CHECK (true)',
	'FOR UPDATE TO syncer USING (true)', 'FOR DELETE TO syncer USING (true)');
my @cases = (
	[ 'no policy', 'SELECT' ],
	[ 'policies of others', 'SELECT', 'TO team USING (true)' ],
	[ 'a restrictive policy alone', 'SELECT', 'AS RESTRICTIVE USING (true)' ],
	[ 'no policy to insert', 'INSERT', $read ],
	[ 'no policy to update', 'UPDATE', $read, $insert, $delete ],
	[ 'no policy to delete', 'DELETE', $read, $insert, $update ]);
foreach my $case (@cases)
{
	my ($name, $command, @policies) = @$case;
	policies(@policies);
	is_refused($name, sprintf $cannot, 'yelp_programs', $command);
}

note 'rows that are hidden';

my $hides = 'row-level security hides %d of %d programs of account "acme" from role "syncer"';
policies(q{TO syncer USING (username = 'other')});
is_refused('another account', sprintf $hides, $programs, $programs);
policies(q{USING (coalesce(budget, 0) < 0 OR currency = 'USD')});
my $hidden = value(q{SELECT count(*) FROM yelp_programs WHERE username = 'acme' AND currency IS DISTINCT FROM 'USD'});
cmp_ok($hidden, '>', 0, 'some are not in dollars');
is_refused('some programs', sprintf $hides, $hidden, $programs);
policies('USING (true)', q{AS RESTRICTIVE USING (program_id <> (SELECT min(program_id COLLATE "C") FROM (VALUES ('}
	  . value(q{SELECT min(program_id COLLATE "C") FROM yelp_programs WHERE username = 'acme'}) . q{')) v(program_id)))});
is_refused('a restrictive policy that hides one', sprintf $hides, 1, $programs);

note 'policies that let a sync do its work';

policies(q{TO syncer USING (username = 'acme')});
works('a policy for all commands');
value('GRANT team TO syncer');
policies('TO team USING (true)');
works('a policy of a role that it is a member of');
policies('USING (true)');
works('a policy for everybody');
policies($read, $insert, $update, $delete);
works('a policy for each command');
value('ALTER TABLE yelp_programs FORCE ROW LEVEL SECURITY');
policies(q{USING (username = 'acme')});
works('forced for the owner as well');
value('ALTER ROLE syncer BYPASSRLS');
policies();
works('a role that bypasses them');
value('ALTER ROLE syncer NOBYPASSRLS');

note 'policies that are narrower for what is written';

policies($read, $insert, q{FOR UPDATE TO syncer USING (false)}, $delete);
keeps('updates', 5, alter => 5);
policies($read, $insert, $update, q{FOR DELETE TO syncer USING (false)});
value(q{SELECT FROM yelp_sync('acme')});
keeps('deletions', 2, remove => 2);
policies($read, q{FOR INSERT TO syncer WITH CHECK (username = 'other')}, $update, $delete);
$api->mutate(add => 1);
is(sync()->{sqlstate}, '42501', 'insertions: an error');
policies('USING (true)');
is(sync()->{error}, undef, 'with another policy');
YelpTest::table_is_listing($node, $api, 'acme', 'all is put right');

note 'the history';

value('ALTER TABLE yelp_sync_runs ENABLE ROW LEVEL SECURITY');
is_refused('no policy on yelp_sync_runs', sprintf $cannot, 'yelp_sync_runs', 'SELECT');
value('CREATE POLICY own ON yelp_sync_runs FOR SELECT USING (true)');
is_refused('no policy to insert there', sprintf $cannot, 'yelp_sync_runs', 'INSERT');
value('CREATE POLICY add ON yelp_sync_runs FOR INSERT WITH CHECK (true)');
works('with policies there');

note 'recorded changes';

YelpTest::set_server($node, 'record_changes', 'on');
value('GRANT SELECT, INSERT ON yelp_program_changes TO syncer;
	ALTER TABLE yelp_program_changes ENABLE ROW LEVEL SECURITY');
is_refused('no policy on yelp_program_changes', sprintf $cannot, 'yelp_program_changes', 'INSERT');
value(q{CREATE POLICY add ON yelp_program_changes FOR INSERT WITH CHECK (username = 'acme')});
works('with a policy there');
is(value('SELECT count(*) FROM yelp_program_changes'), 10, 'each is recorded');
value(q{ALTER POLICY add ON yelp_program_changes WITH CHECK (action <> 'deleted')});
$api->mutate(remove => 1, add => 1);
my $before = value('SELECT count(*) FROM yelp_programs');
is(sync()->{sqlstate}, '42501', 'a policy that forbids one of them');
is(value('SELECT count(*) FROM yelp_programs'), $before, 'nothing changed');
value('ALTER POLICY add ON yelp_program_changes WITH CHECK (true)');
is(sync()->{error}, undef, 'with another policy');
YelpTest::table_is_listing($node, $api, 'acme', 'what was not recorded was not lost');

$node->stop;
done_testing();
