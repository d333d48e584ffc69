# The inputs in test/fuzz/corpus of the fuzz targets that run in a server: what
# the page reader accepts is jsonb and columns to PostgreSQL, and each value of
# an option is accepted within its bounds, or refused with the right error.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use YelpTest ':all';

my %directories = (option => ['option'], columns => [ 'columns', 'program_page' ]);
my $fuzz = abs_path('test/fuzz');
my $node = PostgreSQL::Test::Cluster->new('main');

init($node);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION yelp_sync');

foreach my $target (sort keys %directories)
{
	foreach my $directory (@{ $directories{$target} })
	{
		my @inputs = glob("$fuzz/corpus/$directory/*");
		my ($status, $count, $error) = $node->psql('postgres', qq{
			CREATE OR REPLACE FUNCTION fuzz_input(bytea) RETURNS void LANGUAGE c
				AS '$fuzz/${target}_replay';
			SELECT count(*) FROM pg_ls_dir('$fuzz/corpus/$directory') AS name,
				LATERAL (SELECT fuzz_input(pg_read_binary_file('$fuzz/corpus/$directory/' || name))
					OFFSET 0) AS run;});

		ok(@inputs > 0, "$target: there are inputs of $directory");
		is($count, scalar(@inputs), "$target: each input of $directory holds")
		  or diag($error, slurp_file($node->logfile));
	}
}

done_testing();
