"""The runtimes that a network can answer in, and which of them is taken: ONNX Runtime, PyTorch, a fastai learner.

With ONNX Runtime this imports neither torch nor scikit-learn.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from lobbycard.errors import InputError
from lobbycard.poster.artifact import INT8, MANIFEST, ONNX, PICKLE, WEIGHTS, ModelFolder
from lobbycard.poster.machine import cores, cpu_name

Runtime = Literal["auto", "onnx", "torch", "fastai"]
Precision = Literal["fp32", "fast"]
THREADS = 0  # that ONNX Runtime may use, 0 for all cores; workers that share a machine set it
LANE_BATCH_SIZE = 4  # of a core with batches of its own; 8 are no faster, and take twice the memory (docs/log.md)
MOST_LANES = 16  # cores with batches of their own, each of which holds what a network makes of so many posters
PACKAGES = {"onnx": "onnxruntime", "torch": "torch", "fastai": "fastai"}
FAST = {"onnx": "int8", "torch": "bf16"}  # what `fast` means in each runtime

Logits = Callable[[np.ndarray], np.ndarray]  # (B, 3, H, W) fp32 normalised -> (B, L) fp32


def open_logits(folder: ModelFolder, runtime: str, precision: str) -> Logits:
    """The folder's network in a runtime that `choose` gave. Raises InputError where a file is gone, changed or unfit."""
    return {"onnx": _onnx, "torch": _torch, "fastai": _fastai}[runtime](folder, precision)


def choose(folder: ModelFolder, runtime: Runtime, precision: Precision) -> tuple[str, str]:
    """The runtime and the number format to compute with. Raises InputError where they cannot be had."""
    if runtime not in ("auto", *PACKAGES):
        raise InputError(f"--runtime: expected auto, {', '.join(PACKAGES)}, got {runtime!r}")
    if precision not in ("fp32", "fast"):
        raise InputError(f"--precision: expected fp32 or fast, got {precision!r}")
    if runtime == "auto":
        runtime = _quickest(folder, precision)
    check_installed(runtime)
    if precision == "fp32":
        return runtime, "fp32"
    if runtime not in FAST:
        raise InputError(f"--precision fast: {runtime} computes in fp32 only; use --runtime onnx or torch")
    refused = folder.about.get("modes", {}).get(FAST[runtime], {}).get("refused")
    if runtime == "torch" and refused:
        raise InputError(f"--precision fast: {refused}; use --precision fp32")
    if runtime == "onnx" and INT8 not in folder.about["files"]:
        why = folder.about.get("modes", {}).get("int8", {}).get("refused", "it was made before there were any")
        raise InputError(
            f"--precision fast: {folder.path} has no {INT8} ({why}); use fp32, or --runtime torch for bf16"
        )
    return runtime, FAST[runtime]


def _quickest(folder: ModelFolder, precision: Precision) -> str:
    """The runtime for `auto`: what was measured to be fastest if that was on this very processor, else ONNX Runtime.

    A tie is ONNX Runtime's: it starts in a fraction of the time and needs a fraction of the memory.
    """
    wanted = {"onnx": "fp32", "torch": "torch fp32"} if precision == "fp32" else {"onnx": "int8", "torch": "bf16"}
    modes = folder.about.get("modes", {})
    there = [name for name in wanted if find_spec(PACKAGES[name])]
    if precision == "fast":
        there = [name for name in there if not modes.get(wanted[name], {}).get("refused")]
        if INT8 not in folder.about["files"]:
            there = [name for name in there if name != "onnx"]
    if "onnx" not in there:
        return "torch" if "torch" in there else "onnx"  # where neither can be had, `choose` says why
    if modes.get("machine") == cpu_name():
        speed = {name: modes.get(wanted[name], {}).get("milliseconds") for name in there}
        if all(speed.values()) and "torch" in speed and speed["torch"] < 0.8 * speed["onnx"]:
            return "torch"
    return "onnx"


def check_installed(runtime: str) -> None:
    """Raises InputError where the runtime's package is not installed."""
    if not find_spec(PACKAGES[runtime]):
        raise InputError(
            f"--runtime {runtime}: {PACKAGES[runtime]} is not installed here; pip install {PACKAGES[runtime]}"
        )


