"""The Hugging Face Hub: a staged Space goes up, is waited for, and is asked one question."""

import glob
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lobbycard.errors import InputError
from lobbycard.web.space import EXAMPLES
from lobbycard.web.space_card import check_card
from lobbycard.web.space_folder import MARKER, README, read_marker

TOKENS = "https://huggingface.co/settings/tokens"
AUTH = "LOBBYCARD_AUTH"  # user:password, where the Space has it as a secret
PATIENCE = 1200  # seconds for a Space to be built and started; a first build of gradio and onnxruntime takes minutes
POLL = 3.0  # seconds
STARTING = ("BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING")
# What the end of the waiting may be, other than RUNNING. Source: huggingface_hub's SpaceStage
ENDS = {
    "BUILD_ERROR": "its packages could not be installed; the log says which: {page}?logs=build",
    "RUNTIME_ERROR": "the app ended with an error; the log says which: {page}?logs=container",
    "CONFIG_ERROR": "the Hub cannot use the front matter of its README.md; what it minds stands at {page}",
    "NO_APP_FILE": "the Hub does not find the app file that README.md names; see {page}/tree/main",
    "PAUSED": "it is paused, so it was updated but not started; restart it in {page}/settings",
    "STOPPED": "it is stopped, so it was updated but not started; restart it in {page}/settings",
    "SLEEPING": "it sleeps and wakes with its first visitor; open {page}",
    "DELETING": "it is being deleted; push again when that is over",
}
NEW_REPO = {".gitattributes", "README.md"}  # what the Hub itself puts into a Space that was just made
Say = Callable[[str], None]


def push(staged: Path, repo_id: str, private: bool = False, say: Say = print) -> str:
    """Upload a staged Space, wait until it runs, and ask it about one picture. Returns the answer, as text.

    Exactly the staged files are uploaded, and only files that an earlier push put there are deleted: whatever else is in
    the Space stays.

    Args:
        repo_id: `user/name`; made if it does not exist.
        private: only of a Space that is made now; an existing one keeps its visibility.

    Raises:
        InputError: no or a wrong token, no permission, no network, a name that is taken, a front matter that the Hub
            refuses, or a Space that does not come up; each with what to do.
    """
    from huggingface_hub import HfApi, SpaceCard, get_token

    check_name(repo_id)
    check_card(staged / README)
    token = get_token()
    if not token:
        raise InputError(
            f"no Hugging Face token here: make one of type Write at {TOKENS}, then `hf auth login`, "
            "or put it into the environment as HF_TOKEN"
        )
    api = HfApi(token=token)
    page = f"{api.endpoint}/spaces/{repo_id}"
    with _sentences(api, repo_id, "asking who the token belongs to"):
        who = api.whoami()
    _check_token(who, repo_id)
    with _sentences(api, repo_id, "having README.md checked"):
        SpaceCard.load(staged / README).validate()
    with _sentences(api, repo_id, "looking for the Space"):
        before = _staged_before(api, repo_id)
    if before is None:
        with _sentences(api, repo_id, "making the Space", who):
            api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        say(f"made the {'private' if private else 'public'} Space {page}")
    files = [*read_marker(staged)["files"], MARKER]
    stale = sorted(set(before or {}) - set(files))
    say(f"uploading {len(files)} files{f', deleting {len(stale)} that are staged no more' if stale else ''}")
    with _sentences(api, repo_id, "uploading", who):
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="space",
            folder_path=staged,
            commit_message="Update from lobbycard",
            allow_patterns=[glob.escape(name) for name in files],
            delete_patterns=[glob.escape(name) for name in stale] or None,
        )
    say(f"uploaded; the Hub builds it now (minutes the first time): {page}")
    _wait(api, repo_id, commit.oid, page, say)
    with tempfile.TemporaryDirectory() as folder:
        return _ask(api, repo_id, token, _question(staged, Path(folder)), page)


def check_name(repo_id: str) -> None:
    """See that the Hub could have a Space of this name; nobody is asked.

    Raises:
        InputError: says what a name looks like.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        owner, _ = repo_id.split("/")
    except (HFValidationError, ValueError):
        owner = ""
    if not owner:
        raise InputError(
            f"--push {repo_id}: expected user/name, of letters, digits, '-', '_' and '.', such as jane/poster-genres"
        )


def _check_token(who: dict[str, Any], repo_id: str) -> None:
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise InputError(
            f"the token of {who.get('name')} may only read; make one of type Write at {TOKENS} (or a fine-grained one "
            f"with write access to the repositories of {repo_id.split('/')[0]}) and `hf auth login` with it"
        )


def _staged_before(api: Any, repo_id: str) -> dict[str, str] | None:
    """Files of the last push, or None if there is no such Space. Raises InputError for a Space of another make."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.space_info(repo_id)
    except RepositoryNotFoundError:
        return None
    names = {file.rfilename for file in info.siblings or []}
    if MARKER not in names:
        if names <= NEW_REPO and info.sdk in (None, "gradio"):
            return {}
        raise InputError(
            f"--push {repo_id}: a Space of this name exists and was not made by lobbycard ({info.sdk}, {len(names)} "
            "files); nothing was changed. Choose another name, or delete or rename it in its settings"
        )
    file = api.hf_hub_download(repo_id, MARKER, repo_type="space")
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError):
        return {}


