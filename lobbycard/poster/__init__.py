"""Posters to genres: training, export and prediction."""
