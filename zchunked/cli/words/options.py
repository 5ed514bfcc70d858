"""Options and arguments, each once: help, default, parser. `tables` gives them to verbs."""

from __future__ import annotations

import os
from dataclasses import replace

from zchunked.cli.words import values
from zchunked.cli.words.grammar import Argument, Option, choice, path, switch

IMAGE = Argument(
    "IMAGE",
    (
        "[docker://]host/repository[:tag][@digest], oci:DIR[:tag], oci+https://host/base[:tag], "
        "s3://bucket/prefix[:tag]"
    ),
)
IMAGES = replace(IMAGE, is_optional=True, is_repeated=True)
STORED = Argument(
    "IMAGE", "the reference it was pulled by, name@digest, a digest, or the unique beginning of one"
)
EACH_STORED = replace(STORED, is_repeated=True)
ONE_STORED = replace(STORED, is_optional=True)
KEPT = Argument(
    "IMAGE",
    "more images to keep, behind --keep",
    is_optional=True,
    is_repeated=True,
    dest="also_kept",
)
DIGEST = Argument(
    "DIGEST",
    "a blob or manifest of the same repository (default: the image's manifest)",
    is_optional=True,
)
EACH_BLOB = Argument(
    "DIGEST", "one blob of the same repository (default: config and layers)", is_optional=True
)
SOURCE = Argument(
    "SOURCE",
    f"{IMAGE.help}, oci-archive:FILE[:tag], docker-archive:FILE (- is standard input), "
    "docker:NAME, podman:NAME",
    dest="image",
)
TARGET = Argument(
    "TARGET",
    "DIR[:tag], s3://bucket/prefix[:tag], gs://… or az://…; the tag is IMAGE's unless given",
)

PLATFORM = Option(
    "--platform",
    "which image of an index to take (default: this machine's)",
    metavar="OS/ARCH[/VARIANT]",
)
TO = Option(
    "--to",
    "write the image there: oci:DIR[:name], oci-archive:FILE[:name], docker-archive:FILE[:name] "
    "(- is standard output); or give it to docker:[NAME], podman:[NAME], "
    "containerd:[NAMESPACE/][NAME]; repeatable",
    metavar="DEST",
    kind="list",
)
FORCE = switch(
    "--force", "let a file be replaced, or a folder filled, that holds no image (default: refuse)"
)
LOAD = switch(
    "--load",
    "stream an archive into the engine of --to (default: the engine pulls what it lacks from here)",
)
STORE = path(
    "--store",
    "folder that keeps downloaded bytes (default: zpull in the user's cache folder)",
    "DIR",
)
FORMAT = choice(
    "--format", "json prints the receipt: the whole story (default text)", "text", "json"
)
QUIET = "print the digest alone, and no progress"
SEED = Option(
    "--seed",
    "take chunks from the files in this folder, tar file or OCI layout; repeatable (default: none)",
    metavar="PATH",
    kind="list",
    is_path=True,
    separator=os.pathsep,
)
FROM = path("--from", "pull these images too, one a line; # begins a comment, - is standard input")
DIGESTFILE = path("--digestfile", "write the manifest digest to this file too")

