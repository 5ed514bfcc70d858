"""Arguments and options of the verbs that write images: convert and push."""

from __future__ import annotations

from zchunked.cli.words import values
from zchunked.cli.words.grammar import Argument, Option, switch

CONVERTED = Argument(
    "TARGET",
    (
        "[docker://]host/repository[:tag], oci:DIR[:tag], oci-archive:FILE[:tag] (- is standard "
        "output), s3://…"
    ),
)
LEVEL = Option(
    "--level",
    "effort of the compression, from 1 to 19: higher is smaller and slower (default 3)",
    values.between(1, 19),
    "N",
    default=3,
)
REGISTRY = Argument("TARGET", "[docker://]host/repository[:tag]")
MOUNT_FROM = Option(
    "--mount-from",
    "repository of the same registry that may have the blobs; repeatable (default: none)",
    metavar="REPOSITORY",
    kind="list",
    separator=" ",
)
WITH_REFERRERS = switch(
    "--with-referrers",
    "push signatures, attestations and SBOMs that refer to the image too (default: do not)",
)
PLATFORM_OR_ALL = Option(
    "--platform",
    "which image of an index to take, or all of them (default: this machine's)",
    metavar="OS/ARCH[/VARIANT]|all",
)
REWRITE = (
    Option(
        "--rewrite-timestamp",
        (
            "let no file be younger than this, so that updates of rebuilds are small; changes "
            "diff IDs and image ID (default: keep times)"
        ),
        values.epoch,
        "EPOCH",
    ),
    switch(
        "--normalize",
        "drop owners' names, access and change times from headers; changes diff IDs and image "
        "ID (default: keep them)",
    ),
)
AGAINST = Option(
    "--against", "say what an update from this image costs, before and after", metavar="OLD"
)
ADD = switch(
    "--add", "write an index with the old instances beside the new ones, for tools without zstd"
)
