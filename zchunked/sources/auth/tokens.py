"""Authorization: bearer tokens and basic auth, as a registry asks for, shared by all threads."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from zchunked.errors import AccessDeniedError, FormatError, PermanentError, TransientError
from zchunked.events import Noted
from zchunked.interfaces import Emit
from zchunked.limits import DEFAULT_LIMITS, Limits
from zchunked.oci.reference import is_loopback
from zchunked.sources.auth.challenges import Challenge, parse_challenges
from zchunked.sources.auth.credentials import Credentials
from zchunked.sources.auth.helpers import HelperError
from zchunked.sources.http.client import Http
from zchunked.sources.http.locations.urls import netloc, origin, shown
from zchunked.sources.http.response import HttpResponse
from zchunked.sources.http.single_flight import SingleFlight

_DEFAULT_SECONDS = 60.0  # how long a token lives that does not say so: the token specification
_JUNK_TRIES = 3  # of a token endpoint that answers something else
_VISIBLE = re.compile(r"[\x21-\x7e]+", re.ASCII)  # what may stand in a header


class Grant(msgspec.Struct, frozen=True):
    """What one request shows; `is_fresh` when it was made for this very request."""

    header: str | None = None
    is_fresh: bool = False

    def __repr__(self) -> str:
        return "Grant(…)"


class _Scope(msgspec.Struct, frozen=True):
    """What a token is for, and where it comes from."""

    realm: str
    service: str
    scope: str
    registry_has_tls: bool


class _Token(msgspec.Struct, frozen=True):
    text: str
    expires: float
    """By our clock, a little early."""

    def __repr__(self) -> str:
        return "_Token(…)"


class _TokenAnswer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | str | None = None  # a number as text, from some


_TOKEN_ANSWER = msgspec.json.Decoder(_TokenAnswer)


class ProtectedRepository(msgspec.Struct, frozen=True):
    """What credentials and tokens are for.

    `is_named`: the person typed this very host. `scope`: what tokens are asked for, whatever the
    registry asks for: it may learn of what is wanted later on.
    """

    host: str
    repository: str
    is_named: bool = True
    scope: str | None = None


class Auth:
    """The way into one repository of one registry. Thread-safe."""

    def __init__(
        self,
        http: Http,
        repository: ProtectedRepository,
        look_up: Callable[[], Credentials | None],
        *,
        clock: Callable[[], float],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`look_up` is called at the first request for credentials, once.

        `clock` in seconds, monotonic.
        """
        self._http, self._look_up, self._clock, self._limits = http, look_up, clock, limits
        self._host, self._repository = repository.host, repository.repository
        self._is_named, self._wanted_scope = repository.is_named, repository.scope
        self._lock = threading.Lock()
        self._known: tuple[Credentials | None] | None = None
        self._helper_failure: str | None = None
        self.emit: Emit = lambda _: None
        """Where warnings go."""
        self._basic: str | None = None
        self._scope: _Scope | None = None
        self._has_opened = False
        self._tokens: dict[_Scope, _Token] = {}
        self._flights: SingleFlight[_Token] = SingleFlight()
        self._searches: SingleFlight[Credentials | None] = SingleFlight()

    def grant(self, *, is_last: bool = False) -> Grant:
        """The authorization to send now; none before the first challenge.

        May fetch a token, for all threads. `is_last` fetches one for this request alone: tokens
        that are good for a few uses run out while others wait. Raises AccessDeniedError,
        TransientError or TransferError when the token endpoint gives none.
        """
        with self._lock:
            scope, basic = self._scope, self._basic
        if scope is None:
            return Grant(basic)
        if (token := self._valid(scope)) and not is_last:
            return Grant(f"Bearer {token.text}")
        is_fresh = False

        def fetch() -> _Token:
            nonlocal is_fresh
            if (token := self._valid(scope)) and not is_last:  # of a call that has just ended
                return token
            is_fresh = True
            fetched = self._fetch(scope)
            if not is_last:
                with self._lock:
                    self._tokens[scope] = fetched
            return fetched

        token = fetch() if is_last else self._flights.run(scope, fetch)
        return Grant(f"Bearer {token.text}", is_fresh)

    def asks(self, answer: HttpResponse) -> bool:
        """Whether this answer of the registry wants another grant."""
        if answer.status == 403:
            return "insufficient_scope" in answer.headers.get("WWW-Authenticate", "")
        if answer.status < 400:
            self._has_opened = True
        return answer.status == 401

    def learn(self, answer: HttpResponse, shown_grant: Grant) -> None:
        """Take the challenge of a response. AccessDeniedError when another try cannot help."""
        denied = answer.status_error(f"{self._host}/{self._repository}")
        challenge = self._choose(answer, denied)
        if challenge.scheme == "basic":
            self._learn_basic(shown_grant, denied)
            return
        scope = _Scope(
            challenge.parameters.get("realm", ""),
            challenge.parameters.get("service", ""),
            self._wanted_scope
            or challenge.parameters.get("scope")
            or f"repository:{self._repository}:pull",
            origin(answer.url)[0] == "https",
        )
        # Before it is remembered: another thread, or the next try, would use it otherwise.
        self._refuse_in_the_open(scope, self._credentials())
        with self._lock:
            is_same, self._scope = scope == self._scope, scope
            token = self._tokens.get(scope)
            if token is not None and shown_grant.header == f"Bearer {token.text}":
                del self._tokens[scope]
        # Where a token has worked before, a new one may have been used up by other threads: then
        # the last try decides.
        if shown_grant.is_fresh and is_same and not self._has_opened:
            raise AccessDeniedError(f"{denied}; {self._advice()}")

    def _choose(self, answer: HttpResponse, denied: Exception) -> Challenge:
        """Bearer before basic."""
        try:
            offered = parse_challenges(
                answer.headers.get("WWW-Authenticate", ""), limits=self._limits
            )
        except FormatError as error:
            raise PermanentError(f"{self._host}: {error}") from error
        for scheme in ("bearer", "basic"):
            for challenge in offered:
                if challenge.scheme == scheme and (
                    scheme == "basic" or "realm" in challenge.parameters
                ):
                    return challenge
        schemes = ", ".join([one.scheme for one in offered])[:100]
        raise AccessDeniedError(
            f"{denied}; it offers {schemes or 'no way'} to authenticate; expected bearer or basic"
        )

    def _learn_basic(self, shown_grant: Grant, denied: Exception) -> None:
        credentials = self._credentials()
        if credentials is None or not credentials.username:
            raise AccessDeniedError(f"{denied}; {self._advice()}")
        header = basic_header(credentials)
        if shown_grant.header == header:
            raise AccessDeniedError(f"{denied}; {self._advice()}")
        with self._lock:
            self._basic, self._scope = header, None

    def _advice(self) -> str:
        found = self._credentials()
        if found is None:
            if self._helper_failure is not None:
                return (
                    f"the credentials for {self._host} could not be looked up: "
                    f"{self._helper_failure}"
                )
            creds = (
                "or --creds"
                if self._is_named
                else "for --creds is shown to the host in the image's name alone"
            )
            return (
                f"no credentials for {self._host} were found: try `podman login {self._host}`, "
                f"{creds}"
            )
        return (
            f"the credentials{f' of user {found.username!r:.60}' if found.username else ''} do "
            "not open it"
        )

    def _credentials(self) -> Credentials | None:
        """Look credentials up, in one thread, while others wait: a helper may ask the user."""

        def look() -> Credentials | None:
            with self._lock:
                known = self._known
            if known is None:
                known = (self._find(),)
                with self._lock:
                    self._known = known
            return known[0]

        return self._searches.run(None, look)

    def _find(self) -> Credentials | None:
        """Look credentials up.

        A failing helper stops no pull: most images are public, configs get copied.
        """
        try:
            return self._look_up()
        except HelperError as error:
            self._helper_failure = str(error)
            self.emit(Noted(f"warning: {error}; going on without credentials for {self._host}"))
            return None

    def _refuse_in_the_open(self, scope: _Scope, credentials: Credentials | None) -> None:
        """Credentials go to https or loopback alone, whatever the registry itself speaks.

        Without credentials a registry behind TLS may not name an unencrypted realm either; one that
        is itself unencrypted may, as nothing secret is sent.
        """
        if origin(scope.realm)[0] == "https" or is_loopback(netloc(scope.realm)):
            return
        if credentials is not None and credentials.registry_token:
            return  # shown to the registry as it is: the realm is not asked
        if credentials is not None:
            raise AccessDeniedError(
                f"{self._host} wants credentials sent unencrypted to {shown(scope.realm)}; refused"
            )
        if scope.registry_has_tls:
            raise AccessDeniedError(
                f"{self._host} wants a token fetched unencrypted from {shown(scope.realm)}; refused"
            )

    def _valid(self, scope: _Scope) -> _Token | None:
        with self._lock:
            token = self._tokens.get(scope)
        return token if token is not None and self._clock() < token.expires else None

    def _fetch(self, scope: _Scope) -> _Token:
        credentials = self._credentials()
        if credentials and credentials.registry_token:
            return _Token(credentials.registry_token, float("inf"))
        self._refuse_in_the_open(scope, credentials)
        asked = self._clock()
        answer = self._ask(scope, credentials)
        what = f"the token endpoint {shown(scope.realm)}"
        if answer.status != 200:
            refusal = answer.status_error(what)
            if isinstance(refusal, AccessDeniedError):
                raise AccessDeniedError(f"{refusal}; {self._advice()}")
            raise refusal
        data, _ = answer.document(self._limits.token_bytes, what)
        try:
            found = _TOKEN_ANSWER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # They may hold one, so they are not shown.
            raise TransientError(
                f"{what} answered {len(data)} bytes instead of a token", most_tries=_JUNK_TRIES
            ) from None
        text = found.token or found.access_token or ""
        if not _VISIBLE.fullmatch(text):
            raise TransientError(f"{what} answered without a usable token", most_tries=_JUNK_TRIES)
        seconds = _seconds(found.expires_in)
        return _Token(text, asked + seconds - min(5.0, seconds / 10))

    def _ask(self, scope: _Scope, credentials: Credentials | None) -> HttpResponse:
        if credentials and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "client_id": "zpull",
                "refresh_token": credentials.identity_token,
            }
            form |= {"scope": scope.scope} | ({"service": scope.service} if scope.service else {})
            return self._http.send(scope.realm, {}, form=form)
        query = [("service", scope.service)] if scope.service else []
        query += [("scope", one) for one in scope.scope.split()]
        authorization = None
        if credentials and credentials.username:
            query.append(("account", credentials.username))
            authorization = basic_header(credentials)
        parts = urlsplit(scope.realm)
        joined = "&".join(filter(None, (parts.query, urlencode(query))))
        return self._http.get(
            urlunsplit(parts._replace(query=joined)), {}, authorization=authorization
        )


def _seconds(said: float | str | None) -> float:
    """How long a token lives, by what its endpoint says."""
    try:
        seconds = float(said or 0)
    except ValueError:
        seconds = 0.0
    return seconds if 0 < seconds < float("inf") else _DEFAULT_SECONDS


def basic_header(credentials: Credentials) -> str:
    text = f"{credentials.username}:{credentials.password}"
    return "Basic " + base64.b64encode(text.encode()).decode()
