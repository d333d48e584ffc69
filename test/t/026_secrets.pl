# A statement that the extension refuses may contain a password: neither the log
# nor the error's context repeats it, at any log level.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpTest;

# From debug on, PostgreSQL's own messages would show each statement; from 18 on also
# those about the library that it looks for in a block, so that is found before
my $secret = 'wholly-s3cret';
my ($node, $api) = YelpTest::start(
	conf => q{
		shared_preload_libraries = pg_stat_statements
		pg_stat_statements.track = all
		log_min_messages = debug5
		log_min_error_statement = notice
		log_error_verbosity = verbose
		log_statement = none
		log_min_duration_statement = -1
	});
my $first = q{ALTER SERVER second OPTIONS (SET attempts '3')};
$node->safe_psql('postgres', q{CREATE SERVER second FOREIGN DATA WRAPPER yelp_sync OPTIONS (attempts '3')});

my $mapping = 'CREATE USER MAPPING FOR CURRENT_USER SERVER second OPTIONS';
my %refused = (
	'a wrong username' => [ 'HV024', "$mapping (username 'a:b', password '$secret')" ],
	'a long password' => [ 'HV024', "$mapping (username 'a', password '" . $secret x 100 . q{')} ],
	'an unknown option' => [ 'HV00D', "$mapping (user 'a', password '$secret')" ],
	'a long password for the proxy' =>
	  [ 'HV024', "$mapping (username 'a', password 'b', proxy_user 'c', proxy_password '" . $secret x 100 . q{')} ],
	'no user for the proxy' => [ 'HV00J', "$mapping (username 'a', password 'b', proxy_password '$secret')" ],
	'a missing option' => [ 'HV00J', "$mapping (password '$secret')" ],
	'a password on a server' => [ 'HV00D', "ALTER SERVER second OPTIONS (password '$secret')" ],
	'a password in a URL' =>
	  [ 'HV024', "ALTER SERVER second OPTIONS (endpoint 'https://a:$secret\@api.example')" ],
	'a wrong number beside it' =>
	  [ 'HV024', "CREATE SERVER third FOREIGN DATA WRAPPER yelp_sync OPTIONS (page_size '0') /* $secret */" ],
	'an account that is added: a wrong username' =>
	  [ 'HV024', "SELECT yelp_sync_add_account('a:b', '$secret')" ],
	'an account that is added: on a server that is taken' =>
	  [ '42710', "SELECT yelp_sync_add_account('another', '$secret', 'yelp')" ],
	'an account that is added: twice' => [ '42710', "SELECT yelp_sync_add_account('acme', '$secret')" ],
	'an account that is added: without a username' =>
	  [ '22004', "SELECT yelp_sync_add_account(NULL, '$secret')" ],
	'an account that is added: a long name' =>
	  [ '42622', "SELECT yelp_sync_add_account('another', '$secret', repeat('x', 64))" ],
	'an altered mapping' =>
	  [ 'HV024', "ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET username 'a:b', SET password '$secret')" ],
);

foreach my $case (sort keys %refused)
{
	my ($sqlstate, $sql) = @{ $refused{$case} };
	my %way = (
		'as a statement' => $sql,
		'in a block' => "DO \$\$ BEGIN EXECUTE \$x\$$sql\$x\$; END \$\$");
	foreach my $way (sort keys %way)
	{
		my $offset = -s $node->logfile;
		my ($status, $stdout, $stderr) =
		  $node->psql('postgres', "\\set VERBOSITY verbose\n$first;\n$way{$way}");
		my $log = slurp_file($node->logfile, $offset);
		like($stderr, qr/ERROR:  \Q$sqlstate\E: /, "$case, $way: is refused");
		unlike($stderr, qr/CONTEXT:.*\Q$secret\E/s, "$case, $way: no password in the context");
		like($log, qr/ERROR:  \Q$sqlstate\E: /, "$case, $way: the log has the error");
		unlike($log, qr/\Q$secret\E/, "$case, $way: and not the password");
	}
}

# An account that is added: what it runs has no text, and its own call has its constants replaced
$node->safe_psql('postgres', qq{
	CREATE EXTENSION pg_stat_statements;
	SELECT pg_stat_statements_reset();
	SELECT yelp_sync_add_account('another', '$secret')});
my $seen = $node->safe_psql('postgres', 'SELECT query FROM pg_stat_statements');
like($seen, qr/SELECT yelp_sync_add_account\(\$1, \$2\)/, 'pg_stat_statements has the call');
unlike($seen, qr/\Q$secret\E/, 'and not the password');
is($node->safe_psql('postgres', q{SELECT umoptions FROM pg_user_mappings WHERE srvname = 'another'}),
	"{username=another,password=$secret}", 'which is in the mapping');

$node->stop;
done_testing();
