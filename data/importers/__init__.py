"""Import published folders and archives: find, pair and check the samples."""
