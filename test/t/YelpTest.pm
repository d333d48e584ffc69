# YelpTest - a cluster with yelp_sync and the stand-in for Yelp's API, for TAP tests
#
#   my ($node, $api) = YelpTest::start(server => { page_size => 40 });
#   my $sync = YelpTest::sync($node, 'acme', 'yelp_sync.progress' => 'json');
#   is(@{ $sync->{rows} }, 1913, 'all programs are added');
#   YelpTest::table_is_listing($node, $api, 'acme');
#
#   $api->faults({ match => { offset => 40 }, action => { hold => \1 } });
#   my $session = YelpSession->new($node);
#   $session->begin_sync('acme');
#   $session->wait_for(qr/programs in 96 pages/);
#   $api->release;
#   my $result = $session->sync_result;

package YelpTest;

use strict;
use warnings FATAL => 'all';

use Encode ();
use Fcntl ();
use File::Spec ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;

use YelpApi;
use YelpProcess;
use YelpSession;

my $json = JSON::PP->new->allow_nonref;

$ENV{PGCLIENTENCODING} = 'UTF8';

# Texts are strings of characters: a test with any beyond ASCII needs "use utf8".

# my ($node, $api) = YelpTest::start(%options)
# A running cluster and a stand-in.  The database postgres has the extension, the server
# yelp with the stand-in as its endpoint over HTTP, and a mapping to acme; see install,
# which takes the %options left over.
# conf: more lines for postgresql.conf.  init: a list of arguments for initdb.  api: a
# list of arguments for the stand-in.  install (default 1): 0 for no extension.
sub start
{
	my (%options) = @_;
	my $conf = delete $options{conf};
	my $init = delete $options{init} // [];
	my $arguments = delete $options{api} // [];
	my $install = delete $options{install} // 1;
	my $node = PostgreSQL::Test::Cluster->new('main');
	my $api = YelpApi->start(@$arguments);

	init($node, @$init);
	$node->append_conf('postgresql.conf', $conf) if defined $conf;
	$node->start;
	install($node, $api, %options) if $install;
	return ($node, $api);
}

# YelpTest::init($node, @arguments)
# What $node->init does, with the encoding UTF8; @arguments are for initdb.  Without any, the
# cluster is a copy of one that all files of a run share: initdb takes half a second of processor time.
my $copying_initdb = <<'END';
#!/bin/sh
while [ "$1" != -D ] && [ "$1" != --pgdata ]; do shift; done
exec cp -a --sparse=always "${0%/*}/data" "$2"
END

sub shared_cluster
{
	my $directory = "$PostgreSQL::Test::Utils::tmp_check/initdb";
	mkdir $directory;
	open(my $lock, '>', "$directory/lock") or die "$directory/lock: $!\n";
	flock($lock, Fcntl::LOCK_EX) or die "$directory/lock: $!\n";
	return $directory if -e "$directory/initdb";
	PostgreSQL::Test::Utils::system_or_bail('initdb', '-D', "$directory/data", '-A', 'trust', '-N',
		'--encoding=UTF8', '--locale=C');
	PostgreSQL::Test::Utils::append_to_file("$directory/initdb", $copying_initdb);
	chmod 0755, "$directory/initdb";
	return $directory;
}

sub init
{
	my ($node, @arguments) = @_;
	local $ENV{PATH} = @arguments ? $ENV{PATH} : shared_cluster() . ":$ENV{PATH}";
	$node->init(extra => [ '--encoding=UTF8', '--locale=C', @arguments ]);
	return;
}

# YelpTest::lacks($what, $found)
# Why tests that need $what (nginx) must be skipped: undef where it was found.  Where nothing
# may be skipped (test/run --need-all) it is an error that it was not.
#
# YelpTest::need($what, $found)
# Skips the whole file then.
sub lacks
{
	my ($what, $found) = @_;
	return if $found;
	die "no $what here\n" if $ENV{YELP_SYNC_TEST_NEED_ALL};
	return "no $what here";
}

sub need
{
	my $reason = lacks(@_);
	plan(skip_all => $reason) if $reason;
	return;
}

