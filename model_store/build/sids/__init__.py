"""Texts to semantic IDs: text → vector → residual quantisation → codes → SIDs without collisions.

config.py         what a build can choose
collaborative.py  optional: who is clicked together, as vectors
joint.py          … joined to the text vector
kmeans.py         codebooks by residual k-means; the plain way
rqvae.py          codebooks by an RQ-VAE: its losses, its codebooks
rqvae_train.py    … and its training, with checkpoints
residual.py       the frozen result of either, in numpy
collisions.py     items that got the same codes
report.py         how good the SIDs are; sid_plot.py draws it
stage.py          all of the above, as one step of a build
quantizer.py      what a bundle keeps of it: later items get their codes from here
drift.py          whether later items still look like those that the quantizer has learnt from
taken.py          which SIDs are free
incremental.py    SIDs of later items

A service that gives later items their SIDs imports only quantizer.py and taken.py, which need
nothing that serving does not need.
"""
