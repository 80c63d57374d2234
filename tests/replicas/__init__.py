"""Beyond one process: a real Redis Cluster of six, and services behind a real nginx."""
