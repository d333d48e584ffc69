# The page behind nginx, with the file that its README names.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpNginx;
use YelpPage;
use YelpPage::Stream;
use YelpTest;

my $lacks_nginx = YelpNginx->is_lacking;
plan skip_all => $lacks_nginx if $lacks_nginx;

my ($node, $api) = YelpTest::start(tables => 0, server => { timeout => '1h' });
YelpPage::set_up($node, acme => 'yelp');
my $page = YelpPage->start($node);
my $location = slurp_file(YelpPage::directory() . '/nginx.conf');
(my $backend = $page->url) =~ s{/$}{};
$location =~ s{http://127\.0\.0\.1:8080}{$backend} or die 'no proxy_pass';
my $url = YelpNginx->start(undef, server => $location)->url =~ s{programs/v1$}{}r;
(my $origin = $url) =~ s{/$}{};

$api->faults({ match => { from_offset => 220 }, action => { hold => \1 } });
my $stream = $page->sync('acme', url => $url, headers => { Origin => $origin });
is($stream->status, 200, 'the origin is the one that the browser sees');
my $progress;
do { $progress = $stream->next_of('progress') } until $progress->{completed} == 11;
pass('events come through while pages are held');
$api->faults();
$api->release;
is([ $stream->rest ]->[-1]{total}, 1913, 'up to the end');

my $foreign = $page->sync('acme', url => $url, headers => { Origin => 'http://127.0.0.1' });
is($foreign->status, 403, 'another origin is refused');

$stream->close;
is([ $page->sync('acme', url => $url)->rest ]->[-1]{total}, 0, 'a browser that goes away leaves the page as it was');

done_testing();
