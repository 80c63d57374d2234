"""API keys: what one may do, which are in force, and how often one may ask. No HTTP."""
