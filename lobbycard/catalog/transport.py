"""HTTP as a polite guest: few connections, used again; waits where a host asks for it; an end to every wait."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tenacity import (
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError
from urllib3.util import Retry

from lobbycard import __version__
from lobbycard.catalog.manifest import RETRYABLE
from lobbycard.errors import InputError

USER_AGENT = f"lobbycard/{__version__} (fetches the pictures of a movie table; python-requests/{requests.__version__})"
CHUNK = 64 * 1024
MAX_CONNECTIONS = 256  # each is a thread
MAX_WAIT = 86_400.0  # seconds
MAX_REDIRECTS = 5
MAX_BACKOFF = 30.0  # seconds, where the host does not say how long
MAX_PAUSE = 120.0  # seconds; a host that asks for more is left alone for the rest of the run
MAX_PAUSES = 6  # as is one that goes on refusing after so many pauses in a row
MAX_SILENCE = 50  # and one that has not answered so many requests in a row: no network, or no such host


@dataclass(frozen=True)
class DownloadOptions:
    """How hard to try. Raises InputError for a number that cannot be meant."""

    connections: int = 16
    """open connections, which is also the most one host sees"""
    timeout: float = 20.0
    """seconds to wait for a connection, and for each piece of an answer"""
    deadline: float = 60.0
    """seconds for one request in all, however steadily it drips"""
    tries: int = 4
    """requests for one URL in one run"""
    backoff: float = 0.5
    """seconds before the second try; doubled before each further one, with as much again of jitter"""
    max_bytes: int = 20_000_000
    """of one picture; at most `connections` of them are held in memory"""
    retry_permanent: bool = False
    """also try again what failed for good in an earlier run"""

    def __post_init__(self):
        for name in ("connections", "timeout", "deadline", "tries", "max_bytes"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if self.connections > MAX_CONNECTIONS:
            raise InputError(f"connections: expected at most {MAX_CONNECTIONS}, got {self.connections}")
        for name in ("timeout", "deadline"):
            if getattr(self, name) > MAX_WAIT:  # infinity too: the sockets take no such number
                raise InputError(f"{name}: expected at most {MAX_WAIT:.0f} seconds, got {getattr(self, name)}")
        if not self.backoff >= 0:
            raise InputError(f"backoff: expected 0 or more seconds, got {self.backoff}")


class Answer(NamedTuple):
    """What came of one URL; `status` as in the manifest."""

    status: str
    message: str = ""
    http_code: int | None = None
    content: bytes = b""
    url: str = ""  # where the redirects led
    tries: int = 1  # requests; 0 where none was sent
    retry_after: float | None = None  # seconds
    size: tuple[int, int] | None = None  # pixels, (width, height), once someone has looked


class Interrupted(Exception):
    """The run is being stopped; the URL is as it was."""


def url_problem(url: str) -> str:
    """Why `url` cannot be fetched, or nothing."""
    try:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https"):
            return f"expected a URL that begins with http:// or https://, got {url[:200]}"
        if not parts.hostname or (parts.port is not None and parts.port < 1):
            return f"expected a host in the URL, got {url[:200]}"
    except ValueError as error:
        return f"{error}, in the URL {url[:200]}"
    return ""


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number or an HTTP date; None where there is none.

    Source: RFC 9110, section 10.2.3.
    """
    try:
        return Retry().parse_retry_after(value) if value else None
    except (InvalidHeader, ValueError, OverflowError):
        return None


def status_of(code: int, retry_after: float | None) -> str:
    """The manifest's word for an HTTP status code; any 2xx is "ok" until its body has been looked at."""
    if code == 429 or (code == 503 and retry_after is not None):
        return "rate_limited"
    if code in (404, 410):
        return "missing"
    if code == 408:
        return "timed_out"
    if code >= 500:
        return "server_error"
    return "ok" if 200 <= code < 300 else "refused"


class Host:
    """What one host has asked of us; every thread looks here before it sends."""

    def __init__(self, name: str):
        self.name = name
        self.closed: Answer | None = None  # the answer for every URL that is still to come
        self._lock = threading.Lock()
        self._resume_at = self._paused_at = 0.0
        self._pauses = self._silence = 0  # in a row

    def wait(self, stop: threading.Event) -> None:
        """Until the host may be asked again. Raises Interrupted."""
        while not self.closed and (left := self._resume_at - time.monotonic()) > 0:
            # Jitter, or all threads would fall upon it in the same instant.
            stop.wait(left + random.uniform(0, min(1.0, left / 4)))
            if stop.is_set():
                break
        if stop.is_set():
            raise Interrupted

    def heard(self, answer: Answer, sent_at: float, backoff: float) -> None:
        """Note how a request that was sent at `sent_at` ended."""
        with self._lock:
            now = time.monotonic()
            asked_after_pause = sent_at >= self._paused_at
            if answer.status == "rate_limited":
                pause = answer.retry_after
                if asked_after_pause:  # others that were under way then say the same thing, not a new one
                    self._pauses, self._paused_at = self._pauses + 1, now
                if pause is None:
                    pause = min(backoff * 2 ** (self._pauses - 1), MAX_BACKOFF)
                if pause > MAX_PAUSE:
                    self._close("rate_limited", f"asks to wait {pause:.0f} s, more than {MAX_PAUSE:.0f}")
                elif self._pauses > MAX_PAUSES:
                    self._close("rate_limited", f"still refuses after {MAX_PAUSES} pauses")
                self._resume_at = max(self._resume_at, now + pause)
            elif answer.http_code is None:
                self._silence += 1
                if self._silence >= MAX_SILENCE:
                    self._close(answer.status, f"has not answered {MAX_SILENCE} requests in a row")
            elif asked_after_pause:
                self._pauses = self._silence = 0

    def _close(self, status: str, why: str) -> None:
        self.closed = self.closed or Answer(status, f"{self.name} {why}: left alone for the rest of this run", tries=0)


