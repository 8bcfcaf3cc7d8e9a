"""Joint augmentation of the four images of a sample, on the CPU or on the device."""
