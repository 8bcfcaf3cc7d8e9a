"""The commands for searches on a cluster, from any machine: submit, list, status, logs, stop, resume, rm."""
