"""What is answered: a page, an error, or what a fault makes of them."""
import dataclasses
import zlib

import paths
from programs import dumps, page_members, render

JSON = {"Content-Type": "application/json; charset=utf-8"}


@dataclasses.dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict = dataclasses.field(default_factory=JSON.copy)


class Refusal(Exception):
    """A request that gets an error instead of a page, in the form that Yelp documents."""

    def __init__(self, status, error_id, description, headers=()):
        super().__init__(description)
        self.status, self.error_id, self.headers = status, error_id, dict(headers)

    def answer(self):
        if self.status == 204:
            return Answer(204, headers={})
        error = {"id": self.error_id, "description": str(self), "http_code": self.status}
        return Answer(self.status, dumps({"error": error}), {**JSON, **self.headers})


@dataclasses.dataclass
class Page:
    texts: list         # the programs on it; None: the list is null
    offset: int
    limit: int
    total: int
    program_status: str
    omit: list

    def answer(self, replacements=()):
        """`replacements` are pairs of a path and a text, or paths.REMOVED."""
        texts = list(self.texts or ())
        of_page = []
        for path, text in replacements:
            first, *rest = path.split(".", 2)
            if first == "payment_programs" and rest:
                replace_program(texts, int(rest[0]), rest[1:], text)
            else:
                of_page.append((path, text))
        members = page_members(texts, self.offset, self.limit, self.total, self.program_status)
        if self.texts is None:
            members["payment_programs"] = b"null"
        for name in self.omit:
            members.pop(name, None)
        for name, text in of_page:
            if text is paths.REMOVED:
                members.pop(name, None)
            else:
                members[name] = text
        return Answer(200, render(members))


def replace_program(texts, number, path, text):
    if path:
        texts[number] = paths.put_text(texts[number], path[0], text)
    elif text is paths.REMOVED:
        del texts[number]
    else:
        texts[number] = text


def compress(answer):
    if answer.body:
        packer = zlib.compressobj(1, wbits=31)      # gzip
        answer.body = packer.compress(answer.body) + packer.flush()
        answer.headers["Content-Encoding"] = "gzip"
