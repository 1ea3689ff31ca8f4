"""How a Kubo daemon is called: its client library in a thread, and httpx for what flows.

Rule: each call has a deadline, and each answer a bound. A daemon that is absent, slow, cut off or talking nonsense is a
`Refused` with a code; nothing that it says is shown or used unmeasured. No proxy, no redirect, no cookie, no netrc:
what is asked of the operator's daemon is asked of nobody else.
"""

import json
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Final, TypeVar

import trio

from dimnode.config import api_url
from dimnode.errors import ConfigError, Refused
from dimnode.limits import KuboLimits

T = TypeVar("T")

_BASE: Final = "/api/v0/"
_ABSENT: Final = ("not found", "not pinned", "timed out", "could not find")
"""What daemons say of a block or a pin that they lack. js-ipfs looks for it until its own clock runs out."""

_ENDED: Final = (
    "Connection aborted",
    "Connection broken",
    "peer closed connection",
    "disconnected without",
    "ended prematurely",
)
"""How requests and httpx say that a connection ended too early."""


class KuboCalls:
    """Two clients of one daemon. `api` is a multiaddress that `config` has accepted. Use it within `async with`."""

    def __init__(self, api: str, limits: KuboLimits) -> None:
        """Raises `ConfigError` E-kubo-01 when the packages are not installed."""
        if find_spec("ipfshttpclient") is None or find_spec("httpx") is None:
            what = "a Kubo daemon is configured, but the packages that speak with it are not installed"
            raise ConfigError("E-kubo-01", what, "", "pip install 'dimnode[kubo]', or take [kubo] out of config.toml")
        import httpx

        self._api, self._limits = api, limits
        self.url = api_url(api)
        self._turn = trio.CapacityLimiter(limits.calls_at_once_max)
        waits = httpx.Timeout(limits.stall_seconds_max, connect=limits.connect_seconds_max)
        pool = httpx.Limits(max_connections=limits.calls_at_once_max)
        # Of urllib3 3, which the extra keeps out.
        warnings.filterwarnings("ignore", "The 'strict' parameter", FutureWarning)
        self._http = httpx.AsyncClient(
            verify=self.url.startswith("https"),  # a context with all authorities takes 20 ms, for nothing
            base_url=self.url + _BASE,
            trust_env=False,
            timeout=waits,
            limits=pool,
            headers={"Accept-Encoding": "identity"},
        )
        self._lost = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)
        self._unreached = (httpx.ConnectError, httpx.ConnectTimeout)

    async def close(self) -> None:
        """Drop connections."""
        await self._http.aclose()

    # ---- the client library, in a thread

    async def library(self, what: str, use: Callable[[Any], T], *, seconds: float, feed: bool = False) -> T:
        """What `use(client)` returns. The thread ends with the call or soon after: see `_Bound`.

        `feed`: the call sends a long body, which may take all of `seconds` to be answered. Raises `Refused`.
        """
        bound = _Bound(self._limits.answer_bytes_max, seconds)
        wait = seconds if feed else min(seconds, self._limits.stall_seconds_max)
        try:
            with trio.fail_after(seconds):
                task = partial(self._use, what, use, bound, wait)
                return await trio.to_thread.run_sync(task, abandon_on_cancel=True, limiter=self._turn)  # type: ignore[call-arg]
        except trio.TooSlowError:
            raise self._late(what, f"longer than {seconds:.0f} s") from None
        finally:
            bound.ended.set()

    def _use(self, what: str, use: Callable[[Any], T], bound: "_Bound", wait: float) -> T:
        import requests
        from ipfshttpclient import exceptions as said

        nonsense = (said.Error, requests.RequestException, OSError, ValueError, LookupError, TypeError, AssertionError)
        try:
            return use(self._client(bound, wait))
        except said.ErrorResponse as error:
            raise self._no(what, str(error.args[0] if error.args else error)) from None
        except said.TimeoutError:
            raise self._late(what, "no answer in time") from None
        except said.ConnectionError as error:
            raise self._unreachable(error) from None
        except nonsense as error:
            raise self._broken(what, error) from None

    def _client(self, bound: "_Bound", wait: float) -> Any:
        import ipfshttpclient

        client = ipfshttpclient.Client(
            self._api if self._api.endswith(("/http", "/https")) else f"{self._api}/http",
            timeout=(self._limits.connect_seconds_max, wait),
            headers={"Accept-Encoding": "identity"},
            username=None,
            password=None,
        )
        # The library offers no other way to a session's settings: it is pinned, and docs/patches.md names the tests.
        hooks = {"response": [bound.watch]}
        client._client._session_props.update(trust_env=False, max_redirects=0, hooks=hooks)
        return client

    # ---- httpx

    async def ask(
        self,
        path: str,
        arguments: Mapping[str, str],
        *,
        seconds: float,
        bytes_max: int,
        body: AsyncIterator[bytes] | None = None,
        form: str = "",
    ) -> bytes:
        """The whole answer to `POST path`, of at most `bytes_max`. `form`: the boundary of a multipart body. Raises
        `Refused`."""
        headers = {"Content-Type": f"multipart/form-data; boundary={form}"} if form else {}
        answer = bytearray()
        try:
            with trio.fail_after(seconds):
                async with self._http.stream(
                    "POST",
                    path,
                    params=dict(arguments),
                    content=body,
                    headers=headers,
                    timeout=self._wait(seconds, form),
                ) as response:
                    async for piece in response.aiter_raw():
                        answer += piece
                        if len(answer) > bytes_max:
                            raise self._broken(path, f"an answer of more than {bytes_max} bytes")
        except trio.TooSlowError:
            raise self._late(path, f"longer than {seconds:.0f} s") from None
        except self._unreached as error:
            raise self._unreachable(error) from None
        except self._lost as error:
            raise self._broken(path, error) from None
        if response.status_code != 200:
            raise self._no(path, _message(bytes(answer), response.status_code))
        return bytes(answer)

    def _wait(self, seconds: float, form: str) -> Any:
        """What is sent may be answered only when all of it was written down."""
        import httpx

        stall = self._limits.stall_seconds_max
        return httpx.Timeout(stall, connect=self._limits.connect_seconds_max, read=seconds if form else stall)

    # ---- what went wrong

    def _unreachable(self, error: object) -> Refused:
        hint = "start it (ipfs daemon), or mend api in [kubo] of config.toml"
        refused = any(words in str(error) for words in ("refused", "all attempts to connect"))
        cause = "nothing listens there" if refused else plain(error)
        return Refused("E-kubo-03", f"no Kubo daemon answers at {self.url}", cause, hint, 5000)

    def _late(self, what: str, cause: str) -> Refused:
        return Refused("E-kubo-05", f"the Kubo daemon did not finish {what}", cause, "dim kubo status", 5000)

    def _broken(self, what: str, error: object) -> Refused:
        ended = any(words in str(error) for words in _ENDED)
        cause = "it closed the connection" if ended else plain(error)
        return Refused("E-kubo-05", f"the Kubo daemon broke off {what}", cause, "look into its log", 5000)

    def _no(self, what: str, message: str) -> Refused:
        if any(words in message.lower() for words in _ABSENT):
            return Refused("E-kubo-09", "the Kubo daemon does not have it", plain(message), "", 5000)
        return Refused("E-kubo-08", f"the Kubo daemon refused {what}", plain(message), "look into its log")


