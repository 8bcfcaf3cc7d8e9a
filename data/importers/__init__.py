"""Published folders and archives to samples: found, paired and checked."""
