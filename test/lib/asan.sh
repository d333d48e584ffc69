# shellcheck shell=bash
# AddressSanitizer and UndefinedBehaviorSanitizer for the extension, in a server
# that was built without them.
#
# The sanitizer's library must be loaded first, so the private copy's postgres is
# replaced by a script that preloads it.  A report terminates the process, and is
# written to the server's log.
#
# Uses and sets variables of common.sh.
# shellcheck disable=SC2034,SC2154

# Without -fwrapv, signed integer overflows are detected as well
asan_flags=(-g -O1 -fno-omit-frame-pointer '-fsanitize=address,undefined' -fno-wrapv)
asan_reports='ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error: '

# At startup, libasan looks for swift_demangle() in all libraries, and a
# constructor of libgpg-error, which Debian's postgres is linked with, deadlocks
# on the lock of that search.  Therefore define the function.
make_demangler() {
	as_user cc -shared -fPIC -x c - -o "$work/demangler.so" \
		<<<'char *swift_demangle(void) { return 0; }'
}

# postgres uses the name it was called by, so that the script is used when it is
# started again.
wrap_postgres() {
	local libasan
	libasan=$(readlink -f "$(cc -print-file-name=libasan.so)")
	[ -f "$libasan" ] || die "missing: libasan.so"
	mv "$bindir/postgres" "$bindir/postgres.real"
	cat >"$bindir/postgres" <<-END
		#!/bin/bash
		export LD_PRELOAD=$libasan:$work/demangler.so\${LD_PRELOAD:+:\$LD_PRELOAD}
		export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_abort=0:use_sigaltstack=0:quarantine_size_mb=1
		export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1
		exec -a "\$0" "\$0.real" "\$@"
	END
	chmod 755 "$bindir/postgres"
}

# Must be called after prepare
use_asan() {
	say "with AddressSanitizer and UndefinedBehaviorSanitizer"
	make_demangler
	wrap_postgres
	make_options=(with_llvm=no COPT="${asan_flags[*]}"
		ASAN_OPTIONS=detect_leaks=0 YELP_SYNC_TEST_SLACK=5 PG_TEST_TIMEOUT_DEFAULT=600)
}

# Prints the reports in the server logs, if any
show_asan_reports() {
	grep -rhE -A 30 --include='*.log' "$asan_reports" \
		"$work/src/tmp_check/log" "$work/src/log" 2>/dev/null || true
}

# Checks that a buffer overrun in a library loaded by a server is reported and
# found in its log; otherwise, the tests would prove nothing.
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
