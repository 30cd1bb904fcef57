"""lobbycard reads posters: a table of movies goes in, a measured poster-genre model comes out."""

__version__ = "0.1.0"
