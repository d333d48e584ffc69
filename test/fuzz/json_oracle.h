/*
 * json_oracle.h
 *	  What PostgreSQL's own JSON parser finds in a text.
 */
#ifndef YELP_SYNC_JSON_ORACLE_H
#define YELP_SYNC_JSON_ORACLE_H

/* An element of the list of programs */
typedef struct OracleProgram
{
	const char *text;			/* where it begins */
	int			length;
	bool		is_object;
	char	   *id;				/* of the last member program_id, where that
								 * is a string; else NULL */
	int64		longest_number; /* most digits without an exponent */
	int64		exponents;		/* digits that exponents add */
} OracleProgram;

typedef struct OraclePage
{
	char	   *total;			/* the last member total, as it is spelled;
								 * NULL: none, or no number */
	bool		reports_error;	/* a member error or errors says something */
	bool		has_list;		/* the last member payment_programs is a list */
	OracleProgram *programs;	/* its elements */
	int			count;
} OraclePage;

/*
 * Is it JSON by its grammar?  All bytes beyond ASCII pass for letters, whether
 * they are UTF-8 or not.
 */
extern bool oracle_is_json(const char *text, size_t length);

/*
 * Is it JSON whose strings jsonb can hold: UTF-8 without \u0000 and half
 * surrogate pairs?  If so, says what is on the page.
 */
extern bool oracle_read_page(const char *text, size_t length, OraclePage *page);

#endif							/* YELP_SYNC_JSON_ORACLE_H */