class OnnxNetwork:
    """A network in ONNX Runtime: (B, 3, H, W) fp32 normalised -> (B, L) fp32.

    It answers in two ways, each opened when it is first used: called, it takes all cores for one batch; `on_one_core` takes
    one, and as many threads as there are cores may call it at once. Used both ways, its weights are in memory twice.
    """

    def __init__(self, model: str | bytes | Callable[[], str], alone: bool = True):
        """Name a network by its file's path, a function that gives the path, or its bytes; nothing is opened yet.

        Args:
            alone: whether nothing else wants the cores when all are taken. Threads then wait for each other without giving
                them up, which answers one picture 8 % sooner; beside a server's work it costs 4 % of the throughput
                (docs/log.md).
        """
        self._model, self._alone = model, alone

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The answers to one batch."""
        return self._on_all_cores(pixels)

    @cached_property
    def _on_all_cores(self) -> Logits:
        return self._open(THREADS, self._alone)

    @cached_property
    def on_one_core(self) -> Logits:
        """The same function in the thread that calls it."""
        return self._open(1, alone=False)

    def _open(self, threads: int, alone: bool) -> Logits:
        return _session(self._model() if callable(self._model) else self._model, threads, alone)


def per_core(networks: Sequence[Logits]) -> tuple[list[Logits], int]:
    """How many batches are answered soonest: the networks to ask, and from how many threads at once.

    In ONNX Runtime on a CPU each core has batches of its own, which measured faster than all cores on one batch
    (docs/log.md); elsewhere, and on more than `MOST_LANES` processors, one batch is asked for at a time.
    """
    threads = THREADS or cores()
    if 1 < threads <= MOST_LANES and all(isinstance(network, OnnxNetwork) for network in networks):
        with suppress(
            Exception
        ):  # its file is gone or another by now, or memory is short: what is open goes on answering
            return [network.on_one_core for network in networks], threads
    return list(networks), 1


def _session(model: str | bytes, threads: int, alone: bool) -> Logits:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not alone:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # it warns about the machine's devices, which is nobody's concern here
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _onnx(folder: ModelFolder, precision: str) -> Logits:
    name = ONNX if precision == "fp32" else INT8
    try:
        logits = OnnxNetwork(lambda: str(folder.file(name)), alone=False)  # its hash is checked at each opening
        _fits(logits, folder)
    except InputError:
        raise
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise _unfit(folder.path / name, error) from error
    return logits


def _torch(folder: ModelFolder, precision: str) -> Logits:
    from lobbycard.poster.learner_file import torch_logits
    from lobbycard.poster.network import Architecture, build, read_state

    file, network = folder.file(WEIGHTS), folder.about["network"]
    state = read_state(file)
    try:
        built = build(Architecture.from_dict(network), len(folder.labels), size=folder.size)
        built.load_state_dict(state)
    except InputError:
        raise
    except Exception as error:  # the libraries raise what they like at arguments that are not theirs
        raise _unfit(file, error) from error
    return torch_logits(built, precision)


def _fits(logits: Logits, folder: ModelFolder) -> None:
    """Raises ValueError if the network does not take the model's input size or does not answer one number a label."""
    found = logits(np.zeros((1, 3, *folder.size), np.float32)).shape
    if found != (1, len(folder.labels)):
        raise ValueError(f"it gives {found[-1]} numbers a picture for {len(folder.labels)} labels")


def _unfit(file: Path, error: Exception) -> InputError:
    why = " ".join(str(error).split())[:200]
    return InputError(
        f"{file}: does not go with {MANIFEST} beside it, or cannot be loaded ({type(error).__name__}: {why}); "
        "copy the model folder again, or train it again"
    )


def _fastai(folder: ModelFolder, precision: str) -> Logits:
    from lobbycard.poster.learner_file import load_learner_file, torch_logits

    learn = load_learner_file(folder.file(PICKLE))  # its sha256 is checked before anything in it runs
    return torch_logits(learn.model, precision)
