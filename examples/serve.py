"""Serve trained models over HTTP: sequences, streams that go on, texts as they are written, what attention reads and sees.

    pip install keras_seq[serve,datasets]
    python examples/serve.py --train                      # small models, some minutes on two cores; then serve them
    python examples/serve.py --train captions             # one of them, a minute: how true it is, then serve all
    python examples/serve.py                              # serve them again; the page is http://127.0.0.1:8000
    python examples/serve.py MODEL ..                     # SavedModels, or .keras files, of one's own
    python benchmarks/server_load.py                      # requests a second, and how long they take

docs/serving.md says what is asked and answered. A model's kind is known by its endpoints: `Stream.export` writes what has
/streams, `serving.export.export` what has /predict, /write, /read or /caption. SIGTERM ends the server when every request
of which it has the headers is answered, or after --grace seconds.
"""

import argparse
import dataclasses
import gc
import os
import pathlib
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_seq.extras import needed


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=pathlib.Path, help="SavedModels or .keras files")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output/serving"), help="of --train")
    parser.add_argument(
        "--train", nargs="*", metavar="NAME", help="train the models of the page first, or some of them"
    )
    parser.add_argument("--quick", action="store_true", help="with --train: hardly train them")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for one that is free; the log names it")
    parser.add_argument("--connections", type=int, default=512, help="above so many, requests are answered 503")
    parser.add_argument("--grace", type=int, default=60, help="seconds for requests under way when it is ended")
    uvicorn = needed("uvicorn", "serve")
    needed("fastapi", "serve")
    from serving.app import Limits, create_app

    for field in dataclasses.fields(Limits):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    options = parser.parse_args(arguments)
    try:
        limits = Limits(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Limits)})
    except ValueError as error:
        parser.error(str(error))
    if options.train is not None:
        from serving.demo import MODELS, train

        if unknown := [name for name in options.train if name not in MODELS]:
            parser.error(f"--train: expected some of {', '.join(MODELS)}, or none for all, got {', '.join(unknown)}")
        train(options.output, options.train, options.quick)
    paths = options.models or sorted(p for p in options.output.glob("*") if p.is_dir())
    if not paths:
        parser.error(f"models: expected some, got none, nor any in {options.output}; --train makes them")
    from serving.saved import load

    models = []
    for path in paths:
        try:
            models.append(load(path))
        except ValueError as error:
            parser.error(f"{path}: {error}")
    try:
        app = create_app(models, limits)
    except ValueError as error:
        parser.error(str(error))
    gc.collect()
    gc.freeze()  # or the collector walks through all of TensorFlow between two answers
    # uvicorn answers what it has begun, and then sends the signal once more, to whoever had it before
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        limit_concurrency=options.connections,
        timeout_graceful_shutdown=options.grace,
    )


if __name__ == "__main__":
    main()
