# yelp_sync: "make && make install", then CREATE EXTENSION yelp_sync
#
# "make test" installs what it needs: see test/run.

MODULE_big = yelp_sync
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
EXTENSION = yelp_sync
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" yelp_sync.control)
DATA = $(wildcard sql/yelp_sync--*.sql)

REGRESS = columns options tables accounts privileges errors
REGRESS_OPTS = --inputdir=. --load-extension=yelp_sync
TAP_TESTS ?= 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
# Treat PostgreSQL's headers as system headers to suppress their warnings
PG_CPPFLAGS = -D_GNU_SOURCE -DYELP_SYNC_VERSION='"$(EXTVERSION)"' -fvisibility=hidden -isystem $(shell $(PG_CONFIG) --includedir-server) \
	$(shell curl-config --cflags 2>/dev/null)
SHLIB_LINK = -lcurl -lz
EXTRA_CLEAN = test/unit/*_test $(addprefix test/fuzz/,*_fuzz *_replay *.so)

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

PROVE_FLAGS += -I test/t -I test/page

# The files are small, so rebuild all of them when a header changes
$(OBJS): $(wildcard src/*.h)

UNIT_TESTS = $(patsubst %.c,%,$(wildcard test/unit/*_test.c))
# What only a server has may be missing, because these programs do not call it
UNIT_LIBS = $(foreach lib,pgcommon pgport,$(firstword $(wildcard \
	$(addsuffix /lib$(lib).a,$(pkglibdir) $(libdir))))) -lm -no-pie -Wl,--unresolved-symbols=ignore-all

# An assert-enabled server reports failed assertions with this function
unit_flags = $(CPPFLAGS) '-DExceptionalCondition(...)=abort()' -Isrc -Itest/unit

# A unit test is linked with the module that it tests and its dependencies
page_modules = $(addprefix src/,program_page.c json.c text.c)
error_modules = $(addprefix src/,fetch_error.c json.c text.c)
test/unit/program_page_test: $(page_modules)
test/unit/throttle_test: src/throttle.c
test/unit/fetch_error_test: UNIT_LIBS += -lcurl
test/unit/fetch_error_test: $(error_modules)
test/unit/text_test: src/text.c
test/unit/listing_test: src/fetch.c src/listing.c

test/unit/%_test: test/unit/%_test.c $(wildcard test/unit/*.h src/*.h)
	$(CC) $(CFLAGS) $(unit_flags) $(filter %.c,$^) $(UNIT_LIBS) -o $@

# A fuzz target is linked with the module that it tests and its dependencies.
# option and columns run in a server.

fuzz_program_page = $(page_modules) src/fetch_error.c test/fuzz/json_oracle.c
fuzz_option = src/option.c src/text.c
fuzz_columns = $(page_modules)
fuzz_headers = $(wildcard src/*.h test/fuzz/*.h test/unit/*.h)
fuzz_compile = $(unit_flags) $(filter %.c,$^)

# With libFuzzer, for test/fuzz/run
fuzz_clang = clang -g -O1 -fno-omit-frame-pointer -Wno-ignored-attributes
libfuzzer = $(shell clang -print-runtime-dir)/libclang_rt.fuzzer_no_main-$(shell uname -m).a

.SECONDEXPANSION:

test/fuzz/%_fuzz: test/fuzz/%_fuzz.c test/fuzz/memory.c $$(fuzz_$$*) $(fuzz_headers)
	$(fuzz_clang) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		$(fuzz_compile) $(UNIT_LIBS) -lcurl -o $@

test/fuzz/%_fuzz.so: test/fuzz/%_fuzz.c test/fuzz/in_server.c $$(fuzz_$$*) $(fuzz_headers)
	$(fuzz_clang) -fsanitize=fuzzer-no-link,undefined -fsanitize-trap=undefined \
		-DWITH_LIBFUZZER -shared -fPIC $(fuzz_compile) $(libfuzzer) -lstdc++ -lcurl -lm -o $@

# Without libFuzzer: replays the corpus, with any compiler
test/fuzz/%_replay: test/fuzz/%_fuzz.c test/fuzz/memory.c test/fuzz/replay.c $$(fuzz_$$*) \
		$(fuzz_headers)
	$(CC) $(CFLAGS) $(fuzz_compile) $(UNIT_LIBS) -lcurl -o $@

test/fuzz/%_replay.so: test/fuzz/%_fuzz.c test/fuzz/in_server.c $$(fuzz_$$*) $(fuzz_headers)
	$(CC) $(CFLAGS) -shared -fPIC $(fuzz_compile) -lcurl -lm -o $@

.PHONY: dist deb unit unit-programs fuzz test test-all-versions test-asan coverage lint valgrind indent demo bench soak
# Disable leak detection: without memory contexts, palloc'd memory is not freed
unit: unit-programs
	@for program in $(UNIT_TESTS) "test/fuzz/program_page_replay test/fuzz/corpus/program_page"; do \
		echo "# $$program"; ASAN_OPTIONS=detect_leaks=0 $$program || exit 1; done

# For test/run
unit-programs: $(UNIT_TESTS) test/fuzz/program_page_replay

# For test/t/030_corpus.pl
installcheck: test/fuzz/option_replay.so test/fuzz/columns_replay.so

fuzz:
	test/fuzz/run

test:
	test/run

test-all-versions:
	test/all-versions

test-asan:
	test/run --asan

coverage:
	test/run --coverage unit sql

lint:
	test/lint

valgrind:
	test/memcheck/run

# PostgreSQL's own flags
indent:
	@for file in src/*.[ch] test/unit/*.[ch] test/fuzz/*.[ch]; do \
		pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79 -lp -lpl \
			-nip -npro -sac -tpg -ts4 -Usrc/typedefs.list $$file; rm -f *.BAK; done

# The archive for PGXN, yelp_sync-1.0.0.zip, of the last commit
dist:
	test/dist

# Debian packages for the versions of PostgreSQL with development files, in the
# parent directory
deb: export PG_SUPPORTED_VERSIONS = installed
deb:
	pg_buildext updatecontrol
	dpkg-buildpackage -us -uc -b

demo:
	test/demo

bench:
	test/bench/run

soak:
	test/soak
