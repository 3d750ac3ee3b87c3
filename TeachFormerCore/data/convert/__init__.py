"""The challenges' archives as their organisers ship them, into nnU-Net's raw layout: one challenge a file.

Each file lists the cases of an archive and says how one is read (`archive`); `conversion` does the rest, once for all.
"""
