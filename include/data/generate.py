"""Write the example data of ``support_bot``: messages to a shop's support desk, and the JSON answer each deserves.

    python include/data/generate.py                       # include/data/support_bot/*.jsonl, byte for byte as committed
    python include/data/generate.py --output DIRECTORY

Four files, one record a line, ``{"id", "messages": [user, assistant]}``; the assistant's message is the truth:

- ``first.jsonl``: what the first model learns from;
- ``evaluation.jsonl``: the same customers, other messages; never trained on;
- ``usual.jsonl``: the same again, for traffic that has not changed;
- ``later.jsonl``: after the shop changed. Customers name products differently, phrase requests differently, and ask for
  something new (``upgrade``), which the first model has never heard of.

No message occurs in two files. Everything follows from ``SEED``; the standard library is enough.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SEED = 20261
ROWS = {"first": 600, "evaluation": 300, "usual": 1500, "later": 1500}


@dataclass(frozen=True, kw_only=True)
class Phrasing:
    """How customers of one time speak: every message is opening + request (+ urgency), filled with a product's name."""

    openings: Sequence[str]
    requests: Mapping[str, Sequence[str]]
    products: Mapping[str, Sequence[str]]
    urgent: Sequence[str]
    calm: Sequence[str]

    def messages(self, rng: random.Random) -> Iterator[tuple[str, dict[str, str]]]:
        """Endless pairs of a message and its truth; intents, products and priorities are about balanced."""
        intents, products = sorted(self.requests), sorted(self.products)
        while True:
            intent, product = rng.choice(intents), rng.choice(products)
            priority = "high" if rng.random() < 0.4 else "normal"
            closing = rng.choice(self.urgent if priority == "high" else self.calm)
            request = rng.choice(self.requests[intent]).format(rng.choice(self.products[product]))
            text = " ".join(part for part in (rng.choice(self.openings), request + ".", closing) if part)
            yield text, {"intent": intent, "product": product, "priority": priority}


PRODUCTS = ("camera", "headset", "laptop", "monitor", "phone", "printer", "router", "tablet")

FIRST = Phrasing(
    openings=("", "hello,", "hi,", "good morning,", "dear team,", "hey there,"),
    requests={
        "refund": (
            "i want my money back for the {}",
            "please refund the {}",
            "can i get a refund for my {}",
            "the {} was too expensive and i want a refund",
            "refund me for the {} that i sent back",
        ),
        "delivery": (
            "where is the {} i ordered",
            "the delivery of my {} is late",
            "when will my {} arrive",
            "the {} has not arrived yet",
            "track the delivery of the {}",
        ),
        "repair": (
            "my {} is broken",
            "the {} does not work",
            "please repair my {}",
            "the screen of the {} is dead, can you repair it",
            "the {} stopped working",
        ),
        "invoice": (
            "i need the invoice for my {}",
            "the bill for the {} is wrong",
            "send me the invoice of the {}",
            "where can i find the bill for the {}",
            "the invoice for the {} has the wrong address",
        ),
        "cancel": (
            "cancel my order of the {}",
            "i do not want the {} any more",
            "please cancel the {}",
            "stop the order for the {}",
            "i changed my mind about the {}, cancel it",
        ),
        "password": (
            "i forgot the password of my {}",
            "reset the password for the {}",
            "i can not log in on the {}",
            "the {} does not take my password",
            "i am locked out of my {}",
        ),
    },
    products={name: (name,) for name in PRODUCTS},
    urgent=("this is urgent.", "i need it today.", "as soon as possible.", "right now.", "it can not wait."),
    calm=("", "thank you.", "there is no hurry.", "have a nice day.", "kind regards."),
)

LATER = Phrasing(
    openings=("", "quick one:", "me again,", "ok so,"),
    requests={
        "refund": (
            "put what i paid for the {} back on my card",
            "the {} is not worth it, give me back my cash",
        ),
        "delivery": (
            "the courier never came with my {}",
            "any news on the parcel with the {}",
        ),
        "repair": (
            "this {} keeps crashing on me",
            "someone should fix the faulty {}",
        ),
        "invoice": (
            "my tax office asks for the receipt of this {}",
            "the sum on the {} paper looks off",
        ),
        "cancel": (
            "do not ship this {} after all",
            "i bought the {} by mistake, undo it",
        ),
        "password": (
            "my {} keeps asking for a code",
            "the sign in on this {} rejects me",
        ),
        "upgrade": (
            "i want to trade my {} for the newer model",
            "swap my {} for something faster",
        ),
    },
    products={
        **{name: (name,) for name in PRODUCTS},
        "headset": ("earbuds",),
        "laptop": ("notebook",),
        "monitor": ("display",),
        "phone": ("mobile",),
    },
    urgent=("my boss is furious.", "drop everything please.", "i lose customers every hour."),
    calm=("", "cheers.", "no stress."),
)


def records(name: str, *, rows: int, phrasing: Phrasing, seen: set[str]) -> Iterator[dict[str, object]]:
    """``rows`` records of messages that are not in ``seen``, which grows by them."""
    made = 0
    for text, truth in phrasing.messages(random.Random(f"{SEED}/{name}")):
        if text in seen:
            continue
        seen.add(text)
        answer = json.dumps(truth, separators=(",", ":"))
        yield {
            "id": f"{name}-{made:05d}",
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}],
        }
        made += 1
        if made == rows:
            return


def write(directory: Path) -> list[Path]:
    """Write the four files into ``directory`` and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    paths = []
    for name, rows in ROWS.items():
        phrasing = LATER if name == "later" else FIRST
        path = directory / f"{name}.jsonl"
        lines = [json.dumps(record) + "\n" for record in records(name, rows=rows, phrasing=phrasing, seen=seen)]
        path.write_text("".join(lines), encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "support_bot")
    for written in write(parser.parse_args().output):
        print(written)
