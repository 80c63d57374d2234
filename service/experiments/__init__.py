"""Which of two models, or settings, is better: users are divided, and what they do is counted.

definition.py   what an experiment is
rules.py        what may change of one that runs, and which two cannot run at once
assignment.py   which arm a user belongs to, by a salted hash
store.py        definitions in Redis, numbered, one writer at a time
running.py      the definitions as this process knows them, and the arms of a request
treatment.py    what an arm changes in a request, and the answer under it
counters.py     users and answers of each arm, in Redis
trail.py        what each user was shown lately, in Redis, so that clicks find their arm
recorder.py     carries both to Redis in the background
statistics.py   rates, intervals, tests, and how many users an experiment needs
report.py       what an experiment has found so far
page.py         shows it to people
experiments.py  all of it as one thing, for the routes
"""
