-- The columns that are filled from a program's document, and which of them changed
\pset format unaligned

-- One row per document: the columns that are not NULL
CREATE FUNCTION columns_of(document text) RETURNS text
LANGUAGE sql
RETURN jsonb_strip_nulls(to_jsonb(yelp_sync_columns(document::jsonb)));

SELECT document, columns_of(document) FROM (VALUES
	-- nothing at all
	('{}'),
	('{"program_type": null, "program_status": null, "program_pause_status": null, "start_date": null, "end_date": null, "active_features": null, "available_features": null, "program_metrics": null, "businesses": null}'),
	('{"program_metrics": {"budget": null, "max_bid": null, "ad_cost": null, "currency": null, "fee_period": null, "is_autobid": null, "billed_impressions": null, "billed_clicks": null}, "businesses": [{"yelp_business_id": null, "partner_business_id": null}]}'),
	('{"program_metrics": {}, "businesses": [], "active_features": [], "available_features": []}'),
	-- each in its place, and nowhere else
	('{"program_type": "CPC", "program_status": "ACTIVE", "program_pause_status": "NOT_PAUSED", "start_date": "2026-03-23", "end_date": "9999-12-31", "program_metrics": {"budget": 1000000, "currency": "USD", "is_autobid": true, "max_bid": 25, "billed_impressions": 1234, "billed_clicks": 56, "ad_cost": 245000, "fee_period": "CALENDAR_MONTH"}, "businesses": [{"yelp_business_id": "y", "partner_business_id": "p"}], "active_features": ["A"], "available_features": ["A", "B"]}'),
	('{"x": {"program_type": "no"}, "budget": 5, "yelp_business_id": "no", "problems": ["no"], "data": 1}'),
	('{"businesses": [{"partner_business_id": "p1"}, {"yelp_business_id": "y2", "partner_business_id": 2}]}'),
	('{"program_type": "BP", "program_type": "CPC", "program_st\u0061tus": "\u00e9\"\\\ud83e\udd5e"}'),
	-- dates
	('{"start_date": "0001-01-01", "end_date": "2024-02-29"}'),
	('{"start_date": "2026\u002d03-23", "end_date": "2000-02-29"}'),
	('{"start_date": "2026-02-29", "end_date": "1900-02-29"}'),
	('{"start_date": "2026-13-01", "end_date": "2026-00-10"}'),
	('{"start_date": "2026-04-31", "end_date": "2026-01-00"}'),
	('{"start_date": "2026-12-32", "end_date": "0000-01-01"}'),
	('{"start_date": "2026/01/01", "end_date": "2026-01/01"}'),
	('{"start_date": "26-01-01", "end_date": "2026-1-1"}'),
	('{"start_date": "2026-01-01T00:00", "end_date": "2026-01-1:"}'),
	('{"start_date": " 2026-01-0", "end_date": "-026-01-01"}'),
	('{"start_date": "infinity", "end_date": ""}'),
	('{"start_date": 20260101, "end_date": {"2026-01-01": 1}}'),
	-- money, in cents
	('{"program_metrics": {"budget": 1, "max_bid": 0, "ad_cost": -7}}'),
	('{"program_metrics": {"budget": 99999999999999, "max_bid": -99999999999999, "ad_cost": -0.0}}'),
	('{"program_metrics": {"budget": 100000000000000, "max_bid": -100000000000000, "ad_cost": 99999999999999.5}}'),
	('{"program_metrics": {"budget": 100.0, "max_bid": 1.5E+1, "ad_cost": 120e-1}}'),
	('{"program_metrics": {"budget": 12.5, "max_bid": 1e-2, "ad_cost": 1.00000000000000000000001}}'),
	('{"program_metrics": {"budget": 1e300, "max_bid": -1e900, "ad_cost": 1e-300}}'),
	('{"program_metrics": {"budget": "12", "max_bid": true, "ad_cost": [1]}}'),
	-- counts
	('{"program_metrics": {"billed_impressions": 9223372036854775807, "billed_clicks": -9223372036854775808}}'),
	('{"program_metrics": {"billed_impressions": 9223372036854775807.0, "billed_clicks": 922337203685477580700e-2}}'),
	('{"program_metrics": {"billed_impressions": 9223372036854775808, "billed_clicks": -9223372036854775809}}'),
	('{"program_metrics": {"billed_impressions": 9223372036854775806.5, "billed_clicks": 0.5}}'),
	('{"program_metrics": {"billed_impressions": "1", "billed_clicks": {}}}'),
	-- texts, booleans and lists of another type
	('{"program_type": 5, "program_status": true, "program_pause_status": ["x"]}'),
	('{"program_metrics": {"is_autobid": "true", "currency": {}, "fee_period": 1}}'),
	('{"program_metrics": {"is_autobid": 0}, "active_features": "A", "available_features": {"A": "B"}}'),
	('{"active_features": ["", "NULL", "a,b", "\"q\"", "{}"], "available_features": ["A", null]}'),
	('{"active_features": ["A", 1], "available_features": [["A"]]}'),
	-- objects of another type
	('{"program_metrics": [], "businesses": {"yelp_business_id": "y"}}'),
	('{"program_metrics": [{"budget": 1}], "businesses": "y"}'),
	('{"program_metrics": 5, "businesses": ["y"]}'),
	('{"program_metrics": "x", "businesses": [{"yelp_business_id": "y"}, null]}'),
	('{"businesses": [[]]}'),
	('{"businesses": [{"yelp_business_id": 1, "partner_business_id": []}]}'),
	-- one that is wrong does not affect the others
	('{"program_type": "CPC", "start_date": "soon", "end_date": "2026-03-23", "program_metrics": {"budget": "x", "max_bid": 25, "currency": "USD"}, "businesses": [{"yelp_business_id": 1, "partner_business_id": "p"}]}')
) AS list(document);

