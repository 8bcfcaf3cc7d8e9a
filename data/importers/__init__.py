"""Import images of the user, in a published layout or listed by a table: find, pair and check the samples."""
