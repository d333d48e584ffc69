# shellcheck shell=bash
# Shared by test/run, test/demo and test/bench/run.
#
# prepare brings what they need: the packages (Debian and Ubuntu, as root), and
# a private directory $work with a copy of the source tree and of PostgreSQL.
# What build makes is installed into that copy, so that neither the system's
# PostgreSQL nor a version of the extension that is installed there is touched.
# PostgreSQL's programs find their files relative to themselves, which is what
# makes a copy work: "make check" in PostgreSQL's own tree relies on it as
# well.  (A directory of its own for extensions can be named only since
# PostgreSQL 18.)
#
# set_up does both, and sees to it that clean_up is called at the end.  Ctrl-C
# ends the caller, too, where a program that it runs goes on or ends in good
# order.
trap 'exit 130' INT

PATH=$PATH:/usr/sbin:/sbin		# su may leave them out
oldest=15						# the oldest PostgreSQL that is supported
major=							# of the PostgreSQL that was chosen
pg_config=						# its pg_config, later that of its copy
bindir=							# the copy's programs
work=							# the private directory
user=							# who builds and runs: never root
make_options=()					# to build with
extras=()						# what else to install: see missing_extras
tools=()						# more that is needed: PACKAGE:PROGRAM, or PACKAGE
								# where the program has its name