-- should fail
SELECT columns_of('[{"program_type": "CPC"}]');
SELECT columns_of('5');
SELECT yelp_sync_columns(NULL) IS NULL;

-- The names of the columns that differ, "data" if only the documents do
CREATE FUNCTION changed(stored jsonb, new jsonb) RETURNS text[]
LANGUAGE sql
RETURN yelp_sync_changed(yelp_sync_columns(stored), yelp_sync_columns(new), stored, new);

SELECT stored, new, changed(stored, new), changed(new, stored) AS reverse FROM (VALUES
	('{}'::jsonb, '{}'::jsonb),
	('{"a": 1, "b": [1.0]}', '{"b":[1e0],"a":1.00}'),
	('{}', '{"program_type": "CPC"}'),
	('{"program_type": "BP"}', '{"program_type": "CPC"}'),
	('{"program_type": null}', '{}'),
	('{"program_metrics": {"budget": 100}}', '{"program_metrics": {"budget": 100.0}}'),
	('{"program_metrics": {"budget": 100}}', '{"program_metrics": {"budget": 101, "ad_cost": 0}}'),
	('{"program_metrics": {"budget": 100}}', '{"program_metrics": {"budget": "100"}}'),
	('{"program_metrics": {"budget": "x"}}', '{"program_metrics": {"budget": "y"}}'),
	('{"active_features": ["A", "B"]}', '{"active_features": ["B", "A"]}'),
	('{"active_features": []}', '{"active_features": null}'),
	('{"businesses": [{"yelp_business_id": "a"}]}', '{"businesses": [{"yelp_business_id": "a"}, {}]}'),
	('{"note": "a", "end_date": "2026-01-01"}', '{"note": "b", "end_date": "2026-01-02"}'),
	('{"note": "a"}', '{"note": "b"}')
) AS list(stored, new);

DROP FUNCTION columns_of, changed;
