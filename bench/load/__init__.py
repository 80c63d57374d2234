"""`sidrec load URL`: what users do, sent to a service that runs anywhere, and a report.

traffic.py   what users do, in sessions of recommendations and events; locust uses it too
wares.py     the items they click and the filters they ask for, from the service or from a file
worker.py    one process that sends at the moments it is told, and takes down what comes back
fleet.py     all such processes, as one
samples.py   what came back, one entry a request
findings.py  what that says: percentiles, over time and by step, sources, errors, stages
scraped.py   what the service says of its own stages meanwhile, from its metrics
limits.py    what must hold, and what of it does not
find.py      the highest rate at which all of it holds
run.py       one test from its first request to its report as rows
page.py      the report for people, with plots.py
command.py   the command line
"""
