# YelpTest - a cluster with yelp_sync and the stand-in for Yelp's API, for TAP tests
#
#   use YelpTest ':all';
#
#   my ($node, $api) = start(accounts => { acme => { count => 45 } }, server => { page_size => 40 });
#   is(outcome(sync('acme')), 'added 45', 'a first sync');
#   table_is_listing('acme');
#   $api->faults({ action => { respond => { status => 403 } } });
#   like(failure(sync('acme')), qr/^28000: .*credentials.*\nHINT:  /s, 'wrong credentials');
#
# Functions that take a node use the one that was started first if the first argument is
# not one.  Texts are strings of characters: a test with any beyond ASCII needs "use utf8".

package YelpTest;

use strict;
use warnings FATAL => 'all';

use Encode ();
use Exporter 'import';
use Fcntl ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;

use YelpApi;
use YelpProcess;
use YelpSession;

our %EXPORT_TAGS = (all => [
	qw(start init install literal options create_server set_server run must_run value sync while_held sync_in_waves
	  outcome failure history reported reports table_is_listing poll_until wait_for_lock connections_are
	  kill_postmaster start_again need)
]);
our @EXPORT_OK = @{ $EXPORT_TAGS{all} };

my $json = JSON::PP->new->allow_nonref;
my ($first_node, $first_api);

$ENV{PGCLIENTENCODING} = 'UTF8';

sub on_node
{
	my (@arguments) = @_;
	return ref $arguments[0] ? @arguments : ($first_node, @arguments);
}

# ---- clusters ----

