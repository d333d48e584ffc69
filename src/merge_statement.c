/*
 * merge_statement.c
 *	  The statement that merges the fetched rows into yelp_programs.
 *
 * The statement runs with the caller's search_path, because the caller's
 * triggers do; so everything in it is schema-qualified, including operators,
 * and constructs that look up an operator implicitly, such as IS DISTINCT
 * FROM, USING and CASE x WHEN, are left to the SQL functions of the install
 * script, which were parsed when it ran.
 */
#include "postgres.h"

#include "merge_statement.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

/*
 * Parameters of a statement: %1$s is the extension's schema, %2$s the fetched
 * rows, %3$s "ONLY " unless the table is partitioned; %4$s are the columns
 * that yelp_sync_columns() fills, %5$s the same of "p" and %6$s of "a"; %7$s
 * and %8$s are AMONG(MERGE_MISSING) and AMONG("altered"), or nothing; %9$s is
 * KEPT_ROWS, or nothing if neither policies nor triggers can have an effect.
 */
#define EQ "OPERATOR(pg_catalog.=)"

/*
 * To join a few rows with the table, look them up in the primary key's index
 * instead of reading the whole table.
 */
#define AMONG(rows) \
	" AND t.program_id " EQ " ANY (ARRAY(SELECT n.program_id FROM " rows " n))"

/* The rows of the last pass, which has each program once */
#define PASS_ROWS \
	"(SELECT f.* FROM " MERGE_FETCHED " f WHERE f.pass OPERATOR(pg_catalog.>=) $4)"

/* Each program once: the later page wins, and on a page the later position */
#define LATEST_ROWS \
	"(SELECT DISTINCT ON (f.program_id) f.program_id, f.fingerprint, f.document" \
	" FROM " MERGE_FETCHED " f WHERE f.pass OPERATOR(pg_catalog.>=) $4" \
	" ORDER BY f.program_id, f.pass DESC, f.page_offset DESC, f.position DESC)"

/*
 * $1 username, $2 whether to delete, $3 the time, $4 the first pass to use.
 *
 * Programs that arrived unchanged have no row, or one without a document; if
 * they have been edited in the meantime, the next sync restores them.
 *
 * A row is also altered if only the formatting of its document changed: it
 * gets the new fingerprint and keeps its time, and is not reported.  That
 * makes the next sync cheaper, unless the API formats it differently each
 * time.  So only one of $5 such rows is written, chosen at random with $6:
 * documents that were reformatted once are settled after some syncs, and
 * those that always change cost little.
 */

#define STORED "%3$s%1$s.yelp_programs"

/* Does the account have any rows?  If not, skip all look-ups */
#define ANY_STORED \
	"(SELECT EXISTS (SELECT FROM " STORED " p WHERE p.username " EQ " $1))"

/* A fetched program as jsonb, which the page reader has proved to be able to store it */
#define DOCUMENT "(SELECT f.document::pg_catalog.jsonb AS data OFFSET 0)"

/* The columns that it fills, computed only once */
#define COLUMNS_OF_DOCUMENT \
	"(SELECT (r.columns).* FROM (SELECT %1$s.yelp_sync_columns(m.data) AS columns" \
	"  OFFSET 0) r)"

/*
 * Programs that are proved to be gone.  Here and below, "also" is what is
 * returned in addition if changes are recorded.
 */
#define DELETED_CTE(also) \
	"deleted AS (" \
	" DELETE FROM " STORED " t USING " MERGE_MISSING " m" \
	" WHERE $2 AND t.username " EQ " $1 AND t.program_id " EQ " m.program_id%7$s" \
	" RETURNING t.program_id" also \
	")"

