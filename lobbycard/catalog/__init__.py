"""Which movies, which pictures: tables, selection, downloads, pixels, splits. No torch."""
