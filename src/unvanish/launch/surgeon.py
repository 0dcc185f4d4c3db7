"""Puts a treatment into a script that knows nothing of it, when the script builds its optimizer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from unvanish.errors import RecipeError, UnvanishError
from unvanish.launch.copies import copies_of
from unvanish.launch.trained import Trained
from unvanish.probe.discover import LooseParameters, holders, living_modules, parameters_of
from unvanish.probe.standin import LAYERS
from unvanish.schema.call import Batch
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import Undo, apply, apply_when_ready
from unvanish.treatment.rates import SteppedRates, rate_of
from unvanish.treatment.recipe import Recipe, has_fingerprint
from unvanish.treatment.registry import TREATMENTS

# what concerns the optimizer, and not the copies of a model that a script averages or distills from
_OF_OPTIMIZERS: frozenset[TreatmentName] = frozenset(("clip", "learning_rate", "precision", "reconnect"))


class Surgeon:
    """Waits for the model, treats it once, and counts on nothing but torch's own classes.

    The moment is the end of an optimizer's construction: the model is whole, its parameters were handed over, and
    nothing was trained. Where no module that was meant is in reach then, the first training forward of one is taken.
    Schedulers and scalers that the script builds afterwards see the treated state. Copies of the model (averages,
    target networks) get the same treatment, so that what pairs their parameters goes on to fit. The global random
    state is the same before and after. Scripts that train without an optimizer: see launch/by_hand.py.
    """

    never = "built no optimizer for its model"  # where the moment has not come
    by_hand = False  # as in treatment.operate.apply

    def __init__(
        self,
        prescriptions: Sequence[Prescription],
        *,
        mark: str | None = None,
        seed: int | None = None,
        rate_factor: float = 1.0,
        learning_rate: float | None = None,
        patient: bool = False,
        on_fault: Callable[[UnvanishError], None],
    ) -> None:
        """`mark`: the fingerprint of the model that is meant; None takes what the first optimizer steps.

        `rate_factor` multiplies the rates of all optimizers, whatever the script sets them to; `learning_rate` is
        what the first group of the first optimizer is to have when it is built, all others keep their ratio to it.
        `seed` draws new weights (None: torch's own seed).
        `patient`: training of other models, before the one that is meant, is no fault.
        `on_fault` is told why the treatment can't be carried out; it may raise what ends the script.
        """
        rates = [p for p in prescriptions if p.treatment == "learning_rate" and p.target == "*"]
        self._prescriptions = tuple(p for p in prescriptions if p not in rates)
        changes = [rate_of(TREATMENTS.read(p)[1]) for p in rates]
        rate_factor *= math.prod(factor for factor, _ in changes if factor is not None)
        self._most = min((most for _, most in changes if most is not None), default=math.inf)
        self._scales = bool(rates)
        self._mark = mark
        self._seed = seed
        self._factor = rate_factor
        self._wanted_rate = learning_rate
        self._patient = patient
        self._on_fault = on_fault
        self.asides = 0  # as of all that stands in for nn.Module.__call__
        self._met: set[int] = set()  # ids of what was treated
        self._optimizers: list[Optimizer] = []
        self._undone: list[Undo] = []
        self._trained = Trained()
        self.treated: nn.Module | None = None
        self.learning_rate: float | None = None  # of the first group of the first optimizer, after scaling

    @classmethod
    def for_recipe(cls, recipe: Recipe, *, on_fault: Callable[[UnvanishError], None]) -> Surgeon:
        """One that carries out a recipe."""
        return cls(
            recipe.prescriptions,
            mark=recipe.fingerprint,
            seed=recipe.seed,
            learning_rate=recipe.learning_rate,
            on_fault=on_fault,
        )

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.treated is not None or (
            not self._prescriptions and bool(self._optimizers or not self._scales)
        )

    @property
    def idle(self) -> bool:
        """Whether a model was treated that the script does not train: it has another one, or copies by hand."""
        return self.treated is not None and not self._trained.seen

    @property
    def fault(self) -> str | None:
        """What else shows that the treated model was not trained as a whole."""
        return None

    def explained(self, error: str) -> str:
        """What the script raised, with what the treatment may have to do with it."""
        return error

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts, new optimizers are seen, and the treatment waits for its moment."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Place the hooks."""
        self._original = Optimizer.__init__
        original = self._original

        def built(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._see(optimizer)

        self._handle = register_optimizer_step_pre_hook(self._before_step)
        Optimizer.__init__ = built  # type: ignore[method-assign, assignment]
        if self._prescriptions:
            LAYERS.add(self)

    def end(self) -> None:
        """Take the hooks away."""
        Optimizer.__init__ = self._original  # type: ignore[method-assign]
        LAYERS.remove(self)
        self._handle.remove()
        self._trained.end()

    def over(self, original: Callable[..., Any], live: Callable[[], bool]) -> Callable[..., Any]:
        """What stands in for nn.Module.__call__; no global hook, as that is not told what is passed by name."""

        def __call__(module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - it stands in for it
            if not torch.compiler.is_compiling() and live():
                if self.done:
                    LAYERS.remove(self)
                else:
                    self._before_forward(module, args, kwargs)
            return original(module, *args, **kwargs)

        return __call__

    def forget(self) -> None:
        """Let go of the script's objects."""
        self._optimizers, self._undone, self.treated = [], [], None

    # --- the moments ----------------------------------------------------------------------------------------------

    def _see(self, optimizer: Optimizer) -> None:
        self._optimizers.append(optimizer)
        self._scale(optimizer)
        if self._prescriptions and (self.treated is None or self._mark is not None):
            self._operate_on([m for m in self._models_of(optimizer) if id(m) not in self._met])

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.done or not self._optimizers or not torch.is_grad_enabled():
            return
        own = {id(p) for p in module.parameters()}
        if not any(id(p) in own for o in self._optimizers for p in parameters_of(o)):
            return
        if self._mark is None or self._is_meant(module):
            batch = Batch(args=args, kwargs=kwargs) if module.training else None
            self._operate_on([module], batch)

    def _before_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if self.done or self._patient or not any(optimizer is o for o in self._optimizers):
            return
        tops = [m for m in holders(optimizer, ()) if isinstance(m, nn.Module)]
        there = ", ".join(f"a {type(m).__name__} with {_count(m)} parameters" for m in tops[:3])
        self._on_fault(
            RecipeError(
                f"this recipe is for another model: the script trains {there or 'tensors that no module holds'}",
                "apply it to the untreated model that it was made for",
            )
        )

    # --- the work -------------------------------------------------------------------------------------------------

    def _scale(self, optimizer: Optimizer) -> None:
        """At every step, and not once: a script that sets its rates itself, by a schedule or by hand, is followed."""
        groups = [g for g in optimizer.param_groups if "lr" in g]
        if self.learning_rate is None and groups:
            now = float(groups[0]["lr"])
            if self._wanted_rate is not None and now > 0 and not math.isclose(now, self._wanted_rate):
                self._factor = self._wanted_rate / now
            self.learning_rate = min(now * self._factor, self._most)
        if self._factor == 1.0 and self._most == math.inf:
            return
        rates = SteppedRates(factor=self._factor, most=self._most)
        optimizer.register_step_pre_hook(rates.before_step)
        optimizer.register_step_post_hook(rates.after_step)

    def _models_of(self, optimizer: Optimizer) -> list[nn.Module]:
        """What is meant among the modules of which this optimizer steps a part."""
        if self._mark is None:
            return [m for m in holders(optimizer, ()) if not isinstance(m, LooseParameters)][:1]
        stepped = {id(p) for p in parameters_of(optimizer)}
        return [
            m for m in living_modules() if any(id(p) in stepped for p in m.parameters()) and self._is_meant(m)
        ]

    def _is_meant(self, module: nn.Module) -> bool:
        return self._mark is not None and has_fingerprint(module, self._mark)

    def _operate_on(self, models: Sequence[nn.Module], batch: Batch | None = None) -> None:
        try:
            for model in models:
                copies = [c for c in copies_of(model) if id(c) not in self._met]
                self._met |= {id(model), *map(id, copies)}
                self._treat(model, self._prescriptions, batch)
                self._trained.watch(model)
                self.treated = self.treated or model
                for copy in copies:
                    self._treat_copy(copy)
        except UnvanishError as error:
            self._on_fault(error)

    def _treat(
        self, model: nn.Module, prescriptions: Sequence[Prescription], batch: Batch | None = None
    ) -> None:
        """`batch`: what the model is being called with; without one, what needs it waits."""
        own = {id(p) for p in model.parameters()}
        mine = [o for o in self._optimizers if any(id(p) in own for p in parameters_of(o))]
        if batch is not None:
            undo = apply(
                model, prescriptions, optimizer=mine, batch=batch, seed=self._seed, by_hand=self.by_hand
            )
        else:
            undo = apply_when_ready(
                model, prescriptions, optimizer=mine, seed=self._seed, by_hand=self.by_hand
            )
        self._undone.append(undo)

    def _treat_copy(self, copy: nn.Module) -> None:
        """As the model was treated; its parameters, frozen as averages are, are drawn all the same."""
        structural = [p for p in self._prescriptions if p.treatment not in _OF_OPTIMIZERS]
        if not structural:
            return
        frozen = [p for p in copy.parameters() if not p.requires_grad]
        all_frozen = len(frozen) == sum(1 for _ in copy.parameters())
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            self._treat(copy, structural)
        finally:
            for parameter in copy.parameters() if all_frozen else frozen:
                parameter.requires_grad_(False)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
