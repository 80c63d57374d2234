"""The catalogue while it changes.

snapshot.py  what one request sees of it, from start to end
values.py    which attributes an item may have
changes.py   changes in Redis: durable, numbered, shared by replicas
assign.py    the SID of a new item
plan.py      what a batch of changes makes of the items that it names
live.py      takes changes, writes them, applies them: one snapshot after the other
"""
