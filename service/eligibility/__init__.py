"""Which items an answer may contain, from what a request and a deployment ask for.

    policy.py     what a deployment keeps out of every answer
    filter.py     the filter language: conditions over attributes, as JSON; knows no catalogue
    column.py     one attribute of a catalogue, laid out so that a test is one pass over one array
    columns.py    the attributes of a catalogue, made when they are asked for
    condition.py  conditions bound to columns: masks over items
    filters.py    filters of one catalogue, compiled and cached by content

How items are counted under the nodes of a trie is `model_store.sid.eligibility`'s part.
"""
