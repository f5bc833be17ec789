#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Rollcall Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the test vectors by docs/format.md alone, and says which do not hold."""

import datetime
import ipaddress
import json
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).parent
MAX_METADATA = 1 << 20


class Invalid(Exception):
    pass


def refuse(constant):
    raise ValueError(constant + " is no JSON")


def parse(text, **options):
    return json.loads(text, parse_constant=refuse, **options)


def decode(value):
    """Returns the address and the metadata of a stored value."""
    try:
        pairs = parse(value, object_pairs_hook=Object)
    except ValueError as error:
        raise Invalid(str(error))
    if not isinstance(pairs, Object):
        raise Invalid("no object")
    op, addr, metadata = 0, "", None
    for name, field in pairs:
        if name.lower() == "op" and field is not None:
            op = field
        elif name.lower() == "addr" and field is not None:
            addr = field
        elif name.lower() == "metadata":
            metadata = field
    if isinstance(op, bool) or not isinstance(op, int) or op != 0:
        raise Invalid("Op")
    if not isinstance(addr, str) or not addr:
        raise Invalid("Addr")
    if len(json.dumps(plain(metadata), ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA:
        raise Invalid("too large")
    return addr, plain(metadata)


class Object(list):
    """The names and values of an object, in their order."""


def plain(value):
    if isinstance(value, Object):
        return {name: plain(field) for name, field in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def encode(addr, metadata):
    if not addr:
        raise Invalid("Addr")
    text = json.dumps({"Op": 0, "Addr": addr, "Metadata": metadata}, ensure_ascii=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, "\\u%04x" % ord(c))
    return text


def split(key, target):
    if key.startswith("_grpc_config/"):
        return {"config": key.removeprefix("_grpc_config/")}
    if target is None:
        service, _, id = key.rpartition("/")
        return {"service": service, "id": id}
    if not key.startswith(target + "/"):
        return {"outside": True}
    return {"service": target, "id": key[len(target) + 1:]}


def whole(most):
    def check(value):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or not 1 <= value <= most:
            raise Invalid("out of range")
        return int(value)
    return check


def text(valid=lambda _: True):
    def check(value):
        if value is not None and not isinstance(value, str) or value and not valid(value):
            raise Invalid("no such text")
        return value or None
    return check


def is_time(value):
    try:
        return datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


FIELDS = {
    "weight": whole(2**32 - 1), "region": text(), "zone": text(), "subzone": text(), "version": text(), "hash_key": text(),
    "status": text(lambda s: s in ("serving", "draining")), "started": text(is_time), "host": text(), "metrics_port": whole(65535),
}


def read_fields(metadata):
    stored, fields, invalid = parse(metadata), {}, []
    for name, check in FIELDS.items():
        if isinstance(stored, dict) and name in stored:
            try:
                fields[name] = check(stored[name])
            except Invalid:
                invalid.append(name)
    return {n: v for n, v in fields.items() if v not in (None, "serving") and (n, v) != ("weight", 1)}, invalid


def allowed(addr):
    match = re.fullmatch(r"(?:\[([^][]*)]|([^][:]*)):([0-9]+)", addr)
    if not match or not 1 <= int(match[3]) <= 65535:
        return False
    host = match[1] or match[2]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        return len(host) <= 253 and all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", label) for label in labels)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return not (ip.is_unspecified or ip.is_multicast or ip.is_link_local)


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Invalid:
        return "invalid"


def value_holds(case):
    padding = case.get("padding")
    got = attempt(decode, case["value"] if padding is None else case["value"].replace("@", "x" * padding))
    if case.get("invalid"):
        return got == "invalid"
    return got[0] == case["addr"] and (padding is not None or got[1] == case["metadata"])


CHECKS = {
    "values.json": value_holds,
    "encoded.json": lambda c: attempt(encode, c["addr"], c["metadata"]) == c.get("value", "invalid"),
    "keys.json": lambda c: split(c["key"], c.get("target")) == {k: v for k, v in c.items() if k not in ("key", "target")},
    "metadata.json": lambda c: read_fields(c["metadata"]) == (c["fields"], c.get("invalid", [])),
    "addresses.json": lambda c: allowed(c["addr"]) == c["allowed"],
}

failures = 0
for name, holds in CHECKS.items():
    cases = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    failed = [case for case in cases if not holds(case)]
    for case in failed:
        print(name, "does not hold:", json.dumps(case)[:200], file=sys.stderr)
    failures += len(failed)
    print(f"{name}: {len(cases) - len(failed)} cases hold")
sys.exit(failures > 0)
