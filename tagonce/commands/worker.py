"""`tagonce worker`: one process, one model, one device."""

import logging
import sys

from tagonce import parameters, settings


def command(
    model: parameters.ModelName = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
    device: parameters.Device = None,
    precision: parameters.Precision = None,
    batch_size: parameters.BatchSize = None,
    floor: parameters.Floor = None,
) -> None:
    """Tag what is on the queue, until SIGTERM or Ctrl-C. One process a GPU; start as many as there are.

    Example: tagonce worker --model jtp-2 --device cuda:0 --broker redis://queue:6379/0
    """
    config = settings.load(
        model=model,
        database_url=database,
        broker_url=broker,
        device=device,
        precision=precision,
        batch_size=batch_size,
        floor=floor,
    )
    sys.exit(run(config))


def run(config: settings.Settings) -> int:
    """Load the model, then work. Returns the exit code."""
    from tagonce import wiring

    logging.basicConfig(
        level=config.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    quiet = logging.WARNING if config.log_level == "INFO" else config.log_level
    for library in ("alembic", "celery"):
        logging.getLogger(library).setLevel(quiet)
    wiring.need_worker_extra()
    broker_url = config.need_broker()

    from producer import broker
    from workers.pipeline import Pipeline
    from workers.worker import run_worker

    log = logging.getLogger("tagonce")
    with wiring.stored(config, create=True) as database:
        spec, model = wiring.find_and_register(database, config)
        app = broker.create_app(broker_url, model.id, lease_seconds=config.lease_seconds, client_name="tagonce-worker")
        broker.check(app)
        options = wiring.worker_options(config)
        # Loaded before the first chunk is taken: a model that does not load must not hold one.
        pipeline = Pipeline(database, model, spec, options)
        pipeline.inferencer.warm_up()
        log.info("%s on %s (%s), batches of %d", model.label, *pipeline.inferencer.where, options.batch_size)
        return run_worker(app, pipeline, options)