class Transport:
    """One session for all threads; `stop` ends every wait."""

    def __init__(self, options: DownloadOptions):
        self.options = options
        self.stop = threading.Event()
        self._hosts: dict[str, Host] = {}
        self._session = requests.Session()
        self._session.headers.update(
            {"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        )
        self._session.auth = lambda request: request  # else requests reads ~/.netrc, and may send it, each time
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=64, pool_maxsize=options.connections, pool_block=True)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._retrying = Retrying(
            retry=retry_if_result(lambda answer: answer.status in RETRYABLE and answer.tries > 0),
            stop=stop_after_attempt(options.tries) | stop_when_event_set(self.stop),
            wait=wait_exponential(multiplier=options.backoff, max=MAX_BACKOFF) + wait_random(0, options.backoff),
            sleep=sleep_using_event(self.stop),
            retry_error_callback=lambda state: state.outcome.result(),
        )

    def close(self) -> None:
        self._session.close()

    def fetch(self, url: str, judge: Callable[[Answer], Answer]) -> Answer:
        """The last answer for `url`, after as many tries as are worth it.

        Args:
            judge: looks at the body of an "ok" answer and returns it, perhaps with another status; a body found
                "truncated" is asked for again.

        Raises:
            Interrupted: `stop` was set meanwhile.
        """
        last, sent = None, 0

        def attempt() -> Answer:
            nonlocal last, sent
            answer = self._follow(url)
            if answer.status == "ok":
                answer = judge(answer)
            if last and not answer.tries:  # the host was closed meanwhile: keep what it said
                answer = answer._replace(http_code=last.http_code)
            last, sent = answer, sent + answer.tries
            return answer

        return self._retrying(attempt)._replace(tries=sent)

    def _follow(self, url: str) -> Answer:
        for hop in range(MAX_REDIRECTS + 1):
            tries = min(hop, 1)  # a try is one request and its redirects
            if problem := url_problem(url):
                return Answer("bad_url", f"redirected: {problem}" if hop else problem, tries=tries)
            name = urlsplit(url).netloc.lower()
            host = self._hosts.setdefault(name, Host(name))
            host.wait(self.stop)
            if host.closed:
                return host.closed._replace(tries=tries)
            sent_at = time.monotonic()
            answer = self._request(url)
            host.heard(answer, sent_at, self.options.backoff)
            if answer.status != "redirect":
                return answer
            url = answer.url
        return Answer("refused", f"more than {MAX_REDIRECTS} redirects", answer.http_code)

    def _request(self, url: str) -> Answer:
        code, deadline = None, time.monotonic() + self.options.deadline
        try:
            with self._session.get(url, stream=True, allow_redirects=False, timeout=self.options.timeout) as response:
                code = response.status_code
                target = self._session.get_redirect_target(response)
                retry_after = parse_retry_after(response.headers.get("Retry-After"))
                status = "redirect" if target is not None else status_of(code, retry_after)
                if status == "ok":
                    return self._body(response, url, deadline)
                self._drain(response, deadline)
                where = urljoin(url, requests.utils.requote_uri(target)) if target is not None else url
                message = f"HTTP {code} {response.reason or ''}".rstrip()
                return Answer(status, message, code, url=where, retry_after=retry_after)
        except (requests.Timeout, ReadTimeoutError):
            return Answer("timed_out", f"nothing came for {self.options.timeout:g} s", code)
        except requests.exceptions.InvalidProxyURL as error:
            return Answer("unreachable", str(error), code)
        except ValueError as error:  # however requests, urllib3 and idna say that a URL is none
            return Answer("bad_url", str(error), code)
        except requests.RequestException as error:
            return Answer("unreachable", _reason(error), code)
        except HTTPError as error:
            return Answer("truncated", f"the connection ended early: {_reason(error)}", code)

    def _body(self, response: requests.Response, url: str, deadline: float) -> Answer:
        code, limit = response.status_code, self.options.max_bytes
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > limit:
            return Answer("too_large", f"{int(announced):,} bytes announced, at most {limit:,} are taken", code)
        parts, size = [], 0
        # read1 returns what has come; read and iter_content would sit out a drip until their chunk is full.
        while part := response.raw.read1(CHUNK, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > limit:
                return Answer("too_large", f"more than {limit:,} bytes came", code)
            if time.monotonic() > deadline:
                message = f"only {size:,} bytes came in {self.options.deadline:g} s"
                return Answer("timed_out", message, code)
            if self.stop.is_set():
                raise Interrupted
        return Answer("ok", "", code, b"".join(parts), url)

    def _drain(self, response: requests.Response, deadline: float) -> None:
        """Read the page that comes with an error, if it is short: the connection can then be used again."""
        left = CHUNK
        try:
            while left > 0 and time.monotonic() < deadline and (part := response.raw.read1(CHUNK)):
                left -= len(part)
        except HTTPError:
            response.close()


def _reason(error: Exception) -> str:
    """The innermost cause, without urllib3's object addresses."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, Exception)), None)
        if not isinstance(inner, Exception):
            return str(error).rpartition(">: ")[2] or type(error).__name__
        error = inner
