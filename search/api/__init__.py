"""The Python API, which `twinhead.py` exports: searches, trainings and networks from a program or a notebook."""
