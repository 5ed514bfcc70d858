"""SQL tables of hints, which nothing rests on; `hints` and `memory` fill and read them."""

HINTS = (
    # What became of a layer with this tar when it was written anew; its blob may be gone.
    """
CREATE TABLE IF NOT EXISTS conversions(
  diff_id TEXT NOT NULL, settings TEXT NOT NULL, result BLOB NOT NULL,
  PRIMARY KEY(diff_id, settings)) WITHOUT ROWID
""",
    # Where an upload to a repository goes on that has not ended; the registry may have forgotten
    # it.
    """
CREATE TABLE IF NOT EXISTS uploads(
  target TEXT NOT NULL, digest TEXT NOT NULL, location TEXT NOT NULL, begun REAL NOT NULL,
  PRIMARY KEY(target, digest)) WITHOUT ROWID
""",
    # Rates and costs of a host, or of this machine.
    """
CREATE TABLE IF NOT EXISTS measures(
  subject TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, learnt REAL NOT NULL,
  PRIMARY KEY(subject, name)) WITHOUT ROWID
""",
    # Which images of a repository clients of the server asked for; their manifests may be gone.
    """
CREATE TABLE IF NOT EXISTS served(
  repository TEXT NOT NULL, manifest TEXT NOT NULL, tag TEXT NOT NULL, asked REAL NOT NULL,
  PRIMARY KEY(repository, manifest)) WITHOUT ROWID
""",
)
