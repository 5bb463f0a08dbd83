"""Zenoh's access control at a control centre: a second barrier, behind the signatures.

Zenoh reads its rules once, when a session opens; they name members by the literal names in their
certificates, and what passes a router counts as the router's (measured with 1.10). So rules for
each site would cut off later members. These rules name no member and always hold: what
others publish and serve through a control centre is a site's, and never the control centre's own.

Everything that is not allowed is denied, because a rule that denies a key does not deny a wildcard
that includes it: with `daitn/center/do/**` denied, who serves `daitn/**` still hears all requests.
"""

from __future__ import annotations

from typing import Any, Final

from daitn.objects.identifiers import CENTER_SITE
from daitn.tools.fabric import keys

__all__ = ["access_control"]

_PUBLISHED: Final = (
    keys.ALL_ADVERTS,
    keys.ALL_SENSED,
    keys.ALL_PROGRESS,
    keys.ALL_SERVING,
    keys.ALL_ATTESTED,
    keys.ALL_DEMAND,
    keys.ALL_MODEL_EVENTS,
    keys.ROSTER,
)
_SERVED: Final = ("daitn/site/*/do/*", "daitn/site/*/echo", "daitn/site/*/stream")
_REQUESTED: Final = (
    "query",
    "declare_subscriber",
    "liveliness_query",
    "declare_liveliness_subscriber",
)
_ANSWERED: Final = ("put", "delete", "declare_queryable", "reply", "liveliness_token")


def access_control() -> dict[str, Any]:
    """The section `access_control` of a control centre's session."""
    inward, outward = ("ingress",), ("egress",)
    rules = [
        _rule("out", "allow", outward, (*_REQUESTED, *_ANSWERED), ("**",)),
        _rule("ask", "allow", inward, _REQUESTED, ("**",)),
        _rule("publish", "allow", inward, ("put", "delete"), _PUBLISHED),
        _rule("serve", "allow", inward, ("declare_queryable", "reply"), _SERVED),
        _rule("alive", "allow", inward, ("liveliness_token",), (keys.ALL_SITES_ALIVE,)),
        _rule("own", "deny", inward, _ANSWERED, (f"daitn/site/{CENTER_SITE}/**",)),
    ]
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": [{"id": "others"}],
        "policies": [{"rules": [rule["id"] for rule in rules], "subjects": ["others"]}],
    }


def _rule(
    name: str,
    permission: str,
    flows: tuple[str, ...],
    messages: tuple[str, ...],
    key_exprs: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "id": name,
        "permission": permission,
        "flows": flows,
        "messages": messages,
        "key_exprs": key_exprs,
    }
