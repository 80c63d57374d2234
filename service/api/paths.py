"""Ids in paths: `{user_id:id}` takes any text. Whoever can be stored can be read and removed."""

from starlette.convertors import Convertor, register_url_convertor


class IdConvertor(Convertor[str]):
    """Like starlette's `path`, slashes included, and line ends."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def register_ids() -> None:
    """Teaches starlette the name; call before a route uses it."""
    register_url_convertor("id", IdConvertor())
