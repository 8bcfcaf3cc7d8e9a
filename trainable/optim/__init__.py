"""Optimizers, learning-rate policies such as OneCycle (`policies`), and their schedules by step (`schedules`)."""
