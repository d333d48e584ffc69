# Rate limits with 429: nginx in front of the stand-in, and the stand-in's own
# buckets.  A sync gets through, in little more time than the limit needs, and most
# of its requests are answered.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpApi;
use YelpNginx;
use YelpSession;
use YelpTest;

my $rate = 20;
my $programs = 793;
my $added = 5;
my $pages = 40;

# The least time includes the pause, in seconds, that the API asks for when it
# refuses the first requests: whole seconds, dates rounded up
my %pauses = (seconds => 1, date => 1.5);

# Machines are noisy; what is aimed at is 1.5
my $most_time = 2.5 * $YelpApi::slack;
my $most_refused = 0.25;

my ($node, $api) = YelpTest::start(install => 0);
$node->safe_psql('postgres', 'CREATE EXTENSION yelp_sync');

# An account with a server of its own for this endpoint
sub add_programs
{
	my ($name, $api) = @_;
	$api->config(latency_ms => 50, accounts => { $name => { count => $programs, style => 'cheap' } });
	return;
}

# ---- the results ----

# Those that had gone out before the first refusal was heard of do not count:
# each page's first request.
sub later_refusals
{
	my (@answers) = @_;
	my %asked;
	my $number = 0;
	return grep { $_->{status} eq '429' && ($asked{ $_->{offset} }++ || ++$number > $pages) }
	  @answers;
}

sub check_sync
{
	my ($name, $what, $result, @answers) = @_;
	my $refused = later_refusals(@answers);
	my $all = grep { $_->{status} eq '429' } @answers;
	my ($seconds, $requests, $retries, $fetched) = split /\|/,
	  $node->safe_psql('postgres',
		YelpTest::last_run('extract(epoch FROM fetch_time), requests, retries, pages', $name));
	my $ratio = $seconds / (($pages - 2) / $rate + ($pauses{$name} // 0));

	diag(sprintf '%s: %.2f times the least time, %d requests, %d refused at first, %d later',
		$what, $ratio, scalar(@answers), $all - $refused, $refused);
	is($result->{error}, undef, "$what: no error");
	is($fetched, $pages, '... all pages came');
	is($requests, @answers, '... the history tells how many requests it took');
	is($retries, $all, '... and how many were refused');
	cmp_ok($all, '>', 0, '... which some were');
	cmp_ok($ratio, '>', 0.9, '... the limit was in force');
	cmp_ok($ratio, '<', $most_time, '... and cost not much more time than it must');
	cmp_ok($refused / @answers, '<', $most_refused, '... few are refused once it is known');
	is($node->safe_psql('postgres', "SELECT count(*) FROM yelp_programs WHERE username = '$name'"),
		$programs + $added, '... all programs are stored');
	return;
}

# The limits, each with a stand-in of its own, and what they are called
my %limits = (
	plain => 'token bucket without Retry-After',
	seconds => 'token bucket with Retry-After in seconds',
	date => 'token bucket with Retry-After as a date');
my $lacks_nginx = YelpNginx->is_lacking;
my %apis = ($lacks_nginx ? () : (nginx => $api), map { $_ => YelpApi->start } keys %limits);
my $nginx = $lacks_nginx ? undef : YelpNginx->start($api,
	http => "limit_req_zone \$server_name zone=api:1m rate=${rate}r/s; limit_req_status 429;",
	location => 'limit_req zone=api;');

# The first sync, without limits, so that the next one sends all requests at once
my (%sessions, %results, %changed);
foreach my $name (keys %apis)
{
	my $api = $apis{$name};
	add_programs($name, $api);
	$node->safe_psql('postgres', YelpTest::create_server($name, endpoint => $api->url));
	$sessions{$name} = YelpSession->new($node);
	is($sessions{$name}->sync($name)->{error}, undef, "$name: first sync");
	$changed{$name} = $api->mutate(account => $name, add => $added, alter => 5);
	$api->reset('counters');
}

$apis{$_}->limiter(token_bucket =>
	  { rate => $rate, burst => 2, retry_after => $_ eq 'plain' ? 'none' : $_ })
  foreach keys %limits;
$node->safe_psql('postgres', "ALTER SERVER nginx OPTIONS (SET endpoint '" . $nginx->url . "')") if $nginx;

# All four at the same time
$sessions{$_}->begin_sync($_) for keys %sessions;
$results{$_} = $sessions{$_}->sync_result for keys %sessions;
SKIP:
{
	skip $lacks_nginx, 1 unless $nginx;
	check_sync('nginx', 'nginx', $results{nginx}, $nginx->answers);
}
check_sync($_, $limits{$_}, $results{$_}, $apis{$_}->log) for sort keys %limits;
foreach my $name (sort keys %sessions)
{
	is_deeply(
		[ sort map { "$_->{action} $_->{program_id}" } @{ $results{$name}{rows} } ],
		[ sort map({ "added $_" } @{ $changed{$name}{added} }),
			map({ "updated $_" } keys %{ $changed{$name}{altered} }) ],
		"$name: it brings what had changed");
}
$_->end for values %sessions;
done_testing();
