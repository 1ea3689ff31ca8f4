"""dimnode: a Decentralized Inference Machine. `from dimnode import Client` is all that most programs need.

Rule: importing the package imports nothing else; `Client` is loaded when somebody asks for it (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimnode.client import Client as Client


def __getattr__(name: str) -> Any:
    if name == "Client":
        from dimnode.client import Client

        return Client
    raise AttributeError(f"module 'dimnode' has no attribute {name!r}")
