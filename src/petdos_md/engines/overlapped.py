"""A sample that is evaluated while the dynamics go on.

>>> beside = OverlappedEvaluation(model)    # doctest: +SKIP
>>> beside.start(atoms)                     # doctest: +SKIP
>>> sample = beside.collect()               # doctest: +SKIP

The evaluation runs in a thread of its own and, on a GPU, on a stream of its own: neither the kernels of a potential on the same card nor
the Python code of the dynamics wait for it. TorchScript programs run without the interpreter lock.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from ase import Atoms

from ..base.sample import Sample
from ..models.model import DOSModel


class OverlappedEvaluation:
    """Evaluates one structure at a time beside its caller. Copies and pickles start with none.

    Attributes: ``running``, whether one was started and not collected yet; ``atoms``, the structure that was started last.
    """

    def __init__(self, model: DOSModel) -> None:
        self._model = model
        self._worker: ThreadPoolExecutor | None = None
        self._stream: torch.cuda.Stream | None = None
        self._future: Future[Sample] | None = None
        self.atoms: Atoms | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return OverlappedEvaluation, (self._model,)

    @property
    def running(self) -> bool:
        return self._future is not None

    def start(self, atoms: Atoms) -> None:
        """Evaluate a copy of a structure.

        :raises RuntimeError: if the one before was not collected
        """
        if self._future is not None:
            raise RuntimeError("the sample before was not collected; call collect() first")
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="petdos-sample")
        self.atoms = atoms.copy()
        self.atoms.calc = None
        self._future = self._worker.submit(self._evaluate, self.atoms)

    def collect(self) -> Sample:
        """The sample, waited for.

        :raises StructureError, PredictionError: of :meth:`petdos_md.models.model.DOSModel.evaluate`
        """
        assert self._future is not None, "nothing was started"
        future, self._future = self._future, None
        return future.result()

    def _evaluate(self, atoms: Atoms) -> Sample:
        with self._on_its_stream():
            return self._model.evaluate(atoms)

    def _on_its_stream(self) -> AbstractContextManager[Any]:
        device = self._model.device
        if device.type != "cuda":
            return nullcontext()
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        return torch.cuda.stream(self._stream)
