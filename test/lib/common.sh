# shellcheck shell=bash
# Shared by test/run, test/demo and test/bench/run.
#
# prepare provides what they need: the packages (on Debian and Ubuntu, as root),
# and a private directory $work with copies of the source tree and of PostgreSQL.
# build installs the extension into that copy, so that neither the system's
# PostgreSQL nor an installed version of the extension is touched.  Copying works
# because PostgreSQL's programs find their files relative to themselves; "make
# check" in PostgreSQL's own tree relies on that as well.  (A separate directory
# for extensions is only possible since PostgreSQL 18.)
#
# set_up does both, and ensures that clean_up is called at the end.  Ctrl-C also
# terminates the caller if a program that it runs ignores the signal or exits
# normally.
trap 'exit 130' INT

PATH=$PATH:/usr/sbin:/sbin		# may be missing after su
oldest=15						# oldest supported PostgreSQL version
major=							# of the chosen PostgreSQL
pg_config=						# its pg_config, later that of the copy
bindir=							# programs of the copy
work=							# the private directory
user=							# user for building and running, never root
make_options=(with_llvm=no)		# options for building; no test needs bitcode
extras=()						# optional packages: see missing_extras
needed=							# other required packages: lines of PACKAGE CHECK

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

# The major version to use if PG_CONFIG is not set: the newest one with
# development files installed, or the distribution's default.
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

# Prints the missing packages, one per line; whatever is already there, from
# whatever source, is left alone.
missing_packages() {
	local package check
	while read -r package check; do
		eval "$check" >/dev/null 2>&1 || echo "$package"
	done <<-END
		$needed
		gcc have cc
		libc6-dev header stdlib.h
		make have make
		perl have prove
		libipc-run-perl perl -MIPC::Run -e 1
		openssl have openssl
		ca-certificates [ -f /etc/ssl/certs/ca-certificates.crt ]
		procps have ps
		libcurl4-openssl-dev header curl/curl.h
		zlib1g-dev header zlib.h
		libjsmn-dev header jsmn.h
		python3-aiohttp /usr/bin/python3 -c 'import aiohttp'
	END
	[ -x "$("$pg_config" --bindir 2>/dev/null)/initdb" ] ||
		echo "postgresql${major:+-$major}"
	# pgxs.mk is not sufficient: Debian's client package also has it
	[ -f "$("$pg_config" --includedir-server 2>/dev/null)/postgres.h" ] ||
		echo "postgresql-server-dev${major:+-$major}"
}

# Optional packages from $extras; if they do not exist, tests are skipped.
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
		npm npm have npm
	END
}

# Installs packages without letting them start services, now or at boot, create
# a database cluster, or restart running services.
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
		--no-install-recommends install "$@" </dev/null >"$log" 2>&1 ||
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

# Runs a command as the unprivileged user, in an environment that only refers to
# the private copy, so that clients do not connect to any other server.  Test
# settings such as YELP_SYNC_TEST_SEED are passed on.
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

# Runs make in the copy of the source tree
make_copy() {
	as_user make -C "$work/src" --no-print-directory PG_CONFIG="$pg_config" "$@"
}

copy_tree() {
	local top
	top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
	mkdir "$work/src"
	tar -C "$top" --exclude-vcs -cf - . | tar -C "$work/src" -xf -
}

# Links a directory into the copy, or its contents if the copy already has part
# of it, because libdir can be the parent of pkglibdir.
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
	find "$lib" -mindepth 1 -maxdepth 1 ! -name bitcode -exec cp -R -t "$work/pg$lib" {} +
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
	# Not in TMPDIR, because the length of a socket path is limited to 107 bytes
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
	make_copy -s "${make_options[@]}" install
}

# Prints the processes that run in the private directory, that is, those started
# from here that have not exited.
ours() {
	find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$work" -o -lname "$work/*" \) 2>/dev/null |
		cut -d / -f 3
}

# Sends a signal to all of them, and waits up to five seconds.
end_ours() {
	local signal=$1 pids tries=0
	mapfile -t pids < <(ours)
	[ ${#pids[@]} -eq 0 ] || kill -s "$signal" "${pids[@]}" 2>/dev/null || true
	while [ $((tries += 1)) -le 50 ] && [ -n "$(ours)" ]; do
		sleep 0.1
	done
}

# Can be called at any time, and stops everything that was started.
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
