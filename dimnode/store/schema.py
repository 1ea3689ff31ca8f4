"""The journal's tables.

Rule: rows are only ever added, but for the bytes of blobs that nothing open needs (`pruning.py`), and for `models`,
`cabinets` and `names`, which say how things stand now. Records stand in the order of their commits; everything else
points to them.
"""

from typing import Final

SCHEMA_VERSION: Final = 2

TABLES: Final = """
CREATE TABLE IF NOT EXISTS records(
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, id BLOB NOT NULL UNIQUE,
  job BLOB NOT NULL, task INTEGER NOT NULL, epoch INTEGER NOT NULL, envelope BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS records_by_job ON records(job);
CREATE INDEX IF NOT EXISTS specs ON records(seq) WHERE kind = 'spec';
CREATE TABLE IF NOT EXISTS openings(
  record BLOB NOT NULL, position INTEGER NOT NULL, ref BLOB NOT NULL, salt BLOB NOT NULL, cid BLOB NOT NULL,
  PRIMARY KEY(record, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs(cid BLOB PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS nonces(
  submitter BLOB, nonce BLOB, job BLOB NOT NULL, PRIMARY KEY(submitter, nonce)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accepted(
  job BLOB, task INTEGER, epoch INTEGER NOT NULL, answer BLOB NOT NULL, PRIMARY KEY(job, task)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ends(job BLOB PRIMARY KEY, verdict BLOB NOT NULL, status TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgotten(
  job BLOB, task INTEGER, epoch INTEGER, PRIMARY KEY(job, task, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evidence(
  seq INTEGER PRIMARY KEY, peer BLOB, context TEXT, at_ms INTEGER,
  good INTEGER, weight INTEGER, kind TEXT, record BLOB);
CREATE TABLE IF NOT EXISTS models(manifest BLOB PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cabinets(
  name TEXT PRIMARY KEY, path TEXT NOT NULL, label TEXT NOT NULL, columns TEXT NOT NULL, policy BLOB NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names(name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queries(
  seq INTEGER PRIMARY KEY, cabinet TEXT, at_ms INTEGER, submitter BLOB, rows BLOB, conditions BLOB);
"""

INSERTS: Final = {
    # Not INSERT OR IGNORE: that would also pass over a row without its bytes, in silence.
    "blobs": "INSERT INTO blobs VALUES(?,?) ON CONFLICT DO NOTHING",
    # The same record may come again (a resent answer, a lease to oneself): its id makes the repetition harmless.
    "records": "INSERT INTO records(kind,id,job,task,epoch,envelope) VALUES(?,?,?,?,?,?) ON CONFLICT DO NOTHING",
    "openings": "INSERT INTO openings VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
    # These three must never collide: a second acceptance, end or meaning of a nonce is our own bug: crash.
    "nonces": "INSERT INTO nonces VALUES(?,?,?)",
    "accepted": "INSERT INTO accepted VALUES(?,?,?,?)",
    "ends": "INSERT INTO ends VALUES(?,?,?)",
    "forgotten": "INSERT INTO forgotten VALUES(?,?,?) ON CONFLICT DO NOTHING",
    "evidence": "INSERT INTO evidence(peer,context,at_ms,good,weight,kind,record) VALUES(?,?,?,?,?,?,?)",
    "models": "INSERT OR REPLACE INTO models VALUES(?,?)",
    "cabinets": "INSERT OR REPLACE INTO cabinets VALUES(?,?,?,?,?)",
    "names": "INSERT OR REPLACE INTO names VALUES(?,?,?)",
    "queries": "INSERT INTO queries(cabinet,at_ms,submitter,rows,conditions) VALUES(?,?,?,?,?)",
}
"""One statement per table, in the order in which a transaction runs them."""

NAMED_SINCE: Final = "SELECT o.cid FROM records r CROSS JOIN openings o ON o.record = r.id WHERE r.seq > ?"
"""Blobs that records after this row name."""

OPEN_BUSINESS: Final = """
NOT EXISTS(SELECT 1 FROM ends e WHERE e.job = r.job)
AND (EXISTS(SELECT 1 FROM records s WHERE s.id = r.job) OR NOT EXISTS(
  SELECT 1 FROM forgotten f WHERE f.job = r.job AND f.task = r.task AND f.epoch = r.epoch))
"""
"""Of a record `r`: its job has no verdict here, and is this node's own (then its spec is here), or an answer to it may
still be asked for. What is forgotten of an own job stays, too: an open job needs the answers that this node gave to it.
"""
