"""Posters drawn by code: art for the sample, so that it needs no data, no fonts and nobody's rights."""
