# Citus: a coordinator and two workers, with the same results and contents after each sync as on plain
# PostgreSQL.  Skipped where the server has no Citus: see test/README.md.
use strict;
use warnings FATAL => 'all';

use FindBin ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpSession;
use YelpTest;

my ($pkglibdir) = run_command([ 'pg_config', '--pkglibdir' ]);
plan(skip_all => 'no Citus here') unless -e "$pkglibdir/citus.so";

my %count = (acme => 400, globex => 250, initech => 60);
my @accounts = sort keys %count;
my ($plain, $api) = YelpTest::start;
my ($coordinator, @workers) = map { citus_node($_) } qw(coordinator worker1 worker2);
my @both = ($plain, $coordinator);
my ($recipe) = slurp_file("$FindBin::RealBin/../../doc/scale-out.md") =~ /^```sql\n(.*?)^```$/msg;

sub value
{
	return YelpTest::value(@_);
}

# Citus connects from node to node by host and port, here a Unix socket's
sub citus_node
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	YelpTest::init($node);
	$node->append_conf('postgresql.conf', join "\n", 'shared_preload_libraries = citus',
		'wal_level = logical', 'max_prepared_transactions = 100', 'citus.node_conninfo = \'sslmode=prefer\'', '');
	$node->start;
	value($node, 'CREATE EXTENSION citus');
	return $node;
}

