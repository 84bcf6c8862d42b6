"""`tagonce worker`: one process, one model, one device; with --devices, one process per device."""

import logging
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tagonce.options import parameters

if TYPE_CHECKING:
    from tagonce.settings import Settings


def command(
    model: parameters.ModelName = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
    device: parameters.Device = None,
    devices: parameters.Devices = None,
    precision: parameters.Precision = None,
    batch_size: parameters.BatchSize = None,
    compile: parameters.Compile = None,  # noqa: A002 - the name of the option
    floor: parameters.Floor = None,
    metrics_port: parameters.MetricsPort = None,
    max_idle: parameters.MaxIdle = None,
) -> None:
    """Tag queued images until SIGTERM or Ctrl-C. Run one process per GPU.

    Example: tagonce worker --model jtp-2 --devices all --broker redis://queue:6379/0
    """
    from tagonce import settings

    config = settings.load(
        model=model,
        database_url=database,
        broker_url=broker,
        device=device,
        precision=precision,
        batch_size=batch_size,
        compile=compile,
        floor=floor,
        metrics_port=metrics_port,
        max_idle=max_idle,
    )
    from tagonce.from_settings import need_worker_extra, with_stored_model

    need_worker_extra()
    config = with_stored_model(config)

    from tagonce.output import logs

    logs.to_stderr(level=config.log_level, as_json=config.log_format == "json")
    if devices is not None:
        sys.exit(run_on(devices, config))
    code = run(config)
    logging.shutdown()
    # Not sys.exit: Python would wait for threads that are blocked by a storage that hangs.
    os._exit(code)


def run_on(devices: str, config: "Settings") -> int:
    """Run one process per device. Returns the exit code."""
    from tagonce.local.supervisor import Supervisor, named_devices, shares
    from workers.cpus import cores

    config.need_broker()
    return Supervisor(shares(config, named_devices(devices), cores())).run()


def run(config: "Settings") -> int:
    """Load the model, then process chunks. Returns the exit code."""
    from db.ledger.workers import forget_old
    from tagonce import from_settings
    from workers.cache_folder import keep_compiled_code
    from workers.inference.malloc import keep_freed_memory
    from workers.options import MOST_CHUNKS

    keep_freed_memory()
    keep_compiled_code()
    broker_url = config.need_broker()

    from producer.queue import broker
    from workers.pipeline import Pipeline
    from workers.queue.process import run_worker

    log = logging.getLogger("tagonce")
    with from_settings.stored(config, create=True, threads=config.concurrency or MOST_CHUNKS) as database:
        with database.write() as connection:
            forget_old(connection)
        spec, model = from_settings.find_and_register(database, config)
        database.limit_waiting_for_locks()
        app = broker.create_app(broker_url, model.id, lease_seconds=config.lease_seconds, client_name="tagonce-worker")
        broker.check(app)
        options = from_settings.worker_options(config, spec)
        # Loaded before the first chunk is taken: a worker whose model does not load must not hold a chunk.
        pipeline = Pipeline(database, model, spec, options)
        pipeline.warm_up()
        device, precision = pipeline.inferencer.where
        log.info("%s on %s (%s), batches of %d", model.label, device, precision, options.batch_size)
        with ExitStack() as stack:
            if config.metrics_port:
                from workers.telemetry.exporter import serving

                about = {"model": spec.name, "device": device, "precision": precision}
                stack.enter_context(
                    serving(
                        pipeline.metrics,
                        host=config.metrics_host,
                        port=config.metrics_port,
                        about=about,
                        depth=lambda: broker.depth(app, model.id),
                    )
                )
            return run_worker(app, pipeline, options)
