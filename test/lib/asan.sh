# shellcheck shell=bash
# AddressSanitizer and UndefinedBehaviorSanitizer for the extension, in a server
# that was built without them.
#
# The sanitizer's library must be the first one in a process, so the private
# copy's postgres becomes a script that preloads it.  A report ends the process,
# and is found in the server's log.
#
# The variables of common.sh are used, and set for it.
# shellcheck disable=SC2034,SC2154

# Without -fwrapv, an overflow of signed integers is found, too
asan_flags=(-g -O1 -fno-omit-frame-pointer '-fsanitize=address,undefined' -fno-wrapv)
asan_reports='ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error: '

# While it starts, libasan looks for swift_demangle() among all libraries, and a
# constructor of libgpg-error, which Debian's postgres is linked with, waits for
# ever for the lock of that search.  So the function is there.
make_demangler() {
	as_user cc -shared -fPIC -x c - -o "$work/demangler.so" \
		<<<'char *swift_demangle(void) { return 0; }'
}

# postgres takes the name that it was called by for its own, so that whoever
# starts it once more starts the script.
wrap_postgres() {
	local libasan
	libasan=$(readlink -f "$(cc -print-file-name=libasan.so)")
	[ -f "$libasan" ] || die "missing: libasan.so"
	mv "$bindir/postgres" "$bindir/postgres.real"
	cat >"$bindir/postgres" <<-END
		#!/bin/bash
		export LD_PRELOAD=$libasan:$work/demangler.so
		export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_abort=0:use_sigaltstack=0:quarantine_size_mb=1
		export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1
		exec -a "\$0" "\$0.real" "\$@"
	END
	chmod 755 "$bindir/postgres"
}

# After prepare
use_asan() {
	say "with AddressSanitizer and UndefinedBehaviorSanitizer"
	make_demangler
	wrap_postgres
	make_options=(with_llvm=no COPT="${asan_flags[*]}"
		YELP_SYNC_TEST_SLACK=5 PG_TEST_TIMEOUT_DEFAULT=600)
}

# The reports in the logs of servers, if there are any
show_asan_reports() {
	grep -rhE -A 30 --include='*.log' "$asan_reports" \
		"$work/src/tmp_check/log" "$work/src/log" 2>/dev/null || true
}

# Is an overrun in a library that a server loads reported, and found in its log?
# If not, all else would prove nothing.
check_asan() {
	local log=$work/src/tmp_check/log/planted.log
	as_user mkdir -p "${log%/*}"
	as_user initdb -D "$work/asan" -A trust -N >/dev/null
	as_user cc "${asan_flags[@]}" -shared -fPIC -I"$("$pg_config" --includedir-server)" \
		-x c - -o "$work/planted.so" <<-'END_OF_C'
		#include "postgres.h"
		#include "fmgr.h"
		PG_MODULE_MAGIC;
		void _PG_init(void);
		void _PG_init(void)
		{
			volatile char *block = malloc(10);
			block[10] = 'x';
		}
	END_OF_C
	echo "LOAD '$work/planted.so'" |
		as_user postgres --single -D "$work/asan" postgres >"$log" 2>&1 || true
	[ -n "$(show_asan_reports)" ] ||
		{ cat "$log" >&2; die "a planted overrun was not reported"; }
	rm "$log"
}
