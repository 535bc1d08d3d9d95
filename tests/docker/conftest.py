"""The Python of an image, as tests of images have it."""

from images import image_python

__all__ = ["image_python"]
