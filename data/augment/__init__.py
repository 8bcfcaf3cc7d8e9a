"""Joint augmentation of the four images of a sample, on the CPU and on the device."""