/* Stored programs whose text differs, with the columns that changed */
#define ALTERED_CTE(also) \
	"altered AS MATERIALIZED (" \
	" SELECT f.program_id, f.fingerprint, m.data, a.*, c.changed" also \
	" FROM %2$s f" \
	" CROSS JOIN LATERAL (SELECT p.program_id, p.data," \
	"   ROW(%5$s)::%1$s.yelp_sync_values AS columns" \
	"  FROM " STORED " p" \
	"  WHERE p.username " EQ " $1 AND p.program_id " EQ " f.program_id" \
	"   AND NOT COALESCE(f.fingerprint " EQ " p.fingerprint, false) OFFSET 0) s" \
	" CROSS JOIN LATERAL " DOCUMENT " m" \
	" CROSS JOIN LATERAL " COLUMNS_OF_DOCUMENT " a" \
	" CROSS JOIN LATERAL (SELECT %1$s.yelp_sync_changed(s.columns," \
	"  ROW(%6$s)::%1$s.yelp_sync_values, s.data, m.data) AS changed OFFSET 0) c" \
	" WHERE f.document IS NOT NULL AND " ANY_STORED \
	")"

/* Updates the altered rows that satisfy a condition on "a" */
#define UPDATED_CTE(name, condition, also) \
	name " AS (" \
	" UPDATE " STORED " t" \
	" SET (%4$s, data, fingerprint, updated_at) =" \
	"  ROW(%6$s, a.data, a.fingerprint," \
	"   CASE WHEN pg_catalog.cardinality(a.changed) " EQ " 0 THEN t.updated_at ELSE $3 END)" \
	" FROM altered a" \
	" WHERE t.username " EQ " $1 AND t.program_id " EQ " a.program_id%8$s" \
	"  AND " IS_WRITTEN " AND " condition \
	" RETURNING t.program_id, a.changed" also \
	")"

#define IS_WRITTEN \
	"(pg_catalog.cardinality(a.changed) OPERATOR(pg_catalog.>) 0" \
	" OR (a.fingerprint OPERATOR(pg_catalog.#) $6) OPERATOR(pg_catalog.%%) $5 " EQ " 0)"

#define IS_ACTIVE "COALESCE(a.program_status " EQ " 'ACTIVE', false)"

/* Programs that were not stored */
#define ADDED_CTE(also) \
	"added AS (" \
	" INSERT INTO %1$s.yelp_programs AS t" \
	"  (username, program_id, %4$s, data, fingerprint, created_at, updated_at)" \
	" SELECT $1, f.program_id, a.*, m.data, f.fingerprint, $3, $3" \
	" FROM %2$s f CROSS JOIN LATERAL " DOCUMENT " m" \
	" CROSS JOIN LATERAL " COLUMNS_OF_DOCUMENT " a" \
	" WHERE f.document IS NOT NULL AND NOT (" ANY_STORED " AND EXISTS" \
	"  (SELECT FROM " STORED " p" \
	"   WHERE p.username " EQ " $1 AND p.program_id " EQ " f.program_id OFFSET 0))" \
	" RETURNING t.program_id" also \
	")"

/*
 * Records the changes in yelp_program_changes; $7 is the run_id.  A program
 * of which only the formatting differs has not changed.
 */
#define CHANGES_OF(name, action, changed, old, new) \
	"SELECT program_id::pg_catalog.text, " action "::pg_catalog.text, " \
	changed "::pg_catalog.text[], " old "::pg_catalog.jsonb, " new "::pg_catalog.jsonb" \
	" FROM " name
#define UPDATES_OF(name) \
	CHANGES_OF(name, "'updated'", "changed", "old", "new") \
	" WHERE NOT pg_catalog.cardinality(changed) " EQ " 0"
#define RECORDED_CTE \
	"recorded AS (" \
	" INSERT INTO %1$s.yelp_program_changes" \
	"  (run_id, changed_at, username, program_id, action, changed, old, new)" \
	" SELECT $7, $3, $1, c.* FROM (" \
	CHANGES_OF("deleted", "'deleted'", "NULL", "data", "NULL") \
	" UNION ALL " UPDATES_OF("ended") \
	" UNION ALL " UPDATES_OF("updated") \
	" UNION ALL " CHANGES_OF("added", "'added'", "NULL", "NULL", "data") ") c" \
	")"

