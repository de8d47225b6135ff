"""A hypothesis about how a task is solved, small enough to run by hand: variables, and what each is computed from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from interpose.errors import TaskError


@dataclass(frozen=True)
class Variable:
    """One variable: `function` of the values of `parents`, in that order."""

    parents: tuple[str, ...]
    function: Callable[..., Any]
    meaning: str = ""


@dataclass(frozen=True)
class CausalModel:
    """Variables computed from the inputs and from one another; the high-level account that a network is compared with.

    Attributes:
        inputs: names of what is given.
        variables: by name, each after those it is computed from.
        output: the variable that is the model's answer.
    """

    inputs: tuple[str, ...]
    variables: Mapping[str, Variable]
    output: str

    def __post_init__(self) -> None:
        known = set(self.inputs)
        for name, variable in self.variables.items():
            missing = [parent for parent in variable.parents if parent not in known]
            if missing:
                raise TaskError(
                    f"Variable {name!r} is computed from {', '.join(missing)}, not known at that point. Known by then: "
                    f"{', '.join(sorted(known))}. Put a variable after those it is computed from."
                )
            known.add(name)
        if self.output not in self.variables:
            raise TaskError(f"The output {self.output!r} is no variable; expected one of {', '.join(self.variables)}.")

    def run(self, inputs: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The value of every input and variable.

        Args:
            inputs: a value for each of the model's inputs.
            fixed: variables that are set to a value instead of being computed.

        Returns:
            All values by name.

        Raises:
            TaskError: if an input is missing or a name is unknown.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise TaskError(f"The causal model needs {', '.join(self.inputs)}; missing: {', '.join(missing)}.")
        fixed = fixed or {}
        self._check_names(fixed)
        values = {name: inputs[name] for name in self.inputs}
        for name, variable in self.variables.items():
            if name in fixed:
                values[name] = fixed[name]
            else:
                values[name] = variable.function(*(values[parent] for parent in variable.parents))
        return values

    def run_interchange(self, base: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Run on `base`, with some variables taking the value they have on another input.

        Args:
            base: the inputs of the run.
            sources: for each variable that is exchanged, the inputs whose run gives its value.

        Returns:
            All values by name, after the exchange.

        Raises:
            TaskError: if an input is missing or a variable is unknown.
        """
        self._check_names(sources)
        return self.run(base, {name: self.run(source)[name] for name, source in sources.items()})

    def _check_names(self, names: Mapping[str, Any]) -> None:
        unknown = [name for name in names if name not in self.variables]
        if unknown:
            raise TaskError(f"No variable {', '.join(unknown)}; expected one of {', '.join(self.variables)}.")