class _Bound:
    """Counts what one call of the library brings, and ends it when nobody waits: no thread can be cancelled."""

    def __init__(self, room_bytes: int, seconds: float) -> None:
        self._room_bytes, self._end = room_bytes, time.monotonic() + seconds
        self.ended = threading.Event()

    def watch(self, response: Any, **_: Any) -> Any:
        """A response hook of requests: its body is read through here."""
        whole = response.iter_content

        def counted(chunk_size: int | None = None, decode_unicode: bool = False) -> Iterator[bytes]:
            for piece in whole(chunk_size=64 * 1024):
                self._room_bytes -= len(piece)
                if self._room_bytes < 0:
                    raise ValueError("the answer is too long")
                self.check()
                yield piece

        if response.is_redirect or response.headers.get("Content-Encoding", "identity") != "identity":
            raise ValueError("the answer leads elsewhere, or is packed")
        response.iter_content = counted
        return response

    def check(self) -> None:
        """Raises when the call is over."""
        if self.ended.is_set() or time.monotonic() > self._end:
            raise ValueError("nobody waits for the answer any more")


def plain(text: object, most: int = 160) -> str:
    """One line of a stranger's words that can be shown."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text)[:most]).strip()


def parsed(raw: bytes, what: str) -> dict[str, Any]:
    """The JSON map of an answer. Raises `Refused` E-kubo-04 for anything else."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        what = f"what answers {what} is no Kubo daemon"
        raise Refused(
            "E-kubo-04", what, plain(raw[:60].decode("utf-8", "replace")), "check api in [kubo] of config.toml"
        )
    return found


def _message(raw: bytes, status: int) -> str:
    try:
        return str(json.loads(raw)["Message"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return f"HTTP status {status}"