/* The old and new values of the changed columns of an altered program */
#define OLD_AND_NEW \
	", %1$s.yelp_sync_picked(s.columns, s.data, c.changed) AS old" \
	", %1$s.yelp_sync_picked(ROW(%6$s)::%1$s.yelp_sync_values, m.data, c.changed) AS new"

#define UPDATED_ROWS(name) \
	"SELECT CASE WHEN pg_catalog.cardinality(changed) " EQ " 0 THEN 'respelled' ELSE 'updated' END," \
	" program_id::pg_catalog.text, changed FROM " name

/* Rows that should have been updated or deleted, but were not */
#define KEPT_ROWS \
	" UNION ALL SELECT 'kept', program_id::pg_catalog.text, NULL FROM (" \
	"  SELECT program_id FROM altered WHERE NOT pg_catalog.cardinality(changed) " EQ " 0" \
	"  UNION ALL SELECT program_id FROM " MERGE_MISSING " WHERE $2) w" \
	" WHERE NOT EXISTS (SELECT FROM (SELECT program_id FROM deleted" \
	"  UNION ALL SELECT program_id FROM ended UNION ALL SELECT program_id FROM updated) d" \
	"  WHERE d.program_id " EQ " w.program_id)"

/*
 * The last query reads one result after the other, and thereby determines the
 * order in which rows are written: those that free a value of a unique index
 * before those that take it over.
 */
#define STATEMENT(data, values, picked, recorded) \
	"WITH " DELETED_CTE(data) ", " ALTERED_CTE(values) ", " \
	UPDATED_CTE("ended", "NOT " IS_ACTIVE, picked) ", " \
	UPDATED_CTE("updated", IS_ACTIVE, picked) ", " \
	ADDED_CTE(data) recorded \
	" SELECT 'deleted'::pg_catalog.text, program_id::pg_catalog.text," \
	" NULL::pg_catalog.text[] FROM deleted" \
	" UNION ALL " UPDATED_ROWS("ended") \
	" UNION ALL " UPDATED_ROWS("updated") \
	" UNION ALL SELECT 'added', program_id::pg_catalog.text, NULL FROM added" \
	" UNION ALL SELECT 'missing', program_id::pg_catalog.text, NULL FROM " MERGE_MISSING \
	" WHERE NOT $2%9$s"

#define MERGE_STATEMENT STATEMENT("", "", "", "")
#define RECORDING_STATEMENT \
	STATEMENT(", t.data", OLD_AND_NEW, ", a.old, a.new", ", " RECORDED_CTE)

/* The columns that are filled from a program's document, as a list. */
static char *
filled_columns(const Tables *tables, const char *prefix)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < tables->filled->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(tables->filled, i);

		if (!column->attisdropped)
			appendStringInfo(&list, "%s%s%s", list.len > 0 ? ", " : "", prefix,
							 quote_identifier(NameStr(column->attname)));
	}
	return list.data;
}

static const char *const sources[] =
{
	[MERGE_ALL_ROWS] = MERGE_FETCHED,
	[MERGE_PASS_ROWS] = PASS_ROWS,
	[MERGE_LATEST_ROWS] = LATEST_ROWS,
};

char *
merge_statement(const Tables *tables, MergeSource source, bool record, bool few,
				bool filtered)
{
	return psprintf(record ? RECORDING_STATEMENT : MERGE_STATEMENT,
					tables->schema, sources[source], tables->partitioned ? "" : "ONLY ",
					filled_columns(tables, ""),
					filled_columns(tables, "p."),
					filled_columns(tables, "a."),
					few ? AMONG(MERGE_MISSING) : "",
					few ? AMONG("altered") : "",
					filtered ? KEPT_ROWS : "");
}
