# One image for all of Flixtrail's own services; docker-compose.yml says which of them a container is.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# Not root: Celery warns about it, and nothing here needs it. The id is fixed, so that volumes keep their owner.
# The folders are made here because a new named volume takes over the owner of the folder that it covers.
RUN useradd --uid 10001 --create-home flixtrail \
 && install -d -o flixtrail -g flixtrail /var/cache/flixtrail /var/lib/flixtrail/outbox

# The libraries change seldom, our code often: a layer of their own, and downloads that outlive it.
# Every file has its hash, so a build gets what was tested or fails.
WORKDIR /app
COPY requirements/app.txt requirements/
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --require-hashes -r requirements/app.txt

COPY celeryconfig.py ./
COPY view_events view_events
COPY history_worker history_worker
COPY streaming_app streaming_app
COPY deploy/healthy.py deploy/
# Compiled now: the user below may not write here.
RUN python -m compileall -q .

USER flixtrail
ENV CACHE=/var/cache/flixtrail \
    OUTBOX=/var/lib/flixtrail/outbox \
    LOG_FORMAT=json
CMD ["python", "-m", "streaming_app"]
