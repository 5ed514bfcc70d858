"""Tables of the command line: every verb with its arguments and options.

The parser, the variables, the help, the manual page and the completions are made from these, so
nothing can be missing in one of them.
"""

from __future__ import annotations

from zchunked.cli.words.grammar import Option, Verb, switch
from zchunked.cli.words.options import (
    ACCESS,
    DIGEST,
    DIGESTFILE,
    EACH_BLOB,
    EACH_STORED,
    EXACT,
    FORCE,
    FORMAT,
    FROM,
    GC,
    HOW,
    IMAGE,
    IMAGES,
    INGEST,
    KEPT,
    LEAN,
    LOAD,
    NETWORK,
    ONE_STORED,
    PLATFORM,
    PROVE,
    PULL,
    SERVE,
    SOURCE,
    SPENDING,
    STORE,
    STORED,
    TARGET,
    TO,
    quiet,
)
from zchunked.cli.words.tables_write import (
    ADD,
    AGAINST,
    CONVERTED,
    LEVEL,
    MOUNT_FROM,
    PLATFORM_OR_ALL,
    REGISTRY,
    REWRITE,
    WITH_REFERRERS,
)

VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "pull",
            "download what is missing of an image and prove it (the verb may be left out)",
            (IMAGES,),
            (("", (*PULL, FROM)), ("spending", (*SPENDING, EXACT, LEAN, PROVE)), *HOW),
            (
                "zpull registry.example/app:v2",
                "zpull registry.example/app:v2 --to oci:./app",
                "zpull --from images.txt",
                "zpull registry.example/app:v2 -q --to docker-archive:- | podman load",
            ),
        ),
        Verb(
            "plan",
            "say what a pull would cost; fetch nothing but manifests and tables of contents",
            (IMAGES,),
            (("", (*PULL, FROM)), ("spending", (*SPENDING, EXACT, LEAN, PROVE)), *HOW),
            ("zpull plan registry.example/app:v2 --rate 4Mbit",),
        ),
        Verb(
            "publish",
            "put an image where any web server or bucket can serve it",
            (IMAGE, TARGET),
            (
                ("", (PLATFORM, STORE, quiet(), FORMAT, DIGESTFILE)),
                ("spending", (*SPENDING, EXACT)),
                *HOW,
            ),
            ("zpull publish registry.example/app:v2 s3://fleet/app",),
        ),
        Verb(
            "convert",
            "write an image's layers as zstd:chunked, so that its updates are cheap",
            (SOURCE, CONVERTED),
            (
                (
                    "",
                    (
                        LEVEL,
                        *REWRITE,
                        ADD,
                        AGAINST,
                        FORCE,
                        PLATFORM_OR_ALL,
                        STORE,
                        quiet(),
                        FORMAT,
                        DIGESTFILE,
                    ),
                ),
                ("spending", (*SPENDING, EXACT)),
                *HOW,
            ),
            ("zpull convert registry.example/app:v2 oci:./app-chunked",),
        ),
        Verb(
            "push",
            "upload an image to a registry; the same command resumes",
            (SOURCE, REGISTRY),
            (
                (
                    "",
                    (
                        MOUNT_FROM,
                        WITH_REFERRERS,
                        PLATFORM_OR_ALL,
                        STORE,
                        quiet(),
                        FORMAT,
                        DIGESTFILE,
                    ),
                ),
                ("spending", (*SPENDING, EXACT)),
                *HOW,
            ),
            ("zpull push oci:./app registry.example/app:v2",),
        ),
        Verb(
            "fetch",
            "write one object to standard output: the manifest, or a blob by its digest",
            (IMAGE, DIGEST),
            (
                (
                    "",
                    (
                        PLATFORM,
                        Option(
                            "--media-type",
                            "media type of DIGEST (default: found out)",
                            metavar="TYPE",
                        ),
                        STORE,
                        quiet("no progress"),
                        FORMAT,
                    ),
                ),
                *HOW,
            ),
            ("zpull fetch registry.example/app:v2 > manifest.json",),
        ),
        Verb(
            "locate",
            "say where an image's blobs can be downloaded, without downloading any",
            (IMAGE, EACH_BLOB),
            (("", (PLATFORM, STORE, quiet("print URLs alone"), FORMAT)), *HOW),
            ("zpull locate registry.example/app:v2",),
        ),
        Verb(
            "export",
            "write a pulled image somewhere, without the network",
            (STORED,),
            (("", (TO, FORCE, LOAD, PLATFORM, STORE, quiet(), FORMAT, DIGESTFILE)),),
            ("zpull export registry.example/app:v2 --to oci-archive:app.tar",),
        ),
        Verb(
            "serve",
            "run a registry on loopback: engines here pull only missing bytes through it",
            (),
            (
                ("", (*SERVE, STORE, quiet("no access log"))),
                ("registry", ACCESS),
                ("network", NETWORK),
            ),
            ("zpull serve", "zpull serve --config-for podman"),
        ),
        Verb(
            "ingest",
            ("store a blob of known digest from standard input; the same command resumes"),
            (),
            (("", (*INGEST, STORE, quiet("print nothing"), FORMAT)),),
            ("zpull ingest --digest sha256:… --size 52428800 < layer.tar.zst",),
        ),
        Verb(
            "rm",
            "forget images; zpull gc then frees what no other image needs",
            (EACH_STORED,),
            (("", (PLATFORM, STORE, quiet("print nothing"), FORMAT)),),
            ("zpull rm registry.example/app:v1",),
        ),
        Verb(
            "gc",
            "free what no image and no running pull needs, then what is above a budget",
            (KEPT,),
            (("", (*GC, STORE, quiet("print nothing"), FORMAT)),),
            (
                "zpull gc",
                "zpull gc --max-size 20GB --max-age 30d",
                "zpull gc --keep registry.example/app:v2",
            ),
        ),
        Verb(
            "status",
            ("list running and interrupted pulls, and how far they are"),
            (),
            (
                (
                    "",
                    (
                        switch("--watch", "repeat every second until no pull is running"),
                        STORE,
                        quiet("print names alone"),
                        FORMAT,
                    ),
                ),
            ),
            ("zpull status --watch",),
        ),
        Verb(
            "images",
            "list the images in the store",
            (),
            (("", (STORE, quiet("print digests alone"), FORMAT)),),
        ),
        Verb(
            "verify",
            (
                "hash the store, or one image, again and drop what is damaged; the next pull "
                "fetches it again"
            ),
            (ONE_STORED,),
            (
                (
                    "",
                    (
                        switch("--quick", "check sizes alone, and hash nothing (default: hash)"),
                        PLATFORM,
                        STORE,
                        quiet("print nothing"),
                        FORMAT,
                    ),
                ),
            ),
        ),
    )
}

FAMILIES = (
    ("Get an image", ("pull", "plan", "export")),
    ("Read and share", ("fetch", "locate", "publish", "convert", "push", "serve")),
    ("Look after the store", ("images", "status", "ingest", "rm", "gc", "verify")),
)
"""The verbs as the first screen of the help shows them."""
