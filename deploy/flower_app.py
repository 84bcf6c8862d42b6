# ruff: noqa: INP001 -- a module of the flower image, no package
"""The Celery application for Flower: `celery --app flower_app flower`.

Flower must use the same key prefix as the workers, otherwise it finds an empty Redis and no worker. So its settings
come from the same function as theirs. The id of the model does not matter to Flower.
"""

import os

from producer.queue.broker import create_app

app = create_app(os.environ["TAGONCE_BROKER_URL"], model_id=0, client_name="tagonce-flower")
