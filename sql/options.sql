-- The options of servers and user mappings: each is checked when it is set
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
\pset fieldsep ' -> '

CREATE SERVER yelp FOREIGN DATA WRAPPER yelp_sync;
CREATE SERVER every_option FOREIGN DATA WRAPPER yelp_sync OPTIONS (
	endpoint 'https://partner-api.yelp.com/programs/v1', program_status 'CURRENT',
	page_size '40', concurrency '100', connect_timeout '10s', timeout '30s', attempts '3',
	retry_delay '1s', retry_factor '2.0', retry_max_delay '10s', max_retry_after '2min',
	http_version '1.1', ca_file '/etc/ssl/ca.pem', proxy 'http://proxy.example:3128',
	max_page_bytes '16MB', partial 'off', trust_total 'on', max_deleted '50%', record_changes 'on');
SELECT o.* FROM pg_foreign_server, pg_options_to_table(srvoptions) AS o
WHERE srvname = 'every_option';
DROP SERVER every_option;

-- Tries a value; an error as its SQLSTATE, message, detail and hint, without the value
CREATE FUNCTION try_one(option text, setting text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE format('ALTER SERVER yelp OPTIONS (ADD %I %L)', option, setting);
	EXECUTE format('ALTER SERVER yelp OPTIONS (DROP %I)', option);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN replace(concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, '')),
		': "' || setting || '"', ': "..."');
END $$;
-- The results of several values, and for which of them
CREATE FUNCTION try(option text, VARIADIC settings text[]) RETURNS TABLE (result text, settings text)
LANGUAGE sql BEGIN ATOMIC
	SELECT result, string_agg(quote_literal(setting), ' ' ORDER BY n)
	FROM unnest(settings) WITH ORDINALITY AS s (setting, n), try_one(option, setting) AS result
	GROUP BY result ORDER BY min(n);
END;

-- The password is never sent over the network in clear text
SELECT * FROM try('endpoint', 'https://api.example/v1', 'HTTPS://API.EXAMPLE', 'https://[::1]:8443/v1',
	'http://localhost:8080/v1', 'http://127.0.0.1', 'http://127.8.9.10:1', 'http://[::1]:8080/v1',
	'http://LOCALHOST');
SELECT * FROM try('endpoint',	-- should fail
	'http://api.example/v1', 'http://localhost.example', 'http://127.0.0.1.example',
	'http://10.0.0.1', 'http://[::2]', 'http://user@localhost',
	'https://user:secret@api.example', 'https://api.example/?a=b', 'https://api.example/#a',
	'ftp://api.example', 'file:///etc/passwd', 'api.example/v1',
	'https://', '', ' ', 'https://api.example/a b');
SELECT result FROM try('endpoint', E'https://api.example/\r\nX: y');	-- should fail

-- should fail: each way to add something to host and port, or to hide them
SELECT * FROM try('endpoint', 'http://@localhost', 'https://@api.example', 'https://:@api.example',
	'https://user@api.example', 'https://:secret@api.example', 'https://api.example@evil.example',
	'https://api.example:443@evil.example/v1', 'https:\\api.example', 'https://api.example\@evil.example',
	'https://api.example\v1', '//api.example', 'https://api.example:65536',
	'https://api.example:-1', 'https://api.example:x', 'https://[::1', 'https://[api.example]',
	'http://localhost%00.evil.example', ' https://api.example', 'https://api.example ',
	E'https://api.example\t/v1', E'https://api.example/\x1b[2J', 'https://äpi.example',
	E'https://api.example/\u202Ev1');
-- should fail: not a loopback address
SELECT * FROM try('endpoint', 'http://127.0.0.256', 'http://0.0.0.0', 'http://[::]',
	'http://[::ffff:127.0.0.1]', 'http://[0:0:0:0:0:0:0:2]', 'http://localhost.', 'http://localhosts',
	'http://128.0.0.1', 'http://2147483649');
-- should fail: the host follows the scheme, with any number of slashes
SELECT * FROM try('endpoint', 'http:/api.example/://127.0.0.1', 'https:/me:s3cret@api.example/://b');

-- What is sent is the URL as libcurl normalizes it; an @ or a % in the path is the API's
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret');
ALTER SERVER yelp OPTIONS (ADD endpoint '');	-- should fail
ALTER SERVER yelp OPTIONS (ADD endpoint 'HTTPS:/api.example:');
SELECT endpoint FROM yelp_accounts;
ALTER SERVER yelp OPTIONS (SET endpoint 'http://127.1:8080/a/../@me/%41');
SELECT endpoint FROM yelp_accounts;
ALTER SERVER yelp OPTIONS (SET endpoint 'https://%61pi.example/v1');
SELECT endpoint FROM yelp_accounts;
ALTER SERVER yelp OPTIONS (DROP endpoint);
DROP USER MAPPING FOR CURRENT_USER SERVER yelp;
-- Longer than any URL
SELECT result FROM try('endpoint', 'https://api.example/' || repeat('a', 2028), 'https://api.example/' || repeat('a', 2029));

