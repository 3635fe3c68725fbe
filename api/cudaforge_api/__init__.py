"""The service: REST and live events over the record of one home. `create_app` makes the ASGI application.

app.py puts it together, routes/ has what it answers, problems.py how it says no, events.py the live streams, serve.py
the process around it. Runs are carried out by worker processes (cudaforge.worker), never in here.
"""