def _wait(api: Any, repo_id: str, commit: str, page: str, say: Say) -> None:
    """Until the Space runs what was uploaded."""
    told, deadline = "", time.monotonic() + PATIENCE
    while True:
        with _sentences(api, repo_id, "asking how the Space is"):
            runtime = api.get_space_runtime(repo_id)
        stage = getattr(runtime.stage, "value", runtime.stage)
        # A Space goes on running its old version until the new one is built
        old = stage == "RUNNING" and runtime.raw.get("sha") not in (None, commit)
        shown = "RUNNING the version before" if old else stage
        if shown != told:
            say(f"  {shown}")
            told = shown
        if stage == "RUNNING" and not old:
            return
        if stage not in STARTING and not old:
            why = " ".join(str(runtime.raw.get("errorMessage") or "").split())
            told_by = f" ({why[-300:]})" if why else ""
            raise InputError(
                f"the Space {repo_id} is in stage {stage}: {ENDS.get(stage, 'see {page}').format(page=page)}{told_by}"
            )
        if time.monotonic() > deadline:
            raise InputError(
                f"the Space {repo_id} is still in stage {stage} after {PATIENCE // 60} minutes; it may yet come up: {page}"
            )
        time.sleep(POLL)


def _question(staged: Path, folder: Path) -> Path:
    """A staged example, or where there is none, a grey picture made in `folder`: any will do to see that answers come."""
    # Of what else lies there, nothing leaves this machine
    found = sorted(name for name in read_marker(staged)["files"] if name.startswith(f"{EXAMPLES}/"))
    if found:
        return staged / found[0]
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").save(folder / "grey.jpg")
    return folder / "grey.jpg"


def _ask(api: Any, repo_id: str, token: str, picture: Path, page: str) -> str:
    from gradio_client import Client, handle_file

    try:
        user, _, password = os.environ.get(AUTH, "").partition(":")
        login = (user, password) if password else None
        client = Client(api.space_info(repo_id).host, token=token, auth=login, verbose=False, analytics_enabled=False)
        try:
            found = client.predict(handle_file(picture), api_name="/predict")
        finally:
            client.close()
    except Exception as error:  # whatever the client, the network or the app at the other end raise
        raise InputError(
            f"the Space {repo_id} runs but gave no answer about {picture.name} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}); look at {page}?logs=container. If it asks for a "
            f"password, have it here too, as {AUTH}"
        ) from error
    return f"{picture.name}: {found}"


@contextmanager
def _sentences(api: Any, repo_id: str, doing: str, who: dict[str, Any] | None = None) -> Iterator[None]:
    """Around one conversation with the Hub: what it refuses is told in a sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        raise InputError(_refused(error, repo_id, doing, who or {})) from error
    except OfflineModeIsEnabled as error:
        raise InputError(f"{doing}: HF_HUB_OFFLINE is set; unset it to push") from error
    except (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{doing}: {api.endpoint} cannot be reached ({' '.join(str(error).split())[:200]}); check the internet connection "
            "and the proxy, then push again: what is there already is not uploaded twice"
        ) from error
    except InputError:
        raise
    except ValueError as error:  # the Hub's verdict on the front matter
        raise InputError(f"{doing}: the Hub refuses it: {' '.join(str(error).split())[:400]}") from error


def _refused(error: Any, repo_id: str, doing: str, who: dict[str, Any]) -> str:
    status = error.response.status_code
    said = " ".join(str(getattr(error, "server_message", "") or error).split())[:300]
    owner = repo_id.split("/")[0]
    mine = ", ".join([str(who.get("name")), *(str(org.get("name")) for org in who.get("orgs") or [])]) if who else ""
    if status == 401:
        return (
            f"{doing}: the token is not valid (wrong, expired or revoked); make another one at {TOKENS}, `hf auth login` "
            "with it, and see that no old one is in the environment as HF_TOKEN"
        )
    if status == 402:
        return f"{doing}: the Hub asks for a subscription or credit first ({said}); see https://huggingface.co/pricing"
    if status == 403:
        whose = f"; the token belongs to {mine}" if mine else ""
        return (
            f"{doing}: the token may not write to {owner}{whose}. Push to a name of your own, or make a token with write "
            f"access to {owner} at {TOKENS} ({said})"
        )
    if status == 404:
        return f"{doing}: the Hub knows no {repo_id}, or the token may not see it ({said})"
    if status == 409:
        return f"{doing}: the name {repo_id} is taken ({said}); choose another one"
    if status == 413:
        return f"{doing}: a file is larger than the Hub takes ({said}); stage with --precision fast"
    if status == 429:
        return f"{doing}: too many requests; wait some minutes and push again"
    if status >= 500:
        return f"{doing}: the Hub has trouble ({status}); see https://status.huggingface.co and push again later"
    return f"{doing}: the Hub refuses ({status}: {said})"