SELECT * FROM try('program_status', 'PAST', 'PAUSED', 'current', 'Future', 'ALL');
SELECT * FROM try('program_status', 'ACTIVE', '', 'PAST, PAUSED', 'P', ', ');	-- should fail

SELECT * FROM try('page_size', '2', '100');
SELECT * FROM try('page_size', '0', '1', '101', '-1', '', 'ten', '20.5kB', '20%', '99999999999');	-- should fail

SELECT * FROM try('concurrency', '1', '1000');
SELECT * FROM try('concurrency', '0', '1001', '10s');	-- should fail

SELECT * FROM try('attempts', '1', '10');
SELECT * FROM try('attempts', '0', '11', 'NaN');	-- should fail

-- Durations: a bare number is seconds
SELECT * FROM try('timeout', '1ms', '500ms', '30s', '0.5', '2min', '1h', ' 30 s ', '3600');
SELECT * FROM try('timeout', '0', '0s', '-1s', '61min', '1d', '30 seconds', '1e9', 'NaN', 'Infinity', '');	-- should fail
SELECT * FROM try('timeout', '30000', '30000.5', '30000s');	-- should fail: milliseconds that are not said to be
SELECT result FROM try('timeout', repeat('1', 65));	-- should fail: too long to be shown
SELECT * FROM try('timeout', E'\x1b[2J');	-- should fail: shown without its control character
SELECT * FROM try('connect_timeout', '1ms', '1h');
SELECT * FROM try('connect_timeout', '0', '2h');	-- should fail
SELECT * FROM try('retry_delay', '1ms', '1h');
SELECT * FROM try('retry_delay', '0', '2h');	-- should fail
SELECT * FROM try('retry_max_delay', '1ms', '1h');
SELECT * FROM try('retry_max_delay', '0', '2h');	-- should fail
SELECT * FROM try('max_retry_after', '0', '24h', '1d');
SELECT * FROM try('max_retry_after', '-1', '25h');	-- should fail

SELECT * FROM try('retry_factor', '1', '1.5', '2', '100');
SELECT * FROM try('retry_factor', '0.9', '101', 'NaN', 'infinity', 'x');	-- should fail

SELECT * FROM try('http_version', '1.1', '2');
SELECT * FROM try('http_version', '1.0', '3', '2.0', '');	-- should fail

SELECT * FROM try('ca_file', '/etc/ssl/ca.pem');
SELECT * FROM try('ca_file', '', 'ca.pem', './ca.pem', '../ca.pem', ' /etc/ssl/ca.pem');	-- should fail
SELECT result FROM try('ca_file', '/' || repeat('a', 1022), '/' || repeat('a', 1023));

SELECT * FROM try('proxy', 'http://proxy.example:3128', 'https://proxy.example',
	'socks5://127.0.0.1:1080', 'socks5h://localhost');
SELECT * FROM try('proxy', '', 'proxy.example:3128', 'ftp://proxy.example',
	'http://user:secret@proxy.example');	-- should fail
SELECT * FROM try('proxy', 'http://proxy.example/');
-- should fail: socks5h://localhost/path is a Unix-domain socket to libcurl
SELECT * FROM try('proxy', 'socks5h://localhost/tmp/socket', 'socks5://localhost//', 'http://proxy.example/a',
	'http://@proxy.example', 'http://proxy.example?a', 'socks4://proxy.example', 'http:\\proxy.example');
SELECT result FROM try('proxy', 'http://' || repeat('a', 2042));	-- should fail

-- should fail: a proxy can read unencrypted requests
CREATE SERVER clear FOREIGN DATA WRAPPER yelp_sync
	OPTIONS (endpoint 'http://localhost/v1', proxy 'http://proxy.example');
ALTER SERVER yelp OPTIONS (ADD proxy 'http://proxy.example');
ALTER SERVER yelp OPTIONS (ADD endpoint 'http://localhost/v1');	-- should fail
ALTER SERVER yelp OPTIONS (DROP proxy);

SELECT * FROM try('max_page_bytes', '1kB', '1024', '16MB', '256MB');
SELECT * FROM try('max_page_bytes', '1023', '257MB', '1GB', '16', '16 megabytes', '');	-- should fail

SELECT * FROM try('partial', 'on', 'off', 'true', 'false', 'yes', 'no', '1', '0');
SELECT * FROM try('partial', 'maybe', '', '2');	-- should fail

SELECT * FROM try('trust_total', 'on', 'off', 'false');
SELECT * FROM try('trust_total', 'maybe', '');	-- should fail