# my ($node, $api) = start(%options)
# Starts a cluster and a stand-in.  The database postgres has the extension, the server yelp
# whose endpoint is the stand-in over HTTP, and a user mapping to acme.
# conf: lines for postgresql.conf.  init: a list of arguments of initdb.  api: a list of
# arguments of the stand-in.  accounts: of the stand-in, as its config takes them.
# install: 0 for no extension.  All other options are those of install().
sub start
{
	my (%options) = @_;
	my ($conf, $init, $arguments, $accounts, $install) = delete @options{qw(conf init api accounts install)};
	my $node = PostgreSQL::Test::Cluster->new('main');
	my $api = YelpApi->start(@{ $arguments // [] });

	($first_node, $first_api) = ($node, $api);
	$api->config(accounts => $accounts) if $accounts;
	init($node, @{ $init // [] });
	$node->append_conf('postgresql.conf', $conf) if defined $conf;
	$node->start;
	install($node, $api, %options) if $install // 1;
	return ($node, $api);
}

# init($node, @arguments)
# Like $node->init, with the encoding UTF8 and arguments for initdb.  Without arguments, the
# cluster is a copy of one that all files of a run share: initdb takes half a second of CPU time.
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

# lacks($what, $found)
# Returns why tests that need $what (nginx) must be skipped, or undef if it was found.  It is
# an error that it was not if nothing may be skipped (test/run --need-all).
#
# need($what, $found)
# Skips the whole file in that case.
sub lacks
{
	my ($what, $found) = @_;
	die "no $what here\n" if !$found && $ENV{YELP_SYNC_TEST_NEED_ALL};
	return $found ? undef : "no $what here";
}

sub need
{
	my $reason = lacks(@_);
	plan(skip_all => $reason) if $reason;
	return;
}

# install($node, $api, %options)
# Creates the extension, its tables, the server yelp, and a mapping for the current user in a
# database (postgres).  schema: of the extension; created unless it exists.  tables: 0 to leave
# the tables to the first sync.  username and password (acme, s3cret): of the mapping.
# https: true for HTTPS with the stand-in's CA.  server: a hash of more options of the server.
sub install
{
	my ($node, $api, %options) = @_;
	my $schema = $options{schema};
	my $sql = 'CREATE EXTENSION yelp_sync';

	$sql = "CREATE SCHEMA IF NOT EXISTS $schema; $sql SCHEMA $schema" if defined $schema;
	$sql .= '; SELECT ' . (defined $schema ? "$schema." : '') . 'yelp_sync_create_tables()' if $options{tables} // 1;
	must_run($node, "$sql;" . create_server('yelp',
			endpoint => $options{https} ? $api->https_url : $api->url,
			$options{https} ? (ca_file => $api->ca_file) : (),
			%{ $options{server} // {} },
			username => $options{username} // 'acme',
			password => $options{password} // 's3cret'),
		database => $options{database} // 'postgres');
	return;
}

# ---- SQL ----

# literal($text)
# The text as an SQL literal.
#
# options(%options)
# OPTIONS (...), quoted.
#
# create_server($name, %options)
# SQL for a server with these options, and a mapping to a username ($name) with a password
# (s3cret) for a role (CURRENT_USER).
#
# set_server($node, %options)
# Sets options of the server yelp, and drops those whose value is undef.
sub literal
{
	my ($text) = @_;
	my $escaped = $text =~ s/(['\\])/$1$1/gr;
	return ($text =~ /\\/ ? 'E' : '') . "'$escaped'";
}

sub options
{
	my (%options) = @_;
	return 'OPTIONS (' . join(', ', map { "$_ " . literal($options{$_}) } sort keys %options) . ')';
}

sub create_server
{
	my ($name, %options) = @_;
	my ($for, $username, $password) = delete @options{qw(for username password)};

	return "CREATE SERVER $name FOREIGN DATA WRAPPER yelp_sync " . options(%options)
	  . '; CREATE USER MAPPING FOR ' . ($for // 'CURRENT_USER') . " SERVER $name "
	  . options(username => $username // $name, password => $password // 's3cret') . ';';
}

sub set_server
{
	my ($node, %options) = on_node(@_);
	YelpSession->connect($node)->options(%options);
	return;
}

# run($node, $sql, %options)
# Runs SQL in a session of its own until its first error, and returns a hash:
#   stdout, stderr
#   messages    list of hashes: level (NOTICE), sqlstate, message, detail, hint, context
#   notices, warnings   lists of the messages' texts
#   sqlstate, error, detail, hint, context   of the error, undef if there is none
# database: other than postgres; user: who logs in.  All other options are settings of the
# session, such as search_path => 'ads' or role => 'regress_user'.
#
# must_run($node, $sql, %options)
# The same; an error ends the test.
#
# value($node, $sql, %options)
# The output of that, without the last newline.
#
# sync($node, $account, %options)
# The same as run() for yelp_sync($account); also rows: a list of hashes with action,
# program_id, changed.
#
# while_held($session, $sql, $code, %match)
# Begins SQL in a session, calls $code while a request that matches is held, releases it, and
# returns the result.
#
# sync_in_waves($session, $account, @waves)
# A sync from an API that answers only when a number of requests is in flight, for each of the
# numbers: in as many round trips, if these are all of its requests.
sub prelude
{
	my (%settings) = @_;
	return join '', map { "SET $_ = " . literal($settings{$_}) . ";\n" } sort keys %settings;
}

sub run
{
	my ($node, $sql, %options) = on_node(@_);
	my %connection = map { $_ => delete $options{$_} } qw(database user);
	return YelpSession->connect($node, %connection)->run_to_error(prelude(%options) . $sql);
}

sub must_run
{
	my ($node, $sql, %options) = on_node(@_);
	my $result = run($node, $sql, %options);
	die "$sql\n$result->{stderr}" if $result->{error};
	return $result;
}

sub value { return must_run(@_)->{stdout} =~ s/\n\z//r; }

sub sync_query { return 'SELECT row_to_json(s) FROM yelp_sync(' . literal($_[0] // 'acme') . ') AS s'; }

sub with_rows
{
	my ($result) = @_;
	$result->{rows} = [ map { $json->decode($_) } grep { /^\{/ } split /\n/, $result->{stdout} ];
	return $result;
}

sub sync
{
	my ($node, $account, %options) = on_node(@_);
	return with_rows(run($node, sync_query($account), %options));
}

sub while_held
{
	my ($session, $sql, $code, %match) = @_;
	$first_api->faults({ match => \%match, action => { hold => \1 } });
	$session->begin($sql);
	$first_api->poll_counter('held', 1);
	$code->();
	$first_api->faults;
	$first_api->release;
	return $session->result;
}

sub sync_in_waves
{
	my ($session, $account, @waves) = @_;

	$first_api->faults({ action => { hold => \1 } });
	$session->begin_sync($account);
	foreach my $requests (@waves)
	{
		$first_api->poll_counter('held', $requests);
		$first_api->release;
	}
	$first_api->faults;
	$first_api->release;
	return $session->sync_result;
}

# ---- results ----

# outcome($result)
# How a sync ended: the rows that it returned ("added 2, updated 4"), or its failure.
#
# failure($result)
# An error in full: "SQLSTATE: message", and DETAIL, HINT and CONTEXT on lines of their own.
#
# history($columns, $account)
# These columns of the last sync, or of the last one of an account.
#
# reported($sync)
# What a sync reported, by program_id: the action, and the columns that changed.  It tests
# that no program is reported twice.
#
# reports($sync, $what, $name)
# A test: that is what $api->mutate said that a sync must report.
sub outcome
{
	my ($result) = @_;
	my %count;
	return failure($result) if $result->{error};
	$count{ $_->{action} }++ foreach @{ $result->{rows} // with_rows($result)->{rows} };
	return join ', ', map { "$_ $count{$_}" } sort keys %count;
}

sub failure
{
	my ($result) = @_;
	return 'no error' unless $result->{error};
	return join "\n", "$result->{sqlstate}: $result->{error}",
	  map { uc($_) . ":  $result->{$_}" } grep { defined $result->{$_} } qw(detail hint context);
}

sub last_run
{
	my ($columns, $account) = @_;
	my $where = defined $account ? 'WHERE username = ' . literal($account) : '';
	return "SELECT $columns FROM yelp_sync_runs $where ORDER BY finished_at DESC LIMIT 1";
}

sub history
{
	my ($node, $columns, $account) = on_node(@_);
	return value($node, last_run($columns, $account));
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

# ---- what the table must hold ----

# The columns that a program fills: the kind, the object that the member is in, and the name
my @columns = (
	(map { [ 'text', 'program', $_ ] } qw(program_type program_status program_pause_status)),
	(map { [ 'date', 'program', $_ ] } qw(start_date end_date)),
	(map { [ 'text', 'business', $_ ] } qw(yelp_business_id partner_business_id)),
	(map { [ 'money', 'metrics', $_ ] } qw(budget max_bid ad_cost)),
	(map { [ 'text', 'metrics', $_ ] } qw(currency fee_period)),
	[ 'boolean', 'metrics', 'is_autobid' ],
	(map { [ 'count', 'metrics', $_ ] } qw(billed_impressions billed_clicks)),
	(map { [ 'list', 'program', $_ ] } qw(active_features available_features)));
my %path = (program => '', business => 'businesses[0].', metrics => 'program_metrics.');

# Their values, computed in another way than by the extension: from the document's text as json
my $number = q{CASE json_typeof(%s) WHEN 'number' THEN (SELECT CASE WHEN n = trunc(n) AND };
my %expected = (
	text => q{CASE json_typeof(%s) WHEN 'string' THEN %1$s#>>'{}' END},
	boolean => q{CASE json_typeof(%s) WHEN 'boolean' THEN %1$s#>>'{}' = 'true' END},
	date => q{CASE WHEN json_typeof(%s) = 'string' AND %1$s#>>'{}' ~ '^\d{4}-(0\d|1[0-2])-[0-3]\d$'
		THEN to_date(%1$s#>>'{}', 'YYYY-MM-DD') END},
	money => $number . q{abs(n) < 1e14 THEN round(n / 100, 2) END FROM CAST(%1$s#>>'{}' AS numeric) AS n) END},
	count => $number . q{n BETWEEN -9223372036854775808 AND 9223372036854775807 THEN CAST(n AS bigint) END
		FROM CAST(%1$s#>>'{}' AS numeric) AS n) END},
	list => q{CASE json_typeof(%s) WHEN 'array' THEN (SELECT CASE WHEN bool_and(json_typeof(e) = 'string') IS NOT false
		THEN coalesce(array_agg(e#>>'{}'), '{}') END FROM json_array_elements(%1$s) AS e) END});

# listing_columns(), stored_columns()
# The columns that are compared, of the listing and of yelp_programs; problems in alphabetical order.
#
# listing_query($listing), json_literal($text)
# SQL for the rows that yelp_programs must hold of a listing, which is an SQL expression; one for
# what $api->programs_json returns.
#
# table_is_listing($node, $api, $account, $name, %options)
# A test: the table has what the API lists.  database, schema: where.
sub listing_columns { return join ', ', 'program_id', (map { $_->[2] } @columns), 'problems', 'data'; }

sub json_literal { return 'CAST($listing$' . Encode::decode('UTF-8', $_[0]) . '$listing$ AS json)'; }

sub listing_query
{
	my ($listing) = @_;
	my @values = map { sprintf($expected{ $_->[0] }, "$_->[1].$_->[2]") . " AS $_->[2]" } @columns;
	my @problems = map { "CASE WHEN $_->[1].$_->[2] IS NOT NULL AND v.$_->[2] IS NULL THEN '$path{ $_->[1] }$_->[2]' END" } @columns;
	my %members = map { my $object = $_; $object => join ', ', map { "$_->[2] json" } grep { $_->[1] eq $object } @columns } keys %path;

	return 'SELECT program_id, ' . join(', ', map { "v.$_->[2]" } @columns) . ", problems, data FROM json_array_elements($listing) AS p,
		json_to_record(p) AS program(program_id text, program_metrics json, businesses json, $members{program}),
		json_to_record(CASE json_typeof(program_metrics) WHEN 'object' THEN program_metrics ELSE '{}' END) AS metrics($members{metrics}),
		json_to_record(CASE json_typeof(businesses->0) WHEN 'object' THEN businesses->0 ELSE '{}' END) AS business($members{business}),
		LATERAL (SELECT " . join(', ', @values) . ', CAST(p AS jsonb) AS data) AS v,
		LATERAL (SELECT NULLIF(ARRAY(SELECT problem FROM unnest(ARRAY[' . join(', ', @problems) . q{,
			CASE WHEN json_typeof(program_metrics) <> 'object' THEN 'program_metrics' END,
			CASE WHEN json_typeof(businesses) <> 'array' OR json_typeof(businesses->0) <> 'object' THEN 'businesses' END]) AS problem
			WHERE problem IS NOT NULL ORDER BY 1), '{}')) AS found(problems)};
}

sub stored_columns
{
	return listing_columns() =~ s/\bproblems\b/NULLIF(ARRAY(SELECT unnest(problems) ORDER BY 1), '{}') AS problems/r;
}

sub table_is_listing
{
	my ($node, $api, @more) = ref $_[0] ? @_ : ($first_node, $first_api, @_);
	my ($account, $name, %options) = @more;
	my $difference = sub { "(SELECT '$_[0]', row_to_json(d) FROM (TABLE $_[0] EXCEPT ALL TABLE $_[1]) AS d LIMIT 2)" };
	my $result = run($node, 'WITH listed AS (' . listing_query(json_literal($api->programs_json($account))) . '), stored AS ('
		  . 'SELECT ' . stored_columns() . ' FROM ' . ($options{schema} // 'public') . '.yelp_programs WHERE username = '
		  . literal($account) . ') '
		  . $difference->('listed', 'stored') . ' UNION ALL ' . $difference->('stored', 'listed'),
		database => $options{database} // 'postgres');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($result->{error} ? $result->{stderr} : Encode::encode('UTF-8', $result->{stdout}),
		'', $name // "$account: the table is the listing");
}

# content_query()
# SQL for a checksum of all that a sync may change.
sub content_query
{
	return q{SELECT md5(string_agg(p::text, ',' ORDER BY p.username, p.program_id)) FROM yelp_programs p
		UNION ALL
		SELECT md5(string_agg(r::text, ',' ORDER BY r.finished_at)) FROM yelp_sync_runs r};
}

# ---- waiting ----

# poll_until(sub { ... }, $what)
# Calls the sub until it returns something true, which is returned.
#
# wait_for_lock($session)
# Waits until the session waits for a lock.
#
# connections_are($api, $expected, $name)
# A test: eventually, this many connections to the stand-in are open.
#
# kill_postmaster($node), start_again($node)
# Kills it, and returns when it is gone; starts it when the last of its children is gone, too.
sub poll_until { return YelpProcess::poll_until(@_); }

sub wait_for_lock
{
	my ($session) = @_;
	my $query = q{SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = } . $session->pid;
	poll_until(sub { value($session->{node}, $query) eq 't' }, 'a lock');
	return;
}

sub connections_are
{
	my ($api, $expected, $name) = @_;
	my $open;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eval {
		poll_until(sub { ($open = $api->counters->{open_connections}) == $expected }, 'connections');
	};
	return is($open, $expected, $name);
}

# Until its parent has waited for it, it seems to be running, and another one would not start
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

1;
