"""The page of a model: what was found is put into blocks, and the blocks into HTML or Markdown."""
