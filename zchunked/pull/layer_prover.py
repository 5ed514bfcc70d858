"""Prove each layer by its blob's digest or its diff ID while it arrives, and record that."""

from __future__ import annotations

from contextlib import closing

from zchunked.errors import FormatError, IntegrityError
from zchunked.formats.budget import ImageBudget
from zchunked.layers.proof import Proof, prove, tar_of_blob
from zchunked.layers.rebuild import Rebuild, verified_blocks
from zchunked.oci.digest import Digest
from zchunked.pull.layer import LayerTask
from zchunked.pull.session import PullSession


class LayerProver:
    """Proves the layers of one pull.

    `prove` is for workers of the prove queue, `record` for the thread that waits for them.
    """

    def __init__(self, session: PullSession) -> None:
        self._session, self._store = session, session.store
        self._limits = session.options.limits
        self.budget = ImageBudget(self._limits)
        """What all layers of the image may unpack to, together."""
        arrivals, partial_blobs = session.downloader.arrivals, session.partial_blobs
        arrivals.on_arrival = partial_blobs.change
        self._arrived, self._partial_blobs = arrivals.wait_for, partial_blobs

    def prove(self, task: LayerTask) -> None:
        """Read the layer as its bytes arrive; leaves the proof or the failure in its task."""
        try:
            if task.arrival.claim.was_made and task.way != "whole":
                task.facts.has_ranges = False  # found out on the way
                task.settle_way()
            task.proof = self._by_diff_id(task) if task.is_lean else self._by_digest(task)
            if task.proof.is_blob:
                self._partial_blobs.prove(task.layer.digest)
        except (IntegrityError, FormatError) as error:
            task.failure = error

    def _by_digest(self, task: LayerTask) -> Proof:
        """By its own digest; by the diff ID too where that was asked for."""
        pool, layer = self._session.pool, task.layer
        assembly, check = self._partial_blobs.assembly(
            self._store, layer, lambda: task.stand_ins, self._arrived
        )
        with self._partial_blobs.copying(layer.digest) as through:
            if task.way == "exact":  # gathering frames is work for another core, reading is not
                # Otherwise its maker waits for ever
                with closing(pool.prefetch("make", assembly.blocks())) as blocks:
                    check(through(blocks))
            else:
                check(through(assembly.blocks()))
        size = None
        if self._session.options.prove:
            tar = tar_of_blob(assembly.blocks(), layer, self._limits)
            tar = self.budget.counted(layer.digest, tar)
            with closing(pool.prefetch("make", tar)) as made:
                size = prove(made, layer, task.diff_id)
        return Proof(is_blob=True, tar_size=size, shared=tuple(assembly.shared()))

    def _by_diff_id(self, task: LayerTask) -> Proof:
        """By the tar that its chunks make."""
        index = task.lean_index
        assert index is not None
        blocks = Rebuild(self._store, index, task.places, self._arrived, self._limits).blocks()
        with closing(self._session.pool.prefetch("make", blocks)) as made:
            tar = self.budget.counted(task.layer.digest, verified_blocks(made))
            return Proof(is_blob=False, tar_size=prove(tar, task.layer, task.diff_id))

    def record(self, task: LayerTask, proof: Proof, manifest: Digest) -> None:
        """Write the rows that speak of the layer as a whole, once its bytes are on the disk.

        `manifest` lists it. Who wants its frames finds it noted before it counts as whole.
        """
        layer, store = task.layer, self._store
        blobs: set[Digest] = set()
        if proof.is_blob:
            if not store.share_extents(layer.digest, layer.size, list(proof.shared)):
                task.proof = None
                task.failure = IntegrityError(
                    f"layer {layer.digest}: another process dropped frames that it shares"
                )
                return
            if task.entry.kind != "plain" and not store.is_whole(layer.digest):
                store.frames.set_unindexed([layer.digest], manifest)
            store.set_whole(layer.digest, layer.size)
        else:
            blobs = {layer.digest, *(place.blob for place in task.places.values())}
        if proof.tar_size is not None:
            store.add_proof(layer.digest, task.diff_id, proof.tar_size, blobs)
