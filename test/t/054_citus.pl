# Citus: yelp_programs distributed by username over two workers, with the same contents after each
# sync as on plain PostgreSQL.  Skipped where the server has no Citus: see test/README.md.
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

$api->config(accounts => { map { $_ => { password => 's3cret', count => $count{$_} } } @accounts });
value($coordinator, q{SELECT citus_set_coordinator_host('} . $coordinator->host . q{', } . $coordinator->port . ')');
foreach my $worker (@workers)
{
	value($coordinator, q{SELECT citus_add_node('} . $worker->host . q{', } . $worker->port . ')');
}
value($coordinator, 'CREATE EXTENSION yelp_sync; SELECT yelp_sync_create_tables()');
foreach my $node ($plain, $coordinator)
{
	value($node, 'DROP SERVER IF EXISTS yelp CASCADE');
	value($node, YelpTest::create_server($_, endpoint => $api->url, page_size => 40)) foreach @accounts;
}

sub value
{
	return YelpTest::value(@_);
}

# Citus connects from node to node by host and port, here a Unix socket's
sub citus_node
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', join "\n", 'shared_preload_libraries = citus',
		'wal_level = logical', 'max_prepared_transactions = 100', 'citus.node_conninfo = \'sslmode=prefer\'', '');
	$node->start;
	value($node, 'CREATE EXTENSION citus');
	return $node;
}

my $content = q{SELECT username, count(*), sum(hashtextextended(
	concat_ws('|', program_id, program_type, budget, currency, billed_clicks, active_features, problems,
		fingerprint, gone_at IS NULL, data), 0)) FROM yelp_programs GROUP BY username ORDER BY username};
my $runs = q{SELECT username, status, added, updated, unchanged, deleted, missing FROM yelp_sync_runs
	ORDER BY finished_at, username};
my $changes = q{SELECT username, action, changed, count(*) FROM yelp_program_changes GROUP BY 1, 2, 3 ORDER BY 1, 2, 3};

# Runs the same on both, and compares what it says, and what is stored then
sub both
{
	my ($name, $sql, %settings) = @_;
	my ($expected, $result) = map { YelpTest::run($_, $sql, %settings) } $plain, $coordinator;
	is($result->{error}, $expected->{error}, "$name: the same error, or none") or diag($result->{stderr});
	is(join("\n", sort split /\n/, $result->{stdout}), join("\n", sort split /\n/, $expected->{stdout}), "$name: the same result");
	is_deeply([ sort @{ $result->{warnings} } ], [ sort @{ $expected->{warnings} } ], "$name: the same warnings");
	is(value($coordinator, $content), value($plain, $content), "$name: the same programs");
	return $result;
}

sub sync_all_accounts
{
	my ($name) = @_;
	both("$name: $_", "SELECT action, program_id, changed FROM yelp_sync('$_')") foreach @accounts;
	return;
}

sub set_option
{
	my ($option, $value) = @_;
	foreach my $node ($plain, $coordinator)
	{
		foreach my $account (@accounts)
		{
			value($node, "ALTER SERVER $account OPTIONS (" . (defined $value ? "ADD $option '$value'" : "DROP $option") . ')');
		}
	}
	return;
}

sub cycle
{
	my ($name) = @_;
	sync_all_accounts("$name: first");
	sync_all_accounts("$name: unchanged");
	$api->mutate(account => $_, seed => 1, remove => 2, add => 3, alter => 9, respell => 2) foreach @accounts;
	sync_all_accounts("$name: changed");
	set_option(record_changes => 'on');
	$api->mutate(account => $_, seed => 2, remove => 3, add => 2, alter => 5) foreach @accounts;
	both("$name: all accounts, with their changes", 'CALL yelp_sync_all()', 'yelp_sync.progress' => 'off');
	is(value($coordinator, $changes), value($plain, $changes), "$name: the same changes");
	set_option('record_changes');
	set_option(on_gone => 'keep');
	$api->mutate(account => $_, seed => 3, remove => 4) foreach @accounts;
	sync_all_accounts("$name: gone, and kept");
	sync_all_accounts("$name: and nothing new");
	set_option('on_gone');
	value($_, q{UPDATE yelp_programs SET currency = 'X' WHERE username = 'acme' AND budget > 100}) foreach $plain, $coordinator;
	both("$name: edits by hand", q{SELECT action, program_id, changed FROM yelp_sync('acme')});
	both("$name: rolled back", q{BEGIN; SELECT count(*) FROM yelp_sync('acme'); ROLLBACK});
	is(value($coordinator, $runs), value($plain, $runs), "$name: the same history");
	return;
}

note 'distributed by username, the other tables as reference tables';

my ($recipe) = slurp_file("$FindBin::RealBin/../../doc/scale-out.md") =~ /^```sql\n(.*?)^```$/msg;
value($coordinator, $recipe);
cycle('distributed');

note 'what goes wrong leaves nothing behind';

$api->mutate(account => 'acme', seed => 4, alter => 30, add => 5);
$api->faults({ match => { offset => 40 }, action => { respond => { status => 500 } } });
both('a page that fails', q{SELECT count(*) FROM yelp_sync('acme')});
$api->reset('faults');
$api->config(accounts => { map { $_ => { password => 's3cret', count => $_ eq 'acme' ? 60 : $count{$_} } } @accounts });
both('too many are gone', q{SELECT action, count(*) FROM yelp_sync('acme') GROUP BY action});
$api->faults({ match => { offset => 40 }, action => { hold => \1 } });
my $session = YelpSession->new($coordinator);
$session->begin_sync('acme');
$session->wait_for(qr/programs in /);
value($coordinator, q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'Extension'
	OR wait_event = 'YelpSyncApi'});
is($session->sync_result->{sqlstate}, '57014', 'a cancel');
$api->reset('faults');
is(value($coordinator, $content), value($plain, $content), 'changes nothing');
is(value($_, 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'no prepared transaction is left on ' . $_->name) foreach $coordinator, @workers;

note 'a managed local table, and a join';

value($coordinator, $_) foreach q{SELECT undistribute_table('yelp_programs')},
	q{SELECT citus_add_local_table_to_metadata('yelp_programs')};
sync_all_accounts('a table in the metadata only');
value($coordinator, q{SELECT undistribute_table('yelp_programs')});
value($coordinator, q{SET citus.enable_unsafe_triggers = on; SELECT create_distributed_table('yelp_programs', 'username')});
isnt(YelpTest::run($coordinator, q{SELECT count(*) FROM yelp_sync('acme') JOIN yelp_programs USING (program_id)
	WHERE username = 'acme'})->{error}, undef, 'a sync cannot be joined with a distributed table');

note 'a worker';

my $worker = $workers[0];
value($worker, q{CREATE USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (username 'acme', password 's3cret')});
my $refused = YelpTest::run($worker, q{SELECT count(*) FROM yelp_sync('acme')});
is($refused->{sqlstate}, '0A000', 'a sync on a worker is refused') or diag($refused->{stderr});

$_->stop foreach $plain, $coordinator, @workers;
done_testing();
