"""Measurements that anyone can repeat: `sidrec bench --help`."""