# YelpTest::install($node, $api, %options)
# Creates the extension, its tables, the server yelp and a mapping for the current user in a
# database (default postgres).  schema: the extension's; it is created unless it exists.
# tables (default 1): 0 to leave the tables to the first sync.  username and password
# (acme, s3cret): the mapping's.  https: true for HTTPS with the stand-in's CA.
# server: a hash of options for the server, over and above the endpoint.
sub install
{
	my ($node, $api, %options) = @_;
	my $database = $options{database} // 'postgres';
	my $schema = $options{schema};
	my %server = (
		endpoint => $options{https} ? $api->https_url : $api->url,
		$options{https} ? (ca_file => $api->ca_file) : (),
		%{ $options{server} // {} });
	my $sql = defined $schema ? "CREATE SCHEMA IF NOT EXISTS $schema;" : '';

	$sql .= 'CREATE EXTENSION yelp_sync' . (defined $schema ? " SCHEMA $schema;" : ';');
	$sql .= 'SELECT ' . (defined $schema ? "$schema." : '') . 'yelp_sync_create_tables();'
	  if $options{tables} // 1;
	$sql .= create_server('yelp', %server,
		username => $options{username} // 'acme',
		password => $options{password} // 's3cret');
	must_run($node, $sql, database => $database);
	return;
}

# YelpTest::create_server($name, %options)
# SQL for a server with these options, and a mapping: to a username (default $name), with a password
# (s3cret), for somebody (CURRENT_USER).
#
# YelpTest::options(%options)
# OPTIONS (...), quoted.
#
# YelpTest::literal($text)
# The text as an SQL literal.
#
# YelpTest::set_server($node, %options)
# Sets options of the server yelp, and drops those whose value is undef.
#
# YelpTest::forget($node, $api)
# Empties the tables of programs and of syncs, and lets the stand-in count anew.
sub literal
{
	my ($text) = @_;
	my $escaped = $text =~ s/(['\\])/$1$1/gr;
	return ($text =~ /\\/ ? 'E' : '') . "'$escaped'";
}

sub options
{
	my (%options) = @_;
	return 'OPTIONS ('
	  . join(', ', map { "$_ " . literal($options{$_}) } sort keys %options) . ')';
}

sub create_server
{
	my ($name, %options) = @_;
	my $for = delete $options{for} // 'CURRENT_USER';
	my %mapping = (
		username => delete $options{username} // $name,
		password => delete $options{password} // 's3cret');

	return "CREATE SERVER $name FOREIGN DATA WRAPPER yelp_sync " . options(%options)
	  . "; CREATE USER MAPPING FOR $for SERVER $name " . options(%mapping) . ';';
}

sub given_options
{
	return q{SELECT option_name FROM pg_foreign_server, pg_options_to_table(srvoptions)
		WHERE srvname = 'yelp'};
}

# What changes the options to these where those in @$given are set
sub alter_server
{
	my ($given, %options) = @_;
	my %is_given = map { $_ => 1 } @$given;
	my @actions = map {
		my $action = !defined $options{$_} ? 'DROP' : $is_given{$_} ? 'SET' : 'ADD';
		"$action $_ " . (defined $options{$_} ? literal($options{$_}) : '')
	} grep { $is_given{$_} || defined $options{$_} } sort keys %options;

	return @actions ? 'ALTER SERVER yelp OPTIONS (' . join(', ', @actions) . ')' : '';
}

sub set_server
{
	my ($node, %options) = @_;
	my @given = split /\n/, must_run($node, given_options())->{stdout};
	my $sql = alter_server(\@given, %options);
	must_run($node, $sql) if $sql;
	return;
}

sub forget
{
	my ($node, $api) = @_;
	must_run($node, 'TRUNCATE yelp_programs, yelp_sync_runs');
	$api->reset('counters');
	return;
}

# my $result = YelpTest::run($node, $sql, %options)
# Runs SQL in a session of its own until its first error, and returns a hash:
#   stdout
#   messages    list of hashes: level (NOTICE), sqlstate, message, detail, hint, context,
#               each a string of characters
#   notices, warnings   lists of the messages' texts
#   sqlstate, error, detail, hint, context   of the error, undef if there is none
# database: other than postgres; user: who logs in.  All other %options are settings for the session, such as
# search_path => 'ads' or role => 'regress_user'.
#
# my $result = YelpTest::must_run($node, $sql, %options)
# The same, and an error ends the test.
#
# YelpTest::value($node, $sql, %options)
# What that returns, as a text without the last line's end.
#
# my $result = YelpTest::sync($node, $account, %options)
# The same for yelp_sync($account); also rows: a list of hashes with action,
# program_id, changed.
sub prelude
{
	my (%settings) = @_;
	return join '', map { "SET $_ = " . literal($settings{$_}) . ";\n" } sort keys %settings;
}

sub run
{
	my ($node, $sql, %options) = @_;
	my %connection = map { $_ => delete $options{$_} } qw(database user);
	return YelpSession->connect($node, %connection)->run_to_error(prelude(%options) . $sql);
}

sub must_run
{
	my ($node, $sql, %options) = @_;
	my $result = run($node, $sql, %options);
	die "$sql\n$result->{stderr}" if $result->{error};
	return $result;
}

sub value
{
	return must_run(@_)->{stdout} =~ s/\n\z//r;
}

sub sync_query
{
	my ($account) = @_;
	return 'SELECT row_to_json(s) FROM yelp_sync(' . literal($account // 'acme') . ') AS s';
}

sub with_rows
{
	my ($result) = @_;
	$result->{rows} = [ map { $json->decode($_) } split /\n/, $result->{stdout} ];
	return $result;
}

sub sync
{
	my ($node, $account, %options) = @_;
	return with_rows(run($node, sync_query($account), %options));
}

# YelpTest::last_run($columns, $account)
# SQL for these columns of the last sync, or of an account's last one.
#
# YelpTest::content_query()
# SQL for all that a sync may change, shortened.
#
# YelpTest::actions($sync)
# How many rows a sync reported, by action.
#
# YelpTest::reported($sync)
# What a sync reported, by program_id: the action, and the columns that changed.  With it comes a test:
# no program is reported twice.
#
# YelpTest::reports($sync, $what, $name)
# A test: that is what $api->mutate said that a sync must report.
sub last_run
{
	my ($columns, $account) = @_;
	my $where = defined $account ? 'WHERE username = ' . literal($account) : '';
	return "SELECT $columns FROM yelp_sync_runs $where ORDER BY finished_at DESC LIMIT 1";
}

sub content_query
{
	return q{SELECT md5(string_agg(p::text, ',' ORDER BY p.username, p.program_id)) FROM yelp_programs p
		UNION ALL
		SELECT md5(string_agg(r::text, ',' ORDER BY r.finished_at)) FROM yelp_sync_runs r};
}

sub actions
{
	my ($sync) = @_;
	my %count;
	diag($sync->{stderr}) if $sync->{error};
	$count{ $_->{action} }++ foreach @{ $sync->{rows} };
	return \%count;
}

sub reported
{
	my ($sync) = @_;
	my %rows = map { $_->{program_id} => [ $_->{action}, $_->{changed} ] } @{ $sync->{rows} };

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	diag($sync->{stderr}) if $sync->{error};
	is(scalar(keys %rows), scalar(@{ $sync->{rows} }), 'no program is reported twice');
	return \%rows;
}

sub reports
{
	my ($sync, $what, $name) = @_;
	my $altered = $what->{altered};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(
		reported($sync),
		{
			(map { $_ => [ 'added', undef ] } @{ $what->{added} }),
			(map { $_ => [ 'deleted', undef ] } @{ $what->{removed} }),
			(map { $_ => [ 'updated', $altered->{$_} ] } grep { $altered->{$_} } keys %$altered),
		},
		$name);
}

# YelpTest::poll_until(sub { ... }, $what)
# What $api->poll_until does, for what is not the stand-in's.
#
# YelpTest::connections_are($api, $expected, $name)
# A test: eventually, this many connections to the stand-in are open.
#
# YelpTest::kill_postmaster($node), YelpTest::start_again($node)
# Kills it, and returns when it is gone; starts it when the last of its children is gone, too.
sub poll_until
{
	return YelpProcess::poll_until(@_);
}

sub connections_are
{
	my ($api, $expected, $name) = @_;
	my $open;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eval {
		$api->poll_until(sub { ($open = $api->counters->{open_connections}) == $expected },
			'connections');
	};
	return is($open, $expected, $name);
}

# Until its parent has waited for it, it seems to be running, and another one would not start.
sub kill_postmaster
{
	my ($node) = @_;
	my ($pid) = PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	$node->kill9;
	poll_until(sub { !-e "/proc/$pid" }, 'the end of the postmaster');
	return;
}

sub start_again
{
	my ($node) = @_;
	poll_until(sub { $node->start(fail_ok => 1) }, 'the server to start again');
	return;
}

# my @differences = YelpTest::differences($node, $api, $account, %options)
# The differences between the account's rows in yelp_programs and the listing, as lines of text:
# extra or missing programs, and columns with other values.  database and
# schema: where.
#
# YelpTest::listing_query($listing)
# SQL for the rows that yelp_programs must hold of this listing, which is what
# $api->programs_json returns, and YelpTest::listing_columns, the names of their columns.
#
# YelpTest::table_is_listing($node, $api, $account, $name, %options)
# A test: there are none.
# The expected values of the columns, computed in another way than by the extension: from the
# document's text as json.
my $expected_columns = q{
	p->>'program_type' AS program_type,
	p->>'program_status' AS program_status,
	p->>'program_pause_status' AS program_pause_status,
	to_date(p->>'start_date', 'YYYY-MM-DD') AS start_date,
	to_date(p->>'end_date', 'YYYY-MM-DD') AS end_date,
	p#>>'{businesses,0,yelp_business_id}' AS yelp_business_id,
	p#>>'{businesses,0,partner_business_id}' AS partner_business_id,
	round(CAST(p#>>'{program_metrics,budget}' AS numeric) / 100, 2) AS budget,
	round(CAST(p#>>'{program_metrics,max_bid}' AS numeric) / 100, 2) AS max_bid,
	round(CAST(p#>>'{program_metrics,ad_cost}' AS numeric) / 100, 2) AS ad_cost,
	p#>>'{program_metrics,currency}' AS currency,
	p#>>'{program_metrics,fee_period}' AS fee_period,
	p#>>'{program_metrics,is_autobid}' = 'true' AS is_autobid,
	CAST(p#>>'{program_metrics,billed_impressions}' AS bigint) AS billed_impressions,
	CAST(p#>>'{program_metrics,billed_clicks}' AS bigint) AS billed_clicks,
	CASE json_typeof(p->'active_features') WHEN 'array' THEN ARRAY(
		SELECT json_array_elements_text(p->'active_features')) END AS active_features,
	CASE json_typeof(p->'available_features') WHEN 'array' THEN ARRAY(
		SELECT json_array_elements_text(p->'available_features')) END AS available_features,
	CAST(p AS jsonb) AS data};

my $columns = 'program_id, program_type, program_status, program_pause_status, start_date,
	end_date, yelp_business_id, partner_business_id, budget, max_bid, ad_cost, currency,
	fee_period, is_autobid, billed_impressions, billed_clicks, active_features,
	available_features, data';

sub listing_columns
{
	return $columns;
}

sub listing_query
{
	my ($listing) = @_;
	my $text = Encode::decode('UTF-8', $listing);
	return "SELECT p->>'program_id' AS program_id, $expected_columns
		FROM json_array_elements(\$listing\$$text\$listing\$) AS p";
}

sub differences
{
	my ($node, $api, $account, %options) = @_;
	my $table = ($options{schema} // 'public') . '.yelp_programs';
	my $listing = listing_query($api->programs_json($account));
	my $sql = qq{
		SET standard_conforming_strings = on;
		CREATE TEMPORARY TABLE listing AS $listing;
		CREATE TEMPORARY TABLE stored AS
		SELECT $columns FROM $table WHERE username = } . literal($account) . qq{;
		SELECT (SELECT count(*) FROM listing), (SELECT count(*) FROM stored);
		(SELECT 'listed' AS where, row_to_json(l) FROM
			(SELECT $columns FROM listing EXCEPT ALL SELECT $columns FROM stored) AS l LIMIT 1)
		UNION ALL
		(SELECT 'stored', row_to_json(s) FROM
			(SELECT $columns FROM stored EXCEPT ALL SELECT $columns FROM listing) AS s LIMIT 1)
	};
	my $result = run($node, $sql, database => $options{database} // 'postgres');
	my ($counts, @differences) = split /\n/, $result->{stdout};
	my ($listed, $stored) = split /\|/, $counts // '-1|-2';

	return $result->{stderr} if $result->{error};
	return $listed == $stored && !@differences ? ()
	  : ("listed $listed, stored $stored", @differences);
}

sub table_is_listing
{
	my ($node, $api, $account, $name, %options) = @_;
	my @differences = differences($node, $api, $account, %options);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!@differences, $name // "$account: the table holds what the API lists")
	  or diag(Encode::encode('UTF-8', join "\n", @differences));
	return !@differences;
}

1;
