"""What can be done with a given image: vary, fill, restore, walk from one to another, invert."""
