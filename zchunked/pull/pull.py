"""Pull one image into the store: the whole story on one page."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from zchunked.interfaces import Emit
from zchunked.options import Options
from zchunked.pull.metadata.image_opener import ImageOpener
from zchunked.pull.origin import Origin
from zchunked.pull.processes.registration import Registration
from zchunked.pull.session import PullSession
from zchunked.receipt import Accounts, Receipt
from zchunked.store import Store
from zchunked.store.images import StoredImage

if TYPE_CHECKING:
    from zchunked.pull.layer import LayerTask
    from zchunked.pull.layers import Layers

_ROUNDS = 7  # of repairs: each finds other bytes to blame, or trusts fewer frames


class Pull:
    """One pull of one image.

    Call `run` or `plan` once, on the caller's thread, which gets all events.
    """

    def __init__(
        self,
        origin: Origin,
        store: Store,
        options: Options,
        receipt: Receipt,
        show: Emit,
        accounts: Accounts | None = None,
    ) -> None:
        """`accounts`: of an earlier pull that went onto the same receipt."""
        self._origin, self._store, self._options = origin, store, options
        self._session = PullSession(origin, store, options, receipt, show, accounts)
        self._opener = ImageOpener(self._session, lambda: self.layers)
        self._registration = Registration(self._session)
        self._again: Pull | None = None
        self.partial_blobs = self._session.partial_blobs
        """For a server that streams them meanwhile: it sets its callbacks before `run`."""
        self.chameleon, self.end_when = self._session.chameleon, self._session.end_when

    @cached_property
    def layers(self) -> Layers:
        """What plans, fetches and proves layers."""
        from zchunked.pull.layers import Layers  # noqa: PLC0415 - of most images nothing is lacking

        return Layers(self._session)

    @property
    def bytes_here(self) -> int:
        """At the end: how much of the image's listed bytes is in the store."""
        last = self._again or self
        return last._session.bytes_here  # noqa: SLF001 - a pull as well

    def run(self, only: str | None = None) -> StoredImage:
        """Pull; raises one ZPullError at most. What arrived stays; the receipt is always true.

        `only`: digest of the one layer to pull; the image, not being complete, gets no name then.
        """
        try:
            with self._session.pulling():
                image = self._opener.open(self._registration.begin)
                self.partial_blobs.on_image(image)
                if not self._is_complete(image):
                    self._fetch(image, only)
                if only is None:
                    self._record(image)
                return image
        finally:
            self._registration.release()

    def _is_complete(self, image: StoredImage) -> bool:
        layers = zip(image.documents.manifest.layers, image.config.diff_ids, strict=True)
        return all(self._session.is_proved(layer, diff_id) for layer, diff_id in layers)

    def _fetch(self, image: StoredImage, only: str | None) -> None:
        """Fetch and prove each layer that is not proved; repair what fails, a few times."""
        tasks = self.layers.tasks(image)
        self._fetch_all([task for task in tasks if only in (None, task.layer.digest)])
        if only is None:
            self._session.conditions.remember_work(tasks)

    def _fetch_all(self, tasks: list[LayerTask]) -> None:
        for is_last in (*[False] * _ROUNDS, True):
            # Damage that is found in the store may also undo what was proved before, so look again.
            todo = [task for task in tasks if not self._session.is_proved(task.layer, task.diff_id)]
            if not todo:
                return
            self.layers.fetch(todo)
            if any(task.failure is not None for task in todo):
                from zchunked.pull.repair import repair  # noqa: PLC0415 - seldom needed

                repair(todo, self._session, is_last=is_last)

    def _record(self, image: StoredImage) -> None:
        documents, store = image.documents, self._store
        platform = str(image.config.platform)
        store.set_image(image.name, platform, documents.manifest_digest, documents.root)
        self._registration.finish()

    def repair(self, image: StoredImage) -> StoredImage:
        """After `run`: pull again what the disk has damaged since, onto the same receipt.

        Raises as `run` does.
        """
        from zchunked.pull.repair import reverify_layers  # noqa: PLC0415 - seldom needed

        session = self._session
        reverify_layers(session, image.documents.manifest.layers)
        origin = replace(self._origin, digest=image.documents.root)
        again = self._again = Pull(
            origin, self._store, self._options, session.receipt, session.show, session.accounts
        )
        return again.run()

    def plan(self, after: Layers | None = None) -> list[LayerTask]:
        """Fetch manifests and tables of contents only; put an estimate of the rest on the receipt.

        Returns the layers that are not here yet, each with its order. `after`: the `layers` of
        pulls that were planned before, and will have fetched them by then. Raises as `run` does.
        """
        self.layers.only_plan(after)
        with self._session.pulling():
            image = self._opener.open()
            tasks = self.layers.tasks(image)
            return self.layers.plan_image(tasks, self._opener.cost_again)
