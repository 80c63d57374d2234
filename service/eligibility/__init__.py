"""Which items an answer may contain, from what a request and a deployment ask for.

    policy.py     what a deployment keeps out of every answer
    seen.py       which items a user has seen
    filter.py     the filter language: conditions over attributes, as JSON; knows no catalogue
    columns.py    a catalogue's attributes, laid out so that a condition is one pass over one array
    condition.py  conditions bound to columns: masks over items
    filters.py    filters of one catalogue, compiled and cached by content

How items are counted under the nodes of a trie is `model_store.sid.eligibility`'s part.
"""
