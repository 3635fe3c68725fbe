"""The record of all runs: SQLite tables, artefacts by hash, and what packs and cleans them.

home.py        where things lie; light to import
sqlite.py      SqliteStore, the Store port
queries.py     what lists and summaries ask of it
models.py      the tables; codec.py turns vocabulary objects into rows' JSON and back
migrate.py     brings a database to the newest schema when it is opened (migrations/)
artefacts.py   files by SHA-256
pack.py gc.py  a consistent copy of a home; old reports and build caches
"""