SELECT * FROM try('record_changes', 'on', 'off', 'true');
SELECT * FROM try('record_changes', 'some', '');	-- should fail
-- The % sign may be left out
SELECT * FROM try('max_deleted', '0%', '50%', '100%', '50', '12.5%');
SELECT * FROM try('on_gone', 'delete', 'keep', 'Keep', 'hide', '');
SELECT * FROM try('max_deleted', '101%', '-1%', '50%%', '%', '', 'half', 'NaN', '1kB');	-- should fail

-- should fail: unknown, or on the wrong object
SELECT * FROM try('page_sise', '20');
SELECT * FROM try('username', 'acme');
SELECT * FROM try('password', 's3cret');
SELECT * FROM try('PAGE_SIZE', '20');
ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (page_sise '20');
ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (password 's3cret');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret', endpoint 'https://api.example');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (user 'acme', password 's3cret');
CREATE SERVER wrong FOREIGN DATA WRAPPER yelp_sync OPTIONS (endpoint 'http://api.example');
CREATE SERVER wrong FOREIGN DATA WRAPPER yelp_sync OPTIONS (page_size '20', page_size '30');
CREATE FOREIGN TABLE wrong (a int) SERVER yelp OPTIONS (page_size '20');

-- should fail: the required options of a user mapping; the message has no password
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp;
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (password 's3cret');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username '', password 's3cret');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password '');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme:x', password 's3cret');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret', proxy_user 'carol');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret', proxy_password 'pr0xy');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret', proxy_user 'carol:x', proxy_password 'pr0xy');
CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username 'acme', password 's3cret', proxy_user 'carol', proxy_password '');

-- should fail: usernames that look like another or control a terminal, and values that are too long
DO $$
DECLARE
	username text;
BEGIN
	FOREACH username IN ARRAY ARRAY[' acme', 'acme ', U&'\00A0acme', U&'acme\3000', ' ', E'ac\nme', E'acme\r',
		E'\tacme', E'\x1b[31macme', E'ac\x7fme', U&'ac\0085me', U&'ac\202Eme', U&'acme\200B', U&'\FEFFacme',
		U&'ac\2066me', U&'ac\2028me', repeat('a', 256), repeat('ä', 128)] LOOP
		BEGIN
			EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username %L, password %L)',
				username, 's3cret');
			RAISE WARNING 'accepted: %', quote_literal(username);
		EXCEPTION WHEN fdw_invalid_attribute_value THEN
			RAISE WARNING '%', SQLERRM;
		END;
	END LOOP;
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username %L, password %L)',
		repeat('a', 255), repeat('b', 1024));
END $$;
ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET username 'a b äöü');
DROP USER MAPPING FOR CURRENT_USER SERVER yelp;
DO $$
BEGIN
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username %L, password %L)',
		'acme', repeat('s3cret', 200));
END $$;

-- Allowed, but rarely intended
SET client_min_messages = notice;
ALTER SERVER yelp OPTIONS (ADD page_size '40');
ALTER SERVER yelp OPTIONS (SET page_size '41');
ALTER SERVER yelp OPTIONS (DROP page_size);
SET client_min_messages = warning;

CREATE USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (username '0il7Tv&R$#6\', password 's3:cret');
ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET password 'other');
ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (DROP password);	-- should fail
ALTER USER MAPPING FOR CURRENT_USER SERVER yelp OPTIONS (SET username 'a:b');	-- should fail
SELECT username, server, endpoint FROM yelp_accounts;

-- Changes take effect at once
ALTER SERVER yelp OPTIONS (ADD endpoint 'https://api.example/v1');
SELECT username, server, endpoint FROM yelp_accounts;
ALTER SERVER yelp OPTIONS (SET endpoint 'http://api.example/v1');	-- should fail
ALTER SERVER yelp OPTIONS (DROP endpoint);
SELECT username, server, endpoint FROM yelp_accounts;

-- The wrapper's options are defaults of all servers
ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (endpoint 'http://api.example');	-- should fail
ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (endpoint 'https://api.example/all', timeout '5s');
SELECT endpoint FROM yelp_accounts;
ALTER SERVER yelp OPTIONS (ADD endpoint 'https://api.example/one');
SELECT endpoint FROM yelp_accounts;
CREATE ROLE regress_yelp_plain;
GRANT USAGE ON FOREIGN DATA WRAPPER yelp_sync TO regress_yelp_plain;
SET ROLE regress_yelp_plain;
ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (SET timeout '1h');	-- should fail
RESET ROLE;
ALTER FOREIGN DATA WRAPPER yelp_sync OPTIONS (DROP endpoint, DROP timeout);
DROP OWNED BY regress_yelp_plain;
DROP ROLE regress_yelp_plain;

DROP FUNCTION try, try_one;
DROP SERVER yelp CASCADE;
