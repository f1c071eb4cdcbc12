"""How far the requests reach that an engine has served in batches of one captured size."""

__all__ = ["ServedReach"]

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ServedReach(BaseModel):
    """What a record of served steps says of the longest request of a step.

    Attributes:
        to: KV length, in tokens.
        beyond: the share of the recorded steps of that size in which a request was longer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Annotated[int, Field(ge=1, le=2**31 - 1)]
    beyond: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
