"""Descriptions of fields, from their docstrings, with the values that these name."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap

from daitn.oam.docstring_values import filled

__all__ = ["field_docs", "field_texts"]


def field_docs(kind: type) -> dict[str, str]:
    """The docstring of each field of a struct, member of an enumeration, or constant of a class.

    Its own come first, then those that it inherits. Of several paragraphs the first counts; the
    others are for readers of the code.
    """
    docs: dict[str, str] = {}
    for each in kind.__mro__:
        if each.__module__.partition(".")[0] == "daitn":
            own = field_texts(each)
            docs |= {n: filled(own[n], each.__module__) for n in own if n not in docs}
    return docs


def field_texts(kind: type) -> dict[str, str]:
    """The docstrings of a class's own fields, as they are in the source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    assert isinstance(tree.body[0], ast.ClassDef)
    body = tree.body[0].body
    docs: dict[str, str] = {}
    for statement, after in itertools.pairwise(body):
        match statement, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return docs
