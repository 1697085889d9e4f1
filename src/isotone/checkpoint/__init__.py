"""What is on disk: models to read, compressed directories, and outputs that appear whole.

Imports between its folders point one way, from right to left:

    files  <-  gguf  <-  source  <-  compressed  <-  staging  <-  overlay  <-  opening

`files` reads and writes single files, here or in a store. `gguf` reads GGUF files. `source` makes a
dense model of files. `compressed` is the format of compressed directories, and decodes them.
`staging` makes outputs atomic and resumable. `overlay` writes new values over a compressed
directory (a codebook-only directory). `opening` opens whatever isotone wrote.
"""
