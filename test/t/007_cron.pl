# pg_cron runs syncs on a schedule.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

my ($node, $api) = YelpTest::start(
	conf => q{
		shared_preload_libraries = 'pg_cron'
		cron.database_name = 'postgres'
		cron.use_background_workers = on
		max_worker_processes = 20
	});

YelpTest::must_run($node, q{CREATE EXTENSION pg_cron;
	SELECT cron.schedule('yelp', '* * * * *', $$SELECT yelp_sync('acme')$$)});
ok( $node->poll_query_until('postgres', q{SELECT count(*) >= 1 FROM cron.job_run_details
		WHERE status IN ('succeeded', 'failed')}),
	'the job has run');
is( YelpTest::must_run($node, 'SELECT status FROM cron.job_run_details ORDER BY runid LIMIT 1')->{stdout},
	"succeeded\n",
	'and succeeded')
  or diag(YelpTest::must_run($node, 'SELECT return_message FROM cron.job_run_details')->{stdout});
YelpTest::table_is_listing($node, $api, 'acme', 'the programs are there');
is(YelpTest::must_run($node, 'SELECT added FROM yelp_sync_runs ORDER BY run_id LIMIT 1')->{stdout},
	"1913\n", 'the history tells of it');
ok($node->log_contains(qr/yelp_sync: account "acme" on server "yelp": complete: \+1913 added/),
	'as does the log');
YelpTest::must_run($node, q{SELECT cron.unschedule('yelp')});

done_testing();