ACCESS = (
    path(
        "--authfile",
        "credentials, as podman and docker keep them (default: those of podman, then of docker)",
    ),
    Option(
        "--creds",
        "user and password; USER alone asks for the password, - reads both from standard input "
        "(default: those of --authfile)",
        metavar="USER[:PASSWORD]",
    ),
    Option(
        "--tls-verify",
        "false accepts any certificate, and plain http where https is refused (default true)",
        values.boolean,
        "BOOL",
        kind="switch",
        default=True,
    ),
    switch("--plain-http", "speak http instead of https (default: https, but http on loopback)"),
    path(
        "--cert-dir",
        "CA certificates (*.crt) and client ones (*.cert with *.key), for all hosts (default: the "
        "system's, and certs.d of podman and docker)",
        "DIR",
    ),
    path(
        "--registries-conf",
        "mirrors, other locations and blocked registries (default: where podman looks for it)",
    ),
)
NETWORK = (
    Option(
        "--jobs", "connections at a time (default 8)", values.between(1, 64), "N", "-j", default=8
    ),
    Option(
        "--patience",
        "how long an outage is tolerated before giving up (default 60s; 0: fail at once)",
        values.duration,
        "TIME",
        default=60.0,
    ),
    Option(
        "--retry", "give up after so many retries (default: as patience allows)", values.count, "N"
    ),
    Option(
        "--deadline",
        "give up after so long, whatever arrived (default: never)",
        values.duration,
        "TIME",
    ),
    Option(
        "--min-rate",
        "give up when slower than this over 10 s (default: never)",
        values.rate,
        "RATE",
    ),
    Option(
        "--limit-rate",
        "receive no faster than this, all connections together (default: unlimited)",
        values.rate,
        "RATE",
    ),
    Option(
        "--stall-timeout",
        (
            "drop a connection after so long without a byte (default 10s, or half the patience "
            "if that is less)"
        ),
        values.duration,
        "TIME",
    ),
    switch("--offline", "send no request: use the store and seeds alone, or list what is missing"),
)
PROGRESS = (
    choice(
        "--progress",
        "what standard error shows (default auto: a bar on a terminal)",
        "auto",
        "bar",
        "plain",
        "json",
        "none",
    ),
    switch("--explain-retries", "say why each retry is made, and the karma that is left"),
    switch("--verbose", "show each request and each retry, without secrets", "-v"),
)
SPENDING = (
    Option(
        "--max-bytes",
        "refuse a pull that would fetch more than this (default: no limit)",
        values.size,
        "BYTES",
    ),
    Option("--rate", "assume this rate of the link (default: as measured)", values.rate, "RATE"),
    switch("--dry-run", "only say what it would cost, as the verb plan does"),
    Option(
        "--max-gap",
        "fetch at most so many unneeded bytes to save a request (default: by the link; 0: none)",
        values.size,
        "BYTES",
    ),
)
ENGINES = ("docker", "containerd", "podman", "crio", "k3s", "buildkit")
EXACT = switch(
    "--exact",
    "end with the registry's own blobs (default: unless a rebuilt tar saves bytes and time)",
)
LEAN = switch(
    "--lean",
    "fetch the fewest bytes, for a metered link; layers become tars with other digests (default: "
    "by bytes and time)",
)
PROVE = switch(
    "--prove",
    "check each layer's tar against its diff ID now (default: when a tar is first made of it)",
)


def quiet(help: str = QUIET) -> Option:  # noqa: A002
    return switch("--quiet", help, "-q")


SERVE = (
    Option(
        "--listen",
        "address to listen on (default 127.0.0.1:5055)",
        metavar="HOST:PORT",
        default="127.0.0.1:5055",
    ),
    path("--tls-cert", "serve https with this certificate (default: http, on loopback only)"),
    path("--tls-key", "the key of --tls-cert"),
    switch(
        "--insecure-listen",
        "serve other machines unencrypted, with your credentials (default: refuse)",
    ),
    Option(
        "--allow",
        (
            "serve only this upstream; repeatable (default: well-known ones and those of "
            "registries.conf)"
        ),
        metavar="HOST[/PREFIX]",
        kind="list",
        separator=" ",
    ),
    Option(
        "--upstream",
        "serve this host under a name without its port; repeatable (default: none)",
        metavar="NAME=HOST[:PORT]",
        kind="list",
        separator=" ",
    ),
    path("--token", "serve only clients that know the token in this file (default: any)"),
    Option(
        "--stale",
        "serve a tag's last answer for so long while its upstream is down (default 1h)",
        values.duration,
        "TIME",
        default=3600.0,
    ),
    Option(
        "--prefetch",
        "pull an image's layers once its manifest was asked for (default true)",
        values.boolean,
        "BOOL",
        kind="switch",
        default=True,
    ),
    Option(
        "--config-for",
        "print what to write where for this engine, and exit",
        values.one_of(*ENGINES),
        "ENGINE",
        choices=ENGINES,
    ),
    switch("--verbose", "log errors of clients", "-v"),
)
INGEST = (
    Option("--digest", "what the bytes must hash to: sha256:…", metavar="DIGEST"),
    Option("--size", "how many bytes it has (default: those of the file)", values.size, "BYTES"),
)
GC = (
    Option(
        "--max-size",
        (
            "then remove the images pulled longest ago until the store fits (default: "
            "ZPULL_STORE_MAX; without: no limit)"
        ),
        values.size,
        "BYTES",
    ),
    Option(
        "--max-age",
        "remove images last pulled longer ago than this (default: none)",
        values.duration,
        "TIME",
    ),
    Option(
        "--expire",
        "drop interrupted downloads whose last byte arrived longer ago than this (default 14d)",
        values.duration,
        "TIME",
        default=14 * 86400.0,
    ),
    Option(
        "--keep",
        "keep this image and no other; repeatable (default: all)",
        metavar="IMAGE",
        kind="list",
        separator=" ",
    ),
    Option(
        "--keep-last",
        "keep the N images pulled last and no other (default: all)",
        values.count,
        "N",
    ),
    switch("--dry-run", "only say what would be removed"),
)

HOW = (("registry", ACCESS), ("network", NETWORK), ("progress", PROGRESS))
PULL = (TO, FORCE, LOAD, PLATFORM, SEED, STORE, quiet(), FORMAT, DIGESTFILE)
