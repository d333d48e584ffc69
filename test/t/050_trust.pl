# Whom a sync talks to: certificates that are verified, credentials, redirects that are not
# followed, and servers that are not there.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest;

my ($node, $api) = YelpTest::start(https => 1);
my $sync;

# All that an error says
sub said
{
	my ($result) = @_;
	return join "\n", map { $_ // '' } @$result{qw(error detail hint context)};
}

note 'certificates';

YelpTest::forget($node, $api);
my $ca_file = $api->ca_file;

YelpTest::set_server($node, ca_file => undef);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', "a CA that the system does not know");
like($sync->{error}, qr/^could not fetch the page at offset 0 of account "acme": .*certificate.* stage TLS\)$/, 'is said to be so');
like($sync->{hint}, qr/ca_file/, 'with a hint');
YelpTest::set_server($node, ca_file => $ca_file, endpoint => $api->url('untrusted'));
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'a certificate of another CA');
like($sync->{hint}, qr/ca_file/, 'with a hint');
YelpTest::set_server($node, endpoint => $api->url('wrong_host'));
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'a certificate for another host');
like(said($sync), qr/127\.0\.0\.1/, 'names the host');
unlike($sync->{hint} // '', qr/authority of your own/, 'and does not advise another CA');
my $counters = $api->counters;
is($counters->{requests}, 0, 'to none of them a request was sent');
cmp_ok($counters->{failed_handshakes}, '<=', 3, 'and none was tried again');

my $wrong_ca = $node->basedir . '/wrong.pem';
append_to_file($wrong_ca, "no certificate\n");
foreach my $case ([ $wrong_ca, 'without a certificate' ], [ '/nowhere/ca.pem', 'that is not there' ])
{
	my ($file, $what) = @$case;
	YelpTest::set_server($node, ca_file => $file, endpoint => $api->https_url);
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, '08001', "a ca_file $what");
	like(said($sync), qr/\Q$file\E/, "a ca_file $what is named");
	unlike($sync->{error}, qr/trusted/, "a ca_file $what is not the API's fault");
}
YelpTest::set_server($node, ca_file => $ca_file);
is(YelpTest::sync($node, 'acme')->{sqlstate} // '', '', 'the right ca_file again');

# A connection that was verified by one CA is not good enough for another
my $changed = YelpTest::run($node, qq{
	SELECT count(*) FROM yelp_sync('acme');
	ALTER SERVER yelp OPTIONS (SET ca_file '$wrong_ca');
	SELECT count(*) FROM yelp_sync('acme')});    # should fail
is($changed->{sqlstate}, '08001', 'another ca_file holds for connections that are open');
YelpTest::set_server($node, ca_file => $ca_file);

note 'credentials';

YelpTest::forget($node, $api);
YelpTest::must_run($node, q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 'wrong')});
foreach my $status (401, 403)
{
	$api->config(denied_status => $status);
	$api->reset('counters');
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, '28000', "$status: the SQLSTATE");
	like($sync->{error}, qr/^could not fetch the page at offset 0 of account "acme": API refused the credentials \(attempt 1 of 3, /,
		"$status: the message");
	like($sync->{detail}, qr/^The API answered with HTTP status $status, "ACCESS_DENIED": The authorization server denied the request\.  The URL was https:\S+$/,
		"$status: the API's own words");
	is($sync->{hint}, 'Check the username and the password of the user mapping.', "$status: a hint");
	is($api->counters->{requests}, 1, "$status: not tried again");
	is(YelpTest::must_run($node, 'SELECT count(*) FROM yelp_programs')->{stdout}, "0\n", "$status: nothing is stored");
}
my $mended = YelpTest::run($node, q{
	\set ON_ERROR_STOP 0
	SELECT count(*) FROM yelp_sync('acme');
	ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 's3cret');
	SELECT count(*) FROM yelp_sync('acme');
	ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 'wrong');
	SELECT count(*) FROM yelp_sync('acme');    -- should fail
});
is($mended->{stdout}, "1913\n", 'a new password holds for the next sync of the session, on connections that are open');
is(scalar(grep { $_->{sqlstate} eq '28000' } @{ $mended->{messages} }), 2, 'as does a wrong one');
YelpTest::must_run($node, q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 's3cret')});
$api->reset('config');

note 'redirects';

YelpTest::forget($node, $api);
YelpTest::set_server($node, endpoint => $api->url);
foreach my $status (301, 302, 307, 308)
{
	$api->reset('counters');
	$api->faults({ match => { request => 1 }, action => { respond => { status => $status,
		headers => { Location => $api->https_url . '?offset=0&limit=20' } } } });
	$sync = YelpTest::sync($node, 'acme');    # should fail
	is($sync->{sqlstate}, 'HV000', "$status: an error");
	like($sync->{error}, qr/: HTTP status $status \(/, "$status: which is named");
	like($sync->{hint}, qr/endpoint/, "$status: with a hint");
	is($api->counters->{requests}, 1, "$status: not followed");
}
$api->faults();

note 'no server';

YelpTest::set_server($node, endpoint => 'http://127.0.0.1:1/programs/v1', retry_delay => '1ms');
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'nobody listens');
like($sync->{error}, qr/ \(attempt 3 of 3, stage connect\)$/, 'after all attempts');
like($sync->{detail}, qr/127\.0\.0\.1/, 'the address is named');
YelpTest::set_server($node, endpoint => 'https://api.invalid/programs/v1', attempts => 1, connect_timeout => '3s');
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'no such host');
like($sync->{error}, qr/ stage resolve\)$/, 'the stage is told');
like($sync->{detail}, qr/api\.invalid|resol/i, 'and what was looked for');
YelpTest::set_server($node, endpoint => $api->url . '/elsewhere', connect_timeout => undef);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, 'HV000', 'no API at this path');
like($sync->{detail}, qr/404.*NOT_FOUND/, 'as the API says');
YelpTest::set_server($node, endpoint => $api->https_url =~ s/^https/http/r =~ s/localhost/127.0.0.1/r);
$sync = YelpTest::sync($node, 'acme');    # should fail
like($sync->{sqlstate}, qr/^08/, 'HTTP to a port that speaks HTTPS');
YelpTest::set_server($node, endpoint => $api->url =~ s/^http/https/r);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'HTTPS to a port that speaks HTTP');
YelpTest::set_server($node, attempts => undef, retry_delay => undef);

done_testing();
