# yelp_sync: "make && make install", then CREATE EXTENSION yelp_sync
#
# "make test" needs nothing installed but itself: see test/run.

MODULE_big = yelp_sync
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
EXTENSION = yelp_sync
DATA = sql/yelp_sync--1.0.sql

REGRESS = options tables accounts privileges errors
REGRESS_OPTS = --inputdir=. --load-extension=yelp_sync
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CONFIG ?= pg_config
# As system headers: their warnings are not ours
PG_CPPFLAGS = -D_GNU_SOURCE -fvisibility=hidden -isystem $(shell $(PG_CONFIG) --includedir-server) \
	$(shell curl-config --cflags 2>/dev/null)
SHLIB_LINK = -lcurl
EXTRA_CLEAN = test/unit/*_test

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

PROVE_FLAGS += -I test/t -I test/page

# Each file is small: build all anew when a header changes
$(OBJS): $(wildcard src/*.h)

UNIT_TESTS = $(patsubst %.c,%,$(wildcard test/unit/*_test.c))
UNIT_LIBS = $(foreach lib,pgcommon pgport,$(firstword $(wildcard \
	$(addsuffix /lib$(lib).a,$(pkglibdir) $(libdir))))) -lm

# A unit is linked with the module that it tests and with those below it
test/unit/program_page_test test/unit/known_program_test: src/program_page.c \
	src/program_fields.c src/json.c src/json_scan.c src/fingerprint.c src/sanitize.c
test/unit/throttle_test: src/throttle.c
test/unit/api_error_test: src/api_error.c src/json.c src/json_scan.c src/sanitize.c
test/unit/sanitize_test: src/sanitize.c
test/unit/echo_test: src/echo.c
test/unit/listing_test: src/listing.c

test/unit/%_test: test/unit/%_test.c test/unit/tap.h $(wildcard src/*.h)
	$(CC) $(CFLAGS) $(CPPFLAGS) -Isrc -Itest/unit $(filter %.c,$^) $(UNIT_LIBS) -o $@

.PHONY: unit test indent demo bench soak
unit: $(UNIT_TESTS)
	@for program in $(UNIT_TESTS); do echo "# $$program"; $$program || exit 1; done

test:
	test/run

# PostgreSQL's own flags
indent:
	@for file in src/*.[ch] test/unit/*.[ch] test/fuzz/*.c; do \
		pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79 -lp -lpl \
			-nip -npro -sac -tpg -ts4 -Utypedefs.list $$file && rm -f $$(basename $$file).BAK *.BAK; done

demo:
	test/demo

bench:
	test/bench/run

soak:
	test/soak
