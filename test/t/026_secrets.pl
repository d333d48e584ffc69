# No secret in messages, the log, error contexts, statistics views and processes' titles, at any log
# level: neither during a sync nor when a statement that contains a password is refused.
use strict;
use warnings FATAL => 'all';

use MIME::Base64 ();
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest ':all';

# With debug messages, PostgreSQL shows each statement; from 18 on also those about the library
# that it looks for in a block, so that is found before
my $secret = 'wholly-s3cret';
my $basic = MIME::Base64::encode_base64("acme:$secret", '');
my $token = qr/\Q$secret\E|\Q$basic\E/;
my ($node, $api) = start(
	password => $secret,
	accounts => { acme => { password => $secret, count => 1 } },
	server => { retry_delay => '1ms', max_retry_after => '1ms' },
	conf => q{
		shared_preload_libraries = pg_stat_statements
		pg_stat_statements.track = all
		log_min_messages = debug5
		log_min_error_statement = notice
		log_error_verbosity = verbose
		log_statement = none
		log_min_duration_statement = -1
		track_activity_query_size = 16384
	});

# The lines that the server has logged since an offset and that contain a secret
sub leaked
{
	my ($offset) = @_;
	return join "\n", grep { $_ =~ $token } split /\n/, slurp_file($node->logfile, $offset);
}

note 'syncs';

foreach my $case (
	[ 'a sync that succeeds', qr/^$/ ],
	[ 'a refusal', qr/^28000/, { respond => { status => 403, json => { error => { id => 'X', description => 'Y' } } } } ],
	[ 'an error of the server', qr/^HV000/, { respond => { status => 500 } } ],
	[ 'garbage', qr/^22032/, { respond => { body => '{"total":' } } ],
	[ 'a closed connection', qr/^08006/, 'close' ],
	[ 'a reset connection', qr/^08006/, 'reset' ],
	[ 'a redirect', qr/^HV000/, { respond => { status => 302, headers => { Location => 'https://api.example/x' } } } ],
	[ 'a redirect that quotes secrets', qr/^HV000/, { respond => { status => 301,
		headers => { Location => "https://acme:$secret\@api.example/x" } } } ],
	[ 'nobody listens', qr/^08001/, undef, 'http://127.0.0.1:1/programs' ],
	[ 'a certificate that is not trusted', qr/^08001/, undef, $api->url('untrusted') ])
{
	my ($name, $end, $action, $endpoint) = @$case;
	set_server(endpoint => $endpoint // $api->url);
	$api->faults($action ? { action => $action } : ());
	value('DELETE FROM yelp_programs');
	my $offset = -s $node->logfile;
	my $sync = sync('acme', client_min_messages => 'debug5');

	like($sync->{sqlstate} // '', $end, "$name: ends as it should");
	is(leaked($offset), '', "$name: no secret in the log");
	unlike($sync->{stderr}, $token, "$name: no secret in what the client sees");
	cmp_ok(length($sync->{stderr}), '>', 300, "$name: which is much");
}
set_server(endpoint => $api->url);

my $session = YelpSession->new($node);
while_held($session, q{SELECT yelp_sync('acme')}, sub {
	my $activity = value('SELECT a FROM pg_stat_activity AS a');
	like($activity, qr/yelp_sync\('acme'\)/, 'pg_stat_activity shows the sync');
	unlike($activity, $token, '... and no secret');
	unlike($^O eq 'linux' ? slurp_file('/proc/' . $session->pid . '/cmdline') : `ps -o args= -p @{[ $session->pid ]}`,
		$token, 'nor does ps');
	is(value('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid), 'Extension',
		'it waits as an extension');
});
unlike(value('TABLE yelp_accounts; SELECT * FROM yelp_sync_runs'), $token, 'no secret in the tables');

note 'statements that are refused';

my $first = q{ALTER SERVER second OPTIONS (SET attempts '3');
	DO $$ BEGIN PERFORM yelp_sync_add_account(NULL, ''); EXCEPTION WHEN OTHERS THEN NULL; END $$};
my $mapping = 'CREATE USER MAPPING FOR CURRENT_USER SERVER second OPTIONS';
value(q{CREATE SERVER second FOREIGN DATA WRAPPER yelp_sync OPTIONS (attempts '3')});
foreach my $case (
	[ 'a wrong username', 'HV024', "$mapping (username 'a:b', password '$secret')" ],
	[ 'a long password', 'HV024', "$mapping (username 'a', password '" . $secret x 100 . q{')} ],
	[ 'an unknown option', 'HV00D', "$mapping (user 'a', password '$secret')" ],
	[ 'a long password for the proxy', 'HV024',
		"$mapping (username 'a', password 'b', proxy_user 'c', proxy_password '" . $secret x 100 . q{')} ],
	[ 'no user for the proxy', 'HV00J', "$mapping (username 'a', password 'b', proxy_password '$secret')" ],
	[ 'a missing option', 'HV00J', "$mapping (password '$secret')" ],
	[ 'a password on a server', 'HV00D', "ALTER SERVER second OPTIONS (password '$secret')" ],
	[ 'a password in a URL', 'HV024', "ALTER SERVER second OPTIONS (endpoint 'https://a:$secret\@api.example')" ],
	[ 'a wrong number', 'HV024', "CREATE SERVER third FOREIGN DATA WRAPPER yelp_sync OPTIONS (page_size '0') /* $secret */" ],
	[ 'an altered mapping', 'HV024',
		"ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET username 'a:b', SET password '$secret')" ],
	[ 'yelp_sync_add_account: a wrong username', 'HV024', "SELECT yelp_sync_add_account('a:b', '$secret')" ],
	[ 'yelp_sync_add_account: a server that is taken', '42710', "SELECT yelp_sync_add_account('another', '$secret', 'yelp')" ],
	[ 'yelp_sync_add_account: twice', '42710', "SELECT yelp_sync_add_account('acme', '$secret')" ],
	[ 'yelp_sync_add_account: no username', '22004', "SELECT yelp_sync_add_account(NULL, '$secret')" ],
	[ 'yelp_sync_add_account: a long name', '42622', "SELECT yelp_sync_add_account('another', '$secret', repeat('x', 64))" ])
{
	my ($name, $sqlstate, $sql) = @$case;
	foreach my $statement ($sql, "DO \$\$ BEGIN EXECUTE \$x\$$sql\$x\$; END \$\$")
	{
		my $way = $statement eq $sql ? $name : "$name, in a block";
		my $offset = -s $node->logfile;
		my $result = run("$first; $statement");
		my $log = slurp_file($node->logfile, $offset);

		is($result->{sqlstate}, $sqlstate, "$way: is refused");
		unlike(failure($result), $token, "$way: no password in the error");
		like($log, qr/ERROR:  \Q$sqlstate\E: /, "$way: the log has the error");
		unlike($log, $token, "$way: ... and not the password");
	}
}

# What yelp_sync_add_account() runs has no text, and its own call has its constants replaced
value(qq{CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset();
	SELECT yelp_sync_add_account('another', '$secret')});
my $seen = value('SELECT query FROM pg_stat_statements');
like($seen, qr/SELECT yelp_sync_add_account\(\$1, \$2\)/, 'pg_stat_statements has the call');
unlike($seen, $token, '... and not the password');
is(value(q{SELECT umoptions FROM pg_user_mappings WHERE srvname = 'another'}),
	"{username=another,password=$secret}", 'which is in the mapping');

done_testing();
