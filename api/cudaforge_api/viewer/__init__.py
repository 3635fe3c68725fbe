"""The trace viewer: pages over the record, served beside the API.

routes.py answers; runs.py, run.py, rounds.py and compare.py make what a page shows out of the record, as plain data;
templates/ turns it into HTML; islands.py holds the data that the elements in static/ draw; html.py is the one place
where HTML leaves the service, with its Content-Security-Policy; export.py writes a run as one file.

Everything that a model or a kernel wrote is untrusted text. Templates escape it (autoescape is always on); no helper
returns markup that holds any of it.
"""
