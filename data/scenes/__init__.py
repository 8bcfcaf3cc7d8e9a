"""Render rooms with figures, with exact mask and depth; `render` and `SceneSet` are the public names."""
