# ruff: noqa: INP001 -- a module of the flower image, no package
"""The Celery application for Flower: `celery --app flower_app flower`.

Flower has to look under the same key prefix as the workers, or it sees an empty Redis and no worker. The settings
therefore come from the place where the workers have them. The model makes no difference to an onlooker.
"""

import os

from producer.queue.broker import create_app

app = create_app(os.environ["TAGONCE_BROKER_URL"], model_id=0, client_name="tagonce-flower")
