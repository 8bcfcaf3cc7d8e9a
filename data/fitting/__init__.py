"""Images of any size and aspect ratio at the size of a network."""
