"""Front door 1: from a movie table to a trained, measured, exported poster-genre model.

python train_model.py                       # MovieGenre.csv if it is here, else an embedded sample of drawn posters
python train_model.py --csv MovieGenre.csv  # a ResNet-50, FP16 on a CUDA GPU
python train_model.py --help
"""

from lobbycard.front import front_door
from lobbycard.poster.config import parse


def main(arguments: list[str] | None = None) -> None:
    """The pipeline, from flags to a model folder."""
    trainer = None
    with front_door(lambda: trainer.how_to_go_on() if trainer else "stopped"):
        config = parse(arguments)
        from lobbycard.poster.sources import movie_table
        from lobbycard.poster.trainer import MovieGenreTrainer

        with movie_table(config) as config:
            trainer = MovieGenreTrainer(config)
            trainer.load()
            trainer.download()
            trainer.split()
            if config.find_lr:
                trainer.find_lr()
                return
            trainer.fit()
            if not trainer.processes.first:
                return  # the first process goes on with what all have trained
            trainer.evaluate()
            if config.refit:
                trainer.refit()
            trainer.export()
            if config.learning_curve:
                trainer.learning_curve()
            trainer.summarize()


def __getattr__(name: str):
    # `from train_model import MovieGenreTrainer` works, and `train_model.py --help` does not wait for torch.
    if name == "MovieGenreTrainer":
        from lobbycard.poster.trainer import MovieGenreTrainer

        return MovieGenreTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    main()
