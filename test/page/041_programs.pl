# The programs that the page shows, and the privileges of its database role.
use strict;
use warnings FATAL => 'all';
use utf8;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpApi;
use YelpPage;
use YelpTest;

my ($node, $api) = YelpTest::start(tables => 0);
YelpPage::set_up($node, acme => 'yelp');
my $page = YelpPage->start($node);

sub ids
{
	my (%query) = @_;
	my $found = $page->get('programs', username => 'acme', %query)->{json};
	return join ' ', map { $_->{program_id} } @{ $found->{rows} };
}

# Days that stay where they are, whenever this runs
my @programs = (
	[ current => 'CPC', 'ACTIVE', 'NOT_PAUSED', '2001-01-01', '9999-12-31', 'b1', 'ours' ],
	[ future => 'CPC', 'ACTIVE', 'NOT_PAUSED', '9000-01-01', '9999-12-31', 'b1', undef ],
	[ inactive => 'BP', 'INACTIVE', 'NOT_PAUSED', '2001-01-01', '9999-12-31', 'b2', undef ],
	[ past => 'CPC', 'INACTIVE', undef, '2001-01-01', '2001-12-31', 'b2', undef ],
	[ paused => 'BP', 'ACTIVE', 'PAUSED', '2001-01-01', '9999-12-31', 'b3', "it's" ]);

sub text
{
	my ($id, $type, $status, $pause, $start, $end, $business, $partner) = @{ $_[0] };
	return JSON::PP->new->encode(
		{
			program_id => $id, program_type => $type, program_status => $status,
			program_pause_status => $pause, start_date => $start, end_date => $end,
			businesses => [ { yelp_business_id => $business, partner_business_id => $partner } ],
			program_metrics => { budget => 123456, currency => 'USD', billed_clicks => 7 }
		});
}
$api->set_programs('acme', map { text($_) } @programs);
is($page->sync('acme')->end->{total}, 5, 'five programs');

note 'filters';

my $found = $page->get('programs', username => 'acme')->{json};
is($found->{total}, 5, 'all');
is_deeply($found->{types}, [qw(BP CPC)], 'their types');
my $row = $found->{rows}[0];
is("$row->{program_id} $row->{budget} $row->{currency} $row->{end_date}", 'current 1234.56 USD 9999-12-31', 'a row');
is(ids(state => $_), lc $_, "state $_") foreach qw(CURRENT FUTURE PAST PAUSED INACTIVE);
is(ids(type => 'BP'), 'inactive paused', 'by type');
is(ids(business => 'b1'), 'current future', "by Yelp's business");
is(ids(business => 'ours'), 'current', 'by our business');
is(ids(business => "it's"), 'paused', 'with an apostrophe');
is(ids(type => 'CPC', state => 'FUTURE', business => 'b1'), 'future', 'by all of these');
is(ids(type => 'CPC', business => 'b3'), '', 'nothing');
is(ids(type => "CPC' OR ''='"), '', 'no SQL in a type');
is(ids(business => '%'), '', 'no pattern in a business');
is(ids(username => "acme' --"), '', 'no SQL in an account');

note 'pages';

is(ids(limit => 2), 'current future', 'the first page');
is(ids(limit => 2, offset => 4), 'paused', 'the last one');
my $beyond = $page->get('programs', username => 'acme', offset => 10)->{json};
is("$beyond->{total} @{ $beyond->{rows} }", '5 ', 'beyond the end there is a total');
foreach my $query ([ limit => 201 ], [ limit => -1 ], [ limit => 'x' ], [ limit => '1.5' ], [ offset => '-1' ],
	[ limit => "\x{661}" ], [ offset => '99999999999999999999' ], [ state => 'current' ], [ username => '' ],
	[ type => "a\0" ], [ type => 'x' x 256 ])
{
	is($page->get('programs', username => 'acme', @$query)->{status}, 400, "400: $query->[0]");
}

note 'the role of the page';

sub error_of
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) =
	  $node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", extra_params => [ '-U', 'yelp_page' ]);
	return $stderr =~ /ERROR:  (\w+)/ ? $1 : 'none';
}

