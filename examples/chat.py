"""Talk to a model of a running server with Ollama's Python client.

Start the server (``pyggml serve``), then: ``pip install ollama tqdm`` and ``python chat.py [MODEL]``. The address of
the server is taken from ``OLLAMA_HOST``. Words that end the conversation: exit, quit, /bye.
"""

import sys
import threading
import time

import ollama
from tqdm import tqdm

GOODBYE = ("exit", "quit", "/bye")


def pick_model() -> str:
    """The model named on the command line, or one picked from those in the store."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    names = [model.model or "" for model in ollama.list().models]
    if not names:
        sys.exit("there are no models yet: pyggml pull smollm2:135m")
    for number, name in enumerate(names, start=1):
        print(f"{number:3}  {name}")
    while True:
        answer = input(f"Which model? [1-{len(names)}] ").strip()
        if answer.isdigit() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]


def warm_up(model: str) -> None:
    """Load the model: a chat without messages does just that. A bar shows that time passes."""
    done = threading.Event()

    def show() -> None:
        with tqdm(desc=f"loading {model}", bar_format="{desc} {elapsed}", leave=False, file=sys.stderr) as bar:
            while not done.wait(0.1):
                bar.update()

    shower = threading.Thread(target=show)
    shower.start()
    try:
        ollama.chat(model=model, messages=[])
    finally:
        done.set()
        shower.join()


def answer(model: str, messages: list[dict[str, str]]) -> str:
    """Print an answer as it comes."""
    pieces, started, count = [], time.monotonic(), 0
    for part in ollama.chat(model=model, messages=messages, stream=True):
        piece = part.message.content or ""
        print(piece, end="", flush=True)
        pieces.append(piece)
        count = part.eval_count or count
    print(f"\n[{count} tokens, {count / (time.monotonic() - started):.1f} per second]", file=sys.stderr)
    return "".join(pieces)


def main() -> None:
    """Ask and answer until the user has had enough."""
    try:
        model = pick_model()
        warm_up(model)
        messages: list[dict[str, str]] = []
        while True:
            question = input("> ").strip()
            if question.lower() in GOODBYE:
                return
            if question:
                messages.append({"role": "user", "content": question})
                messages.append({"role": "assistant", "content": answer(model, messages)})
    except (EOFError, KeyboardInterrupt):
        print()
    except (ollama.ResponseError, ConnectionError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
