# pg_cron runs syncs on a schedule, also of an ordinary role, in both of its modes: in background
# workers, and over connections of its own.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my $directory = `pg_config --sharedir` =~ s/\n//r;
need(pg_cron => -e "$directory/extension/pg_cron.control");

my @shards = qw(shard1 shard2 shard3);
my ($node, $api) = start(
	accounts => { map { $_ => { count => 100 } } 'acme', 'ads', 'badpass', 'closed', @shards },
	conf => q{
		shared_preload_libraries = 'pg_cron'
		cron.database_name = 'postgres'
		max_worker_processes = 20
	});

# The jobs run once: status and message of each by its name
sub run_jobs
{
	my %ended;

	value('TRUNCATE cron.job_run_details');
	value(q{SELECT cron.schedule('all', '* * * * *', 'CALL yelp_sync_all(''acme'', ''badpass'')')});
	value(q{SELECT cron.schedule('yelp ' || username, '* * * * *',
			format('SELECT yelp_sync(%L)', username))
		FROM yelp_accounts WHERE username NOT IN ('acme', 'badpass')});
	value(q{SELECT cron.schedule('ordinary', '* * * * *', 'CALL yelp_sync_all()')},
		session_authorization => 'ads');
	ok( $node->poll_query_until('postgres', q{
			SELECT count(DISTINCT jobid) = (SELECT count(*) FROM cron.job)
			FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')}),
		'all jobs have run');
	foreach (split /\n/, value(q{SELECT DISTINCT ON (jobid) jobname, d.status, replace(return_message, E'\n', ' ')
		FROM cron.job_run_details d JOIN cron.job USING (jobid) WHERE d.status IN ('succeeded', 'failed')
		ORDER BY jobid, runid}))
	{
		my ($job, $status, $message) = split /\|/, $_, 3;
		$ended{$job} = { status => $status, message => $message };
		note("$job: $status, $message");
	}
	value('SELECT cron.unschedule(jobid) FROM cron.job');
	ok( $node->poll_query_until('postgres',
			q{SELECT count(*) = 0 FROM cron.job_run_details WHERE status NOT IN ('succeeded', 'failed')}),
		'and none runs any more');
	return \%ended;
}

sub test_mode
{
	my ($mode) = @_;

	value('TRUNCATE yelp_programs, yelp_sync_runs');
	my $ended = run_jobs();
	foreach my $account (@shards)
	{
		is($ended->{"yelp $account"}{status}, 'succeeded', "$mode: a job of one account succeeds: $account");
		table_is_listing($account, "$mode: its programs are stored");
	}
	like(join(' ', @{ $ended->{'yelp closed'} }{qw(status message)}), qr/^failed .*account "closed": API rejected the credentials/,
		"$mode: a wrong password: the job fails, and says why");
	like(join(' ', @{ $ended->{all} }{qw(status message)}), qr/^failed .*1 of 2 accounts.*badpass/,
		"$mode: all accounts, one of which fails: the job fails, and names it");
	table_is_listing('acme', "$mode: the other one is synced");
	is($ended->{ordinary}{status}, 'succeeded', "$mode: the job of an ordinary role succeeds");
	table_is_listing('ads', "$mode: its programs are stored");
	is( value(q{SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'succeeded'}, session_authorization => 'ads'),
		't', "$mode: it sees the result of its job");
	is( value(q{SELECT string_agg(DISTINCT synced_by, ' ') FROM yelp_sync_runs WHERE username = 'ads'}),
		'ads', "$mode: its job runs as itself");
	is(value(q{SELECT string_agg(DISTINCT username || ' ' || status, ', ' ORDER BY username || ' ' || status)
		FROM yelp_sync_runs}),
		join(', ', 'acme synced', 'ads synced', 'badpass failed', map { "$_ synced" } @shards), "$mode: the history");
	return;
}

value(create_server($_, endpoint => $api->url)) foreach @shards;
value(create_server($_, endpoint => $api->url, password => 'wrong')) foreach qw(badpass closed);
value(q{CREATE EXTENSION pg_cron; ALTER ROLE CURRENT_USER SET yelp_sync.progress = off});

# What an ordinary role needs, as doc/operations.md has it; all servers have the wrapper's endpoint
value('CREATE ROLE ads LOGIN; SELECT yelp_sync_create_tables()');
is(run(q{SELECT cron.schedule('x', '* * * * *', 'x')}, session_authorization => 'ads')->{sqlstate},
	'42501', 'an ordinary role cannot use pg_cron');    # should fail
value('GRANT USAGE ON SCHEMA cron TO ads');
value('ALTER FOREIGN DATA WRAPPER yelp_sync ' . options(endpoint => $api->url));
value(q{GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO ads;
	GRANT SELECT, INSERT, UPDATE, DELETE ON yelp_programs TO ads;
	GRANT SELECT, INSERT ON yelp_sync_runs TO ads});
value(q{SELECT yelp_sync_add_account('ads', 's3cret')}, session_authorization => 'ads');

$node->append_conf('postgresql.conf', "cron.use_background_workers = on\n");
$node->restart;
test_mode('background workers');
ok($node->log_contains(qr/yelp_sync: account "acme" on server "yelp": complete: \+100 added/),
	'the log has the sync');

$node->append_conf('postgresql.conf',
	"cron.use_background_workers = off\ncron.host = '" . $node->host . "'\n");
$node->restart;
test_mode('connections');

$node->stop;
done_testing();
