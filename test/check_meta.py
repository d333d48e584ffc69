"""Is META.json what PGXN's specification 1.0.0 asks for, and of this version?

usage: check_meta.py META.json VERSION
"""
import json
import os
import re
import sys

SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
TERM = re.compile(r"[^\s/\\\x00-\x1f]{2,}")
URL = re.compile(r"(https?|git|mailto):\S+")
REQUIRED = ("abstract", "maintainer", "license", "provides", "name", "version", "meta-spec")
LICENSES = {
    "agpl_3", "apache_1_1", "apache_2_0", "artistic_1", "artistic_2", "bsd", "freebsd",
    "gfdl_1_2", "gfdl_1_3", "gpl_1", "gpl_2", "gpl_3", "lgpl_2_1", "lgpl_3_0", "mit",
    "mozilla_1_0", "mozilla_1_1", "openssl", "perl_5", "postgresql", "qpl_1_0", "ssleay", "sun",
    "zlib", "open_source", "restricted", "unrestricted", "unknown"}
RESOURCES = {"homepage": str, "bugtracker": dict, "repository": dict}
PHASES = {"configure", "build", "test", "runtime", "develop"}
RELATIONS = {"requires", "recommends", "suggests", "conflicts"}


def check_provides(provides, version):
    if not provides:
        yield "provides: empty"
    for name, extension in provides.items():
        if extension.get("version") != version:
            yield f"provides.{name}: version {extension.get('version')}, not {version}"
        for key in ("file", "docfile"):
            if key in extension and not os.path.isfile(extension[key]):
                yield f"provides.{name}.{key}: no file {extension[key]}"
        if "file" not in extension:
            yield f"provides.{name}: no file"


def check_resources(resources):
    for name, resource in resources.items():
        if not isinstance(resource, RESOURCES.get(name, ())):
            yield f"resources.{name}: unknown, or of the wrong type"
            continue
        urls = [resource] if isinstance(resource, str) else [
            resource[key] for key in ("url", "web", "mailto") if key in resource]
        if not urls:
            yield f"resources.{name}: no URL"
        for url in urls:
            if not URL.fullmatch(url) and "@" not in url:
                yield f"resources.{name}: not a URL: {url}"


def check_prereqs(prereqs):
    for phase, relations in prereqs.items():
        for relation, needed in relations.items():
            if phase not in PHASES or relation not in RELATIONS:
                yield f"prereqs: no {phase}.{relation} in the specification"
            for name, version in needed.items():
                if version != 0 and not SEMVER.fullmatch(str(version)):
                    yield f"prereqs: {name}: not a semantic version: {version}"


def check(meta, version):
    for key in REQUIRED:
        if not meta.get(key):
            yield f"{key}: missing"
    if meta.get("version") != version:
        yield f"version {meta.get('version')}, not {version}"
    if not SEMVER.fullmatch(meta.get("version", "")):
        yield "version: not a semantic version"
    if not TERM.fullmatch(meta.get("name", "")):
        yield "name: not a term"
    if meta.get("license") not in LICENSES:
        yield f"license: unknown: {meta.get('license')}"
    if meta.get("meta-spec", {}).get("version") != "1.0.0":
        yield "meta-spec: not version 1.0.0"
    for tag in meta.get("tags", ()):
        if not 0 < len(tag) < 256 or "/" in tag or "\\" in tag:
            yield f"tags: not a tag: {tag}"
    yield from check_provides(meta.get("provides", {}), version)
    yield from check_resources(meta.get("resources", {}))
    yield from check_prereqs(meta.get("prereqs", {}))


def main():
    path, version = sys.argv[1:]
    if version.count(".") == 1:
        version += ".0"
    with open(path, encoding="utf-8") as file:
        problems = list(check(json.load(file), version))
    for problem in problems:
        print(f"{path}: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
