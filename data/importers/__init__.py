"""Import images of the user, in whatever form they are: find, pair and check the samples."""