value($coordinator, q{SELECT citus_set_coordinator_host('} . $coordinator->host . q{', } . $coordinator->port . ')');
foreach my $worker (@workers)
{
	value($coordinator, q{SELECT citus_add_node('} . $worker->host . q{', } . $worker->port . ')');
}
value($coordinator, 'CREATE EXTENSION yelp_sync; SELECT yelp_sync_create_tables()');
foreach my $node (@both)
{
	value($node, 'DROP SERVER IF EXISTS yelp CASCADE');
	value($node, YelpTest::create_server($_, endpoint => $api->url, page_size => 40, attempts => 1)) foreach @accounts;
}

my $content = q{SELECT username, count(*), sum(hashtextextended(
	concat_ws('|', program_id, program_type, budget, currency, billed_clicks, active_features, problems,
		fingerprint, gone_at IS NULL, data), 0)) FROM yelp_programs GROUP BY username ORDER BY username};
my $runs = q{SELECT username, status, added, updated, CASE status WHEN 'synced' THEN unchanged END, deleted, missing, sqlstate FROM yelp_sync_runs
	ORDER BY finished_at, username};
my $changes = q{SELECT username, action, changed, count(*), sum(hashtextextended(concat(program_id, old, new), 0))
	FROM yelp_program_changes GROUP BY 1, 2, 3 ORDER BY 1, 2, 3};

# What the SQL returns and says, and what the tables have then
sub outcome
{
	my ($node, $sql, %settings) = @_;
	my $result = YelpTest::run($node, $sql, %settings);
	return {
		(map { $_ => $result->{$_} } qw(sqlstate error detail)),
		warnings => [ sort @{ $result->{warnings} } ],
		rows => [ sort split /\n/, $result->{stdout} ],
		tables => value($node, "$content; $runs; $changes"),
	};
}

my $each = q{SELECT a.username, s.* FROM unnest('{acme,globex,initech}'::text[]) AS a(username), yelp_sync(a.username) AS s};
my $all = 'CALL yelp_sync_all()';
my $broken = { match => { offset => 40 }, action => { respond => { status => 500 } } };
my $held = { match => { offset => 40 }, action => { hold => \1 } };

# before: SQL.  mutate: each account's listing.  options: of all servers.  expect: what the rows must have.
# With several requests at once, it is chance what a look at the end brings of a page that fails.
my @steps = (
	{ name => 'first', before => 'TRUNCATE yelp_programs; TRUNCATE yelp_sync_runs; TRUNCATE yelp_program_changes',
		expect => qr/added/ },
	{ name => 'unchanged', expect => qr/^$/ },
	{ name => 'changed', mutate => { remove => 2, add => 3, alter => 9, respell => 2 }, expect => qr/added.*deleted.*updated/s },
	{ name => 'recorded', mutate => { remove => 3, add => 2, alter => 5 }, options => { record_changes => 'on' } },
	{ name => 'all accounts', mutate => { remove => 1, add => 2, alter => 3 }, options => { record_changes => 'on' }, sql => $all },
	{ name => 'all accounts, one fails', mutate => { alter => 3 }, sql => $all, faults => { %$broken, match => { account => 'globex' } },
		sqlstate => 'HV000' },
	{ name => 'the one that failed', expect => qr/globex\|updated/ },
	{ name => 'gone, but kept', mutate => { remove => 4 }, options => { on_gone => 'keep' }, expect => qr/gone/ },
	{ name => 'kept, and nothing new', options => { on_gone => 'keep' }, expect => qr/^$/ },
	{ name => 'edited by hand', before => q{UPDATE yelp_programs SET currency = 'X' WHERE username = 'acme' AND budget > 100},
		expect => qr/updated/ },
	{ name => 'deleted by hand', before => q{DELETE FROM yelp_programs WHERE username = 'acme' AND budget > 200}, expect => qr/added/ },
	{ name => 'a page that fails', mutate => { remove => 1, alter => 20 }, faults => $broken, sqlstate => 'HV000' },
	{ name => 'partial', options => { partial => 'on', concurrency => 1 }, faults => $broken, expect => qr/acme\|updated/ },
	{ name => 'complete again', expect => qr/deleted/ },
	{ name => 'rolled back', mutate => { remove => 1, add => 1, alter => 10 }, sql => "BEGIN; $each; ROLLBACK", expect => qr/added/ },
	{ name => 'REPEATABLE READ', sql => "BEGIN ISOLATION LEVEL REPEATABLE READ; $each; COMMIT", expect => qr/added/ },
	{ name => 'statement_timeout', mutate => { alter => 5 }, faults => $held, settings => { statement_timeout => '1s' },
		sqlstate => '57014' },
	{ name => 'too many are gone', mutate => { remove => 30 }, options => { max_deleted => '5%' }, expect => qr/missing/ },
	{ name => 'and may go', options => { max_deleted => '100%' }, expect => qr/deleted/ },
);

my $seed = 0;

sub set_options
{
	my ($action, $options) = @_;
	my $list = join ', ', map { "$action $_" . ($action eq 'ADD' ? " '$options->{$_}'" : '') } sort keys %$options;
	value($_, "ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS ($list)") foreach $list ? @both : ();
	return;
}

sub take_step
{
	my ($layout, $step) = @_;
	my ($name, $sql) = ("$layout: $step->{name}", $step->{sql} // $each);

	value($_, $step->{before}) foreach $step->{before} ? @both : ();
	$seed++ if $step->{mutate};
	$api->mutate(account => $_, seed => $seed, %{ $step->{mutate} }) foreach $step->{mutate} ? @accounts : ();
	set_options(ADD => $step->{options} // {});
	$api->faults($step->{faults} // ());
	my ($expected, $result) = map { outcome($_, $sql, %{ $step->{settings} // {} }) } @both;
	set_options(DROP => $step->{options} // {});
	is_deeply($result, $expected, "$name: as on plain PostgreSQL");
	is($result->{sqlstate}, $step->{sqlstate}, "$name: SQLSTATE") or diag(explain($result));
	like(join("\n", @{ $result->{rows} }), $step->{expect} // qr//, "$name: rows");
	return;
}

sub cancel_is_clean
{
	my ($layout) = @_;
	my $session = YelpSession->new($coordinator);
	$api->faults($held);
	$session->begin_sync('acme');
	$session->wait_for(qr/programs in /);
	value($coordinator, 'SELECT pg_cancel_backend(' . $session->pid . ')');
	is($session->sync_result->{sqlstate}, '57014', "$layout: a cancel");
	$api->faults;
	is(value($coordinator, $content), value($plain, $content), "$layout: a cancel changes nothing");
	is(value($_, 'SELECT count(*) FROM pg_prepared_xacts'), 0, "$layout: no prepared transaction on " . $_->name)
	  foreach $coordinator, @workers;
	return;
}

my @layouts = (
	[ 'a local table in the metadata' => q{SELECT citus_add_local_table_to_metadata('yelp_programs')} ],
	[ 'distributed, as documented' => $recipe ],
	[ 'a single shard' => q{SELECT undistribute_table('yelp_programs'); SET citus.enable_unsafe_triggers = on;
		SELECT create_distributed_table('yelp_programs', NULL)} ],
	[ 'distributed, partitions' => q{DROP TABLE yelp_programs; SELECT yelp_sync_create_tables(partitions => 4);
		SET citus.enable_unsafe_triggers = on; SELECT create_distributed_table('yelp_programs', 'username')} ],
);
foreach my $layout (@layouts)
{
	$api->config(accounts => { map { $_ => { password => 's3cret', count => $count{$_} } } @accounts });
	value($coordinator, $layout->[1]);
	take_step($layout->[0], $_) foreach @steps;
	cancel_is_clean($layout->[0]);
}

note 'the trigger';

my $unsafe = 'SET citus.enable_unsafe_triggers = on;';
foreach my $case (
	[ 'dropped', "$unsafe DROP TRIGGER yelp_programs_edited ON yelp_programs;",
		'trigger yelp_programs_edited on table public.yelp_programs is missing or disabled' ],
	[ 'created again', "$unsafe SELECT yelp_sync_create_tables();" ])
{
	my ($name, $sql, @warnings) = @$case;
	my $sync = YelpTest::run($coordinator, "$sql SELECT count(*) FROM yelp_sync('acme')");
	is_deeply($sync->{warnings}, \@warnings, "the trigger is $name") or diag($sync->{stderr});
}
is(value($coordinator, q{UPDATE yelp_programs SET currency = 'X' WHERE username = 'acme'; SELECT count(*) > 100 FROM yelp_sync('acme')}),
	't', 'and edits are restored');

note 'a join, and a worker';

my $joined = YelpTest::run($coordinator, q{SELECT count(*) FROM yelp_sync('acme') JOIN yelp_programs USING (program_id)
	WHERE username = 'acme'});
is($joined->{error}, 'a sync cannot run on a worker node of Citus', 'a sync joined with a distributed table would run on a worker');

my $requests = $api->counters->{requests};
foreach my $sql (q{SELECT count(*) FROM yelp_sync('acme')}, 'CALL yelp_sync_all()')
{
	my $refused = YelpTest::run($workers[0], $sql);
	is($refused->{sqlstate}, '0A000', "$sql on a worker") or diag($refused->{stderr});
}
is($api->counters->{requests}, $requests, 'nothing is fetched there');

$_->stop foreach @both, @workers;
done_testing();
