# The page behind nginx, with the file that its README names.
use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use POSIX ();

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

my ($node, $api) = YelpTest::start(server => { timeout => '1h' });
YelpPage::set_up($node, acme => 'yelp');
my $page = YelpPage->start($node);
my $nginx_pid;

# Returns its URL.
sub start_nginx
{
	my $directory = PostgreSQL::Test::Utils::tempdir('nginx');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $location = slurp_file(YelpPage::directory() . '/nginx.conf');
	my $temp = join ' ',
	  map { "${_}_temp_path $directory/$_;" } qw(client_body proxy fastcgi uwsgi scgi);

	(my $backend = $page->url) =~ s{/$}{};
	$location =~ s{http://127\.0\.0\.1:8080}{$backend} or die 'no proxy_pass';
	append_to_file("$directory/nginx.conf", <<"END");
daemon off;
master_process off;
pid $directory/pid;
error_log $directory/error.log;
events { worker_connections 64; }
http {
	$temp
	access_log off;
	server {
		listen 127.0.0.1:$port;
		$location
	}
}
END
	$nginx_pid = fork() // die "could not fork: $!";
	if (!$nginx_pid)
	{
		open(STDOUT, '>', "$directory/messages") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		exec 'nginx', '-p', $directory, '-c', "$directory/nginx.conf", '-e', "$directory/error.log"
		  or POSIX::_exit(127);
	}
	$api->poll_until(
		sub {
			die 'nginx ended: ' . slurp_file("$directory/messages") . "\n"
			  if waitpid($nginx_pid, POSIX::WNOHANG) != 0;
			-s "$directory/pid" && IO::Socket::INET->new("127.0.0.1:$port");
		},
		'nginx to listen');
	return "http://127.0.0.1:$port/";
}

END
{
	if ($nginx_pid)
	{
		local $?;
		kill 'TERM', $nginx_pid;
		waitpid($nginx_pid, 0);
	}
}

my $url = start_nginx();
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

$api->faults({ match => { from_offset => 220 }, action => { hold => \1 } });
$stream = $page->sync('acme', url => $url);
$stream->next_of('progress');
$stream->close;
ok($node->poll_query_until('postgres', q{SELECT count(*) FROM pg_stat_activity
	WHERE usename = 'yelp_page' AND state = 'active'}, 0), 'a browser that goes away ends its sync');

done_testing();
