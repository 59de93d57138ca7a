"""The base of every configuration section: frozen, closed, documented in place."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A configuration section; the string under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )
