"""The base of every configuration section: frozen, closed, documented in place."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails


class Section(BaseModel):
    """A configuration section; the string under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    def refuse_above(self, low: str, high: str) -> None:
        """Raises ValueError where the field ``low`` is above the field ``high``."""
        least, most = getattr(self, low), getattr(self, high)
        if least > most:
            raise ValueError(f"{low} = {least}: above {high} = {most}. lower it, or raise {high}")

    @model_validator(mode="wrap")
    @classmethod
    def _switches_are_no_numbers(
        cls, values: Any, handler: ModelWrapValidatorHandler[Self]
    ) -> Self:
        """Refuses yes, on and true for a number, which pydantic takes for 1, beside its errors.

        Not a validator of every field: fields that tell kinds apart may have none.
        """
        wrong = list(_switches(cls, values)) if isinstance(values, Mapping) else []
        if not wrong:
            return handler(values)
        try:
            handler(values)
        except ValidationError as error:
            wrong += [
                InitErrorDetails(
                    type=one["type"], loc=one["loc"], input=one["input"], ctx=one.get("ctx", {})
                )
                for one in error.errors(include_url=False)
                if one["loc"] not in [each["loc"] for each in wrong]
            ]
        raise ValidationError.from_exception_data(cls.__name__, wrong)


def _switches(section: type[BaseModel], values: Mapping[str, Any]) -> Iterator[InitErrorDetails]:
    """Yields an error for each switch that is written for a number, or in a list of them."""
    for name in section.model_fields.keys() & values.keys():
        annotation: Any = section.model_fields[name].annotation
        kinds, value = _kinds(annotation), values[name]
        if bool in kinds or not kinds & {int, float}:
            continue
        kind: Literal["int_type", "float_type"] = "float_type" if float in kinds else "int_type"
        if isinstance(value, bool):
            yield InitErrorDetails(type=kind, loc=(name,), input=value)
        if isinstance(value, list | tuple | Mapping):
            for place, one in enumerate(value):  # of a mapping, its keys
                if isinstance(one, bool):
                    where = place if isinstance(value, list | tuple) else str(one)
                    yield InitErrorDetails(type=kind, loc=(name, where), input=one)


@cache
def _kinds(annotation: Any) -> frozenset[type]:
    """Returns the plain types that an annotation is made of: {int, NoneType} for int | None."""
    if get_origin(annotation) is Literal:
        return frozenset(map(type, get_args(annotation)))
    members = get_args(annotation)
    if not members:
        return frozenset({annotation})
    if get_origin(annotation) is Annotated:
        members = members[:1]
    return frozenset().union(*map(_kinds, members))
