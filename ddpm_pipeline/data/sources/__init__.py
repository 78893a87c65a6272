"""Sources of images: folders, arrays, data sets and shards, each behind one ``Source``."""
