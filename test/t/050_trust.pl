# Certificate verification, credentials, and servers that do not exist.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest;

my ($node, $api) = YelpTest::start(https => 1, server => { max_retry_after => '1ms' });
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
unlike($sync->{hint} // '', qr/private authority/, 'and does not advise another CA');
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
my $mended = YelpSession->new($node)->run(q{
	SELECT count(*) FROM yelp_sync('acme');
	ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 's3cret');
	SELECT count(*) FROM yelp_sync('acme');
	ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 'wrong');
	SELECT count(*) FROM yelp_sync('acme');    -- should fail
});
is($mended->{stdout}, "1913\n", 'a new password holds for the next sync of the session, on connections that are open');
is(scalar(grep { $_->{sqlstate} eq '28000' } @{ $mended->{messages} }), 2, 'as does a wrong one');
YelpTest::must_run($node, q{ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 's3cret')});

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
YelpTest::set_server($node, endpoint => $api->https_url =~ s/^https/http/r =~ s/localhost/127.0.0.1/r);
$sync = YelpTest::sync($node, 'acme');    # should fail
like($sync->{sqlstate}, qr/^08/, 'HTTP to a port that speaks HTTPS');
YelpTest::set_server($node, endpoint => $api->url =~ s/^http/https/r);
$sync = YelpTest::sync($node, 'acme');    # should fail
is($sync->{sqlstate}, '08001', 'HTTPS to a port that speaks HTTP');

done_testing();