say() {
	printf '== %s\n' "$*"
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

have() {
	command -v "$1" >/dev/null
}

header() {
	echo "#include <$1>" | cc -fsyntax-only -x c -
}

# The major version to use where PG_CONFIG names none: the newest one with
# development files here, or the distribution's default.
choose_major() {
	local newest
	newest=$(find /usr/include/postgresql/*/server/postgres.h -maxdepth 0 2>/dev/null |
		cut -d / -f 5 | sort -n | tail -n 1)
	if [ "${newest:-0}" -lt $oldest ]; then
		newest=$(apt-cache depends postgresql 2>/dev/null |
			sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
	fi
	echo "$newest"
}

choose_postgres() {
	if [ -n "${PG_CONFIG:-}" ]; then
		pg_config=$PG_CONFIG
		have "$pg_config" || die "PG_CONFIG: no such program: $pg_config"
	elif have apt-get; then
		major=$(choose_major)
		pg_config=/usr/lib/postgresql/$major/bin/pg_config
	else
		pg_config=pg_config
	fi
	if have "$pg_config"; then
		major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	fi
	if [ -n "$major" ] && [ "$major" -lt $oldest ]; then
		die "PostgreSQL $major found, $oldest or later needed:" \
			"see https://www.postgresql.org/download/"
	fi
}

# The packages that are missing, one a line: what is there already, from
# wherever it came, is left alone.
missing_packages() {
	local package check tool
	for tool in "${tools[@]}"; do
		have "${tool#*:}" || echo "${tool%:*}"
	done
	while read -r package check; do
		eval "$check" >/dev/null 2>&1 || echo "$package"
	done <<-'END'
		gcc have cc
		libc6-dev header stdlib.h
		make have make
		perl have prove
		libipc-run-perl perl -MIPC::Run -e 1
		openssl have openssl
		ca-certificates [ -f /etc/ssl/certs/ca-certificates.crt ]
		procps have ps
		libcurl4-openssl-dev header curl/curl.h
		libjsmn-dev header jsmn.h
		python3-aiohttp /usr/bin/python3 -c 'import aiohttp'
	END
	[ -x "$("$pg_config" --bindir 2>/dev/null)/initdb" ] ||
		echo "postgresql${major:+-$major}"
	# pgxs.mk proves nothing: it comes with Debian's client package as well
	[ -f "$("$pg_config" --includedir-server 2>/dev/null)/postgres.h" ] ||
		echo "postgresql-server-dev${major:+-$major}"
}

# What is asked for in $extras: tests are skipped where a distribution lacks it.
missing_extras() {
	local extra package check
	while read -r extra package check; do
		if [[ " ${extras[*]} " == *" $extra "* ]] && ! eval "$check" >/dev/null 2>&1 &&
			apt-cache show "$package" >/dev/null 2>&1; then
			echo "$package"
		fi
	done <<-END
		nginx nginx-light have nginx
		cron postgresql-$major-cron [ -f /usr/share/postgresql/$major/extension/pg_cron.control ]
		psycopg python3-psycopg /usr/bin/python3 -c 'import psycopg'
		chromium chromium-headless-shell have chromium-headless-shell || have chromium
	END
}

# Installs packages so that none of them starts a service, now or when the
# machine boots, or creates a database cluster, and that no service that runs
# already is restarted.
apt_install() (
	policy=/usr/sbin/policy-rc.d
	clusters=/etc/postgresql-common/createcluster.d
	log=$(mktemp)
	made=("$log" "$clusters/yelp_sync_test.conf")
	trap 'rm -f "${made[@]}"; rmdir "$clusters" 2>/dev/null || true' EXIT
	mkdir -p $clusters
	echo 'create_main_cluster = false' >"${made[1]}"
	if ! [ -e $policy ]; then
		made+=("$policy")
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi

	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	say "installing $*"
	apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 \
		--no-install-recommends install "$@" >"$log" 2>&1 </dev/null ||
		{ cat "$log" >&2; exit 1; }
	if [[ " $* " == *" nginx-light "* ]]; then
		update-rc.d nginx disable
	fi
)

# Sets the array missing.
list_missing() {
	mapfile -t missing < <(
		missing_packages
		! have apt-cache || missing_extras
	)
}

install_missing() {
	local missing
	choose_postgres
	list_missing
	if [ ${#missing[@]} -gt 0 ] && have apt-get && [ "$(id -u)" -eq 0 ]; then
		say "updating the package lists"
		apt-get -qq update </dev/null ||
			say "that failed: going on with the lists at hand"
		choose_postgres
		list_missing
		apt_install "${missing[@]}"
		choose_postgres
	fi
	mapfile -t missing < <(missing_packages)
	[ ${#missing[@]} -eq 0 ] ||
		die "missing, by the names of Debian's packages: ${missing[*]}"
}

# Runs a command as the unprivileged user, in an environment that leads
# nowhere but to the private copy: a client that names no server finds none.
# What tests read from the environment (YELP_SYNC_TEST_SEED, say) is passed on.
as_user() {
	local switch=() settings=() name
	[ "$(id -u)" -ne 0 ] || switch=(runuser -u "$user" --)
	for name in "${!YELP_SYNC_TEST_@}" "${!PG_TEST_TIMEOUT_@}"; do
		settings+=("$name=${!name}")
	done
	(cd "$work" && exec "${switch[@]}" env -i HOME="$work" LANG=C.UTF-8 \
		PATH="$bindir:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" \
		TMPDIR="$work/tmp" PGHOST="$work/tmp" "${settings[@]}" "$@")
}

# make in the copy of the tree
make_copy() {
	as_user make -C "$work/src" --no-print-directory PG_CONFIG="$pg_config" "$@"
}

copy_tree() {
	local top
	top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
	mkdir "$work/src"
	tar -C "$top" --exclude-vcs -cf - . | tar -C "$work/src" -xf -
}

# Links a directory into the copy, or what is in it, where the copy has a part of
# it already: libdir can be the parent of pkglibdir.
link_directory() {
	local dir=$1 entry
	if ! [ -d "$work/pg$dir" ]; then
		mkdir -p "$work/pg${dir%/*}"
		ln -s "$dir" "$work/pg$dir"
		return
	fi
	for entry in "$dir"/*; do
		[ -e "$work/pg$entry" ] || ln -s "$entry" "$work/pg$entry"
	done
}

copy_postgres() {
	local bin lib share dir
	bin=$("$pg_config" --bindir)
	lib=$("$pg_config" --pkglibdir)
	share=$("$pg_config" --sharedir)

	bindir=$work/pg$bin
	mkdir -p "$bindir" "$work/pg$lib" "$work/pg$share"
	# By name, since $bin may be /usr/bin
	find -L "$bin" -maxdepth 1 -type f \( -name 'pg*' -o -name postgres \
		-o -name initdb -o -name psql -o -name '*db' -o -name '*user' \) \
		-exec cp -L -t "$bindir" {} +
	cp -R "$lib/." "$work/pg$lib"
	cp -R "$share/." "$work/pg$share"
	for dir in $("$pg_config" --includedir-server --libdir); do
		link_directory "$dir"
	done

	pg_config=$bindir/pg_config
	for dir in $("$pg_config" --pkglibdir --sharedir); do
		[[ $dir == "$work"/* ]] ||
			die "$bin: these programs do not work from another place"
	done
}

prepare() {
	install_missing
	user=$(id -un)
	if [ "$(id -u)" -eq 0 ]; then
		user=postgres
		id $user >/dev/null 2>&1 || user=nobody
	fi
	# Not below TMPDIR: the path of a socket has 107 bytes at most
	work=$(mktemp -d /tmp/yelp_sync.XXXXXX)
	mkdir "$work/tmp"
	copy_tree
	copy_postgres
	[ "$(id -u)" -ne 0 ] || chown -R "$user:" "$work"
}

# Builds the extension and installs it into the private copy.
build() {
	say "building with $("$pg_config" --version)"
	make_copy -s clean
	make_copy -s -j "$(nproc)" "${make_options[@]}"
	make_copy -s install
}

# The processes that run in the private directory: whatever was started from
# here and is not yet gone.
ours() {
	local cwd
	for cwd in /proc/[0-9]*/cwd; do
		[[ $(readlink "$cwd") != "$work"/* && $(readlink "$cwd") != "$work" ]] ||
			echo "$cwd" | cut -d / -f 3
	done
}

# Sends a signal to all of them, and waits for up to five seconds.
end_ours() {
	local signal=$1 pids tries=0
	mapfile -t pids < <(ours)
	[ ${#pids[@]} -eq 0 ] || kill -s "$signal" "${pids[@]}" 2>/dev/null || true
	while [ $((tries += 1)) -le 50 ] && [ -n "$(ours)" ]; do
		sleep 0.1
	done
}

# May be called at any time, and ends what it began.
clean_up() {
	local pid_file
	trap '' INT TERM HUP
	[ -n "$work" ] || return 0
	while read -r pid_file; do
		as_user pg_ctl -s -m immediate -D "${pid_file%/*}" stop 2>/dev/null || true
	done < <(find "$work" -name postmaster.pid)
	end_ours TERM
	end_ours KILL
	rm -rf "$work"
}

set_up() {
	trap clean_up EXIT
	prepare
	build
}
