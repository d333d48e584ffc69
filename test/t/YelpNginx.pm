# YelpNginx - nginx in front of the stand-in, for TAP tests
#
#   my $nginx = YelpNginx->start($api,
#       http => 'limit_req_zone $server_name zone=api:1m rate=20r/s;',
#       location => 'limit_req zone=api;');
#   ... sync from $nginx->url ...
#   my @answers = $nginx->answers;

package YelpNginx;

use strict;
use warnings FATAL => 'all';

use File::Basename ();
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use YelpProcess;
use YelpTest;

# YelpNginx->is_lacking
# Why it cannot be used, or undef: see YelpTest::lacks.
#
# YelpNginx->start($api, http => $directives, location => $directives)
# Starts nginx in front of $api->url, without TLS, and with TLS and HTTP/2; it ends with the test.
# server: directives in place of those that lead to the API, which may be undef then.
sub is_lacking
{
	return YelpTest::lacks('nginx', scalar grep { -x "$_/nginx" } split /:/, $ENV{PATH});
}

sub start
{
	my ($class, $api, %directives) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir('nginx');
	my $self = bless {
		directory => $directory,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		tls_port => PostgreSQL::Test::Cluster::get_free_port(),
	}, $class;
	my @command = ('nginx', '-p', $directory, '-c', "$directory/nginx.conf", '-e', "$directory/error.log");

	$directives{server} //= $self->_server($api, location => '', %directives);
	PostgreSQL::Test::Utils::append_to_file("$directory/nginx.conf",
		$self->_configuration(http => '', %directives));
	my $process = YelpProcess->start(sub { exec @command }, stdout => "$directory/messages");
	YelpProcess::poll_until(
		sub {
			$process->check("$directory/messages");
			-s "$directory/pid" && IO::Socket::INET->new("127.0.0.1:$self->{port}");
		},
		'nginx to listen');
	return $self;
}

sub _server
{
	my ($self, $api, %directives) = @_;
	my $certificate = File::Basename::dirname($api->ca_file) . '/server.pem';
	return <<"END";
		listen 127.0.0.1:$self->{tls_port} ssl http2;
		ssl_certificate $certificate;
		ssl_certificate_key $certificate;
		location / {
			$directives{location}
			proxy_pass http://127.0.0.1:@{[ $api->port('http') ]};
		}
END
}

sub _configuration
{
	my ($self, %directives) = @_;
	my $directory = $self->{directory};
	my $temp = join ' ',
	  map { "${_}_temp_path $directory/$_;" } qw(client_body proxy fastcgi uwsgi scgi);

	return <<"END";
daemon off;
master_process off;
pid $directory/pid;
error_log $directory/error.log;
events { worker_connections 1024; }
http {
	$temp
	log_format answers '\$status \$arg_offset \$server_protocol \$connection';
	access_log $directory/access.log answers;
	$directives{http}
	keepalive_requests 10000;
	server {
		listen 127.0.0.1:$self->{port};
		server_name api;
		$directives{server}
	}
}
END
}

# $nginx->url, $nginx->https_url, $nginx->tls_port
# The endpoint over HTTP, and over HTTPS at localhost, with the stand-in's certificate; its port.
#
# $nginx->answers, $nginx->wait_for_answers($count)
# Its responses, in order: hashes with status, offset, protocol (HTTP/1.1, HTTP/2.0) and connection,
# a number; when there are at least this many, since nginx may log them after they have arrived.
sub url { my ($self) = @_; return "http://127.0.0.1:$self->{port}/programs/v1"; }

sub https_url { my ($self) = @_; return "https://localhost:$self->{tls_port}/programs/v1"; }

sub tls_port { my ($self) = @_; return $self->{tls_port}; }

sub answers
{
	my ($self) = @_;
	return map {
		my %answer;
		@answer{qw(status offset protocol connection)} = split / /;
		\%answer
	} split /\n/, slurp_file("$self->{directory}/access.log");
}

sub wait_for_answers
{
	my ($self, $count) = @_;
	my @answers;
	YelpProcess::poll_until(sub { @answers = $self->answers; @answers >= $count },
		"$count answers of nginx's");
	return @answers;
}

1;
