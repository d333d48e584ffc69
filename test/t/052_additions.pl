# Users' additions to yelp_programs survive and work: columns, indexes, views, triggers, constraints.
use strict;
use warnings FATAL => 'all';

use Test::More;

use YelpTest ':all';

my ($node, $api) = start(accounts => { acme => { count => 300 } });
my $seed = 20;
my $what;

# A checksum of the table that includes the location and the version of each row, and the history
sub content
{
	return value('SELECT (SELECT count(*) FROM yelp_sync_runs), sum(hashtextextended(concat(ctid, xmin, p), 0))
		FROM yelp_programs AS p');
}

# A sync after changes, which reports them
sub works
{
	my ($name, %how) = @_;
	$what = $api->mutate(seed => ++$seed, remove => 4, add => 6, alter => 23, %how);
	reports(sync('acme'), $what, "$name: the changes");
	return;
}

note 'columns, triggers, references; 008_tables.pl has others';

sync('acme');
value(q{
	ALTER TABLE yelp_programs ADD COLUMN note text;
	CREATE INDEX programs_by_data ON yelp_programs USING gin (data);
	UPDATE yelp_programs SET note = 'about ' || program_id;
	CREATE TABLE seen (what text, program_id text, changed boolean);
	CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen VALUES (TG_OP || ' ' || TG_WHEN,
			CASE TG_OP WHEN 'DELETE' THEN OLD.program_id ELSE NEW.program_id END,
			CASE TG_OP WHEN 'UPDATE' THEN OLD.data <> NEW.data END);
		RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
	END $$;
	CREATE TRIGGER watch_before BEFORE INSERT OR UPDATE OR DELETE ON yelp_programs
		FOR EACH ROW EXECUTE FUNCTION watch();
	CREATE TRIGGER watch_after AFTER INSERT OR UPDATE OR DELETE ON yelp_programs
		FOR EACH ROW EXECUTE FUNCTION watch();
	CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen SELECT TG_OP || ' rows', count(*)::text FROM affected;
		RETURN NULL;
	END $$;
	CREATE TRIGGER rows_added AFTER INSERT ON yelp_programs REFERENCING NEW TABLE AS affected
		FOR EACH STATEMENT EXECUTE FUNCTION count_rows();
	CREATE TABLE leads (username text, program_id text, lead int,
		FOREIGN KEY (username, program_id) REFERENCES yelp_programs ON DELETE CASCADE);
	INSERT INTO leads SELECT username, program_id, 1 FROM yelp_programs});
is(outcome(sync('acme')), '', 'an additional column is no change');
is(value("SELECT count(*) FROM seen WHERE what NOT LIKE '% rows'"), 0, '... and fires no trigger');
value('TRUNCATE seen');
works('additions', respell => 5);
my $altered = grep { $_ } values %{ $what->{altered} };
is( value(q{SELECT what, count(DISTINCT program_id) FROM seen WHERE changed IS NOT false AND what NOT LIKE '% rows'
		GROUP BY 1 ORDER BY 1}),
	"DELETE AFTER|4\nDELETE BEFORE|4\nINSERT AFTER|6\nINSERT BEFORE|6\nUPDATE AFTER|$altered\nUPDATE BEFORE|$altered",
	'triggers fire for each of them');
foreach my $case (
	[ 'transition tables have the new rows', q{SELECT max(program_id) FILTER (WHERE what = 'INSERT rows') = '6' FROM seen} ],
	[ 'columns keep their values', q{SELECT count(*) FILTER (WHERE note IS NULL) = 6
		AND bool_and(note IS NULL OR note = 'about ' || program_id) FROM yelp_programs} ],
	[ 'ON DELETE CASCADE', 'SELECT (SELECT count(*) FROM leads) = count(*) - 6 FROM yelp_programs' ])
{
	my ($name, $query) = @$case;
	is(value($query), 't', $name);
}
value(q{ALTER TABLE yelp_programs ADD COLUMN kind text DEFAULT 'mine',
	ADD COLUMN cents bigint GENERATED ALWAYS AS (budget * 100) STORED,
	ADD COLUMN number bigserial, ADD COLUMN uuid uuid DEFAULT gen_random_uuid()});
works('columns with a default, computed, numbered, random');
is( value(q{SELECT bool_and(kind = 'mine'), bool_and(cents IS NOT DISTINCT FROM budget * 100),
		count(DISTINCT number) = count(*), count(DISTINCT uuid) = count(*) FROM yelp_programs}),
	't|t|t|t', '... have their values');

note 'additions that make a sync fail leave everything as it was';

value(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0042'; END $$});
foreach my $case (
	[ 'a foreign key', q{ALTER TABLE leads DROP CONSTRAINT leads_username_program_id_fkey,
			ADD FOREIGN KEY (username, program_id) REFERENCES yelp_programs}, 'DROP TABLE leads',
		qr/^23503: .*\nDETAIL:  .* is still referenced from table "leads"\.\nCONTEXT:  SQL statement "merge into public\.yelp_programs"/s ],
	[ 'a deferred trigger', 'CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON yelp_programs
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()',
		'DROP TRIGGER refuse ON yelp_programs', qr/^P0042: not this one/ ],
	[ 'a constraint', 'ALTER TABLE yelp_programs ADD CONSTRAINT fault CHECK (updated_at = created_at) NOT VALID',
		'ALTER TABLE yelp_programs DROP CONSTRAINT fault', qr/^23514: / ])
{
	my ($name, $sql, $undo, $error) = @$case;
	my $before = content();

	value($sql);
	$what = $api->mutate(seed => ++$seed, remove => 2, add => 2, alter => 5);
	like(failure(sync('acme')), $error, $name);    # should fail
	is(content(), $before, "$name: the tables are unchanged");
	value($undo);
	reports(sync('acme'), $what, "$name: the changes, without it");
}
table_is_listing('acme', 'the table in the end');

note 'a unique index: programs that take the place of another';

sub place
{
	my ($id, $status, $business) = @_;
	return qq({"program_id":"$id","program_type":"CPC","program_status":"$status",)
	  . qq("businesses":[{"yelp_business_id":"$business"}]});
}

$api->config(accounts => { places => { count => 0 } });
value(create_server('places', endpoint => $api->url, max_deleted => '100%')
	  . q{CREATE UNIQUE INDEX one_active ON yelp_programs (yelp_business_id, program_type)
		WHERE program_status = 'ACTIVE' AND username = 'places'});
foreach my $case (
	[ 'a first sync', place('a', 'ACTIVE', 'one'), place('b', 'ACTIVE', 'two') ],
	[ 'a new one, and one that ended', place('a', 'INACTIVE', 'one'), place('b', 'ACTIVE', 'two'), place('c', 'ACTIVE', 'one') ],
	[ 'a new one, and one that is deleted', place('a', 'INACTIVE', 'one'), place('c', 'ACTIVE', 'one'), place('d', 'ACTIVE', 'two') ],
	[ 'one that is resumed, and one that ends', place('a', 'ACTIVE', 'one'), place('c', 'INACTIVE', 'one'), place('d', 'ACTIVE', 'two') ],
	[ 'one that moves, and one that is deleted', place('a', 'ACTIVE', 'two'), place('c', 'INACTIVE', 'one') ])
{
	my ($name, @programs) = @$case;
	$api->set_programs('places', @programs);
	is(sync('places')->{error}, undef, $name);
	table_is_listing('places', "$name: the table");
}

done_testing();
