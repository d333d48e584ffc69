"""Members of a JSON document by path: "program_metrics.budget", "businesses.0"."""
import json

from programs import dumps

REMOVED = object()      # a value for put(): take the member away


def steps(path):
    return [int(step) if step.lstrip("-").isdigit() else step for step in path.split(".")]


def put(document, path, value):
    """Set a member of a dict or list; objects on the way are made where there are none."""
    *way, last = steps(path)
    for step in way:
        if isinstance(document, dict) and not isinstance(document.get(step), (dict, list)):
            document[step] = {}
        document = document[step]
    if value is not REMOVED:
        document[last] = value
    elif isinstance(document, dict):
        document.pop(last, None)
    else:
        del document[last]


def put_text(text, path, new_text):
    """The JSON text with the raw bytes `new_text`, which need be no JSON, as a member."""
    document = json.loads(text)
    if new_text is REMOVED:
        put(document, path, REMOVED)
        return dumps(document)
    place = "\ue000member\ue000"        # private use: in no program
    put(document, path, place)
    return dumps(document).replace(dumps(place), new_text, 1)

