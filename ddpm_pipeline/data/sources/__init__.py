"""Where images come from: folders, arrays, data sets and shards, each behind one ``Source``."""