is(error_of("SELECT * FROM sync_page.$_"), 'none', "may read $_") foreach qw(programs runs changes accounts());
is(error_of(q{SELECT * FROM sync_page.sync('acme')}), 'none', 'may sync');
is(error_of(q{SELECT * FROM yelp_sync('acme')}), '42704', 'has no account of its own');
foreach my $sql (
	'SELECT * FROM yelp_programs', 'SELECT * FROM yelp_sync_runs', 'DELETE FROM yelp_programs',
	'DELETE FROM sync_page.runs', q{UPDATE sync_page.runs SET status = ''},
	'CREATE TABLE sync_page.t ()', 'CREATE SCHEMA s', 'CREATE FUNCTION sync_page.f() RETURNS int RETURN 1',
	'SET ROLE regress_ads', 'SELECT * FROM pg_user_mapping')
{
	is(error_of($sql), '42501', "may not: $sql");
}
unlike(YelpTest::must_run($node, 'SELECT u FROM pg_user_mappings AS u', role => 'yelp_page')->{stdout}, qr/s3cret/,
	'sees no password');
YelpTest::must_run($node, 'CREATE ROLE regress_other');
my $other = YelpTest::run($node, q{SELECT * FROM sync_page.sync('acme')}, role => 'regress_other');
is($other->{sqlstate}, '42501', 'nobody else may sync');

# Names are not looked for where the caller wants them to be
YelpTest::must_run($node, 'GRANT CREATE ON SCHEMA public TO yelp_page; GRANT TEMPORARY ON DATABASE postgres TO yelp_page');
my $hostile = YelpTest::must_run($node, q{
	CREATE FUNCTION pg_temp.yelp_sync(text) RETURNS TABLE (action text, program_id text, changed text[])
		LANGUAGE sql AS $$ SELECT current_user, 'x', NULL::text[] $$;
	CREATE TEMP VIEW yelp_accounts AS SELECT text 'mine' AS username, text 'x' AS server;
	CREATE TEMP TABLE yelp_programs (LIKE sync_page.programs);
	CREATE FUNCTION pg_temp.equal(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
	CREATE OPERATOR pg_temp.= (FUNCTION = pg_temp.equal, LEFTARG = text, RIGHTARG = text);
	SET search_path = pg_temp, public, pg_catalog;
	SELECT sync_page.sync('acme')->>'total';
	SELECT username FROM sync_page.accounts();
	SELECT count(*) FROM sync_page.programs;
}, role => 'yelp_page')->{stdout};
is($hostile, "0\nacme\n5\n", 'names are bound');
$api->set_programs('acme', map { text($_) } @programs[ 0 .. 3 ]);
$hostile = YelpTest::must_run($node,
	q{CREATE TEMP TABLE yelp_programs (a int); SET search_path = pg_temp; SELECT sync_page.sync('acme')->'rows'->0->>'action'},
	role => 'yelp_page');
is($hostile->{stdout}, "deleted\n", 'in a sync, too');

note 'what changed, and what is gone';

my %id = (username => 'acme');
YelpTest::set_server($node, on_gone => 'keep', record_changes => 'on');
$programs[0][5] = '2027-01-01';
$api->set_programs('acme', map { text($_) } @programs[ 0 .. 2 ]);
my $end = $page->sync('acme')->end;
my %values = (old => { end_date => '9999-12-31' }, new => { end_date => '2027-01-01' });
my @changes = (
	{ action => 'gone', program_id => 'past', changed => undef, old => undef, new => undef },
	{ action => 'updated', program_id => 'current', changed => ['end_date'], %values });
is_deeply([ sort { $a->{action} cmp $b->{action} } @{ $end->{rows} } ], \@changes, 'from which value to which');
is(ids(state => 'GONE'), 'past', 'state GONE');
is_deeply($page->get('programs/changes', %id)->{json}, $end, 'what has changed is kept');
$page->stop;
$page = YelpPage->start($node);
my $kept = $page->get('programs/changes', %id)->{json};
is_deeply([ sort { $a->{action} cmp $b->{action} } @{ $kept->{rows} } ], \@changes, 'also by another server');
is("@$kept{qw(run_id finished_at total)}", "@$end{qw(run_id finished_at total)}", 'with its sync');
YelpTest::value($node, q{SELECT count(*) FROM yelp_sync('acme')}, role => 'regress_ads');
is_deeply([ @{ $page->get('programs/changes', %id)->{json} }{qw(total rows)} ], [ 0, [] ], 'and what was synced elsewhere');
YelpTest::set_server($node, on_gone => undef, record_changes => undef);

note 'once more';

YelpPage::run_setup($node);
is(ids(), 'current future inactive past', 'setup.sql can be run again');
is($page->sync('acme')->end->{type}, 'changes', 'and all works as before');

done_testing();
